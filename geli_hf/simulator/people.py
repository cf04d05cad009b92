"""The people of the sample corpus and how they talk: traits shift which act a person chooses where.

A conversation is a list of `Message`s of two speakers who take turns. The true value of a message is what the oracle
says of it, never anything that the simulator meant.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .frames import (
    ACKNOWLEDGEMENT,
    ADVICE,
    ANSWER,
    ASK_ADVICE,
    CHANGE,
    CONGRATULATION,
    DISMISSAL,
    EMPATHY,
    FOLLOW_UP,
    GENERIC,
    GREETED,
    GREETINGS,
    ONE_UP,
    QUESTIONS,
    RECIPROCAL,
    SHARE,
    STATEMENTS,
    THANKS,
    WHEN_ASKED,
)
from .grammar import DETAILS, Parse, cores_of, leads, render, tails
from .oracle import Turn, judge, read_turn
from .text import BAD, GOOD, NEUTRAL, TOPICS

# ---------------------------------------------------------------------------------------------------------------------
# Propensities, fixed before any training. Weight of each intention by what the partner has just done, and the traits
# that multiply it: exp(sign * trait), traits ~ N(0, TRAIT_SD^2). Intentions are what a person wants to do; what that
# is worth is for the oracle to say. No real corpus counts these acts; the weights are chosen so that three turns in
# five are worth something, that no act is rare beyond learning, and that worth does not depend on the position.

TRAITS = ("warmth", "curiosity", "openness", "attention")
TRAIT_SD = 0.5
FEELING_SHARES = {GOOD: 0.33, BAD: 0.33, NEUTRAL: 0.34}  # of what people tell
MESSAGES = (10, 22)  # per conversation
GREETING_SHARE = 0.75  # of first messages that can carry one
STRAY_DETAILS = 0.1  # of sympathy, joy and advice by name: about a thing that the partner never spoke of
BY_NAME = 0.5  # of sympathy, joy and dismissals: the detail is named

INTENTIONS: dict[str, dict[str, float]] = {
    "opening": {"share": 2.0, "generic": 2.0},
    "feeling": {
        **{"follow_up": 2.6, "fitting": 3.0, "misfitting": 0.8, "share": 1.0, "reciprocal": 0.5, "generic": 0.5},
        **{"acknowledge": 1.2, "advise": 1.0, "change": 0.8, "one_up": 1.0, "dismiss": 0.9, "repeat": 0.5},
        **{"wrong_question": 0.5, "earlier_question": 0.4, "seek_advice": 0.2, "thank_for_nothing": 0.15},
    },
    "neutral": {
        **{"follow_up": 2.6, "misfitting": 0.5, "share": 2.0, "reciprocal": 1.6, "generic": 0.5, "acknowledge": 1.2},
        **{"advise": 0.8, "change": 0.8, "one_up": 0.6, "dismiss": 0.8, "repeat": 0.5, "wrong_question": 0.5},
        **{"earlier_question": 0.5, "seek_advice": 0.4, "tell_more": 0.3, "thank_for_nothing": 0.15},
    },
    "question": {
        **{"answer": 6.5, "beside": 0.8, "acknowledge": 0.5, "change": 0.6, "generic": 0.4, "dismiss": 0.4},
        **{"repeat": 0.3, "reciprocal": 0.3, "one_up": 0.2},
    },
    "reaction": {
        **{"share": 2.2, "thank": 1.6, "reciprocal": 1.4, "earlier_question": 1.2, "generic": 0.7, "tell_more": 0.8},
        **{"acknowledge": 0.9, "change": 1.0, "seek_advice": 0.8, "repeat": 0.5, "dismiss": 0.3},
        **{"wrong_question": 0.4, "misfitting": 0.2},
    },
}
TENDENCIES: dict[str, dict[str, float]] = {
    "follow_up": {"curiosity": 1, "attention": 0.5},
    "earlier_question": {"curiosity": 1, "attention": 0.5},
    "reciprocal": {"curiosity": 0.5},
    "fitting": {"warmth": 1},
    "thank": {"warmth": 1},
    "answer": {"attention": 1},
    "share": {"openness": 1},
    "tell_more": {"openness": 1},
    "change": {"openness": 0.5, "attention": -1},
    "acknowledge": {"openness": -1},
    "one_up": {"warmth": -1},
    "dismiss": {"warmth": -1},
    "advise": {"warmth": -0.5},
    "misfitting": {"attention": -1},
    "wrong_question": {"attention": -1},
    "beside": {"attention": -1},
    "thank_for_nothing": {"attention": -1},
    "repeat": {"attention": -1},
}
WORDS = (13.0, 4.0, 5, 24)  # wanted length of an utterance, whatever its act: mean, deviation, least, most
DRAFTS = 5  # renderings of which the one closest to the wanted length is said
PATIENCE = 200  # intentions that lead nowhere before a person says again what somebody has said


class Message(NamedTuple):
    """One utterance: which of the two speakers (0 or 1), its text, its true value and what it does in its context."""

    speaker: int
    text: str
    value: float
    act: str


def draw_traits(rng: np.random.Generator) -> dict[str, float]:
    """A person, as the deviations of their traits from the average."""
    return dict(zip(TRAITS, (TRAIT_SD * rng.standard_normal(len(TRAITS))).tolist()))


def converse(traits: Sequence[dict[str, float]], rng: np.random.Generator) -> list[Message]:
    """A conversation of two people."""
    count = int(rng.integers(MESSAGES[0], MESSAGES[1] + 1))
    conversation = _Conversation(rng)
    return [conversation.speak(index % 2, traits[index % 2]) for index in range(count)]


def speak_next(
    messages: Sequence[tuple[int, str]], speaker: int, traits: dict[str, float], rng: np.random.Generator
) -> Message:
    """What a person says next in a conversation whose other side may have said anything at all.

    Args:
        messages: (speaker, text) of everything so far, oldest first. To a text that the grammar does not derive, a
            person answers as to silence, with something new.
        speaker: who speaks, 0 or 1.
        traits: of that person, as `draw_traits` gives them.
        rng: decides what they say.
    """
    conversation = _Conversation(rng)
    for who, text in messages:
        conversation.hear(who, text)
    return conversation.speak(speaker, traits)


@functools.cache
def _cores_by(act: str, field: str) -> dict[str, tuple[Parse, ...]]:
    groups: dict[str, list[Parse]] = {}
    for core in cores_of(act):
        groups.setdefault(getattr(core, field), []).append(core)
    return {key: tuple(cores) for key, cores in groups.items()}


@functools.cache
def _topic_details() -> dict[str, tuple[str, ...]]:
    return {topic: tuple(name for name, detail in DETAILS.items() if detail.topic == topic) for topic in TOPICS}


class _Conversation:
    """The state of one conversation: what was said, and which details are whose."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.topic = self._pick(tuple(TOPICS))
        self.turns: list[tuple[int, Turn]] = []
        self.texts: list[str] = []
        self.told: dict[str, int] = {}  # detail -> whose it is

    # -- drawing

    def _pick(self, options: Sequence):
        return options[int(self.rng.random() * len(options))]

    def _choose(self, weights: dict[str, float]) -> str:
        names, mass = list(weights), np.cumsum(list(weights.values()))
        return names[int(np.searchsorted(mass, self.rng.random() * mass[-1], side="right"))]

    # -- one turn

    def speak(self, speaker: int, traits: dict[str, float]) -> Message:
        last = self.turns[-1][1].parse if self.turns else None
        weights = {
            intention: weight
            * float(np.exp(sum(sign * traits[t] for t, sign in TENDENCIES.get(intention, {}).items())))
            for intention, weight in INTENTIONS[_situation(last)].items()
        }
        history = [Turn(who == speaker, turn.parse, turn.details) for who, turn in self.turns]
        for tried in itertools.count():
            intention = self._choose(weights)
            if intention == "repeat":
                said = [text for (who, _), text in zip(self.turns, self.texts) if who == speaker]
                if not said:
                    continue
                return self._say(speaker, self._pick(said), history)
            cores = self._cores(intention, speaker, last)
            # A person who does not mean to repeat themselves does not: what has been said is struck off the list.
            gists = {turn.parse.gist for _, turn in self.turns if turn.parse}
            if tried < PATIENCE:
                cores = [core for core in cores if core.gist not in gists]
            if cores:
                return self._say(speaker, self._draft(cores), history)

    def _say(self, speaker: int, text: str, history: list[Turn]) -> Message:
        value = judge(self.hear(speaker, text), history)
        return Message(speaker, text, value.value, value.act)

    def hear(self, speaker: int, text: str) -> Parse | None:
        """Take note of what somebody has said; None if it can't be understood."""
        turn = read_turn(True, text)
        self.turns.append((speaker, turn))
        self.texts.append(text)
        if turn.parse and turn.parse.act in STATEMENTS:
            self.told.setdefault(turn.parse.detail, speaker)
            self.topic = turn.parse.topic
        elif turn.parse and turn.parse.act == RECIPROCAL:
            self.topic = turn.parse.topic
        return turn.parse

    def _draft(self, cores: Sequence[Parse]) -> str:
        mean, deviation, least, most = WORDS
        wanted = min(most, max(least, mean + deviation * self.rng.standard_normal()))
        greet = len(self.turns) < 2 and self.rng.random() < GREETING_SHARE
        last = self.turns[-1][1].parse if self.turns else None
        asked = last is not None and last.act in QUESTIONS
        drafts = []
        for _ in range(DRAFTS):
            core = self._pick(cores)
            openings = GREETINGS if greet and core.act in GREETED else leads(core.act)
            if not asked:
                openings = [lead for lead in openings if lead not in WHEN_ASKED]
            drafts.append(render(self._pick(openings), core.core, self._pick(tails(core.act, core.valence))))
        return min(drafts, key=lambda text: abs(text.count(" ") + 1 - wanted))

    # -- what an intention may say

    def _details(self, whose: int | None, *, topic: str | None = None) -> list[str]:
        """Details that a speaker has told of, or that nobody has (`whose` None), newest first."""
        if whose is None:
            return [name for name in _topic_details()[topic or self.topic] if name not in self.told]
        return [name for name, owner in reversed(self.told.items()) if owner == whose]

    def _cores(self, intention: str, me: int, last: Parse | None) -> Sequence[Parse]:
        partner = 1 - me
        told = last is not None and last.act in STATEMENTS
        if intention == "share":
            return self._events(SHARE, self.topic)
        if intention == "one_up":
            return self._events(ONE_UP, self.topic)
        if intention == "change":
            return self._events(CHANGE, self._pick([topic for topic in TOPICS if topic != self.topic]))
        if intention in ("answer", "beside"):
            return self._answers(last, fitting=intention == "answer")
        if intention in ("follow_up", "earlier_question", "wrong_question"):
            if intention == "follow_up":
                names = [last.detail] if told else []
            elif intention == "earlier_question":
                names = [name for name in self._details(partner) if not (told and name == last.detail)][:2]
            else:
                names = self._details(None)
            if not names:
                return ()
            questions = _cores_by(FOLLOW_UP, "detail")[self._pick(names)]
            aspect = self._pick(questions).aspect
            return [core for core in questions if core.aspect == aspect]
        if intention == "fitting":
            return self._feelings(CONGRATULATION if last.valence == GOOD else EMPATHY, last)
        if intention == "misfitting":
            valence = last.valence if told else NEUTRAL
            fits = {GOOD: EMPATHY, BAD: CONGRATULATION}.get(valence)
            return self._feelings(fits or self._pick((EMPATHY, CONGRATULATION)), last if told else None)
        if intention == "dismiss":
            return self._feelings(DISMISSAL, last if told else None)
        if intention == "advise":
            return _cores_by(ADVICE, "detail")[self._named(last.detail)] if told else ()
        if intention in ("seek_advice", "tell_more"):
            name = next(iter(self._details(me)), None)
            if name is None:
                return ()
            if intention == "tell_more":
                return self._news(name, _cores_by(ANSWER, "detail")[name])
            return _cores_by(ASK_ADVICE, "detail")[name] if self._valence_of(name) == BAD else ()
        if intention == "reciprocal":
            return _cores_by(RECIPROCAL, "topic")[self.topic]
        if intention == "thank":
            return cores_of(THANKS) if last.act in (EMPATHY, CONGRATULATION, ADVICE) else ()
        acts = {"generic": GENERIC, "acknowledge": ACKNOWLEDGEMENT, "thank_for_nothing": THANKS}
        return cores_of(acts[intention])

    def _events(self, act: str, topic: str) -> Sequence[Parse]:
        names = self._details(None, topic=topic)
        if not names:
            return ()
        name, valence = self._pick(names), self._choose(FEELING_SHARES)
        return [core for core in _cores_by(act, "detail")[name] if core.valence == valence]

    def _feelings(self, act: str, last: Parse | None) -> Sequence[Parse]:
        by_name = last is not None and self.rng.random() < BY_NAME
        return _cores_by(act, "detail")[self._named(last.detail) if by_name else ""]

    def _named(self, detail: str) -> str:
        strays = self._details(None) if self.rng.random() < STRAY_DETAILS else ()
        return self._pick(strays) if strays else detail

    def _answers(self, question: Parse, *, fitting: bool) -> Sequence[Parse]:
        if question.act == ASK_ADVICE:
            return _cores_by(ADVICE, "detail")[question.detail] if fitting else ()
        if question.act != FOLLOW_UP:
            topic = self.topic if question.act == RECIPROCAL else self._pick(tuple(TOPICS))
            return self._events(SHARE, topic) if fitting else ()
        answers = [c for c in _cores_by(ANSWER, "detail")[question.detail] if (c.aspect == question.aspect) == fitting]
        return self._news(question.detail, answers)

    def _news(self, name: str, answers: Sequence[Parse]) -> Sequence[Parse]:
        """Answers that go with what was told: bad things may get better, good ones stay good."""
        told = self._valence_of(name)
        answers = [
            core
            for core in answers
            if core.valence in (told, NEUTRAL)
            or told == NEUTRAL
            or (told == BAD and core.valence == GOOD and core.aspect in ("state", "plan"))
        ]
        core = self._pick(answers)
        return [other for other in answers if (other.aspect, other.valence) == (core.aspect, core.valence)]

    def _valence_of(self, name: str) -> str:
        said = (turn.parse for _, turn in self.turns if turn.parse)
        return next((parse.valence for parse in said if parse.act in STATEMENTS and parse.detail == name), NEUTRAL)


def _situation(last: Parse | None) -> str:
    if last is None:
        return "opening"
    if last.act in QUESTIONS:
        return "question"
    if last.act in STATEMENTS:
        return "neutral" if last.valence == NEUTRAL else "feeling"
    return "reaction"
