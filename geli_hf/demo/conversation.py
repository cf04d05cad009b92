"""A conversation with a policy as a value: every change makes a new one, and undo returns to the old one.

Each turn of the assistant gets a reward from the reward model. Where two policies answer, the conversation holds both
replies until one of them is chosen, so it stays one dialogue and can be a Session row.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..data.rows import to_json_line
from ..sessions import Message, Session, SessionError, assistant_turns, null_to_nan, validate_session
from .limits import Limits

BASE, ALIGNED, PERSON = "base", "aligned", "edited"  # sources of a reply
UNDO_STEPS = 30

Score = Callable[[list[Message]], list[float]]  # a reward for every turn of the assistant


@dataclass(frozen=True)
class Reply:
    """A reply of the policy `source`."""

    source: str
    text: str
    reward: float = math.nan


@dataclass(frozen=True)
class Turn:
    """A message.

    Attributes:
        at: when it appeared, in seconds since the epoch; NaN if unknown.
        alternatives: the replies that were not chosen.
        vote: in a blind comparison the preferred source, or "tie".
    """

    role: str
    text: str
    source: str = ""
    at: float = math.nan
    alternatives: tuple[Reply, ...] = ()
    vote: str = ""


@dataclass(frozen=True)
class Choice:
    """Replies of two policies to the same dialogue, one of which continues the conversation."""

    replies: tuple[Reply, ...]
    blind: bool


@dataclass(frozen=True)
class Conversation:
    """A dialogue with its rewards.

    Attributes:
        rewards: one for each turn of the assistant.
        before: the rewards before the last edit; empty if the last change was none.
        score: predicted rating.
        past: earlier states, for `undo`.
    """

    key: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    turns: tuple[Turn, ...] = ()
    choice: Choice | None = None
    rewards: tuple[float, ...] = ()
    before: tuple[float, ...] = ()
    score: float = math.nan
    closed: bool = False
    collected: bool = False
    started: float = field(default_factory=time.time)
    past: tuple[Conversation, ...] = field(default=(), repr=False)

    @property
    def session_id(self) -> str:
        """The id that the key gives: whoever sees a session in a dataset can't delete it by its id."""
        return session_id_of(self.key)

    @property
    def messages(self) -> list[Message]:
        return messages_of(self.turns)

    @property
    def replies(self) -> list[int]:
        """Indices of the turns that are rewarded."""
        return assistant_turns(self.messages)

    @property
    def votes(self) -> dict[str, int]:
        """Votes in blind comparisons by preferred policy."""
        votes = [turn.vote for turn in self.turns]
        return {name: votes.count(name) for name in (ALIGNED, BASE, "tie")}

    def change(self, **changes) -> Conversation:
        """Apply the changes, with this state to go back to."""
        past = (*self.past, replace(self, past=()))[-UNDO_STEPS:]
        return replace(self, **{"before": (), **changes}, past=past)

    def undo(self) -> Conversation:
        """Return to the state before the last change."""
        return replace(self.past[-1], past=self.past[:-1]) if self.past else self

    def add_message(self, text: str, now: float) -> Conversation:
        """Add a message of the user. If a choice is open, the aligned policy's reply is chosen."""
        conversation = self
        if self.choice is not None:
            sources = [reply.source for reply in self.choice.replies]
            conversation = self._choose(sources.index(ALIGNED) if ALIGNED in sources else 0, now)
        turns = conversation.turns
        if turns and turns[-1].role == "user":  # it has no answer yet, and roles alternate
            turns, text = turns[:-1], f"{turns[-1].text} {text}"
        return conversation.change(turns=(*turns, Turn("user", text, at=now)))

    def add_reply(self, reply: Reply, now: float) -> Conversation:
        """Add the assistant's reply. Undo takes it back together with the message before it."""
        return replace(self, turns=(*self.turns, Turn("assistant", reply.text, reply.source, now)))

    def offer(self, replies: Sequence[Reply], blind: bool) -> Conversation:
        """Wait for one of the replies to be chosen."""
        return replace(self, choice=Choice(tuple(replies), blind))

    def decide(self, index: int, now: float) -> Conversation:
        """Continue with the reply at `index`; in a blind comparison that is a vote, and -1 a tie.

        An index that names no reply changes nothing.
        """
        if self.choice is None or index not in range(-1 if self.choice.blind else 0, len(self.choice.replies)):
            return self
        if not self.choice.blind:
            return self._choose(index, now)
        if index == -1:  # blind replies come in random order, so the first is as good as any
            return self._choose(0, now, "tie")
        return self._choose(index, now, self.choice.replies[index].source)

    def _choose(self, index: int, now: float, vote: str = "") -> Conversation:
        reply = self.choice.replies[index]
        others = tuple(other for place, other in enumerate(self.choice.replies) if place != index)
        turn = Turn("assistant", reply.text, reply.source, now, others, vote)
        return self.change(turns=(*self.turns, turn), choice=None)

    def edit(self, index: int, text: str, source: str = PERSON) -> Conversation:
        """Replace the text of a turn; the turns after it stay as they are."""
        old = self.turns[index]
        source = source if old.role == "assistant" else ""
        turn = replace(old, text=text, source=source, alternatives=(), vote="")
        return self.change(turns=(*self.turns[:index], turn, *self.turns[index + 1 :]), before=self.rewards)

    def rescore(self, score: Score, rating: Callable[[Sequence[float]], float]) -> Conversation:
        """Compute the rewards of the turns and of the replies that wait to be chosen, and the predicted rating."""
        messages, choice = self.messages, self.choice
        rewards = tuple(score(messages)) if self.replies else ()
        if choice is not None:
            rewarded = (
                replace(reply, reward=score([*messages, {"role": "assistant", "content": reply.text}])[-1])
                for reply in choice.replies
            )
            choice = replace(choice, replies=tuple(rewarded))
        return replace(self, rewards=rewards, choice=choice, score=rating(rewards) if rewards else math.nan)


