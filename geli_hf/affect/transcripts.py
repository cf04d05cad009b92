"""What was said when, from a transcript as CSV, JSON, SRT or WebVTT."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..sessions import OPTIONAL_COLUMNS, REQUIRED_COLUMNS

SUFFIXES = (".csv", ".json", ".srt", ".vtt")
# What columns are called, in any case.
NAMES = {
    "speaker": ("speaker", "role", "name", "user_id"),
    "text": ("text", "content", "utterance", "message", "transcript"),
    "start": ("start", "start_time", "begin", "onset"),
    "stop": ("stop", "end", "stop_time", "end_time", "offset"),
}


class Utterance(NamedTuple):
    """Who said what, and when in seconds."""

    speaker: str
    text: str
    start: float
    stop: float


class Transcript(NamedTuple):
    """The utterances of a file in their order, and the other columns of the Session row, if the file holds one."""

    path: Path
    utterances: list[Utterance]
    row: Mapping[str, Any]


def read_transcript(path: str | Path) -> Transcript:
    """Read a transcript with times.

    - `.csv`: a header with speaker, text, start and stop (or what else `NAMES` lists), in any order.
    - `.json`: a list of objects with these keys; or one under `messages`, `utterances` or `segments` (as speech
      recognisers with speakers write); or a Session row, with lists `start` and `stop` per message, whose other
      columns are kept.
    - `.srt`, `.vtt`: the speaker stands before a colon, or in a voice tag (`<v Anna>`). A cue that names none goes on
      with the speaker before it.

    Times are seconds, `mm:ss.mmm` or `hh:mm:ss,mmm`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no transcript; the message names file, line or entry, and what was found.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: expected a transcript that ends in {', '.join(SUFFIXES)}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8 ({error.reason} at byte {error.start})") from None
    row: Mapping[str, Any] = {}
    if path.suffix.lower() == ".csv":
        utterances = _of_csv(text, path)
    elif path.suffix.lower() == ".json":
        utterances, row = _of_json(text, path)
    else:
        utterances = _of_cues(text, path)
    if not utterances:
        raise ValueError(f"{path}: nothing is said in it")
    return Transcript(path, utterances, row)


