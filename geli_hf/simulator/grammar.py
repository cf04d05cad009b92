"""The grammar of the sample corpus: an utterance is a lead, a core and a tail, and its core is one dialogue act.

The same tables make utterances (`render`) and parse them (`parse`); `oracle` says what an act is worth.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import defaultdict
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


LONGEST = 42  # words of an utterance: 9 of a lead, 19 of a core, 14 of a tail
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


@functools.cache
def _tables() -> _Tables:
    by_lead: dict[str, set[Act]] = defaultdict(set)
    by_tail: dict[str, set[tuple[Act, str]]] = defaultdict(set)
    for act in FAMILIES:
        for lead in leads(act):
            by_lead[normalise(lead)].add(act)
        for valence in VALENCES:
            for tail in tails(act, valence):
                by_tail[normalise(tail)].add((act, valence))
    by_core = {normalise(core.core): core for core in _cores()}
    return _Tables(by_core, by_lead, set(map(normalise, GREETINGS)), by_tail)


@functools.cache
def cores_of(act: Act) -> tuple[Parse, ...]:
    """List all cores of an act."""
    return tuple(core for core in _tables().cores.values() if core.act == act)


def parse(text: str) -> Parse | None:
    """Parse an utterance; None unless the grammar derives all of it."""
    tables, words = _tables(), normalise(text).split()
    count = len(words)
    if count > LONGEST:
        return None
    # End of the core -> the acts and valences that the tail after it fits.
    ends = {end: " ".join(words[end:]) for end in range(count, -1, -1)}
    tails_from = {end: tables.tails[tail] for end, tail in ends.items() if tail in tables.tails}
    for start in range(count):
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
