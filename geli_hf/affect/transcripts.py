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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..models.geli_reward.text_geli import valid_unicode
from ..sessions import LARGEST, SessionError

# Names of each field of an utterance in a table or an object, in upper or lower case.
NAMES = {
    "speaker": ("speaker", "role"),
    "text": ("text", "utterance", "content"),
    "start": ("start", "start_time"),
    "stop": ("stop", "end", "stop_time", "end_time"),
}
SUFFIXES = (".csv", ".json", ".srt", ".vtt")
MISSING = {"", "na", "nan", "none", "null"}
# A name before a colon in subtitles: "Ann:", "SPEAKER_00:", "Dr. O'Neil (off):", "Maria del Carmen Ruiz:".
_NAME = re.compile(r"\s*(?:-\s*)?(?:>>\s*)?([^\W\d_][^:：,!?]{0,80}?)\s*(?::(?:\s.*|$)|：.*)", re.DOTALL)
_ASIDE = re.compile(r"\s*(?:\([^)]*\)|\[[^]]*\])")
PARTICLES = {"al", "and", "bin", "da", "de", "del", "der", "di", "du", "la", "le", "of", "the", "van", "von", "y"}
# Characters without width or look: marks of the order of bytes, of the direction and of line breaks.
INVISIBLE = dict.fromkeys([0xAD, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A)])
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
# Markup is these tags, with classes or an annotation, and nothing else between < and >.
_TAGS = r"</?(?:[bcisu]|em|rt|ruby|strong)(?:\.[^\s<>]+)?>|</?(?:v|font|lang|span)(?:[.\s][^<>]*)?>|<br\s*/?>"
_MARKUP = re.compile(rf"{_TAGS}|<\d+:[\d:.]+>|\{{\\[^}}]*\}}", re.IGNORECASE)
# Between two cues there is an empty line, or one of blanks where the next cue begins: elsewhere that one is text.
_BETWEEN = re.compile(r"\n(?:\n\s*|[^\S\n]+\n(?=(?:[^\n]*\n)?[^\n]*-->))")
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
        Subtitles. The speaker is `<v Ann>`, or `Ann:` at the beginning of a line (one word, or several that begin with
        capitals; `Ann (she/her):` is Ann too). Several in one cue are an utterance each, of the cue's times. A cue
        without a name goes on with the speaker of the one before.

    Times are seconds (`83.5`) or clocks (`1:23.5`, `00:01:23,500`).

    Raises:
        SessionError: the file is no such transcript, or an entry of it is broken: its time is none, or it stops before
            it starts. The message names the file and the line, cue or entry.
        ValueError: the name ends otherwise.
        OSError: the file can't be opened.
    """
    path = Path(path)
    readers = dict(zip(SUFFIXES, (_read_table, _read_json, _read_subtitles, _read_subtitles)))
    read = readers.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path}: expected a transcript that ends in {', '.join(readers)}")
    utterances = [utterance for utterance in read(path, read_text(path)) if utterance.text]
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


def read_text(path: Path) -> str:
    """Read a file in UTF-8, with or without a byte-order mark, with any line ends.

    Raises:
        SessionError: it is not in UTF-8; the message names the line.
        OSError: the file can't be opened.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SessionError(f"{path}, line {line}: no UTF-8 text ({error.reason}); save the file as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _time(value: Any, where: str) -> float:
    """Read a time in seconds; NaN if there is none."""
    text = str(value).strip()
    if text.lower() in MISSING:
        return math.nan
    if clock := _CLOCK.fullmatch(text):
        hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in clock.groups())
        if not (clock[2] and seconds >= 60) and not (clock[1] and minutes >= 60):
            text = str(3600 * hours + 60 * minutes + seconds)
    with suppress(ValueError):
        if 0 <= float(text) <= LARGEST:  # as tables of numbers are written: 1e-05
            return float(text)
    raise SessionError(f"{where}: expected seconds (83.5) or a clock (00:01:23.500), found {value!r}")


