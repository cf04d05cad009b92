"""The grammar of the sample corpus: an utterance is `lead core tail`, and its core is one act.

The same tables make utterances (`render`) and parse them (`parse`); what an act is worth, `sample_oracle` says.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from .frames import (
    ACKNOWLEDGEMENT,
    ACKNOWLEDGEMENT_PARTS,
    AFTERTHOUGHTS,
    ANSWER,
    ANSWER_FRAMES,
    ASK_ADVICE,
    CHANGE,
    CHANGE_PREFIXES,
    FAMILIES,
    FIXED_CORES,
    FOLLOW_UP,
    FOLLOW_UP_FRAMES,
    FRAMES_ABOUT_MINE,
    FRAMES_ABOUT_YOURS,
    GREETED,
    GREETINGS,
    LEADS,
    ONE_UP,
    ONE_UP_PREFIXES,
    RECIPROCAL,
    RECIPROCAL_FRAMES,
    SHARE,
    TAILS,
    TIMES,
)
from .text import NEUTRAL, TOPICS, VALENCES


class Detail(NamedTuple):
    """A thing, person or occasion in somebody's life; `name` is what follows "my" or "your"."""

    name: str
    topic: str
    kind: str
    plural: bool
    events: dict[str, str]


@dataclass(frozen=True)
class Parse:
    """What an utterance does. `gist` is equal for two utterances of one speaker that say the same thing."""

    act: str
    core: str
    topic: str = ""
    detail: str = ""
    valence: str = NEUTRAL
    aspect: str = ""
    greeting: bool = False

    @property
    def gist(self) -> tuple[str, ...]:
        if self.act in (SHARE, CHANGE, ONE_UP):
            return "event", self.detail, self.valence
        if self.act in (FOLLOW_UP, ANSWER, ASK_ADVICE, RECIPROCAL):
            return self.act, self.topic, self.detail, self.aspect, self.valence
        return self.act, self.core


def _read_details() -> dict[str, Detail]:
    details: dict[str, Detail] = {}
    for topic, lines in TOPICS.items():
        for line in lines.strip().splitlines():
            head, *events = (part.strip() for part in line.split("|"))
            kind, number, _, name = head.split(maxsplit=3)
            details[name] = Detail(name, topic, kind, number == "p", dict(zip(VALENCES, events, strict=True)))
    return details


DETAILS = _read_details()


def leads(act: str) -> tuple[str, ...]:
    """What may stand before the core of an act, greetings apart."""
    return LEADS[FAMILIES[act][0]]


@functools.cache
def tails(act: str, valence: str) -> tuple[str, ...]:
    """What may stand after the core of an act; the feeling named after an event is that of the event."""
    family = FAMILIES[act][1]
    if family != "event":
        return TAILS[family]
    return tuple(f"{time}{after}." for time, after in itertools.product(TIMES, AFTERTHOUGHTS[valence]))


def _fill(frame: str, detail: Detail, owner: str) -> str:
    words = {"is": "are", "has": "have"} if detail.plural else {"is": "is", "has": "has"}
    return frame.format(d=f"{owner} {detail.name}", **words)


