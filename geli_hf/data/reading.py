"""From a corpus on disk to an Arrow file: streamed session by session, counted, and kept.

A reader yields Session rows, and `Skipped` for each session that it can't give, with the reason. What it yielded is
written to the cache under a name made of the files, the options and this version of the readers, so that a second load
is memory-mapped. It is there when it is whole, and not before.
"""

import hashlib
import json
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, DatasetInfo, Features
from datasets.arrow_writer import ArrowWriter
from tqdm.auto import tqdm
from transformers.utils import logging

from ..cache import cache_root, whole
from ..sessions import Session, SessionError, validate_session

logger = logging.get_logger(__name__)

# Part of the cache's name: raise it when a reader gives other rows for the same files.
READERS_VERSION = 3
FILES_NAMED = 5  # of each reason, in the text of a report
TASKS_AHEAD = 4  # for each process: as many results at most wait in memory


class Skipped(NamedTuple):
    """A session that a corpus holds and a reader can't give. The reason is counted, so keep names out of it; the name
    of a file that somebody should look at stands beside it."""

    reason: str
    file: str = ""


def split_files(data_dir: str | Path, split: str | Sequence[str], suffix: str) -> list[Path]:
    """The files of the named splits of a corpus that keeps each split in a file of its own; or one given file.

    Raises:
        FileNotFoundError: one isn't there; the message names those that are.
    """
    folder = Path(data_dir)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise FileNotFoundError(f"data_dir: there is no folder {folder}")
    files = [folder / f"{name}{suffix}" for name in ([split] if isinstance(split, str) else split)]
    for file in files:
        if not file.is_file():
            there = ", ".join(sorted(path.stem for path in folder.glob(f"*{suffix}"))) or f"no {suffix} file at all"
            raise FileNotFoundError(f"split: {folder} has no {file.name}; there is {there}")
    return files


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        SessionError: it is no JSON, or breaks off; the message names the file and the line.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise SessionError(f"{path}, line {error.lineno}: no JSON ({error.msg}); was it downloaded whole?") from error
    except UnicodeDecodeError as error:
        raise SessionError(f"{path}: no UTF-8 text ({error})") from error


def in_order(function: Callable[[Any], Any], items: Iterable, num_proc: int = 1) -> Iterator:
    """`map`, by several processes: the same results in the same order, and never more than a few of them in memory.

    Args:
        function, items: both, and the results, have to travel to another process and back.
        num_proc: 1 for none but this one.
    """
    if num_proc == 1:
        yield from map(function, items)
        return
    pool, waiting = ProcessPoolExecutor(num_proc), deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= TASKS_AHEAD * num_proc:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def mean_known(values: Iterable[float]) -> float:
    """The mean without NaN; NaN if nothing is left."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class Corpus:
    """What a reader offers: which files it reads, which columns its rows have, and the rows."""

    files: Sequence[Path]  # whatever changes the rows; one may be absent
    features: Features
    rows: Callable[[], Iterator[Session | Skipped]]
    unit: str = "session"
    where: str = ""  # for messages
    version: str = ""  # of rows that come from no file


@dataclass
class ReadReport:
    """How many sessions were read, and how many were not, by reason; and the names of the files that are the reason.

    As text it names a few of the files, and `files` holds all.
    """

    read: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [(self.read, "sessions read")]
        for reason, count in sorted(self.skipped.items(), key=lambda kv: -kv[1]):
            files = self.files.get(reason, [])
            more = f" and {len(files) - FILES_NAMED} more" if len(files) > FILES_NAMED else ""
            named = f": {', '.join(files[:FILES_NAMED])}{more}" if files else ""
            rows.append((count, f"skipped: {reason}{named}"))
        width = len(str(max(count for count, _ in rows)))
        return "\n".join(f"{count:>{width}}  {what}" for count, what in rows)


def read_corpus(corpus: Corpus, options: Mapping, cache_dir: str | Path | None = None) -> Dataset:
    """The rows of a corpus as a memory-mapped dataset, from the cache if they were read before.

    Raises:
        SessionError: no session could be read; the message holds the table of reasons.
    """
    folder = Path(cache_dir or cache_root() / "sessions")
    path = folder / f"{_fingerprint(corpus, options)}.arrow"
    if not path.exists():
        with whole(path) as rows:
            report = _write(corpus, rows)
            with whole(path.with_suffix(".json")) as count:  # first, so that no rows are there without their count
                count.write_text(json.dumps(asdict(report)))
    sessions = Dataset.from_file(str(path), info=DatasetInfo(features=corpus.features))
    sessions.info.description = path.with_suffix(".json").read_text()
    report = read_report(sessions)
    logger.info(f"{corpus.where}\n{report}")
    if report.skipped:
        logger.warning(f"Not every session of {corpus.where} could be read:\n{report}")
    return sessions


def read_report(sessions: Dataset) -> ReadReport:
    """What `load_sessions` counted while it read these sessions.

    Raises:
        ValueError: the dataset does not come from `load_sessions`.
    """
    try:
        return ReadReport(**json.loads(sessions.info.description))
    except (TypeError, ValueError) as error:
        raise ValueError("no count of what was read: this dataset does not come from load_sessions") from error


def _write(corpus: Corpus, path: Path) -> ReadReport:
    skipped, files, ids = Counter(), {}, {}
    with ArrowWriter(features=corpus.features, path=str(path), writer_batch_size=256) as writer:
        for row in tqdm(corpus.rows(), desc="Reading sessions", unit=f" {corpus.unit}s"):
            if isinstance(row, Skipped):
                skipped[row.reason] += 1
                if row.file:
                    files.setdefault(row.reason, {})[row.file] = None
                continue
            validate_session(row, f"{corpus.where}, row {len(ids)}", ids)
            writer.write(row)
        report = ReadReport(len(ids), dict(skipped), {reason: list(names) for reason, names in files.items()})
        if not ids:
            reasons = str(report) if skipped else "it holds no session at all"
            raise SessionError(f"{corpus.where}: no session could be read\n{reasons}")
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
        digest.update(f"\n{os.path.abspath(path)} {state}".encode())
    return digest.hexdigest()
