"""Dialogue acts of the sample corpus, and the sentences of each act (`frames.txt`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from enum import StrEnum, auto
from pathlib import Path
from typing import NamedTuple

from .text import VALENCES


class Act(StrEnum):
    """Dialogue act of an utterance."""

    SHARE = auto()
    CHANGE = auto()
    ONE_UP = auto()
    ANSWER = auto()
    FOLLOW_UP = auto()
    RECIPROCAL = auto()
    GENERIC = auto()
    ASK_ADVICE = auto()
    EMPATHY = auto()
    CONGRATULATION = auto()
    THANKS = auto()
    ADVICE = auto()
    ACKNOWLEDGEMENT = auto()
    DISMISSAL = auto()


STATEMENTS = frozenset({Act.SHARE, Act.CHANGE, Act.ONE_UP, Act.ANSWER})
QUESTIONS = frozenset({Act.FOLLOW_UP, Act.RECIPROCAL, Act.GENERIC, Act.ASK_ADVICE})
GREETED = frozenset({Act.SHARE, Act.GENERIC})  # acts that can follow a greeting
FAMILIES = {  # act -> family of its leads, family of its tails
    Act.SHARE: ("share", "event"),
    Act.CHANGE: ("event", "event"),
    Act.ONE_UP: ("event", "event"),
    Act.ANSWER: ("answer", "answer"),
    Act.FOLLOW_UP: ("question", "question"),
    Act.RECIPROCAL: ("question", "question"),
    Act.GENERIC: ("question", "question"),
    Act.ASK_ADVICE: ("question", "ask"),
    Act.EMPATHY: ("react", "empathy"),
    Act.CONGRATULATION: ("react", "congratulation"),
    Act.THANKS: ("thank", "thanks"),
    Act.ADVICE: ("react", "advice"),
    Act.DISMISSAL: ("react", "dismissal"),
    Act.ACKNOWLEDGEMENT: ("acknowledge", "acknowledge"),
}


class DetailFrames(NamedTuple):
    """Frames of an act about a detail of certain kinds, owned by the speaker ("my") or the partner ("your")."""

    act: Act
    owner: str
    kinds: str
    aspect: str
    valence: str
    frames: tuple[str, ...]


def _read_sections() -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    for line in Path(__file__).with_name("frames.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
            sections[name] = []
        elif line and not line.startswith("#"):
            sections[name].append("" if line == "-" else line)
    return sections


_SECTIONS = _read_sections()


def _by_name(prefix: str) -> dict[str, list[str]]:
    """Select the sections "prefix name", by name."""
    prefix += " "
    return {name.removeprefix(prefix): texts for name, texts in _SECTIONS.items() if name.startswith(prefix)}


def _followed_by_space(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{text} " if text else "" for text in texts)


def _detail_frames(header: str, frames: list[str]) -> DetailFrames:
    act, owner, kinds, aspect, valence = header.split()
    filled = tuple(
        frame.replace("{span}", span)
        for frame in frames
        for span in (_SECTIONS["spans"] if "{span}" in frame else [""])
    )
    return DetailFrames(Act(act), owner, kinds, aspect.strip("-"), valence, filled)


def _event_tails(valence: str) -> tuple[str, ...]:
    """Combine times and afterthoughts; the feeling named after an event is that of the event."""
    times = [f" {time}" if time else "" for time in _SECTIONS["time"]]
    return tuple(f"{time}{text}." for time, text in itertools.product(times, _SECTIONS[f"afterthought {valence}"]))


DETAIL_FRAMES = [_detail_frames(header, frames) for header, frames in _by_name("detail").items()]
RECIPROCAL_FRAMES = _SECTIONS["topic reciprocal"]
FIXED_CORES = {Act(act): cores for act, cores in _by_name("fixed").items()}
ACKNOWLEDGEMENT_PARTS = (
    _followed_by_space(_SECTIONS["acknowledgement opening"]),
    _SECTIONS["acknowledgement signal"],
    _SECTIONS["acknowledgement remark"],
)
EVENT_PREFIXES = {Act.SHARE: ("",)}
EVENT_PREFIXES |= {Act(act): _followed_by_space(texts) for act, texts in _by_name("prefix").items()}
LEADS = {family: _followed_by_space(texts) for family, texts in _by_name("lead").items()}
GREETINGS, WHEN_ASKED = LEADS.pop("greeting"), LEADS.pop("when_asked")
LEADS["answer"] += WHEN_ASKED
TAILS = {family: tuple(texts) for family, texts in _by_name("tail").items()}
EVENT_TAILS = {valence: _event_tails(valence) for valence in VALENCES}
