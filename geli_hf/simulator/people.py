"""People of the sample corpus: traits shift which dialogue act a person chooses where.

A conversation is a list of `Message`s of two speakers who take turns. The oracle gives the true value of a message,
whatever the simulator meant by it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .frames import GREETED, GREETINGS, QUESTIONS, STATEMENTS, WHEN_ASKED, Act
from .grammar import Parse, cores_of, leads, render, tails
from .oracle import THANKED, Turn, judge, read_turn
from .text import BAD, DETAILS, GOOD, NEUTRAL, TOPICS

# Propensities, fixed before any training: the weight of each intention by the partner's last act, and the traits that
# multiply it by exp(sign * trait), with traits ~ N(0, TRAIT_SD^2). An intention is what a person wants to do; the
# oracle decides what that is worth. No real corpus counts these acts; the weights are chosen so that three turns in
# five have a positive value, that no act is too rare to be learned, and that value does not depend on position.

TRAITS = ("warmth", "curiosity", "openness", "attention")
TRAIT_SD = 0.5
FEELING_SHARES = {GOOD: 0.33, BAD: 0.33, NEUTRAL: 0.34}  # of events
MESSAGES = (10, 22)  # per conversation
GREETING_SHARE = 0.75  # of first messages that can carry one
STRAY_DETAILS = 0.1  # of sympathy, joy and advice by name: a detail that the partner never named
BY_NAME = 0.5  # of sympathy, joy and dismissals: the detail is named

# fmt: off
INTENTIONS: dict[str, dict[str, float]] = {
    "opening": {"share": 2.0, "generic": 2.0},
    "feeling": {
        "follow_up": 2.6, "fitting": 3.0, "misfitting": 0.8, "share": 1.0, "reciprocal": 0.5, "generic": 0.5,
        "acknowledge": 1.2, "advise": 1.0, "change": 0.8, "one_up": 1.0, "dismiss": 0.9, "repeat": 0.5,
        "wrong_question": 0.5, "earlier_question": 0.4, "seek_advice": 0.2, "thank_for_nothing": 0.15,
    },
    "neutral": {
        "follow_up": 2.6, "misfitting": 0.5, "share": 2.0, "reciprocal": 1.6, "generic": 0.5, "acknowledge": 1.2,
        "advise": 0.8, "change": 0.8, "one_up": 0.6, "dismiss": 0.8, "repeat": 0.5, "wrong_question": 0.5,
        "earlier_question": 0.5, "seek_advice": 0.4, "tell_more": 0.3, "thank_for_nothing": 0.15,
    },
    "question": {
        "answer": 6.5, "beside": 0.8, "acknowledge": 0.5, "change": 0.6, "generic": 0.4, "dismiss": 0.4,
        "repeat": 0.3, "reciprocal": 0.3, "one_up": 0.2,
    },
    "reaction": {
        "share": 2.2, "thank": 1.6, "reciprocal": 1.4, "earlier_question": 1.2, "generic": 0.7, "tell_more": 0.8,
        "acknowledge": 0.9, "change": 1.0, "seek_advice": 0.8, "repeat": 0.5, "dismiss": 0.3,
        "wrong_question": 0.4, "misfitting": 0.2,
    },
}
# fmt: on
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
DRAFTS = 5  # renderings, of which the one closest to the wanted length is taken
PATIENCE = 200  # intentions without an utterance, after which a repetition is allowed


class Message(NamedTuple):
    """An utterance: its speaker (0 or 1), its text, its true value, and its act in its context (`oracle.VALUES`)."""

    speaker: int
    text: str
    value: float
    act: str


def draw_traits(rng: np.random.Generator) -> dict[str, float]:
    """Draw a person's traits, as deviations from the average."""
    return dict(zip(TRAITS, (TRAIT_SD * rng.standard_normal(len(TRAITS))).tolist()))


def converse(traits: Sequence[dict[str, float]], rng: np.random.Generator) -> list[Message]:
    """Simulate a conversation of two people with these traits."""
    count = int(rng.integers(MESSAGES[0], MESSAGES[1] + 1))
    conversation = _Conversation(rng)
    return [conversation.speak(index % 2, traits[index % 2]) for index in range(count)]


def speak_next(
    messages: Sequence[tuple[int, str]], speaker: int, traits: dict[str, float], rng: np.random.Generator
) -> Message:
    """Simulate a person's next message in a conversation whose other side may have written any text.

    Args:
        messages: (speaker, text), oldest first. To a text that the grammar does not derive, a person answers as to
            silence, with something new.
        speaker: 0 or 1.
        traits: of that person, see `draw_traits`.
        rng: decides among what fits.
    """
    conversation = _Conversation(rng)
    for author, text in messages:
        conversation.add(author, text)
    return conversation.speak(speaker, traits)