def messages_of(turns: Sequence[Turn]) -> list[Message]:
    """Return the turns as messages of a Session row."""
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def session_id_of(key: str) -> str:
    """Hash a key into the session's id, which does not reveal the key."""
    return hashlib.sha256(key.encode()).hexdigest()[:24]


def session_row(session_id: str, turns: Sequence[Turn], *, score: float = math.nan, **columns: Any) -> Session:
    """Build the Session row of a dialogue, as `train_geli.py` reads it.

    Args:
        session_id: of the row.
        turns: the dialogue.
        score: the person's rating; NaN if there is none.
        columns: further columns, such as `feedback` with one value for each turn of the assistant; empty ones are
            left out.

    Raises:
        SessionError: the dialogue has no turn of the assistant.
    """
    row = {"session_id": session_id, "conversation_id": session_id, "rater_id": "", "messages": messages_of(turns)}
    row |= {"score": float(score)} | {name: values for name, values in columns.items() if values}
    validate_session(row, "this conversation", {})
    return row


def read_row(text: str, limits: Limits) -> Session:
    """Read the first line of JSON lines as a Session row.

    Raises:
        SessionError: it is not one, or larger than the limits.
    """
    line = next((line for line in text.split("\n") if line.strip()), "")
    try:
        row = null_to_nan(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise SessionError("the file's first line is no JSON; expected a Session row, as Export writes it") from error
    if not isinstance(row, Mapping):
        raise SessionError("the file's first line is no JSON object; expected a Session row, as Export writes it")
    validate_session(dict(row), "the file", {})
    messages = row["messages"]
    if len(messages) > limits.messages:
        raise SessionError(
            f"the conversation has {len(messages)} messages; up to {limits.messages} can be loaded here"
        )
    if any(len(message["content"]) > limits.characters for message in messages):
        raise SessionError(f"a message is too long; up to {limits.characters} characters can be loaded here")
    return row


def read_conversation(text: str, limits: Limits, **fields: Any) -> Conversation:
    """Read a conversation from the first line of JSON lines.

    Args:
        text: the lines.
        limits: of a conversation.
        fields: of the conversation, such as its key.

    Raises:
        SessionError: it is no Session row, or larger than the limits.
    """
    messages = read_row(text, limits)["messages"]
    return Conversation(turns=tuple(Turn(each["role"], each["content"]) for each in messages), **fields)


def snapshot(conversation: Conversation) -> str:
    """Write a conversation as JSON that a browser's tab stores for a reload; "" without a reply."""
    if not conversation.replies:
        return ""
    stored = {"key": conversation.key, "closed": conversation.closed, "collected": conversation.collected}
    stored["row"] = to_json_line(session_row(conversation.session_id, conversation.turns))
    return json.dumps(stored | {"sources": [turn.source for turn in conversation.turns]})


def restore_conversation(text: object, limits: Limits) -> Conversation | None:
    """Read a `snapshot`; None if it is not one, since a browser's storage may hold anything."""
    try:
        stored = load_snapshot(text, limits)
        key, sources = stored["key"], stored["sources"]
        if not isinstance(key, str) or not 16 <= len(key) <= 64:
            return None
        state = {name: stored.get(name) is True for name in ("closed", "collected")}
        conversation = read_conversation(stored["row"], limits, key=key, **state)
        sources = [source if source in (BASE, ALIGNED, PERSON) else "" for source in sources]
        turns = [replace(turn, source=source) for turn, source in zip(conversation.turns, sources, strict=True)]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return replace(conversation, turns=tuple(turns))


def load_snapshot(text: object, limits: Limits) -> Any:
    """Parse the JSON that a tab stored.

    Raises:
        TypeError: it is no text.
        ValueError: it is no JSON, or longer than the limits.
        RecursionError: it is nested too deeply.
    """
    if not isinstance(text, str):
        raise TypeError(f"text: expected a str, found {type(text).__name__}")
    if len(text) > limits.file_bytes:
        raise ValueError(f"text: expected up to {limits.file_bytes} characters, found {len(text)}")
    return json.loads(text)