def _of_csv(text: str, path: Path) -> list[Utterance]:
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}: no CSV ({error})") from None
    rows = [(number, row) for number, row in enumerate(rows, 1) if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError(f"{path}: the file is empty")
    (_, header), *body = rows
    places = _columns(header, path)
    found = []
    for number, row in body:
        if len(row) != len(header):
            raise ValueError(f"{path}, row {number}: expected {len(header)} fields, found {len(row)}")
        found.append(_utterance({name: row[place] for name, place in places.items()}, f"{path}, row {number}"))
    return [utterance for utterance in found if utterance.text]


def _columns(header: Sequence[str], path: Path) -> dict[str, int]:
    there = [cell.strip().lower() for cell in header]
    places = {name: [there.index(each) for each in names if each in there] for name, names in NAMES.items()}
    if missing := [name for name, found in places.items() if not found]:
        raise ValueError(f"{path}: no column for {', '.join(missing)}; found {', '.join(header)}")
    return {name: found[0] for name, found in places.items()}


def _of_json(text: str, path: Path) -> tuple[list[Utterance], Mapping[str, Any]]:
    try:
        told = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: no JSON ({error.msg})") from None
    row: Mapping[str, Any] = {}
    if isinstance(told, Mapping):
        name = next((key for key in ("messages", "utterances", "segments") if isinstance(told.get(key), list)), None)
        if name is None:
            raise ValueError(
                f"{path}: expected a list under messages, utterances or segments, found {', '.join(told)}"
            )
        entries = told[name]
        if name == "messages":
            columns = {*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS} - {"messages", "start", "stop"}
            row = {key: _nan_for_null(value) for key, value in told.items() if key in columns and value is not None}
            entries = _with_times(told, path)
    else:
        entries = told
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ValueError(f"{path}: expected a list of objects with speaker, text, start and stop")
    found = []
    for number, entry in enumerate(entries):
        lower = {str(key).lower(): value for key, value in entry.items()}
        values = {name: next((lower[key] for key in keys if key in lower), None) for name, keys in NAMES.items()}
        if missing := [name for name, value in values.items() if value is None and name in ("speaker", "text")]:
            raise ValueError(f"{path}, entry {number}: no {' and no '.join(missing)}; found {', '.join(entry)}")
        found.append(_utterance(values, f"{path}, entry {number}"))
    return [utterance for utterance in found if utterance.text], row


def _with_times(told: Mapping[str, Any], path: Path) -> list[Any]:
    """Messages, with the times that a Session row keeps in lists of their own."""
    messages = told["messages"]
    for column in ("start", "stop"):
        times = told.get(column)
        if times is None:
            continue
        if not isinstance(times, list) or len(times) != len(messages):
            raise ValueError(f"{path}: {column!r} needs one time for each of {len(messages)} messages")
        messages = [
            {**message, column: time} if isinstance(message, Mapping) else message
            for message, time in zip(messages, times)
        ]
    return messages


def _nan_for_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _nan_for_null(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_nan_for_null(entry) for entry in value]
    return math.nan if value is None else value


# "00:00:01,000 --> 00:00:02,500"; WebVTT leaves hours out and puts settings behind.
_CUE = re.compile(r"^\s*([\d:.,]+)\s*-->\s*([\d:.,]+)")
_VOICE = re.compile(r"^<v(?:\.[^\s>]*)?\s+([^>]+)>")
_NAME = re.compile(r"^([^\W\d_][\w .'-]{0,39}?)\s*:\s+(?=\S)")
_TAG = re.compile(r"</?[^<>]*>")


def _of_cues(text: str, path: Path) -> list[Utterance]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found: list[Utterance] = []
    number = 0
    while number < len(lines):
        times = _CUE.match(lines[number])
        number += 1
        if not times:  # a counter, a heading, a note or a style
            continue
        where, words = f"{path}, line {number}", []
        while number < len(lines) and lines[number].strip() and not _CUE.match(lines[number]):
            words.append(lines[number].strip())
            number += 1
        speaker, said = found[-1].speaker if found else "", " ".join(words)
        if voice := _VOICE.match(said):
            speaker = voice[1].strip()
        said = _TAG.sub("", said).strip()
        if not voice and (name := _NAME.match(said)):
            speaker, said = name[1].strip(), said[name.end() :]
        if not said:
            continue
        if not speaker:
            raise ValueError(f"{where}: who speaks? Expected 'Name: words' or '<v Name>words', found {said[:40]!r}")
        found.append(_utterance({"speaker": speaker, "text": said, "start": times[1], "stop": times[2]}, where))
    if not found and text.strip():
        raise ValueError(f"{path}: no cue in it; expected lines like 00:00:01.000 --> 00:00:02.500")
    return found


def _utterance(values: Mapping[str, Any], where: str) -> Utterance:
    speaker, text = (str(values[name]).strip() for name in ("speaker", "text"))
    if not speaker:
        raise ValueError(f"{where}: the speaker is missing")
    start, stop = (_seconds(values[name], name, where) for name in ("start", "stop"))
    if stop < start:
        raise ValueError(f"{where}: it stops at {stop:g} s, before it starts at {start:g} s")
    return Utterance(speaker, " ".join(text.split()), start, stop)


def _seconds(value: Any, name: str, where: str) -> float:
    """Seconds of a number, "12.5", "01:02.5" or "00:01:02,500"; NaN if missing."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    parts = str(value).strip().replace(",", ".").split(":")
    try:
        if isinstance(value, bool) or len(parts) > 3:
            raise ValueError
        numbers = [float(part) for part in parts]
    except ValueError:
        raise ValueError(f"{where}: {name} is no time: {value!r}; expected seconds or hh:mm:ss.mmm") from None
    seconds = sum(number * 60**power for power, number in enumerate(reversed(numbers)))
    if not seconds >= 0 or math.isinf(seconds):
        if math.isnan(seconds):
            return math.nan
        raise ValueError(f"{where}: {name} is no time: {value!r}; expected seconds from 0")
    return seconds
