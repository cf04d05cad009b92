"""The grammar of the sample corpus: an utterance is a lead, a core and a tail, and its core is one dialogue act.

The same tables make utterances (`render`) and parse them (`parse`); `oracle` says what an act is worth.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from .frames import (
    ACKNOWLEDGEMENT_PARTS,
    DETAIL_FRAMES,
    EVENT_PREFIXES,
    EVENT_TAILS,
    FAMILIES,
    FIXED_CORES,
    GREETED,
    GREETINGS,
    LEADS,
    RECIPROCAL_FRAMES,
    TAILS,
    Act,
)
from .text import DETAILS, NEUTRAL, TOPICS, VALENCES, Detail


@dataclass(frozen=True)
class Parse:
    """Dialogue act of an utterance, and its arguments."""

    act: Act
    core: str
    topic: str = ""
    detail: str = ""
    valence: str = NEUTRAL
    aspect: str = ""  # of a detail that a question or an answer is about
    greeting: bool = False

    @property
    def content(self) -> tuple[str, ...]:
        """Content without its wording: equal for two utterances of one speaker that say the same."""
        if self.act in EVENT_PREFIXES:
            return "event", self.detail, self.valence
        if self.act in (Act.FOLLOW_UP, Act.ANSWER, Act.ASK_ADVICE, Act.RECIPROCAL):
            return self.act, self.topic, self.detail, self.aspect, self.valence
        return self.act, self.core


def leads(act: Act) -> tuple[str, ...]:
    """List the texts that may stand before the core of an act, without greetings."""
    return LEADS[FAMILIES[act][0]]


def tails(act: Act, valence: str) -> tuple[str, ...]:
    """List the texts that may stand after the core of an act."""
    family = FAMILIES[act][1]
    return EVENT_TAILS[valence] if family == "event" else TAILS[family]


def _fill(frame: str, detail: Detail, owner: str) -> str:
    verbs = {"is": "are", "has": "have"} if detail.plural else {"is": "is", "has": "has"}
    return frame.format(d=f"{owner} {detail.name}", **verbs)


def _cores() -> Iterator[Parse]:
    for detail in DETAILS.values():
        about = {"topic": detail.topic, "detail": detail.name}
        for valence, event in detail.events.items():
            for act, prefixes in EVENT_PREFIXES.items():
                for prefix in prefixes:
                    yield Parse(act, prefix + event, valence=valence, **about)
        for act, owner, kinds, aspect, valence, frames in DETAIL_FRAMES:
            if detail.kind in kinds:
                for frame in frames:
                    yield Parse(act, _fill(frame, detail, owner), valence=valence, aspect=aspect, **about)
    for topic in TOPICS:
        for frame in RECIPROCAL_FRAMES:
            yield Parse(Act.RECIPROCAL, frame.format(topic=topic), topic=topic)
    for act, cores in FIXED_CORES.items():
        for core in cores:
            yield Parse(act, core)
    for opening, signal, remark in itertools.product(*ACKNOWLEDGEMENT_PARTS):
        yield Parse(Act.ACKNOWLEDGEMENT, f"{opening}{signal}, {remark}" if remark else f"{opening}{signal}")
        if remark:
            yield Parse(Act.ACKNOWLEDGEMENT, f"{opening}{remark}")


_UNKNOWN_CHARACTER = re.compile(r"[^a-z' ,.?!;:\"()-]")


def normalise(text: str) -> str:
    """Reduce text to lower-case words with single spaces; "" if a character belongs to no word of the grammar."""
    text = " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower().split())
    return "" if _UNKNOWN_CHARACTER.search(text) else " ".join(re.sub(r"[^a-z']", " ", text).split())


class _Tables(NamedTuple):
    """Normalised texts of the grammar."""

    cores: dict[str, Parse]
    leads: dict[str, set[Act]]
    greetings: set[str]
    tails: dict[str, set[tuple[Act, str]]]  # -> act and valence
    longest_lead: int  # words
    longest_tail: int


@functools.cache
def _tables() -> _Tables:
    by_core: dict[str, Parse] = {}
    for core in _cores():
        if by_core.setdefault(normalise(core.core), core) != core:
            raise ValueError(f"two acts share the core {core.core!r}: {core} and {by_core[normalise(core.core)]}")
    by_lead: dict[str, set[Act]] = {}
    by_tail: dict[str, set[tuple[Act, str]]] = {}
    for act in FAMILIES:
        for lead in leads(act):
            by_lead.setdefault(normalise(lead), set()).add(act)
        for valence in VALENCES:
            for tail in tails(act, valence):
                by_tail.setdefault(normalise(tail), set()).add((act, valence))
    greetings = set(map(normalise, GREETINGS))
    longest_lead, longest_tail = (
        max(text.count(" ") + 1 for text in texts) for texts in ({*by_lead, *greetings}, by_tail)
    )
    return _Tables(by_core, by_lead, greetings, by_tail, longest_lead, longest_tail)


@functools.cache
def cores_of(act: Act) -> tuple[Parse, ...]:
    """List all cores of an act."""
    return tuple(core for core in _tables().cores.values() if core.act == act)


def parse(text: str) -> Parse | None:
    """Parse an utterance; None unless the grammar derives all of it."""
    tables, words = _tables(), normalise(text).split()
    count = len(words)
    ends = range(count, max(0, count - tables.longest_tail) - 1, -1)
    # End of the core -> the acts and valences that the tail after it fits.
    tails_from = {end: tables.tails[tail] for end in ends if (tail := " ".join(words[end:])) in tables.tails}
    for start in range(min(count, tables.longest_lead + 1)):
        lead = " ".join(words[:start])
        acts = GREETED if lead in tables.greetings else tables.leads.get(lead, ())
        if not acts:
            continue
        for end, acts_and_valences in tails_from.items():
            core = tables.cores.get(" ".join(words[start:end]))
            if core is not None and core.act in acts and (core.act, core.valence) in acts_and_valences:
                return replace(core, greeting=lead in tables.greetings)
    return None


def render(lead: str, core: str, tail: str) -> str:
    """Write an utterance with a capital at the start of each sentence."""
    return re.sub(r"(^|[.?!] )([a-z])", lambda match: match[1] + match[2].upper(), lead + core + tail)
