"""Rows that have the Session columns already: JSON lines, Parquet, or a dataset on the Hub; and writing them."""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HTTPError
from transformers.utils import logging

from ..cache import atomic_path, offline_hint
from ..metrics.table import as_json
from ..models.geli_reward.text_geli import message_text, valid_unicode
from ..sessions import (
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
    Session,
    SessionError,
    assistant_turns,
    null_to_nan,
    session_features,
    validate_session,
)
from .reading import Corpus, valid_json

logger = logging.get_logger(__name__)

SUFFIXES = (".jsonl", ".parquet")
# The first rows of JSON lines tell which optional columns there are.
ROWS_LOOKED_AT = 100
STRUCTS = ("scores", "feedback")  # columns with names of their own inside
IDS = ("session_id", "conversation_id", "rater_id")
COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)


def open_corpus(path: str | Path, *, split: str = "train") -> Corpus:
    """Open rows with the columns of `geli_hf.sessions`; other columns are left out.

    The schema, or the first rows of JSON lines, tell which of the optional columns there are.

    Args:
        path: a `.jsonl` or `.parquet` file, a folder of such files, or the id of a dataset on the Hub.
        split: of a dataset on the Hub; of a folder, the files whose names begin with it. A folder that has none for
            "train" is taken for one that knows no splits, and all its files are read.

    Raises:
        FileNotFoundError: there is nothing of this name, or no such split.
        ValueError: the file has another suffix, or the dataset on the Hub has no such split.
        OSError: the dataset is on the Hub and can't be loaded.
        SessionError: a file is no Parquet; or, when the rows are read, one is no JSON or breaks the schema. The
            message names file, row and field.
    """
    source = _open_rows(Path(path), split)
    signals, scores = (
        sorted(name.removeprefix(f"{column}.") for name in source.columns if name.startswith(f"{column}."))
        for column in ("feedback", "scores")
    )
    features = session_features(
        signals,
        scores=scores,
        times=not {"start", "stop"}.isdisjoint(source.columns),
        behaviour="behaviour" in source.columns,
        turn_rating="turn_rating" in source.columns,
    )
    unknown = sorted(name for name in source.columns if name.partition(".")[0] not in COLUMNS)
    if unknown:
        logger.warning(f"{path}: left out {', '.join(unknown)}, which a session has no column for")

    def rows() -> Iterator[Session]:
        seen: dict[str, str] = {}
        for where, row in source.rows():
            yield _session(row, features, where, seen)

    return Corpus(source.files, features, rows, where=str(path), version=source.version)


def write_jsonl(sessions: Dataset | Iterable[Session], path: str | Path) -> Path:
    """Write Session rows as JSON lines, with `null` for a missing number; the file appears when it is complete.

    Returns:
        `path`.
    """
    path = Path(path)
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        for session in sessions:
            file.write(to_json_line(session) + "\n")
    return path


def to_json_line(session: Session) -> str:
    """Write a Session row as one line of JSON, without the line break."""
    return valid_unicode(json.dumps(as_json(session), ensure_ascii=False, allow_nan=False))


class Rows(NamedTuple):
    """Rows of files or of a dataset on the Hub, each with its place for errors, and the names of their columns.

    A name inside a struct is "feedback.affect".
    """

    files: list[Path]
    columns: set[str]
    rows: Callable[[], Iterator[tuple[str, dict]]]
    version: str = ""


def _open_rows(path: Path, split: str) -> Rows:
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise ValueError(f"{path}: expected a file that ends in {' or '.join(SUFFIXES)}, or a chat log's format")
        files = [path]
    elif path.is_dir():
        files = files_of_rows(path)
        if not files:
            raise FileNotFoundError(f"{path}: the folder and its folder `data` hold no {' or '.join(SUFFIXES)} file")
        files_of_split = [file for file in files if file.name.startswith(split)]
        if not files_of_split and split != "train":
            names = ", ".join(file.name for file in files)
            raise FileNotFoundError(f"split: {path} has no file that begins with {split!r}; there is {names}")
        files = files_of_split or files
    elif path.suffix in SUFFIXES or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(path)):
        raise FileNotFoundError(_nothing_found(path))
    else:
        dataset = _rows_of_hub(str(path), split)
        files = [Path(file["filename"]) for file in dataset.cache_files]
        return Rows(
            files,
            _column_names(dataset.features),
            lambda: (_tidy(row, f"{path}, row {number}") for number, row in enumerate(dataset)),
            dataset._fingerprint,
        )
    columns = set().union(*map(_columns, files))
    return Rows(files, columns, lambda: (row for file in files for row in _located_rows(file)))


def files_of_rows(folder: Path) -> list[Path]:
    """List the files of rows in a folder, or else in its folder `data`, where the Hub's datasets have them."""
    for place in (folder, folder / "data"):
        if files := sorted(file for suffix in SUFFIXES for file in place.glob(f"*{suffix}")):
            return files
    return []


