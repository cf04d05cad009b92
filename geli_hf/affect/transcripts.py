"""Who said what when: transcripts as tables, as JSON, and as subtitles.

What a file says is taken as it is, and what it leaves open stays open: a time is NaN, a speaker is "". A file that
contradicts itself is an error, with the line, cue or entry to look at.
"""

import csv
import html
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..sessions import OPTIONAL_COLUMNS, REQUIRED_COLUMNS, SessionError, null_to_nan

# What each field of an utterance may be called in a table or an object, upper or lower case.
NAMES = {
    "speaker": ("speaker", "role"),
    "text": ("text", "utterance", "content"),
    "start": ("start", "start_time"),
    "stop": ("stop", "end", "stop_time", "end_time"),
}
SUFFIXES = (".csv", ".json", ".srt", ".vtt")
# Columns of a Session row that a transcript makes itself.
MADE_HERE = {"messages", "start", "stop"}
NUMBERS = {"scores", "feedback", "turn_rating"}  # columns in which null is NaN
NO_TIME = {"", "na", "nan", "none", "null"}
# Lines before a colon that are taken for a name in subtitles: "Ann:", "SPEAKER_00:", "Dr. O'Neil (off):".
_NAME = re.compile(
    r"\s*(?:-\s*)?((?:>>\s*)?[^\W\d_][\w.'’()-]*(?: [\w.'’()-]+){0,2})\s*(?::(?:\s+|$)|：)(.*)", re.DOTALL
)
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_MARKUP = re.compile(r"</?[^>\s][^>]*>|\{\\[^}]*\}")
_CUE = re.compile(r"\s*(\S+)\s+-->\s+(\S+)(?:\s.*)?")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d*)?)")


class Utterance(NamedTuple):
    """One entry of a transcript."""

    speaker: str  # "" if the file doesn't say
    text: str
    start: float  # seconds; NaN if the file doesn't say
    stop: float
    where: str = ""  # what to call it in an error


@dataclass(frozen=True)
class Transcript:
    """What a file says about a recording.

    Attributes:
        path: of the file.
        utterances: those that have text, by their start; in the order of the file where it is a Session row, or not
            every start is known. They may overlap.
        session: the other columns of a Session row, where the file is one.
    """

    path: Path
    utterances: Sequence[Utterance]
    session: Mapping[str, Any] = field(default_factory=dict)


def read_transcript(path: str | Path) -> Transcript:
    """Read a transcript, by the end of its name.

    `.csv`
        Columns `speaker`, `start`, `stop` and `text` (or one of their other `NAMES`) with a heading; others are left
        out. Between commas, semicolons or tabs. Lines before the heading may be comments (`#`).
    `.json`
        A list of objects with these names; or `{"messages": [...]}` of such objects; or a Session row, with `start`
        and `stop` as lists of their own; or `{"segments": [...]}`, as Whisper and WhisperX write it. Other columns of
        a Session row (`session_id`, `score`, ...) that stand beside the messages or segments are kept.
    `.srt`, `.vtt`
        Subtitles. The speaker is `<v Ann>`, or `Ann:` at the beginning of a line (of up to three words before the
        colon). Several in one cue are an utterance each, of the cue's times. A cue that names nobody goes on with the
        speaker of the one before.

    Times are seconds (`83.5`) or clocks (`1:23.5`, `00:01:23,500`).

    Raises:
        SessionError: the file is no such transcript, or an entry of it is broken: its time is none, or it stops before
            it starts. The message names the file and the line, cue or entry.
        ValueError: the name ends otherwise.
        OSError: the file can't be opened.
    """
    path = Path(path)
    readers: dict[str, Callable] = dict(zip(SUFFIXES, (_csv, _json, _subtitles, _subtitles)))
    read = readers.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path}: expected a transcript that ends in {', '.join(readers)}")
    session: dict[str, Any] = {}
    utterances = [utterance for utterance in read(path, _decoded(path), session) if utterance.text]
    if not utterances:
        raise SessionError(f"{path}: nobody says anything in this transcript; expected a row, cue or entry with text")
    for each in utterances:
        if each.stop < each.start:
            raise SessionError(
                f"{path}, {each.where}: stops at {each.stop:g} s, before it starts at {each.start:g} s; "
                "correct it, or leave both times empty if they are not known"
            )
    if all(math.isnan(each.start) or math.isnan(each.stop) for each in utterances):
        raise SessionError(
            f"{path}: no utterance has a start and a stop, so nobody knows which frames belong to it; "
            "align the text with the recording first (as WhisperX does)"
        )
    if not session and not any(math.isnan(each.start) for each in utterances):
        utterances.sort(key=lambda each: each.start)
    return Transcript(path, utterances, session)


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SessionError(f"{path}, line {line}: no UTF-8 text ({error.reason}); save the file as UTF-8") from None


