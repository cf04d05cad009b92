"""A conversation with a policy as a value: every change makes a new one, and undo returns to the old one.

Each turn of the assistant gets a reward from the reward model. Where two policies answer, the conversation holds both
replies until one of them is chosen, so it stays one dialogue and can be a Session row.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..models.geli_reward.text_geli import valid_unicode
from ..sessions import Message, Session, assistant_turns, validate_session

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
        vote: in a blind comparison the preferred source, or "tie".
    """

    role: str
    text: str
    source: str = ""
    at: float = math.nan
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
        key: deletes the session once it is collected; "" until the first message.
        rewards: one for each turn of the assistant.
        before: the rewards before the last edit; empty if the last change was none.
        score: predicted rating.
        past: earlier states, for `undo`.
    """

    key: str = ""
    turns: tuple[Turn, ...] = ()
    choice: Choice | None = None
    rewards: tuple[float, ...] = ()
    before: tuple[float, ...] = ()
    score: float = math.nan
    closed: bool = False
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
        # Made here, so that no two conversations share the key of an initial state.
        key = self.key or secrets.token_urlsafe(18)
        return conversation.change(key=key, turns=(*turns, Turn("user", valid_unicode(text), at=now)))

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
        turn = Turn("assistant", reply.text, reply.source, now, vote)
        return self.change(turns=(*self.turns, turn), choice=None)

    def edit(self, index: int, text: str) -> Conversation:
        """Replace the text of a turn; the turns after it stay as they are."""
        old = self.turns[index]
        turn = replace(old, text=valid_unicode(text), source=PERSON if old.role == "assistant" else "", vote="")
        return self.change(turns=(*self.turns[:index], turn, *self.turns[index + 1 :]), before=self.rewards)

    def drop_reply(self) -> Conversation:
        """Return to the last message of the user, without the reply or the choice of replies to it."""
        turns = self.turns[:-1] if self.turns[-1].role == "assistant" else self.turns
        return self.change(turns=turns, choice=None)

    def rescore(self, score: Score, rating: Callable[[list[Message]], float]) -> Conversation:
        """Compute the rewards of the turns and of the replies that wait to be chosen, and the predicted rating."""
        messages, choice = self.messages, self.choice
        rewards = tuple(score(messages)) if self.replies else ()
        if choice is not None:
            rewarded = (
                replace(reply, reward=score([*messages, {"role": "assistant", "content": reply.text}])[-1])
                for reply in choice.replies
            )
            choice = replace(choice, replies=tuple(rewarded))
        return replace(self, rewards=rewards, choice=choice, score=rating(messages) if rewards else math.nan)


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
