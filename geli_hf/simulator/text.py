"""Topics of the sample corpus (`topics.txt`), the details in them, and the events of each detail."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

GOOD, BAD, NEUTRAL = "good", "bad", "neutral"
VALENCES = (GOOD, BAD, NEUTRAL)


class Detail(NamedTuple):
    """A person, thing or occasion in somebody's life; `name` is what follows "my" or "your"."""

    name: str
    topic: str
    kind: str  # "p", "t" or "e"
    plural: bool
    events: dict[str, str]  # valence -> clause


def _read_details() -> dict[str, Detail]:
    details: dict[str, Detail] = {}
    topic = ""
    for line in Path(__file__).with_name("topics.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            noun_phrase, *events = (part.strip() for part in line.split("|"))
            kind, number, _, name = noun_phrase.split(maxsplit=3)
            details[name] = Detail(name, topic, kind, number == "p", dict(zip(VALENCES, events, strict=True)))
        elif line and not line.startswith("#"):
            topic = line
    return details


DETAILS = _read_details()
TOPICS = tuple(dict.fromkeys(detail.topic for detail in DETAILS.values()))
