"""Tables of a CANDOR conversation, read from its folder or, in memory, from its zip.

A table that breaks off, or that has a row of too many or too few fields, is refused: nobody knows what stood in it. A
field that should be a number and is none is NaN. Of no file are more than `MOST_BYTES` read or inflated.
"""

import csv
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, read_csv

from ..affect.emotions import FACE_COLUMNS
from ..sessions import Turn, merge_turns

SURVEY, FEATURES, RATINGS = "survey.csv", "audio_video_features.csv", "turn_ratings.csv"
SENSES = ("gaze", "pitch", "intensity")  # columns of the features beside the face
MISSING = ["", "NA", "NaN", "nan", "null"]  # in the place of a number
# The features of half an hour are 2 MB, so this is a conversation of more than half a day.
MOST_BYTES = 64 * 2**20
HEADER_BYTES = 2**18  # more than any heading has
# zipfile can stop these two at a length, and inflates a whole block of any other.
BOUNDED_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
READ_ERRORS = (OSError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)

Files = Path | zipfile.Path  # the folder of a conversation, or the place of its files in a zip


class Unreadable(Exception):
    """A conversation that cannot be read; the message is the reason."""


# -- folders and zips


def find_conversations(data_dir: Path) -> list[Path]:
    """List the folder or zip of each conversation by name; a zip beside its folder is left out.

    Raises:
        FileNotFoundError: there is none.
    """
    if data_dir.suffix.lower() == ".zip" and data_dir.is_file():
        return [data_dir]
    if not data_dir.is_dir():
        raise FileNotFoundError(
            f"data_dir: {data_dir} is no folder; it should hold one folder or zip per conversation"
        )
    if (data_dir / SURVEY).is_file() or (data_dir / "transcription").is_dir():
        return [data_dir]
    with os.scandir(data_dir) as entries:
        visible = sorted((entry.name, entry.is_dir()) for entry in entries if entry.name[0] not in "._")
    folders = {name: None for name, is_folder in visible if is_folder}
    zips = [name for name, is_folder in visible if not is_folder and name.lower().endswith(".zip")]
    names = [*folders, *(name for name in zips if name[:-4] not in folders)]
    if not names:
        raise FileNotFoundError(f"data_dir: {data_dir} holds no conversation, neither folders nor zips")
    return [data_dir / name for name in names]


def open_conversation(home: Path) -> Files:
    """Open a conversation's folder, or its zip, whose files may stand below one top folder.

    Raises:
        Unreadable: the zip is broken, holds several conversations, or can be inflated beyond bounds.
    """
    if not home.is_file():
        return home
    try:
        archive = zipfile.ZipFile(home)
    except READ_ERRORS:
        raise Unreadable("the zip can't be read (half-downloaded?)") from None
    surveys = [name for name in archive.namelist() if PurePosixPath(name).name == SURVEY]
    if len(surveys) > 1:
        raise Unreadable(f"the zip holds {len(surveys)} {SURVEY}; unpack it")
    if any(member.compress_type not in BOUNDED_COMPRESSIONS for member in archive.infolist()):
        raise Unreadable("the zip is not compressed by deflate; unpack it")
    return zipfile.Path(archive, surveys[0].removesuffix(SURVEY) if surveys else "")


def read_file(files: Files, name: str) -> bytes:
    """Read a file of a conversation.

    Raises:
        Unreadable: it is absent, broken or too large.
    """
    path = files / name
    if not path.is_file():
        raise Unreadable(f"{name} is missing (half-downloaded?)")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except READ_ERRORS:
        raise Unreadable(f"{name} can't be read (half-downloaded?)") from None
    if len(data) > MOST_BYTES:
        raise Unreadable(f"{name} is larger than {MOST_BYTES >> 20} MB, which no conversation's is")
    return data


# -- the survey


def read_scores(files: Files, columns: Sequence[str]) -> dict[str, dict[str, float]]:
    """Read each person's answer in each column of the survey; of several rows of one person the first with a number.

    Raises:
        Unreadable: there is no survey, or one of the columns is missing.
    """
    table = _table(read_file(files, SURVEY), SURVEY, ["user_id"], columns)
    scores: dict[str, dict[str, float]] = {column: {} for column in columns}
    for column, answers in scores.items():
        for person, number in zip(table["user_id"], table[column]):
            if not math.isnan(number):
                answers.setdefault(person, float(number))
    return scores


# -- the transcript


class Spoken(NamedTuple):
    """A row of the transcript beside speaker and text. Seconds; NaN if unknown."""

    start: float
    stop: float
    rating: float