def _nothing_found(path: str | Path) -> str:
    from . import CORPORA

    return f"name_or_path: no file or folder {str(path)!r}, and no corpus of that name; there are {', '.join(CORPORA)}"


def _rows_of_hub(name: str, split: str) -> Dataset:
    try:
        return load_dataset(name, split=split)
    except (FileNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"{_nothing_found(name)}. The Hub says: {error} For one that is private or gated, log in as who has "
            f"access: `hf auth login`, or HF_TOKEN.{offline_hint(name, 'hf download --repo-type dataset {}')}"
        ) from error
    except (OSError, HTTPError, DatasetsError, pa.ArrowException) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise OSError(f"{name}: on the Hub, and can't be loaded. {type(error).__name__}: {error}{cause}") from error
    except ValueError as error:
        raise ValueError(f"{name}, split {split!r}: {error}") from error


def _columns(file: Path) -> set[str]:
    if file.suffix == ".parquet":
        try:
            types = {field.name: field.type for field in pq.read_schema(file)}
        except (pa.ArrowInvalid, OSError) as error:
            raise SessionError(f"{file}: no Parquet ({error}); was it downloaded whole?") from error
        structs = {name: {field.name: field.type for field in types[name]} for name in STRUCTS if name in types}
        return _column_names(types | structs)
    return set().union(*(_column_names(row) for _, row in islice(_located_rows(file), ROWS_LOOKED_AT)))


def _column_names(row: Mapping[str, Any]) -> set[str]:
    """Name the columns of a row or a schema that are not null, and those inside structs as "feedback.affect"."""
    names = {name for name, value in row.items() if value is not None and name not in STRUCTS}
    for column in STRUCTS:
        if isinstance(row.get(column), Mapping):
            names |= {f"{column}.{name}" for name in row[column]}
    return names


def _located_rows(file: Path) -> Iterator[tuple[str, dict]]:
    """Read the rows of a file, each with its place for errors."""
    if file.suffix == ".parquet":
        batches = pq.ParquetFile(file).iter_batches(batch_size=256)
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from (_tidy(row, f"{file}, row {number}") for number, row in enumerate(rows))
        return
    with file.open("rb") as lines:
        yield from read_json_lines(lines, str(file))


def read_json_lines(lines: Iterable[bytes], name: str) -> Iterator[tuple[str, dict]]:
    """Read JSON objects from lines in UTF-8, each with its place for errors.

    Args:
        lines: of a file, of which empty ones are left out.
        name: of the file, for errors.

    Raises:
        SessionError: a line is no JSON object; the message names it.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            text = line.decode("utf-8-sig")
            row = valid_json(json.loads(text), text)
        except ValueError as error:  # broken UTF-8 too
            raise SessionError(f"{where}: no JSON ({error}); expected one session per line") from error
        if not isinstance(row, dict):
            raise SessionError(f"{where}: expected a JSON object, found a {type(row).__name__}")
        yield _tidy(row, where)


def _tidy(row: dict, where: str) -> tuple[str, dict]:
    """Join the text parts of messages, and write whole numbers that are ids as text; returns (where, row)."""
    for name in IDS:
        if isinstance(row.get(name), int) and not isinstance(row[name], bool):
            row[name] = str(row[name])
    messages = row.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        if isinstance(message, dict) and isinstance(message.get("content"), list):
            try:
                message["content"] = message_text(message["content"], f"{where}, field 'messages': message {index}")
            except ValueError as error:
                raise SessionError(str(error)) from None
    return where, row


def _session(row: Mapping, features: Features, where: str, seen: dict[str, str]) -> Session:
    """Validate a row, and give it all columns of `features`, with NaN for null."""
    session = {name: null_to_nan(row[name]) for name in COLUMNS if row.get(name) is not None}
    if "score" in row:
        session.setdefault("score", math.nan)
    if isinstance(row.get("behaviour"), list):
        session["behaviour"] = ["" if text is None else text for text in row["behaviour"]]
    if isinstance(row.get("feedback"), Mapping):  # Parquet has null for a signal that this session lacks
        signals = row["feedback"].items()
        session["feedback"] = {name: null_to_nan(values) for name, values in signals if values is not None}
    validate_session(session, where, seen)
    if late := _column_names(session) - _column_names(features):
        raise SessionError(
            f"{where}, field {min(late)!r}: none of the first {ROWS_LOOKED_AT} rows has it; move one that has it there"
        )

    messages = session["messages"]
    per_message, per_turn = [math.nan] * len(messages), [math.nan] * len(assistant_turns(messages))
    missing = {"rater_id": "", "start": per_message, "stop": per_message, "turn_rating": per_turn}
    missing |= {"behaviour": [""] * len(per_turn), "scores": {}, "feedback": {}}
    complete = {name: session.get(name, missing.get(name)) for name in features}
    complete["messages"] = [{"role": message["role"], "content": message["content"]} for message in messages]
    for column, value in (("scores", math.nan), ("feedback", per_turn)):
        if column in features:
            complete[column] = dict.fromkeys(features[column], value) | complete[column]
    return complete
