"""Objects of a chat log, read one after the other, so that a file of any size needs little memory."""

import csv
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...sessions import SessionError
from ..reading import Skipped

Located = tuple[str, Any]  # file and line, and a value

CHUNK = 2**20  # characters of a JSON file that are read at a time, at least
LARGEST = 2**26  # characters of one conversation, at most
_FIRST, _NEXT = re.compile(r"[^\s\[]"), re.compile(r"[^\s,]")  # character of a value in a list


def _lines(file: Path) -> Iterator[Located]:
    with file.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LARGEST), b""), 1):
            if line.strip():
                try:
                    value = json.loads(line.decode("utf-8-sig"))
                except (ValueError, RecursionError):  # broken UTF-8 too
                    value = Skipped("no JSON (cut off?)")
                yield f"{file}, line {number}", value


def _values(file: Path) -> Iterator[Located]:
    """Read the values of a list, or values that follow each other, from as much text as the next of them needs."""
    decoder, number, start = json.JSONDecoder(), 1, 0
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        text = more = stream.read(CHUNK)
        while more:
            found = (_FIRST if number == 1 else _NEXT).search(text, start)
            start = found.start() if found else len(text)
            try:
                value, start = decoder.raw_decode(text, start)
            except (ValueError, RecursionError):
                more = stream.read(max(CHUNK, len(text) - start)) if len(text) - start < LARGEST else ""
                text, start = text[start:] + more, 0
            else:
                yield f"{file}, conversation {number}", value
                number += 1
    if text.strip() not in ("", "]"):
        yield f"{file}, conversation {number}", Skipped("no JSON from here to the end of the file (cut off?)")


def _parquet_rows(file: Path) -> Iterator[Located]:
    try:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=64):
            yield from ((f"{file}, some row", row) for row in batch.to_pylist())
    except pa.ArrowException as error:
        raise SessionError(f"{file}: no Parquet ({error}); was it downloaded whole?") from error


def _csv_rows(file: Path) -> Iterator[Located]:
    csv.field_size_limit(LARGEST)
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        reader = csv.DictReader(stream)
        for row in reader:
            whole = None not in row and None not in row.values()
            yield f"{file}, line {reader.line_num}", row if whole else Skipped("too few or too many fields (cut off?)")


READERS = {".jsonl": _lines, ".json": _values, ".parquet": _parquet_rows, ".csv": _csv_rows}


def find_logs(paths: Iterable[str | Path]) -> list[Path]:
    """List the files of chat logs; of a folder, those in it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file has another suffix.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        files += sorted(file for file in path.iterdir() if file.suffix in READERS) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{', '.join(map(str, paths))}: no {', '.join(READERS)} file")
    if unknown := [file for file in files if file.suffix not in READERS]:
        raise ValueError(f"{unknown[0]}: expected a file that ends in {', '.join(READERS)}; unpack or rename it")
    return files


def read_objects(file: Path) -> Iterator[Located]:
    """Read the objects of a file, each with its place, and a `Skipped` where something is no JSON object.

    Raises:
        OSError: there is no such file.
        SessionError: the file is no Parquet.
    """
    for where, value in READERS[file.suffix](file):
        yield where, value if isinstance(value, (dict, Skipped)) else Skipped("no JSON object")


class Store:
    """Rows of conversations that are spread over files, in a temporary database on disk, deleted with the object."""

    def __init__(self) -> None:
        self._rows = sqlite3.connect("")
        self._rows.execute("create table rows (key text, position, place text, content text)")
        self._rows.execute("create index keys on rows (key, position)")

    def add(self, key: str, position: Any, where: str, row: dict) -> None:
        """Keep a row of the conversation `key`."""
        values = (key, position, where, json.dumps(row, default=str))
        self._rows.execute("insert into rows values (?, ?, ?, ?)", values)

    def rows_of(self, key: str) -> list[dict]:
        """Return the rows of a conversation, by position."""
        found = self._rows.execute("select content from rows where key = ? order by position, rowid", (key,))
        return [json.loads(content) for (content,) in found]

    def conversations(self) -> Iterator[tuple[str, str, list[dict]]]:
        """Return key, first place and rows, by position, of every conversation."""
        found = self._rows.execute("select key, place, content from rows order by key, position, rowid")
        for key, group in groupby(found, lambda row: row[0]):
            rows = list(group)
            yield key, rows[0][1], [json.loads(content) for _, _, content in rows]
