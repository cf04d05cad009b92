"""From a corpus on disk to an Arrow file: stream the sessions, count what is skipped, and cache the result.

A reader's `open_corpus` yields Session rows, and a `Skipped` with the reason for each session that it cannot give. The
rows are written to the cache under a name made of the files, the options and the version of the readers, so that the
next load only maps them into memory. The cached file appears when it is complete, and not before.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, DatasetInfo, Features
from datasets.arrow_writer import ArrowWriter
from tqdm.auto import tqdm
from transformers.utils import logging

from ..affect.sentiment import NextTurnSentiment
from ..affect.transcripts import read_text
from ..cache import atomic_path, cache_root, write_text
from ..models.geli_reward.text_geli import valid_unicode
from ..sessions import Session, SessionError, Turn, is_number, session_features, validate_session

logger = logging.get_logger(__name__)

# Part of the cache's name: raise it when a reader gives other rows for the same files.
READERS_VERSION = 5
FILES_NAMED = 5  # of each reason, in the text of a report
TASKS_AHEAD = 16  # results of each process that wait in memory at most


class Skipped(NamedTuple):
    """A session that the corpus holds and the reader cannot give.

    Sessions are counted by reason, so a reason names no session; `file` is the file that somebody should look at.
    """

    reason: str
    file: str = ""


class LeftOut(NamedTuple):
    """Parts of sessions that a reader left out, such as tool calls, and their number."""

    what: str
    count: int


@dataclass(frozen=True)
class Corpus:
    """A corpus that is open: the files that decide its rows (absent ones too), its columns, and its rows."""

    files: Sequence[Path]
    features: Features
    rows: Callable[[], Iterator[Session | Skipped | LeftOut]]
    where: str = ""  # the corpus in messages
    version: str = ""  # of rows that come from no file


def text_corpus(
    files: Sequence[Path],
    rows: Callable[[], Iterator[Session | Skipped]],
    *,
    where: str | Path,
    signals: Sequence[str] = (),
    turn_rating: bool = False,
    sentiment: bool = False,
) -> Corpus:
    """Open a corpus of text, with the sentiment of the listener's next turn as one more signal if asked for.

    Args:
        files: the files that decide the rows.
        rows: gives the rows, without the sentiment.
        where: the corpus in messages.
        signals: names of the signals in the rows' `feedback`.
        turn_rating: the rows have `turn_rating`.
        sentiment: add feedback `sentiment`, from -1 to 1 (`NextTurnSentiment`).
    """

    def rows_with_sentiment() -> Iterator[Session | Skipped]:
        sentiment_of = NextTurnSentiment()
        for row in rows():
            if not isinstance(row, Skipped):
                row.setdefault("feedback", {})["sentiment"] = sentiment_of(row["messages"])
            yield row

    features = session_features([*signals, *(["sentiment"] if sentiment else [])], turn_rating=turn_rating)
    return Corpus(files, features, rows_with_sentiment if sentiment else rows, str(where))


def find_files(data_dir: str | Path, patterns: Sequence[str]) -> list[Path]:
    """List the files below `data_dir` that match each pattern, such as "MWOZ.txt"; or `data_dir`, if it is a file.

    Raises:
        FileNotFoundError: a pattern matches no file.
    """
    folder = Path(data_dir)
    if folder.is_file():
        return [folder]
    files = []
    for pattern in patterns:
        matches = sorted(folder.glob(pattern))
        if not matches:
            names = ", ".join(sorted(path.name for path in folder.glob(f"*{Path(pattern).suffix}"))) or "none"
            raise FileNotFoundError(f"data_dir: {folder} has no {pattern}; found {names}")
        files += matches
    return files


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON file that holds a list or an object.

    Raises:
        SessionError: it is no JSON, breaks off, or holds something else; the message names the file and the line.
    """
    try:
        text = read_text(path)
        content = valid_json(json.loads(text), text)
    except json.JSONDecodeError as error:
        raise SessionError(f"{path}, line {error.lineno}: no JSON ({error.msg}); was it downloaded whole?") from error
    if not isinstance(content, kind):
        raise SessionError(f"{path}: expected a {kind.__name__} of conversations, found a {type(content).__name__}")
    return content