@functools.cache
def _cores_by(act: Act, field: str) -> dict[str, tuple[Parse, ...]]:
    groups: dict[str, list[Parse]] = {}
    for core in cores_of(act):
        groups.setdefault(getattr(core, field), []).append(core)
    return {key: tuple(cores) for key, cores in groups.items()}


class _Conversation:
    """State of a conversation: its turns, its topic, and the owner of each detail."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.topic = self._pick(TOPICS)
        self.turns: list[tuple[int, str, Turn]] = []  # speaker, text and parse
        self.owners: dict[str, int] = {}  # detail -> speaker, in the order in which they came up

    # -- random choices

    def _pick(self, options: Sequence):
        return options[int(self.rng.random() * len(options))]

    def _choose(self, weights: dict[str, float]) -> str:
        names, mass = list(weights), np.cumsum(list(weights.values()))
        return names[int(np.searchsorted(mass, self.rng.random() * mass[-1], side="right"))]

    # -- one turn

    def add(self, speaker: int, text: str) -> Parse | None:
        """Add a message; return its parse, None if the grammar does not derive it."""
        turn = read_turn(True, text)
        self.turns.append((speaker, text, turn))
        if turn.parse and turn.parse.act in STATEMENTS:
            self.owners.setdefault(turn.parse.detail, speaker)
        if turn.parse and turn.parse.act in (*STATEMENTS, Act.RECIPROCAL):
            self.topic = turn.parse.topic
        return turn.parse

    def speak(self, speaker: int, traits: dict[str, float]) -> Message:
        """Choose an intention and an utterance for it, and add it."""
        last = self.turns[-1][2].parse if self.turns else None
        history = [turn._replace(own=author == speaker) for author, _, turn in self.turns]
        text = self._utterance(speaker, traits, last)
        value = judge(self.add(speaker, text), history)
        return Message(speaker, text, value.value, value.act)

    def _utterance(self, speaker: int, traits: dict[str, float], last: Parse | None) -> str:
        weights = {
            intention: weight
            * float(np.exp(sum(sign * traits[trait] for trait, sign in TENDENCIES.get(intention, {}).items())))
            for intention, weight in INTENTIONS[_situation(last)].items()
        }
        own_texts = [text for author, text, turn in self.turns if author == speaker and turn.parse]
        contents = {turn.parse.content for _, _, turn in self.turns if turn.parse}
        for attempt in itertools.count():
            intention = self._choose(weights)
            if intention == "repeat":
                if own_texts:
                    return self._pick(own_texts)
                continue
            cores = self._cores(intention, speaker, last)
            if attempt < PATIENCE:  # only who means to repeat something does so
                cores = [core for core in cores if core.content not in contents]
            if cores:
                return self._best_draft(cores, last)

    def _best_draft(self, cores: Sequence[Parse], last: Parse | None) -> str:
        """Render several drafts, and take the one of the length that is closest to a random one."""
        mean, deviation, least, most = WORDS
        length = min(most, max(least, mean + deviation * self.rng.standard_normal()))
        greet = len(self.turns) < 2 and self.rng.random() < GREETING_SHARE
        asked = last is not None and last.act in QUESTIONS
        drafts = []
        for _ in range(DRAFTS):
            core = self._pick(cores)
            openings = GREETINGS if greet and core.act in GREETED else leads(core.act)
            if not asked:
                openings = [lead for lead in openings if lead not in WHEN_ASKED]
            drafts.append(render(self._pick(openings), core.core, self._pick(tails(core.act, core.valence))))
        return min(drafts, key=lambda text: abs(text.count(" ") + 1 - length))

    # -- the cores that serve an intention

    def _cores(self, intention: str, speaker: int, last: Parse | None) -> Sequence[Parse]:
        after_statement = last is not None and last.act in STATEMENTS
        if intention == "share":
            return self._events(Act.SHARE, self.topic)
        if intention == "one_up":
            return self._events(Act.ONE_UP, self.topic)
        if intention == "change":
            return self._events(Act.CHANGE, self._pick([topic for topic in TOPICS if topic != self.topic]))
        if intention in ("answer", "beside"):
            return self._answers(last, fitting=intention == "answer")
        if intention == "follow_up":
            return self._follow_ups([last.detail] if after_statement else [])
        if intention == "earlier_question":
            current = last.detail if after_statement else None
            return self._follow_ups([name for name in self._details_of(1 - speaker) if name != current][:2])
        if intention == "wrong_question":
            return self._follow_ups(self._new_details(self.topic))
        if intention == "fitting":
            return self._reactions(Act.CONGRATULATION if last.valence == GOOD else Act.EMPATHY, last)
        if intention == "misfitting":
            misfits = {GOOD: Act.EMPATHY, BAD: Act.CONGRATULATION}
            act = misfits.get(last.valence) if after_statement else None
            act = act or self._pick((Act.EMPATHY, Act.CONGRATULATION))
            return self._reactions(act, last if after_statement else None)
        if intention == "dismiss":
            return self._reactions(Act.DISMISSAL, last if after_statement else None)
        if intention == "advise":
            return _cores_by(Act.ADVICE, "detail")[self._detail_or_stray(last.detail)] if after_statement else ()
        if intention in ("seek_advice", "tell_more"):
            name = next(iter(self._details_of(speaker)), None)
            if name is None:
                return ()
            if intention == "tell_more":
                return self._consistent(name, _cores_by(Act.ANSWER, "detail")[name])
            return _cores_by(Act.ASK_ADVICE, "detail")[name] if self._valence_of(name) == BAD else ()
        if intention == "reciprocal":
            return _cores_by(Act.RECIPROCAL, "topic")[self.topic]
        if intention == "thank":
            return cores_of(Act.THANKS) if last.act in THANKED else ()
        acts = {"generic": Act.GENERIC, "acknowledge": Act.ACKNOWLEDGEMENT, "thank_for_nothing": Act.THANKS}
        return cores_of(acts[intention])

    def _new_details(self, topic: str) -> list[str]:
        return [name for name, detail in DETAILS.items() if detail.topic == topic and name not in self.owners]

    def _details_of(self, speaker: int) -> list[str]:
        """List the details of a speaker, newest first."""
        return [name for name, owner in reversed(self.owners.items()) if owner == speaker]

    def _events(self, act: Act, topic: str) -> Sequence[Parse]:
        names = self._new_details(topic)
        if not names:
            return ()
        name, valence = self._pick(names), self._choose(FEELING_SHARES)
        return [core for core in _cores_by(act, "detail")[name] if core.valence == valence]

    def _follow_ups(self, names: Sequence[str]) -> Sequence[Parse]:
        """List the questions about one aspect of one of the details."""
        if not names:
            return ()
        questions = _cores_by(Act.FOLLOW_UP, "detail")[self._pick(names)]
        aspect = self._pick(questions).aspect
        return [core for core in questions if core.aspect == aspect]

    def _reactions(self, act: Act, last: Parse | None) -> Sequence[Parse]:
        by_name = last is not None and self.rng.random() < BY_NAME
        return _cores_by(act, "detail")[self._detail_or_stray(last.detail) if by_name else ""]

    def _detail_or_stray(self, detail: str) -> str:
        strays = self._new_details(self.topic) if self.rng.random() < STRAY_DETAILS else ()
        return self._pick(strays) if strays else detail

    def _answers(self, question: Parse, *, fitting: bool) -> Sequence[Parse]:
        if question.act == Act.ASK_ADVICE:
            return _cores_by(Act.ADVICE, "detail")[question.detail] if fitting else ()
        if question.act != Act.FOLLOW_UP:
            topic = self.topic if question.act == Act.RECIPROCAL else self._pick(TOPICS)
            return self._events(Act.SHARE, topic) if fitting else ()
        answers = _cores_by(Act.ANSWER, "detail")[question.detail]
        answers = [core for core in answers if (core.aspect == question.aspect) == fitting]
        return self._consistent(question.detail, answers)

    def _consistent(self, name: str, answers: Sequence[Parse]) -> Sequence[Parse]:
        """List answers of one aspect and valence that go with the event: bad may get better, good stays good."""
        event = self._valence_of(name)
        answers = [
            core
            for core in answers
            if core.valence in (event, NEUTRAL)
            or event == NEUTRAL
            or (event == BAD and core.valence == GOOD and core.aspect in ("state", "plan"))
        ]
        core = self._pick(answers)
        return [other for other in answers if (other.aspect, other.valence) == (core.aspect, core.valence)]

    def _valence_of(self, name: str) -> str:
        parses = (turn.parse for _, _, turn in self.turns if turn.parse)
        return next((parse.valence for parse in parses if parse.act in STATEMENTS and parse.detail == name), NEUTRAL)


def _situation(last: Parse | None) -> str:
    if last is None:
        return "opening"
    if last.act in QUESTIONS:
        return "question"
    if last.act in STATEMENTS:
        return "neutral" if last.valence == NEUTRAL else "feeling"
    return "reaction"
