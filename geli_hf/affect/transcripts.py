"""Transcripts with times, as tables, as JSON, and as subtitles.

A time that a file leaves open is NaN, and a speaker is "". A file that contradicts itself is an error, which names the
line, cue or entry.
"""

import csv
import html
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..sessions import SessionError

# Names of each field of an utterance in a table or an object, in upper or lower case.
NAMES = {
    "speaker": ("speaker", "role"),
    "text": ("text", "utterance", "content"),
    "start": ("start", "start_time"),
    "stop": ("stop", "end", "stop_time", "end_time"),
}
SUFFIXES = (".csv", ".json", ".srt", ".vtt")
NO_TIME = {"", "na", "nan", "none", "null"}
# A name before a colon in subtitles: "Ann:", "SPEAKER_00:", "Dr. O'Neil (off):".
_NAME = re.compile(
    r"\s*(?:-\s*)?((?:>>\s*)?[^\W\d_][\w.'’()-]*(?: [\w.'’()-]+){0,2})\s*(?::(?:\s+|$)|：)(.*)", re.DOTALL
)
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_MARKUP = re.compile(r"</?[^>\s][^>]*>|\{\\[^}]*\}")
_CUE = re.compile(r"\s*(\S+)\s+-->\s+(\S+)(?:\s.*)?")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d*)?)")


class Utterance(NamedTuple):
    """One entry of a transcript.

    Attributes:
        speaker: "" if the file doesn't say.
        text: words.
        start, stop: seconds; NaN if the file doesn't say.
        where: name of the entry in an error.
    """

    speaker: str
    text: str
    start: float
    stop: float
    where: str = ""


@dataclass(frozen=True)
class Transcript:
    """The utterances of a recording.

    Attributes:
        path: of the file.
        utterances: those that have text, by their start; in the order of the file where not every start is known.
            They may overlap.
    """

    path: Path
    utterances: Sequence[Utterance]


def read_transcript(path: str | Path) -> Transcript:
    """Read a transcript, by the end of its name.

    `.csv`
        Columns `speaker`, `start`, `stop` and `text` (or one of their other `NAMES`) with a heading; others are left
        out. Between commas, semicolons or tabs.
    `.json`
        A list of objects with these names; or `{"messages": [...]}` or `{"segments": [...]}` of such objects, as
        Whisper and WhisperX write it.
    `.srt`, `.vtt`
        Subtitles. The speaker is `<v Ann>`, or `Ann:` at the beginning of a line (of up to three words before the
        colon). Several in one cue are an utterance each, of the cue's times. A cue without a name goes on with the
        speaker of the one before.

    Times are seconds (`83.5`) or clocks (`1:23.5`, `00:01:23,500`).

    Raises:
        SessionError: the file is no such transcript, or an entry of it is broken: its time is none, or it stops before
            it starts. The message names the file and the line, cue or entry.
        ValueError: the name ends otherwise.
        OSError: the file can't be opened.
    """
    path = Path(path)
    readers = dict(zip(SUFFIXES, (_read_csv, _read_json, _read_subtitles, _read_subtitles)))
    read = readers.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path}: expected a transcript that ends in {', '.join(readers)}")
    utterances = [utterance for utterance in read(path, _read_text(path)) if utterance.text]
    if not utterances:
        raise SessionError(f"{path}: expected a row, cue or entry with text, found none")
    for each in utterances:
        if each.stop < each.start:
            raise SessionError(f"{path}, {each.where}: stops at {each.stop:g} s, but starts at {each.start:g} s")
    if all(math.isnan(each.start) or math.isnan(each.stop) for each in utterances):
        raise SessionError(
            f"{path}: no utterance has a start and a stop; align the text with the recording first (as WhisperX does)"
        )
    if not any(math.isnan(each.start) for each in utterances):
        utterances.sort(key=lambda each: each.start)
    return Transcript(path, utterances)


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SessionError(f"{path}, line {line}: no UTF-8 text ({error.reason}); save the file as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _time(value: Any, where: str) -> float:
    """Read a time in seconds; NaN if there is none."""
    if value is None or (isinstance(value, str) and value.strip().lower() in NO_TIME):
        return math.nan
    seconds = _parse_time(value.strip()) if isinstance(value, str) else value
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if is_number and (math.isnan(seconds) or 0 <= seconds < math.inf):
        return float(seconds)
    raise SessionError(f"{where}: expected seconds (83.5) or a clock (00:01:23.500), found {value!r}")


def _parse_time(text: str) -> float | None:
    match = _CLOCK.fullmatch(text)
    if match is None:
        try:
            return float(text)  # as tables of numbers are written: 1e-05
        except ValueError:
            return None
    hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in match.groups())
    if (match[2] and seconds >= 60) or (match[1] and minutes >= 60):
        return None
    return 3600 * hours + 60 * minutes + seconds


