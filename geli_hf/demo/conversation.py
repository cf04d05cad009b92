"""A conversation with a policy as a value: every change gives a new one, so that undo is to go back to the old.

A turn of the assistant is worth a reward, which the reward model gives it from what was said before it. Where two
policies answer, the conversation waits with both replies until one of them is chosen and goes on with that one, so it
stays one dialogue, and can be a Session row.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..data.rows import to_json_line
from ..sessions import Message, Session, SessionError, null_to_nan, validate_session

BASE, ALIGNED, PERSON = "base", "aligned", "edited"
UNDO_STEPS = 30

Score = Callable[[list[Message]], list[float]]  # a reward for every turn of the assistant


@dataclass(frozen=True)
class Reply:
    """What a policy answered: `source` is `BASE` or `ALIGNED`, or `PERSON` where somebody wrote over it."""

    source: str
    text: str
    reward: float = math.nan


@dataclass(frozen=True)
class Turn:
    """A message. `at` is when it was there to be read, in seconds since the epoch; `instead_of` what wasn't chosen."""

    role: str
    text: str
    source: str = ""
    at: float = math.nan
    instead_of: tuple[Reply, ...] = ()
    vote: str = ""  # of a blind comparison: the source that was preferred, or "tie"

    @property
    def message(self) -> Message:
        return {"role": self.role, "content": self.text}


@dataclass(frozen=True)
class Choice:
    """Replies of two policies to the same dialogue, one of which the conversation will go on with."""

    replies: tuple[Reply, ...]
    blind: bool


@dataclass(frozen=True)
class Conversation:
    """See above. `rewards` and `before` have one value for each turn of the assistant; `before` is what it was worth
    before the last change, where that is another what-if, and else empty."""

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
        """Made of the key and not the other way round: who sees a session in a dataset can't delete it by its id."""
        return session_id_of(self.key)

    @property
    def messages(self) -> list[Message]:
        return [turn.message for turn in self.turns]

    @property
    def replies(self) -> list[int]:
        """Indices of the turns that are rewarded."""
        return [index for index, turn in enumerate(self.turns) if turn.role == "assistant"]

    @property
    def votes(self) -> dict[str, int]:
        """How often which policy was preferred in a blind comparison."""
        votes = [turn.vote for turn in self.turns if turn.vote]
        return {name: votes.count(name) for name in (ALIGNED, BASE, "tie")}

    def changed(self, **changes) -> Conversation:
        """With the changes, and this one to go back to."""
        past = (*self.past, replace(self, past=()))[-UNDO_STEPS:]
        return replace(self, **{"before": (), **changes}, past=past)

    def undone(self) -> Conversation:
        """As it was before the last change."""
        return replace(self.past[-1], past=self.past[:-1]) if self.past else self

    def said(self, text: str, now: float) -> Conversation:
        """With a message of the user. If a choice was open, the dialogue goes on with the aligned policy's reply."""
        conversation = self
        if self.choice is not None:
            sources = [reply.source for reply in self.choice.replies]
            conversation = self.chosen(sources.index(ALIGNED) if ALIGNED in sources else 0, now)
        turns = conversation.turns
        if turns and turns[-1].role == "user":  # it has no answer yet, and roles alternate
            turns, text = turns[:-1], f"{turns[-1].text} {text}"
        return conversation.changed(turns=(*turns, Turn("user", text, at=now)))

    def replied(self, reply: Reply, now: float) -> Conversation:
        """With the assistant's reply; no step of its own, undo takes it back with what asked for it."""
        return replace(self, turns=(*self.turns, Turn("assistant", reply.text, reply.source, now)))

    def asked(self, replies: Sequence[Reply], blind: bool) -> Conversation:
        """Waiting for one of the replies to be chosen."""
        return replace(self, choice=Choice(tuple(replies), blind))

    def chosen(self, index: int, now: float, vote: str = "") -> Conversation:
        """Going on with one of the replies.

        Args:
            vote: what the person said of a blind comparison: the preferred source, or "tie".
        """
        if self.choice is None:
            return self
        reply = self.choice.replies[index]
        others = tuple(other for place, other in enumerate(self.choice.replies) if place != index)
        turn = Turn("assistant", reply.text, reply.source, now, others, vote)
        return self.changed(turns=(*self.turns, turn), choice=None)

    def decided(self, index: int, now: float) -> Conversation:
        """As `chosen`, with a vote where the comparison was blind; -1 says that the replies are alike.

        What can't be decided, as there is no such reply, leaves everything as it is.
        """
        if self.choice is None or index not in range(-1 if self.choice.blind else 0, len(self.choice.replies)):
            return self
        if not self.choice.blind:
            return self.chosen(index, now)
        if index == -1:  # blind replies come in random order, so the first is as good as any
            return self.chosen(0, now, "tie")
        return self.chosen(index, now, self.choice.replies[index].source)

    def edited(self, index: int, text: str, source: str = PERSON) -> Conversation:
        """What if that turn had been another one: what follows it stays as it is."""
        old = self.turns[index]
        source = source if old.role == "assistant" else ""
        turns = (*self.turns[:index], replace(old, text=text, source=source, instead_of=(), vote=""))
        return self.changed(turns=(*turns, *self.turns[index + 1 :]), before=self.rewards)

    def scored(self, score: Score, rating: Callable[[Sequence[float]], float]) -> Conversation:
        """With the rewards of its turns, and of the replies that wait to be chosen."""
        messages, choice = self.messages, self.choice
        rewards = tuple(score(messages)) if self.replies else ()
        if choice is not None:
            rewarded = (
                replace(reply, reward=score([*messages, {"role": "assistant", "content": reply.text}])[-1])
                for reply in choice.replies
            )
            choice = replace(choice, replies=tuple(rewarded))
        return replace(self, rewards=rewards, choice=choice, score=rating(rewards) if rewards else math.nan)