def clean_name(name: str) -> str:
    """Return a speaker's name without invisible marks and spare blanks."""
    return " ".join(valid_unicode(name).translate(INVISIBLE).split())


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
        clean_name(given.get("speaker") or ""),
        " ".join(valid_unicode(given.get("text") or "").split()),
        _time(given.get("start"), f"{path}, {where}, {fields.get('start')}"),
        _time(given.get("stop"), f"{path}, {where}, {fields.get('stop')}"),
        where,
    )


def read_csv(path: Path, text: str) -> tuple[list[str], Iterator[tuple[str, dict[str, str]]]]:
    """Read a table between commas, semicolons or tabs.

    Args:
        path: of the file, for errors.
        text: its content.

    Returns:
        The headings, and each row by heading with its place for errors ("line 3").

    Raises:
        SessionError: when the rows are read, one is no CSV or has other than a field for each heading.
    """
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)

    def rows() -> Iterator[tuple[str, dict[str, str]]]:
        try:
            for row in table:
                where = f"line {table.line_num}"
                if None in row or None in row.values():
                    raise SessionError(f"{path}, {where}: expected {len(names)} fields, as in the heading")
                yield where, row
        except csv.Error as error:
            raise SessionError(f"{path}, line {table.line_num}: no CSV ({error})") from None

    try:
        names = [name.strip() for name in table.fieldnames or []]
    except csv.Error as error:
        raise SessionError(f"{path}, line 1: no CSV ({error})") from None
    table.fieldnames = names
    return names, rows()


def _read_table(path: Path, text: str) -> Iterator[Utterance]:
    names, rows = read_csv(path, text)
    fields = _find_fields(names, f"{path}, line 1")
    if missing := [name for name in NAMES if name not in fields]:
        raise SessionError(
            f"{path}, line 1: expected a heading with the columns speaker, start, stop and text, "
            f"found no {', '.join(missing)}"
        )
    for where, row in rows:
        yield _utterance(row, fields, path, where)


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
    speaker = ""
    for where, start, stop, words in _cues(path, text):
        voices = _split_voices(words, speaker)
        speaker = voices[-1][0]
        for name, spoken in voices:
            yield Utterance(name, spoken, start, stop, where)


def _cues(path: Path, text: str) -> Iterator[tuple[str, float, float, str]]:
    """Yield name, start, stop and text of each cue."""
    number = 0
    cue = None  # times of the last cue, if it had no text
    for block in _BETWEEN.split(text.strip()):
        lines = block.split("\n")
        if lines[0].split()[:1] in (["WEBVTT"], ["NOTE"], ["STYLE"], ["REGION"]):
            continue
        if lines[0].strip().isdigit() and len(lines) == 1:  # an empty cue of which the times are left out too
            continue
        if cue is not None and "-->" not in block:  # YouTube has an empty line before the text
            yield *cue, block
            cue = None
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
        cue = None if words.strip() else (where, start, stop)
        if words.strip():
            yield where, start, stop, words


def _split_voices(text: str, speaker: str) -> list[tuple[str, str]]:
    """Split the text of a cue into speakers and their words, given who spoke last."""
    voices: list[tuple[str, str]] = []
    unmarked, *marked = _VOICE.split(text)  # text, name, text, name, text, ...
    for name, part in [("", unmarked), *zip(marked[::2], marked[1::2])]:
        if name:
            speaker = clean_name(html.unescape(name))
        lines: list[str] = []
        for line in html.unescape(_MARKUP.sub("", part)).split("\n"):
            if not name and (labelled := _speaker(clean_name(line))):
                voices.append((speaker, " ".join(" ".join(lines).split())))
                speaker, lines = labelled, [re.split("[:：]", line, maxsplit=1)[1]]
            else:
                lines.append(line)
        voices.append((speaker, " ".join(" ".join(lines).split())))
    return [(who, words) for who, words in voices if words] or [(speaker, "")]


def _speaker(line: str) -> str:
    """Read the speaker before the colon of a line; "" if it has none, as a sentence with a colon."""
    named = _NAME.fullmatch(line)
    name = _ASIDE.sub("", named[1]).strip() if named else ""
    words = name.split()
    sentence = len(words) > 1 and any(word[0].islower() and word not in PARTICLES for word in words)
    return "" if sentence else name