def _find_fields(names: Sequence[Any], where: str) -> dict[str, str]:
    """Map each field of an utterance to its name here; missing fields are left out."""
    fields: dict[str, str] = {}
    for field_name, synonyms in NAMES.items():
        here = [name for name in names if isinstance(name, str) and name.strip().lower() in synonyms]
        if len(here) > 1:
            raise SessionError(f"{where}: {' and '.join(map(repr, here))} both mean the {field_name}; leave one out")
        if here:
            fields[field_name] = here[0]
    return fields


def _utterance(entry: Mapping[str, Any], fields: Mapping[str, str], path: Path, where: str) -> Utterance:
    given = {name: entry.get(column) for name, column in fields.items()}
    for name in ("speaker", "text"):
        if given.get(name) is not None and not isinstance(given[name], str):
            raise SessionError(f"{path}, {where}: expected the {name} as text, found {given[name]!r}")
    return Utterance(
        " ".join((given.get("speaker") or "").split()),
        " ".join((given.get("text") or "").split()),
        _time(given.get("start"), f"{path}, {where}, {fields.get('start')}"),
        _time(given.get("stop"), f"{path}, {where}, {fields.get('stop')}"),
        where,
    )


def _read_csv(path: Path, text: str) -> Iterator[Utterance]:
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = rows.fieldnames or []
        fields = _find_fields(names, f"{path}, line 1")
        if missing := [name for name in NAMES if name not in fields]:
            raise SessionError(
                f"{path}, line 1: expected a heading with the columns speaker, start, stop and text, "
                f"found no {', '.join(missing)}"
            )
        for row in rows:
            where = f"line {rows.line_num}"
            if None in row or None in row.values():
                raise SessionError(f"{path}, {where}: expected {len(names)} fields, as in the heading")
            yield _utterance(row, fields, path, where)
    except csv.Error as error:
        raise SessionError(f"{path}, line {rows.line_num}: no CSV ({error})") from None


def _read_json(path: Path, text: str) -> Iterator[Utterance]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise SessionError(f"{path}, line {error.lineno}: no JSON ({error.msg}); is the file complete?") from None
    unit, entries = "entries", content
    if isinstance(content, dict):
        unit = "messages" if "messages" in content else "segments"
        entries = content.get(unit)
    if not isinstance(entries, list):
        raise SessionError(f"{path}: expected a list, or an object with a list of messages or segments")
    for number, entry in enumerate(entries):
        where = f"{unit}[{number}]"
        if not isinstance(entry, dict):
            raise SessionError(f"{path}, {where}: expected an object, found {entry!r}")
        yield _utterance(entry, _find_fields(list(entry), f"{path}, {where}"), path, where)


def _read_subtitles(path: Path, text: str) -> Iterator[Utterance]:
    speaker, number = "", 0
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.split("\n")
        if lines[0].split()[:1] in (["WEBVTT"], ["NOTE"], ["STYLE"], ["REGION"]):
            continue
        if lines[0].strip().isdigit() and len(lines) == 1:  # an empty cue of which the times are left out too
            continue
        number += 1
        where = f"cue {number}"
        at = next((row for row, line in enumerate(lines[:2]) if "-->" in line), None)
        times = None if at is None else _CUE.fullmatch(lines[at])
        if times is None:
            raise SessionError(
                f"{path}, {where}: expected times (00:00:01.000 --> 00:00:02.500), found {lines[at or 0]!r}; "
                "a cue holds no empty line"
            )
        start, stop = (_time(time, f"{path}, {where}") for time in times.groups())
        words = "\n".join(lines[at + 1 :])
        if "-->" in words:
            raise SessionError(f"{path}, {where}: times within its text; an empty line is missing")
        voices = _split_voices(words, speaker)
        speaker = voices[-1][0]
        for name, spoken in voices:
            yield Utterance(name, spoken, start, stop, where)


def _split_voices(text: str, speaker: str) -> list[tuple[str, str]]:
    """Split a cue into speakers and their words, given who spoke last."""
    voices: list[tuple[str, str]] = []
    unmarked, *marked = _VOICE.split(text)  # text, name, text, name, text, ...
    for name, part in [("", unmarked), *zip(marked[::2], marked[1::2])]:
        if name:
            speaker = " ".join(html.unescape(name).split())
        lines: list[str] = []
        for line in html.unescape(_MARKUP.sub("", part)).split("\n"):
            if (named := _NAME.fullmatch(line)) and not name:
                voices.append((speaker, " ".join(" ".join(lines).split())))
                speaker, lines = named[1].removeprefix(">>").strip(), [named[2]]
            else:
                lines.append(line)
        voices.append((speaker, " ".join(" ".join(lines).split())))
    return [(who, words) for who, words in voices if words] or [(speaker, "")]