def session_id_of(key: str) -> str:
    """The session's id, which tells nobody the key."""
    return hashlib.sha256(key.encode()).hexdigest()[:24]


def session_row(
    conversation: Conversation, score: float = math.nan, feedback: Mapping[str, Sequence[float]] | None = None
) -> Session:
    """The conversation as a Session row: what `train_geli.py` trains on.

    Args:
        score: how the person rated the session; NaN if nobody did.
        feedback: Local Implicit signals, one value for each turn of the assistant.

    Raises:
        SessionError: there is no turn of the assistant in it.
    """
    name = conversation.session_id
    row = {"session_id": name, "conversation_id": name, "rater_id": "", "messages": conversation.messages}
    row |= {"score": float(score)} | ({"feedback": dict(feedback)} if feedback else {})
    validate_session(row, "this conversation", {})
    return row


def conversation_of(text: str, *, most_messages: int, most_characters: int, key: str | None = None) -> Conversation:
    """The conversation in the first line of JSON lines, as `session_row` wrote them.

    Raises:
        SessionError: it is none, or longer than a conversation may be here.
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
    if len(messages) > most_messages:
        raise SessionError(f"the conversation has {len(messages)} messages; up to {most_messages} can be loaded here")
    if any(len(message["content"]) > most_characters for message in messages):
        raise SessionError(f"a message is too long; up to {most_characters} characters can be loaded here")
    turns = tuple(Turn(message["role"], message["content"]) for message in messages)
    return Conversation(turns=turns, **({"key": key} if key else {}))


def snapshot(conversation: Conversation) -> str:
    """What a browser keeps of a conversation so that it is there after a reload; "" if nothing was said."""
    if not conversation.replies:
        return ""
    kept = {"key": conversation.key, "closed": conversation.closed, "collected": conversation.collected}
    return json.dumps(
        kept | {"row": to_json_line(session_row(conversation)), "sources": [t.source for t in conversation.turns]}
    )


def restored(text: str, *, most_messages: int, most_characters: int) -> Conversation | None:
    """The conversation of a `snapshot`; None if it is none, since anything may be in a browser's storage."""
    try:
        kept = json.loads(text)
        key, sources = kept["key"], kept["sources"]
        if not isinstance(key, str) or not 16 <= len(key) <= 64:
            return None
        found = conversation_of(kept["row"], most_messages=most_messages, most_characters=most_characters, key=key)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not isinstance(sources, list) or len(sources) != len(found.turns):
        sources = [""] * len(found.turns)
    known = (BASE, ALIGNED, PERSON)
    turns = (replace(turn, source=name if name in known else "") for turn, name in zip(found.turns, sources))
    return replace(
        found, turns=tuple(turns), closed=kept.get("closed") is True, collected=kept.get("collected") is True
    )
