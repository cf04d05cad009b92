"""The oracle of the sample corpus: the true value of any reply in its context.

The reply is parsed with the grammar that made the corpus; its value then depends on the messages before it. These may
hold any text: a message that can't be parsed still counts for the details that it names.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .frames import QUESTIONS, STATEMENTS, Act
from .grammar import Parse, normalise, parse
from .text import DETAILS, GOOD, NEUTRAL

# ---------------------------------------------------------------------------------------------------------------------
# The value of an act where it stands. Fixed before any training. The order follows what makes people rate a
# conversation well: interest in the other, a fitting response to a feeling, an answer, something of one's own.

VALUES = {
    "follow_up": 0.9,  # a question about a detail of the partner's last message
    "follow_up_on_earlier": 0.4,  # ... about one that the partner named before that
    "question_out_of_nowhere": -0.4,  # ... about one that the partner never named
    "fitting_empathy": 0.8,  # sympathy right after bad news
    "fitting_congratulation": 0.7,  # joy right after good news
    "feeling_without_cause": -0.2,  # either of them where no feeling was told
    "misfitting_feeling": -0.8,  # sympathy for good news, or joy over bad news
    "answer": 0.5,  # what was asked is told
    "beside_the_point": -0.1,  # the detail asked about, but not what was asked of it
    "ignored_question": -0.5,  # anything else after a question
    "disclosure": 0.3,  # something of one's own, on the topic
    "told_more": 0.2,  # more about one's own detail, without having been asked
    "past_the_feeling": 0.0,  # something of one's own where the partner has just told a feeling
    "new_story": 0.1,  # another topic, where the old one has come to rest
    "off_topic": -0.6,  # another topic while the partner is in the middle of theirs
    "opening": 0.2,  # the first message, if it offers or asks something
    "odd_opening": -0.3,  # the first message, if it reacts to nothing
    "asked_back": 0.5,  # does the partner know this topic too?
    "asked_past_the_feeling": 0.0,  # the same where the partner has just told a feeling
    "asked_off_topic": -0.4,  # ... about a topic that nobody has raised
    "generic_question": 0.1,
    "generic_past_the_feeling": -0.3,
    "advice_sought": 0.3,  # asking for advice about one's own detail
    "advice_sought_on_nothing": -0.2,  # ... that one has not spoken of
    "advice_given": 0.6,  # advice that was asked for
    "advice_unasked": -0.4,
    "advice_on_nothing": -0.6,  # ... about a detail that the partner never named
    "thanks": 0.4,  # after a kind word or advice
    "thanks_for_nothing": -0.2,
    "acknowledgement": -0.1,
    "cold_acknowledgement": -0.3,  # "I see." to somebody who has told a feeling
    "one_upping": -0.7,
    "dismissal": -0.9,
    "repetition": -0.8,  # what one has said before, or the partner's own words
    "unrecognised": -1.0,
}
SECOND_QUESTION = -0.3  # a question after a question of one's own, with nothing of one's own in between
WRONG_DETAIL = -0.4  # sympathy or joy about a detail that the partner's last message does not name
LATE_GREETING = -0.3  # a greeting after one's first message

FEELINGS = (Act.EMPATHY, Act.CONGRATULATION)
THANKED = (*FEELINGS, Act.ADVICE)


class TurnValue(NamedTuple):
    """True value of a turn in its context."""

    value: float  # in [-1, 1]
    recognised: bool  # the grammar derives the turn
    act: str  # in its context, a key of `VALUES`


class Turn(NamedTuple):
    """A message of the context: whether the replying speaker wrote it, its parse, and the own details it names."""

    own: bool
    parse: Parse | None  # None if the grammar does not derive it
    details: frozenset[str]


_MENTIONS = re.compile(r"\bmy (" + "|".join(sorted(map(re.escape, DETAILS), key=len, reverse=True)) + r")\b")
_cached_parse = functools.lru_cache(maxsize=65_536)(parse)


def read_turn(own: bool, text: str) -> Turn:
    """Parse a message of the context, or else find the details that it names."""
    parsed = _cached_parse(text)
    if parsed is None:
        return Turn(own, None, frozenset(_MENTIONS.findall(normalise(text))))
    about_self = parsed.act in STATEMENTS or parsed.act == Act.ASK_ADVICE
    return Turn(own, parsed, frozenset({parsed.detail}) if about_self else frozenset())


def true_turn_value(messages: Sequence[Mapping[str, str]]) -> TurnValue:
    """Value the last message, which is the assistant's, in the context of those before it.

    Args:
        messages: `{"role": "user" | "assistant", "content": text}`, oldest first; any text.

    Returns:
        `TurnValue(value, recognised, act)`: value in [-1, 1]; `act` is a key of `VALUES`. A reply that the grammar
        does not derive as a whole is "unrecognised" and has the least value.

    Raises:
        ValueError: the last message is not the assistant's.
    """
    if not messages or messages[-1]["role"] != "assistant":
        last = f"one of the {messages[-1]['role']!r}" if messages else "no message"
        raise ValueError(f"messages: the last message must be the assistant's, found {last}")
    reply = _cached_parse(messages[-1]["content"])
    if reply is None:
        return TurnValue(VALUES["unrecognised"], False, "unrecognised")
    return judge(reply, [read_turn(message["role"] == "assistant", message["content"]) for message in messages[:-1]])


def judge(reply: Parse, history: Sequence[Turn]) -> TurnValue:
    """Value a parsed reply after `history`, whose `own` turns are those of the replying speaker."""
    act = _act_in_context(reply, history)
    value = VALUES[act]
    own = [turn for turn in history if turn.own]
    if reply.act in QUESTIONS and own and own[-1].parse and own[-1].parse.act in QUESTIONS:
        value += SECOND_QUESTION
    if reply.act in FEELINGS and reply.detail and history and reply.detail not in history[-1].details:
        value += WRONG_DETAIL
    if reply.greeting and own:
        value += LATE_GREETING
    return TurnValue(round(max(-1.0, min(1.0, value)), 4), True, act)


def _act_in_context(reply: Parse, history: Sequence[Turn]) -> str:
    contents = [turn.parse.content for turn in history if turn.parse and (turn.own or reply.detail)]
    if reply.content in contents:
        return "repetition"
    if reply.act == Act.DISMISSAL:
        return "dismissal"
    if reply.act == Act.ONE_UP:
        return "one_upping"
    if not history:
        return "opening" if reply.act in (Act.SHARE, Act.GENERIC, Act.RECIPROCAL) else "odd_opening"

    last = None if history[-1].own else history[-1].parse
    if last is not None and last.act in QUESTIONS:
        return _act_after_question(reply, last)

    after_statement = last is not None and last.act in STATEMENTS
    feeling = last.valence if after_statement else NEUTRAL
    own_details = frozenset().union(*(turn.details for turn in history if turn.own))
    partner_details = frozenset().union(*(turn.details for turn in history if not turn.own))
    topic = next((turn.parse.topic for turn in reversed(history) if turn.parse and turn.parse.topic), "")

    if reply.act == Act.FOLLOW_UP:
        if not history[-1].own and reply.detail in history[-1].details:
            return "follow_up"
        return "follow_up_on_earlier" if reply.detail in partner_details else "question_out_of_nowhere"
    if reply.act in FEELINGS:
        if feeling == NEUTRAL:
            return "feeling_without_cause"
        fitting = Act.CONGRATULATION if feeling == GOOD else Act.EMPATHY
        return f"fitting_{reply.act}" if reply.act == fitting else "misfitting_feeling"
    if reply.act in (Act.SHARE, Act.CHANGE):
        if reply.topic != topic or reply.act == Act.CHANGE:
            return "off_topic" if after_statement else "new_story"
        return "disclosure" if feeling == NEUTRAL else "past_the_feeling"
    if reply.act == Act.ANSWER:
        return "told_more" if reply.detail in own_details else "beside_the_point"
    if reply.act == Act.RECIPROCAL:
        if reply.topic != topic:
            return "asked_off_topic"
        return "asked_back" if feeling == NEUTRAL else "asked_past_the_feeling"
    if reply.act == Act.GENERIC:
        return "generic_question" if feeling == NEUTRAL else "generic_past_the_feeling"
    if reply.act == Act.ASK_ADVICE:
        return "advice_sought" if reply.detail in own_details else "advice_sought_on_nothing"
    if reply.act == Act.ADVICE:
        return "advice_unasked" if reply.detail in partner_details else "advice_on_nothing"
    if reply.act == Act.THANKS:
        return "thanks" if last is not None and last.act in THANKED else "thanks_for_nothing"
    return "acknowledgement" if feeling == NEUTRAL else "cold_acknowledgement"


def _act_after_question(reply: Parse, question: Parse) -> str:
    same_detail = reply.detail == question.detail
    if question.act == Act.FOLLOW_UP and same_detail and reply.act == Act.ANSWER:
        return "answer" if reply.aspect == question.aspect else "beside_the_point"
    if question.act == Act.FOLLOW_UP and same_detail and reply.act == Act.SHARE:
        return "beside_the_point"
    if question.act == Act.ASK_ADVICE and same_detail and reply.act == Act.ADVICE:
        return "advice_given"
    if question.act == Act.RECIPROCAL and reply.act == Act.SHARE and reply.topic == question.topic:
        return "answer"
    if question.act == Act.GENERIC and reply.act == Act.SHARE:
        return "answer"
    return "ignored_question"
