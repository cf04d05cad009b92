"""Rows that have the Session columns already: JSON lines, Parquet, or a dataset on the Hub; and writing them."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError
from datasets.features import Features
from huggingface_hub.errors import HTTPError
from transformers.utils import logging

from ..cache import offline_hint, whole
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
from .reading import Corpus

logger = logging.get_logger(__name__)

SUFFIXES = (".jsonl", ".parquet")
# So many rows of JSON lines tell which optional columns there are.
ROWS_LOOKED_AT = 100
NUMBERS = ("start", "stop", "turn_rating")
STRUCTS = ("scores", "feedback")  # columns with names of their own in them


def open_corpus(path: str | Path, *, split: str = "train") -> Corpus:
    """
    Args:
        path: a `.jsonl` or `.parquet` file, a folder of such files, or the id of a dataset on the Hub.
        split: of a dataset on the Hub; of a folder, the files whose names begin with it. A folder that has none for
            "train" is taken for one that knows no splits, and all its files are read.

    The columns are those of `geli_hf.sessions`. Which of the optional ones a corpus has is told by the schema, or the
    first rows of JSON lines. Other columns are left out.

    Raises:
        FileNotFoundError: nothing is there by this name.
        SessionError: when the rows are read: one is no JSON or breaks the schema; the message names file, row and
            field.
    """
    files = _files(Path(path), split)
    if files is None:
        dataset = rows_of_hub(str(path), split)
        files = [Path(file["filename"]) for file in dataset.cache_files]
        columns, names = dataset.column_names, {column: dataset.features.get(column) or () for column in STRUCTS}
    else:
        dataset = None
        columns, names = _columns(files)
    features = session_features(
        sorted(names["feedback"]),
        scores=sorted(names["scores"]),
        times=not {"start", "stop"}.isdisjoint(columns),
        behaviour="behaviour" in columns,
        turn_rating="turn_rating" in columns,
    )
    unknown = sorted(set(columns) - {*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS})
    if unknown:
        logger.warning(f"{path}: left out {', '.join(unknown)}, which a session has no column for")

    def rows() -> Iterator[Session]:
        if dataset is None:
            located = located_rows(files)
        else:
            located = ((f"{path}, row {number}", row) for number, row in enumerate(dataset))
        seen: dict[str, str] = {}
        for where, row in located:
            yield _session(row, features, where, seen)

    return Corpus(files, features, rows, where=str(path), version=dataset._fingerprint if dataset else "")


def write_jsonl(sessions: Dataset | Iterable[Session], path: str | Path) -> Path:
    """Write Session rows as JSON lines, with `null` where a number is missing; the file appears when it is whole.

    Returns:
        `path`.
    """
    path = Path(path)
    with whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        for session in sessions:
            file.write(to_json_line(session) + "\n")
    return path


def to_json_line(session: Session) -> str:
    """A Session row as a line of JSON lines, without the end of the line."""
    return json.dumps(_nan_to_null(session), ensure_ascii=False, allow_nan=False)


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _nan_to_null(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nan_to_null(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _files(path: Path, split: str) -> list[Path] | None:
    """The files to read; None if `path` may be the id of a dataset on the Hub."""
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise ValueError(f"{path}: expected a file that ends in {' or '.join(SUFFIXES)}")
        return [path]
    if path.is_dir():
        files = sorted(file for suffix in SUFFIXES for file in path.glob(f"*{suffix}"))
        if not files:
            raise FileNotFoundError(f"{path}: the folder holds no {' or '.join(SUFFIXES)} file")
        named = [file for file in files if file.name.startswith(split)]
        if not named and split != "train":
            raise FileNotFoundError(
                f"split: {path} has no file that begins with {split!r}; there is "
                + ", ".join(file.name for file in files)
            )
        return named or files
    if path.suffix in SUFFIXES or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(path)):
        raise FileNotFoundError(_nothing(path))
    return None


def _nothing(path: str | Path) -> str:
    from . import CORPORA

    return (
        f"name_or_path: no file or folder {str(path)!r}, and no corpus of that name; there are {', '.join(CORPORA)}, "
        f"paths to {' or '.join(SUFFIXES)} files, and the ids of datasets on the Hub (owner/name)"
    )


def rows_of_hub(name: str, split: str) -> Dataset:
    """The rows of a dataset on the Hub, or of its copy in the cache of `datasets`.

    Raises:
        FileNotFoundError: it is not there, or the Hub can't be reached.
        OSError: it is there and can't be had: the Hub refuses, the disk is full, a file of it is broken.
        ValueError: it has no such split, or several configurations.
    """
    try:
        return load_dataset(name, split=split)
    except (FileNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"{_nothing(name)}. The Hub says: {error} For one that is private or gated, log in as who has access: "
            f"`hf auth login`, or HF_TOKEN.{offline_hint(name, 'hf download --repo-type dataset {}')}"
        ) from error
    except (OSError, HTTPError, DatasetsError, pa.ArrowException) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise OSError(f"{name}: on the Hub, and can't be loaded. {type(error).__name__}: {error}{cause}") from error
    except ValueError as error:
        raise ValueError(f"{name}, split {split!r}: {error}") from error


def _columns(files: list[Path]) -> tuple[set[str], dict[str, set[str]]]:
    """The names of the columns, and the names in each of `STRUCTS`."""
    columns, names = set(), {column: set() for column in STRUCTS}
    for file in files:
        if file.suffix == ".parquet":
            try:
                schema = pq.read_schema(file)
            except (pa.ArrowInvalid, OSError) as error:
                raise SessionError(f"{file}: no Parquet ({error}); was it downloaded whole?") from error
            columns |= set(schema.names)
            for column in set(STRUCTS) & set(schema.names):
                if pa.types.is_struct(schema.field(column).type):  # if not, the rows say what is wrong
                    names[column] |= {field.name for field in schema.field(column).type}
            continue
        for _, row in islice(located_rows([file]), ROWS_LOOKED_AT):
            columns |= {name for name, value in row.items() if value is not None}
            for column in STRUCTS:
                if isinstance(row.get(column), Mapping):
                    names[column] |= set(row[column])
    return columns, names


def located_rows(files: list[Path]) -> Iterator[tuple[str, dict]]:
    """Each row with what to call it in an error."""
    for file in files:
        if file.suffix == ".parquet":
            batches = pq.ParquetFile(file).iter_batches(batch_size=256)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from ((f"{file}, row {number}", row) for number, row in enumerate(rows))
        else:
            yield from _json_lines(file)


def _json_lines(file: Path) -> Iterator[tuple[str, dict]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except ValueError as error:  # broken UTF-8 too
                raise SessionError(f"{where}: no JSON ({error}); expected one session per line") from error
            if not isinstance(row, dict):
                raise SessionError(f"{where}: expected a JSON object, found a {type(row).__name__}")
            yield where, row


def _session(row: Mapping, features: Features, where: str, seen: dict[str, str]) -> Session:
    """A valid Session row with all columns of `features`, and NaN for null."""
    session = {name: row[name] for name in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS) if row.get(name) is not None}
    if "score" in row:
        session["score"] = null_to_nan(row["score"])
    for column in (*NUMBERS, *STRUCTS):
        if column in session:
            session[column] = null_to_nan(session[column])
    if isinstance(session.get("behaviour"), list):
        session["behaviour"] = ["" if text is None else text for text in session["behaviour"]]
    if isinstance(session.get("feedback"), Mapping):  # of a struct, a signal that this session doesn't have is null
        session["feedback"] = {name: values for name, values in session["feedback"].items() if _known(values)}
    validate_session(session, where, seen)

    known, late = set(features), set(session).difference(STRUCTS)
    for column in STRUCTS:
        known |= {f"{column}.{name}" for name in features.get(column, ())}
        late |= {f"{column}.{name}" for name in session.get(column, ())}
    late -= known
    if late:
        raise SessionError(
            f"{where}, field {min(late)!r}: none of the first {ROWS_LOOKED_AT} rows has it; move one that has it there"
        )
    turns, messages = len(assistant_turns(session["messages"])), session["messages"]
    empty = {"rater_id": "", "behaviour": [""] * turns, "turn_rating": [math.nan] * turns}
    empty |= {column: [math.nan] * len(messages) for column in ("start", "stop")}
    filled = {name: session.get(name, empty.get(name)) for name in features if name not in STRUCTS}
    filled["messages"] = [{"role": each["role"], "content": each["content"]} for each in messages]
    for column, nothing in (("scores", math.nan), ("feedback", [math.nan] * turns)):
        if column in features:
            given = session.get(column, {})
            filled[column] = {name: given.get(name, nothing) for name in features[column]}
    return filled


def _known(values: Any) -> bool:
    return not isinstance(values, float) or not math.isnan(values)