def valid_json(value: Any, source: str) -> Any:
    """Replace what is no valid Unicode, such as half an emoji, in all texts of a JSON value.

    Args:
        value: as it was read.
        source: its JSON, where half an emoji can be written as an escape only.
    """
    if "\\ud" not in source and "\\uD" not in source:
        return value

    def valid(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {valid_unicode(name): valid(inner) for name, inner in entry.items()}
        if isinstance(entry, list):
            return [valid(inner) for inner in entry]
        return valid_unicode(entry) if isinstance(entry, str) else entry

    return valid(value)


def session_of_turns(
    conversation: str, turns: Sequence[Turn], speaker: str, score: float, *, perspective: str = "", **columns: Any
) -> Session:
    """Build the Session row of a conversation in which the turns of one speaker are rewarded.

    Args:
        conversation: its id.
        turns: of both speakers.
        speaker: the `assistant`; the other one is the `user`.
        score: of the session; NaN if nobody rated it.
        perspective: what tells this session of the conversation from the other one.
        columns: further columns.
    """
    messages = [{"role": "assistant" if turn.speaker == speaker else "user", "content": turn.text} for turn in turns]
    return {
        "session_id": f"{conversation}/{perspective}" if perspective else conversation,
        "conversation_id": conversation,
        "rater_id": "",
        "messages": messages,
        "score": score,
        **columns,
    }


def turns_and_replies(turns: Sequence[Turn], speaker: str) -> list[tuple[Turn, Turn | None]]:
    """Pair each turn of a speaker with the listener's next turn; None after the last one."""
    return [pair for pair in zip(turns, [*turns[1:], None]) if pair[0].speaker == speaker]


def number(value: Any) -> float:
    """Return a number as it stands in a file, perhaps as text; NaN for anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return math.nan
    return found if is_number(found) else math.nan


def mean_known(values: Iterable[float]) -> float:
    """Compute the mean without NaN; NaN if nothing is left."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def map_in_order(function: Callable[[Any], Any], items: Iterable, num_proc: int = 1) -> Iterator:
    """Map by several processes: the same results in the same order, with only a few of them in memory.

    Args:
        function: can be pickled, and so can its results.
        items: can be pickled.
        num_proc: 1 starts no other process.
    """
    if num_proc == 1:
        yield from map(function, items)
        return
    items = iter(items)
    with ProcessPoolExecutor(num_proc) as pool:
        while some := list(islice(items, TASKS_AHEAD * num_proc)):
            yield from pool.map(function, some)


@dataclass
class ReadReport:
    """Counts of the sessions that were read, and of those that were not, by reason, with the files to look at.

    As text it names a few of the files; `files` holds all. `left_out` counts what sessions that were read lack.
    """

    read: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [(self.read, "sessions read")]
        for reason, count in sorted(self.skipped.items(), key=lambda kv: -kv[1]):
            files = self.files.get(reason, [])
            named = [*files[:FILES_NAMED], *["..."] * (len(files) > FILES_NAMED)]
            rows.append((count, f"skipped: {reason}" + f": {', '.join(named)}" * bool(named)))
        rows += [(count, f"left out: {what}") for what, count in self.left_out.items()]
        width = len(str(max(count for count, _ in rows)))
        return "\n".join(f"{count:>{width}}  {text}" for count, text in rows)


def read_corpus(corpus: Corpus, options: Mapping, cache_dir: str | Path | None = None) -> Dataset:
    """Read the rows of a corpus into a memory-mapped dataset, from the cache if they were read before.

    Raises:
        SessionError: no session could be read; the message holds the table of reasons.
    """
    folder = Path(cache_dir or cache_root() / "sessions")
    path = folder / f"{_fingerprint(corpus, options)}.arrow"
    if not path.exists():
        with atomic_path(path) as partial:
            report = _write(corpus, partial)
            # First, so that no rows exist without their counts.
            write_text(path.with_suffix(".json"), json.dumps(asdict(report)))
    sessions = Dataset.from_file(str(path), info=DatasetInfo(features=corpus.features))
    sessions.info.description = path.with_suffix(".json").read_text(encoding="utf-8")
    report = read_report(sessions)
    logger.info(f"{corpus.where}\n{report}")
    if report.skipped or report.left_out:
        logger.warning(f"Not every session of {corpus.where} could be read:\n{report}")
    return sessions


def read_report(sessions: Dataset) -> ReadReport:
    """Return the counts that `load_sessions` made while it read these sessions.

    Raises:
        ValueError: the dataset does not come from `load_sessions`.
    """
    try:
        return ReadReport(**json.loads(sessions.info.description))
    except (TypeError, ValueError) as error:
        raise ValueError("sessions: no counts of what was read; expected a dataset of load_sessions") from error


def checked_rows(corpus: Corpus, report: ReadReport) -> Iterator[Session]:
    """Read the sessions of a corpus, each checked, and count in `report` what was read and what was not.

    Raises:
        SessionError: a row breaks the schema, or no session could be read; the message holds the table of reasons.
    """
    ids: dict[str, str] = {}
    for row in tqdm(corpus.rows(), desc="Reading sessions", unit=" sessions"):
        if isinstance(row, Skipped):
            report.skipped[row.reason] = report.skipped.get(row.reason, 0) + 1
            files = report.files.setdefault(row.reason, []) if row.file else []
            if row.file and row.file not in files[-1:]:
                files.append(row.file)
        elif isinstance(row, LeftOut):
            report.left_out[row.what] = row.count
        else:
            validate_session(row, f"{corpus.where}, row {report.read}", ids)
            report.read += 1
            yield row
    if not report.read:
        reasons = str(report) if report.skipped else "it holds no session at all"
        raise SessionError(f"{corpus.where}: no session could be read\n{reasons}")


def _write(corpus: Corpus, path: Path) -> ReadReport:
    report = ReadReport()
    with ArrowWriter(features=corpus.features, path=str(path), writer_batch_size=256) as writer:
        for row in checked_rows(corpus, report):
            writer.write(row)
        writer.finalize()
    return report


def _fingerprint(corpus: Corpus, options: Mapping) -> str:
    digest = hashlib.blake2b(digest_size=16)
    parts = [READERS_VERSION, corpus.version, repr(corpus.features), dict(options)]
    digest.update(json.dumps(parts, default=str).encode())
    for path in corpus.files:
        try:
            stat = os.stat(path)
            state = f"{stat.st_size} {stat.st_mtime_ns}"
        except FileNotFoundError:
            state = "absent"  # it may come
        digest.update(b"\n" + os.fsencode(os.path.abspath(path)) + f" {state}".encode())
    return digest.hexdigest()
