"""From a corpus on disk to an Arrow file: streamed session by session, counted, and kept.

A reader yields Session rows, and `Skipped` for each session that it can't give, with the reason. What it yielded is
written to the cache under a name made of the files, the options and this version of the readers, so that a second load
is memory-mapped. It is written under another name and renamed when whole.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset, DatasetInfo, Features
from datasets.arrow_writer import ArrowWriter
from tqdm.auto import tqdm
from transformers.utils import logging

from ..cache import cache_root
from ..sessions import Session, SessionError, validate_session

logger = logging.get_logger(__name__)

# Part of the cache's name: raise it when a reader gives other rows for the same files.
READERS_VERSION = 1


class Skipped(NamedTuple):
    """A session that a corpus holds and a reader can't give; the reason is counted, so keep names out of it."""

    reason: str


@dataclass(frozen=True)
class Corpus:
    """What a reader offers: which files it reads, which columns its rows have, and the rows."""

    files: Sequence[Path]
    features: Features
    rows: Callable[[], Iterator[Session | Skipped]]
    unit: str = "session"
    where: str = ""  # for messages


@dataclass
class ReadReport:
    """How many sessions were read, and how many were not, by reason."""

    read: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [(self.read, "sessions read")]
        rows += [
            (count, f"skipped: {reason}") for reason, count in sorted(self.skipped.items(), key=lambda kv: -kv[1])
        ]
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
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            report = _write(corpus, partial)
            path.with_suffix(".json").write_text(json.dumps({"read": report.read, "skipped": report.skipped}))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
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
    skipped, ids = Counter(), {}
    with ArrowWriter(features=corpus.features, path=str(path), writer_batch_size=256) as writer:
        for row in tqdm(corpus.rows(), desc="Reading sessions", unit=f" {corpus.unit}s"):
            if isinstance(row, Skipped):
                skipped[row.reason] += 1
                continue
            validate_session(row, f"{corpus.where}, row {len(ids)}", ids)
            writer.write(row)
        if not ids:
            reasons = str(ReadReport(0, dict(skipped))) if skipped else "it holds no session at all"
            raise SessionError(f"{corpus.where}: no session could be read\n{reasons}")
        writer.finalize()
    return ReadReport(len(ids), dict(skipped))


def _fingerprint(corpus: Corpus, options: Mapping) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([READERS_VERSION, repr(corpus.features), dict(options)], default=str).encode())
    for path in corpus.files:
        stat = path.stat()
        digest.update(f"\n{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()
