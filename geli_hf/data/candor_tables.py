"""The tables of a CANDOR conversation: who answered what, who said what when, and what the faces showed.

A table that breaks off, or whose rows have too many or too few fields, is not read at all: nobody knows what stood in
it. A single field that is no number is NaN.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, read_csv

from ..affect.emotions import FACE_COLUMNS
from ..sessions import Turn, merge_turns
from .candor_files import SURVEY, Folder, Unreadable, Zip

FEATURES, RATINGS = "audio_video_features.csv", "turn_ratings.csv"
SENSES = ("gaze", "pitch", "intensity")  # columns of the features beside the face
MISSING = ["", "NA", "NaN", "nan", "null"]  # where a number should stand
HEADER_BYTES = 2**18  # more than any heading has


class Spoken(NamedTuple):
    """A row of the transcript besides speaker and text. Seconds; NaN if unknown."""

    start: float
    stop: float
    rating: float = math.nan
    backchannels: tuple[str, ...] = ()
    backchannel_count: int = 0
    listener: str = ""  # who gave the back-channels; "" if the corpus doesn't say


def read_scores(source: Folder | Zip, columns: Sequence[str]) -> list[dict[str, float]]:
    """For each survey column what each person answered; of several rows of one person the first with a number.

    Raises:
        Unreadable: there is no survey, or not the first of the columns; another one may be missing.
    """
    data = _bytes(source, SURVEY)
    there = _header(data, SURVEY)
    table = _table(data, SURVEY, ["user_id"], numbers=[columns[0], *(name for name in columns[1:] if name in there)])
    answers: list[dict[str, float]] = []
    for column in columns:
        answers.append({})
        for person, number in zip(table["user_id"], table.get(column, ())):
            if not math.isnan(number):
                answers[-1].setdefault(person, float(number))
    return answers


def number_columns(source: Folder | Zip, among: Collection[str] | None = None) -> set[str]:
    """The survey's columns, or those among some, that hold a number."""
    data = _bytes(source, SURVEY)
    there = Counter(_header(data, SURVEY))
    asked = [name for name in there if name and there[name] == 1 and (among is None or name in among)]
    table = _table(data, SURVEY, [], numbers=asked) if asked else {}
    return {column for column, numbers in table.items() if not np.isnan(numbers).all()}


def read_turns(source: Folder | Zip, segmentation: str, *, rated: bool, backchannels: bool) -> list[Turn]:
    """What was said, the rows of one speaker in a row merged; the entry of a row is a `Spoken`."""
    name = f"transcription/transcript_{segmentation}.csv"
    data = _bytes(source, name)
    text, numbers = ["turn_id", "speaker", "utterance"], ["start", "stop"]
    if backchannels:
        there = _header(data, name)
        text += ["backchannel", *({"backchannel_speaker"} & set(there))]
        numbers += {"backchannel_count"} & set(there)
    table = _table(data, name, text, numbers=numbers)
    entries = [Spoken(*times) for times in zip(table["start"].tolist(), table["stop"].tolist())]
    if rated and source.has(RATINGS):
        ratings = _table(_bytes(source, RATINGS), RATINGS, ["turn_id"], numbers=["rating"])
        of_turn: dict[str, float] = {}
        for turn, rating in zip(ratings["turn_id"], ratings["rating"].tolist()):
            of_turn.setdefault(turn, rating)
        entries = [
            entry._replace(rating=of_turn.get(turn, math.nan)) for entry, turn in zip(entries, table["turn_id"])
        ]
    if backchannels:
        nobody = [""] * len(entries)
        counts = table.get("backchannel_count", np.zeros(len(entries))).tolist()
        heard = zip(entries, table["backchannel"], counts, table.get("backchannel_speaker", nobody))
        entries = [_with_backchannels(*row) for row in heard]
    return merge_turns(
        (speaker, utterance, entry)
        for speaker, utterance, entry in zip(table["speaker"], table["utterance"], entries)
        if speaker
    )