def _cores() -> Iterator[Parse]:
    for detail in DETAILS.values():
        about = {"topic": detail.topic, "detail": detail.name}
        for valence, event in detail.events.items():
            for act, prefixes in ((SHARE, ("",)), (ONE_UP, ONE_UP_PREFIXES), (CHANGE, CHANGE_PREFIXES)):
                for prefix in prefixes:
                    yield Parse(act, prefix + event, valence=valence, **about)
        for (kinds, aspect), frames in FOLLOW_UP_FRAMES.items():
            if detail.kind in kinds:
                for frame in frames:
                    yield Parse(FOLLOW_UP, _fill(frame, detail, "your"), aspect=aspect, **about)
        for (kinds, aspect, valence), frames in ANSWER_FRAMES.items():
            if detail.kind in kinds:
                for frame in frames:
                    yield Parse(ANSWER, _fill(frame, detail, "my"), valence=valence, aspect=aspect, **about)
        for owner, table in (("your", FRAMES_ABOUT_YOURS), ("my", FRAMES_ABOUT_MINE)):
            for act, frames in table.items():
                for frame in frames:
                    yield Parse(act, _fill(frame, detail, owner), **about)
    for topic in TOPICS:
        for frame in RECIPROCAL_FRAMES:
            yield Parse(RECIPROCAL, frame.format(topic=topic), topic=topic)
    for act, cores in FIXED_CORES.items():
        for core in cores:
            yield Parse(act, core)
    for first, second, third in itertools.product(*ACKNOWLEDGEMENT_PARTS):
        yield Parse(ACKNOWLEDGEMENT, f"{first}{second}, {third}" if third else f"{first}{second}")
        if third:
            yield Parse(ACKNOWLEDGEMENT, f"{first}{third}")


_FOREIGN = re.compile(r"[^a-z' ,.?!;:\"()-]")


def normalise(text: str) -> str:
    """Lower-case words with single spaces, no punctuation. "" if there is a character that no word is made of."""
    text = " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower().split())
    return "" if _FOREIGN.search(text) else " ".join(re.sub(r"[^a-z']", " ", text).split())


class _Tables(NamedTuple):
    cores: dict[str, Parse]
    leads: dict[str, set[str]]  # -> acts
    tails: dict[str, set[tuple[str, str]]]  # -> (act, valence)
    longest_lead: int
    longest_tail: int


@functools.cache
def _tables() -> _Tables:
    by_core: dict[str, Parse] = {}
    for parse_ in _cores():
        if by_core.setdefault(normalise(parse_.core), parse_) != parse_:
            raise ValueError(
                f"two acts share the core {parse_.core!r}: {parse_} and {by_core[normalise(parse_.core)]}"
            )
    by_lead: dict[str, set[str]] = {}
    by_tail: dict[str, set[tuple[str, str]]] = {}
    for act in FAMILIES:
        for lead in leads(act):
            by_lead.setdefault(normalise(lead), set()).add(act)
        for valence in VALENCES:
            for tail in tails(act, valence):
                by_tail.setdefault(normalise(tail), set()).add((act, valence))
    for greeting in GREETINGS:
        by_lead[normalise(greeting)] = {f"{act} greeting" for act in GREETED}
    longest_lead, longest_tail = (max(text.count(" ") + 1 for text in table) for table in (by_lead, by_tail))
    return _Tables(by_core, by_lead, by_tail, longest_lead, longest_tail)


@functools.cache
def cores_of(act: str) -> tuple[Parse, ...]:
    """All cores of an act."""
    return tuple(parse_ for parse_ in _tables().cores.values() if parse_.act == act)


def parse(text: str) -> Parse | None:
    """The act of an utterance, or None unless the whole of it can be derived from the grammar."""
    tables, words = _tables(), normalise(text).split()
    count = len(words)
    ends = []
    for end in range(count, max(0, count - tables.longest_tail) - 1, -1):
        allowed = tables.tails.get(" ".join(words[end:]))
        if allowed:
            ends.append((end, allowed))
    for start in range(min(count, tables.longest_lead + 1)):
        acts = tables.leads.get(" ".join(words[:start]))
        if not acts:
            continue
        for end, allowed in ends:
            found = tables.cores.get(" ".join(words[start:end])) if end > start else None
            if found is None or (found.act, found.valence) not in allowed:
                continue
            if found.act in acts:
                return found
            if f"{found.act} greeting" in acts:
                return replace(found, greeting=True)
    return None


def render(lead: str, core: str, tail: str) -> str:
    """An utterance as it is written, with a capital at the start of each sentence."""
    text = lead + core + tail
    return re.sub(r"(^|[.?!] )([a-z])", lambda match: match[1] + match[2].upper(), text)