def read_turns(files: Files, segmentation: str) -> list[Turn]:
    """Read the transcript, with successive rows of one speaker merged; the entry of a row is a `Spoken`.

    Raises:
        Unreadable: there is no such transcript, or a column of it is missing.
    """
    name = f"transcription/transcript_{segmentation}.csv"
    table = _table(read_file(files, name), name, ["turn_id", "speaker", "utterance"], ["start", "stop"])
    rated = _read_turn_ratings(files)
    ratings = [rated.get(turn, math.nan) for turn in table["turn_id"]]
    entries = map(Spoken, table["start"].tolist(), table["stop"].tolist(), ratings)
    return merge_turns(row for row in zip(table["speaker"], table["utterance"], entries) if row[0])


def _read_turn_ratings(files: Files) -> dict[str, float]:
    if not (files / RATINGS).is_file():
        return {}
    table = _table(read_file(files, RATINGS), RATINGS, ["turn_id"], ["rating"])
    ratings: dict[str, float] = {}
    for turn, rating in zip(table["turn_id"], table["rating"].tolist()):
        ratings.setdefault(turn, rating)
    return ratings


# -- the features


class Observed(NamedTuple):
    """Observations of one person by camera and microphone; NaN where there are none."""

    seconds: np.ndarray  # (n,)
    probabilities: np.ndarray  # (n, 8), of the face's emotions
    senses: dict[str, np.ndarray]  # (n,) for each of `SENSES` that the corpus has


def read_observed(files: Files, *, senses: bool) -> dict[str, Observed]:
    """Read the features of each person; empty without features.

    Raises:
        Unreadable: the features are broken.
    """
    data = read_file(files, FEATURES) if (files / FEATURES).is_file() else b""
    if not data.strip():
        return {}
    others = [name for name in SENSES if senses and name in _header(data, FEATURES)]
    table = _table(data, FEATURES, ["timedelta", "user_id"], [*FACE_COLUMNS, *others])
    seconds = np.array([_seconds(time) for time in table["timedelta"]])
    probabilities = np.stack([table[column] for column in FACE_COLUMNS], 1)
    people = np.array(table["user_id"])
    return {
        person: Observed(seconds[rows], probabilities[rows], {name: table[name][rows] for name in others})
        for person in set(table["user_id"])
        for rows in [people == person]
    }


@lru_cache(maxsize=2**15)  # every conversation counts the same seconds
def _seconds(time: str) -> float:
    """Convert "0 days 00:00:01", "00:00:01" or "1" to seconds; NaN if it is no time."""
    try:
        seconds = float(time)
    except ValueError:
        seconds = pd.to_timedelta(time, errors="coerce").total_seconds()
    return seconds if math.isfinite(seconds) else math.nan


# -- CSV


def _header(data: bytes, name: str) -> list[str]:
    try:
        rows = csv.reader(io.StringIO(data[:HEADER_BYTES].decode("utf-8-sig", "replace")))
        return next(row for row in rows if row)
    except (StopIteration, csv.Error):
        raise Unreadable(f"{name} can't be read as CSV") from None


def _table(data: bytes, name: str, text: Sequence[str], numbers: Sequence[str]) -> dict[str, list[str] | np.ndarray]:
    """Read columns of a CSV file: text as it stands, and numbers, NaN for what is none."""
    header, columns = _header(data, name), [*text, *numbers]
    if missing := sorted(set(columns).difference(header)):
        raise Unreadable(f"{name} has no column {', '.join(missing)}")
    if repeated := [column for column in columns if header.count(column) > 1]:
        raise Unreadable(f"{name} has two columns {', '.join(repeated)}")
    if data.count(b'"') % 2:
        raise Unreadable(f"{name} ends within quotes (cut off?)")
    try:
        try:
            table = _read_csv(data, dict.fromkeys(text, pa.string()) | dict.fromkeys(numbers, pa.float64()))
        except pa.ArrowInvalid:  # perhaps for a single field that is no number
            table = _read_csv(data, dict.fromkeys(columns, pa.string()))
    except pa.ArrowInvalid as error:
        if "columns, got" in str(error):
            raise Unreadable(f"{name} has a row of too few or too many fields (cut off?)") from None
        raise Unreadable(f"{name} can't be read as CSV") from None
    # A last "1" without a line break may have been "12".
    if header[-1] in columns and not data.endswith((b"\n", b"\r")):
        raise Unreadable(f"{name} ends without a line break after {header[-1]} (cut off?)")
    return {column: table[column].to_pylist() for column in text} | {
        column: _numbers(table[column]) for column in numbers
    }


def _read_csv(data: bytes, types: dict[str, pa.DataType]) -> pa.Table:
    return read_csv(
        pa.BufferReader(data),
        read_options=ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=ParseOptions(newlines_in_values=True),
        convert_options=ConvertOptions(
            include_columns=list(types), column_types=types, null_values=MISSING, strings_can_be_null=False
        ),
    )


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    numbers = column if pa.types.is_floating(column.type) else pd.to_numeric(column.to_pandas(), errors="coerce")
    numbers = np.asarray(numbers, dtype=float)
    return np.where(np.isfinite(numbers), numbers, np.nan)