def _with_backchannels(entry: Spoken, words: str, count: float, speaker: str) -> Spoken:
    said = split_backchannels(words, count)
    count = len(said) if math.isnan(count) else max(len(said), int(count))
    return entry._replace(backchannels=said, backchannel_count=count, listener=speaker)


def split_backchannels(words: str, count: float) -> tuple[str, ...]:
    """Single back-channels out of the text of all, which the corpus joins by spaces.

    "Oh yeah. Mhm" is two if the count says two, and so is "Yeah Mhm", since each has a word at least. Where the count
    doesn't settle it, the text stays whole.
    """
    words = " ".join(words.split())
    sentences = re.findall(r"[^.!?]+[.!?]*", words)
    parts = next((parts for parts in (sentences, words.split()) if len(parts) == count), [words])
    return tuple(part.strip(" .,") for part in parts if part.strip(" .,"))


class Observed(NamedTuple):
    """What a camera and a microphone told of one person; NaN where they didn't."""

    seconds: np.ndarray  # (n,)
    probabilities: np.ndarray  # (n, 8), of the face's emotions
    senses: dict[str, np.ndarray]  # (n,) for each of `SENSES` that the corpus has


def read_observed(source: Folder | Zip, *, senses: bool) -> dict[str, Observed]:
    """The features of each person; nothing without features."""
    data = source.read(FEATURES)
    if data is None or not data.strip():
        return {}
    there = set(_header(data, FEATURES))
    others = [name for name in SENSES if senses and name in there]
    table = _table(data, FEATURES, ["timedelta", "user_id"], numbers=[*FACE_COLUMNS, *others])
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
    """Seconds in "0 days 00:00:01", "00:00:01" or "1"; NaN if it is no time."""
    try:
        seconds = float(time)
    except ValueError:
        seconds = pd.to_timedelta(time, errors="coerce").total_seconds()
    return seconds if math.isfinite(seconds) else math.nan


def _bytes(source: Folder | Zip, name: str) -> bytes:
    data = source.read(name)
    if data is None:
        raise Unreadable(f"{name} is missing (half-downloaded?)")
    return data


def _header(data: bytes, name: str) -> list[str]:
    try:
        rows = csv.reader(io.StringIO(data[:HEADER_BYTES].decode("utf-8-sig", "replace")))
        return next(row for row in rows if row)
    except (StopIteration, csv.Error):
        raise Unreadable(f"{name} can't be read as CSV") from None


def _table(
    data: bytes, name: str, text: Sequence[str], *, numbers: Sequence[str]
) -> dict[str, list[str] | np.ndarray]:
    """Columns of a CSV file: text as it stands, and numbers, NaN for what is none."""
    there, needed = _header(data, name), [*text, *numbers]
    if missing := sorted(set(needed).difference(there)):
        raise Unreadable(f"{name} has no column {', '.join(missing)}")
    if twice := [column for column in needed if there.count(column) > 1]:
        raise Unreadable(f"{name} has two columns {', '.join(twice)}")
    if data.count(b'"') % 2:
        raise Unreadable(f"{name} ends within quotes (cut off?)")
    try:
        try:
            table = _read_csv(data, dict.fromkeys(text, pa.string()) | dict.fromkeys(numbers, pa.float64()))
        except pa.ArrowInvalid:  # perhaps for a single field that is no number
            table = _read_csv(data, dict.fromkeys(needed, pa.string()))
    except pa.ArrowInvalid as error:
        if "columns, got" in str(error):
            raise Unreadable(f"{name} has a row of too few or too many fields (cut off?)") from None
        raise Unreadable(f"{name} can't be read as CSV") from None
    # Rows of too few fields are caught above, but who can say whether a last "1" was to become "12"?
    if there[-1] in needed and not data.endswith((b"\n", b"\r")):
        raise Unreadable(f"{name} ends without a line break after {there[-1]} (cut off?)")
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