def _time(value: Any, where: str) -> float:
    """Seconds; NaN if there is nothing."""
    if value is None or (isinstance(value, str) and value.strip().lower() in NO_TIME):
        return math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if math.isnan(value) or 0 <= value < math.inf:
            return float(value)
    elif isinstance(value, str):
        if match := _CLOCK.fullmatch(value.strip()):
            hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in match.groups())
            if (seconds < 60 or match[2] is None) and (minutes < 60 or match[1] is None):
                return 3600 * hours + 60 * minutes + seconds
        try:  # as tables of numbers are written: 1e-05
            return _time(float(value), where)
        except ValueError:
            pass
    raise SessionError(f"{where}: expected seconds (83.5) or a clock (00:01:23.500), found {value!r}")


def _fields(names: Sequence[Any], where: str) -> dict[str, str]:
    """Under what name each field of an utterance stands; a field that is not there is left out."""
    found: dict[str, str] = {}
    for field_name, synonyms in NAMES.items():
        here = [name for name in names if isinstance(name, str) and name.strip().lower() in synonyms]
        if len(here) > 1:
            raise SessionError(f"{where}: {' and '.join(map(repr, here))} both mean the {field_name}; leave one out")
        if here:
            found[field_name] = here[0]
    return found


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


def _csv(path: Path, text: str, session: dict) -> Iterator[Utterance]:
    lines = text.splitlines(keepends=True)
    comments = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    heading = lines[comments] if comments < len(lines) else ""
    delimiter = max(",;\t", key=heading.count)
    rows = csv.reader(io.StringIO("".join(lines[comments:]), newline=""), delimiter=delimiter, strict=True)
    before = comments
    try:
        names = [name.strip() for name in next(rows, [])]
        fields = _fields(names, f"{path}, line {comments + 1}")
        if missing := [name for name in NAMES if name not in fields]:
            raise SessionError(
                f"{path}, line {comments + 1}: expected a heading with the columns speaker, start, stop and text; "
                f"no {', '.join(missing)} among {', '.join(map(repr, names)) or 'nothing'}"
            )
        before = comments + rows.line_num
        for row in rows:
            where, before = f"line {before + 1}", comments + rows.line_num
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(names):
                raise SessionError(
                    f"{path}, {where}: expected {len(names)} fields, as in the heading, found {len(row)}; "
                    f'text with a {delimiter!r} in it has to stand between quotes (")'
                )
            yield _utterance(dict(zip(names, row)), fields, path, where)
    except csv.Error as error:
        raise SessionError(f"{path}, line {before + 1}: no CSV ({error})") from None


def _json(path: Path, text: str, session: dict) -> Iterator[Utterance]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise SessionError(f"{path}, line {error.lineno}: no JSON ({error.msg}); was it written whole?") from None
    if isinstance(content, dict):
        unit = next((name for name in ("messages", "segments") if name in content), None)
        if unit is None:
            raise SessionError(f"{path}: expected 'messages' or 'segments', found {', '.join(map(repr, content))}")
        entries = content[unit]
        kept = {*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS} - MADE_HERE
        session |= {name: value for name, value in content.items() if name in kept and value is not None}
        session |= {name: null_to_nan(session[name]) for name in NUMBERS.intersection(session)}
    else:
        unit, entries = "entries", content
    if not isinstance(entries, list):
        raise SessionError(f"{path}: expected a list of {unit}, found a {type(entries).__name__}")
    times = _lists_of_times(path, content, len(entries)) if unit == "messages" else [{}] * len(entries)
    for number, (entry, apart) in enumerate(zip(entries, times)):
        where = f"{unit}[{number}]" if isinstance(content, dict) else f"entry {number}"
        if not isinstance(entry, dict):
            raise SessionError(
                f"{path}, {where}: expected an object with speaker, text, start and stop, found {entry!r}"
            )
        entry = entry | apart
        yield _utterance(entry, _fields(list(entry), f"{path}, {where}"), path, where)


def _lists_of_times(path: Path, row: Mapping, messages: int) -> list[dict]:
    """`start` and `stop` of each message, where a Session row has them apart."""
    apart: list[dict] = [{} for _ in range(messages)]
    for name in ("start", "stop"):
        values = row.get(name)
        if values is None:
            continue
        if not isinstance(values, list) or len(values) != messages:
            raise SessionError(f"{path}, field {name!r}: expected one value per message, that is {messages}")
        for entry, value in zip(apart, values):
            entry[name] = value
    return apart


def _subtitles(path: Path, text: str, session: dict) -> Iterator[Utterance]:
    speaker = ""
    for number, (first, block) in enumerate(_blocks(text)):
        at = next((row for row, line in enumerate(block[:2]) if "-->" in line), None)
        if at is None:
            kind = block[0].split()[0]
            if (kind == "WEBVTT" and number == 0) or kind in ("NOTE", "STYLE", "REGION"):
                continue
            if len(block) == 1 and block[0].strip().isdigit():  # an empty cue of which the times are left out too
                continue
            raise SessionError(
                f"{path}, line {first}: expected the times of a cue (00:00:01.000 --> 00:00:02.500), found "
                f"{block[0].strip()!r}; a cue holds no empty line"
            )
        where = f"cue at line {first + at}"
        times = _CUE.fullmatch(block[at])
        if times is None:
            raise SessionError(f"{path}, {where}: expected 'start --> stop', found {block[at].strip()!r}")
        start, stop = (_time(time, f"{path}, {where}") for time in times.groups())
        for row, line in enumerate(block[at + 1 :], first + at + 1):
            if "-->" in line:
                raise SessionError(f"{path}, line {row}: times within the text of a cue; an empty line is missing")
        voices = _voices("\n".join(block[at + 1 :]), speaker)
        speaker = voices[-1][0]
        for name, said in voices:
            yield Utterance(name, said, start, stop, where)


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Lines between empty ones, and the number of the first of them."""
    block: list[str] = []
    for number, line in enumerate([*re.split(r"\r\n|\r|\n", text), ""], 1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def _voices(text: str, speaker: str) -> list[tuple[str, str]]:
    """Who says what in a cue, given who spoke last."""
    said: list[tuple[str, str]] = []
    unmarked, *marked = _VOICE.split(text)  # text, name, text, name, text, ...
    for name, part in [("", unmarked), *zip(marked[::2], marked[1::2])]:
        if name:
            speaker = " ".join(html.unescape(name).split())
        lines: list[str] = []
        for line in html.unescape(_MARKUP.sub("", part)).split("\n"):
            if (named := _NAME.fullmatch(line)) and not name:
                said.append((speaker, " ".join(" ".join(lines).split())))
                speaker, lines = named[1].removeprefix(">>").strip(), [named[2]]
            else:
                lines.append(line)
        said.append((speaker, " ".join(" ".join(lines).split())))
    return [(who, words) for who, words in said if words] or [(speaker, "")]
