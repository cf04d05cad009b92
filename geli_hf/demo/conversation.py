"""A conversation with a policy as a value: every change makes a new one.

Each turn of the assistant gets a reward from the reward model. The assistant's turns are never edited, so what is
collected is what the policies wrote: a visitor's rewriting of one is kept beside it.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..models.geli_reward.text_geli import valid_unicode
from ..sessions import Message, Session, validate_session

BASE, ALIGNED, TIE = "base", "aligned", "tie"  # policies, and a vote for neither


@dataclass(frozen=True)
class Turn:
    """A message, and what the visitor did with it.

    Attributes:
        source: policy of a reply.
        at: when it appeared, in seconds since the epoch; NaN if unknown.
        vote: in a blind comparison the preferred policy, or "tie".
        thumb: 1 up, 0 down; NaN for neither.
        regenerated: number of replies before it that the visitor sent back.
        edited: times that the visitor has put the message before it in other words.
        copied: times that it was copied.
        rewrite: the visitor's words in its place.
    """

    role: str
    text: str
    source: str = ""
    at: float = math.nan
    vote: str = ""
    thumb: float = math.nan
    regenerated: int = 0
    edited: int = 0
    copied: int = 0
    rewrite: str = ""


@dataclass(frozen=True)
class Conversation:
    """A dialogue with its rewards.

    Attributes:
        key: deletes the session once it is collected; "" until the first message.
        choice: replies of two policies, in random order, one of which continues the conversation.
        rewards: one for each turn of the assistant.
        score: predicted rating.
        rating: of the visitor, who has finished the conversation; NaN before.
    """

    key: str = ""
    turns: tuple[Turn, ...] = ()
    choice: tuple[Turn, ...] = ()
    rewards: tuple[float, ...] = ()
    score: float = math.nan
    rating: float = math.nan

    @property
    def session_id(self) -> str:
        """The id that the key gives: whoever sees a session in a dataset can't delete it by its id."""
        return session_id_of(self.key)

    @property
    def closed(self) -> bool:
        return not math.isnan(self.rating)

    @property
    def messages(self) -> list[Message]:
        return messages_of(self.turns)

    @property
    def replies(self) -> list[Turn]:
        return [turn for turn in self.turns if turn.role == "assistant"]

    def add_message(self, text: str, now: float) -> Conversation:
        """Add a message of the user; a last one without an answer is replaced, since roles alternate."""
        turns = self.turns[:-1] if self.turns and self.turns[-1].role == "user" else self.turns
        # Made here, so that no two conversations share the key of an initial state.
        key = self.key or secrets.token_urlsafe(18)
        return replace(self, key=key, turns=(*turns, Turn("user", valid_unicode(text), at=now)), choice=())

    def add_reply(self, reply: Turn) -> Conversation:
        return replace(self, turns=(*self.turns, reply), choice=())

    def decide(self, vote: str, now: float) -> Conversation:
        """Continue with the preferred reply of a blind comparison; with the first for "tie", any other is no vote.

        Args:
            vote: "0" or "1", the place of the reply, or "tie".
            now: time in seconds.
        """
        if not self.choice or vote not in ("0", "1", TIE):
            return self
        reply = self.choice[0 if vote == TIE else int(vote)]
        return self.add_reply(replace(reply, at=now, vote=TIE if vote == TIE else reply.source))

    def mark(self, index: int, **changes) -> Conversation:
        """Note what the visitor did with the reply at `index` of the turns."""
        turn = replace(self.turns[index], **changes)
        return replace(self, turns=(*self.turns[:index], turn, *self.turns[index + 1 :]))

    def cut(self, length: int) -> Conversation:
        """Keep the first turns."""
        return replace(self, turns=self.turns[:length], choice=())

    def rescore(
        self, score: Callable[[list[Message]], list[float]], rating: Callable[[list[Message]], float]
    ) -> Conversation:
        """Compute the rewards of the turns and the predicted rating."""
        if not self.replies:
            return replace(self, rewards=(), score=math.nan)
        return replace(self, rewards=tuple(score(self.messages)), score=rating(self.messages))

    def row(self, names: Mapping[str, str], feedback: Mapping[str, list[float]]) -> Session:
        """Build the Session row.

        Args:
            names: of the policies by `BASE` and `ALIGNED`, and of the reward model by "reward", with revisions.
            feedback: signals of the face.

        Raises:
            SessionError: there is no turn of the assistant.
        """
        replies = self.replies
        acts = ("thumb", "regenerated", "edited", "copied")
        signals = {act: [float(getattr(turn, act)) for turn in replies] for act in acts}
        signals["rewritten"] = [float(bool(turn.rewrite)) for turn in replies]
        return session_row(
            self.session_id,
            self.turns,
            score=self.rating,
            feedback={**feedback, **signals},
            policies=[names.get(turn.source, turn.source) for turn in replies],
            reward_model=names.get("reward", ""),
            votes=[turn.vote for turn in replies],
            rewrites=[turn.rewrite for turn in replies],
        )


def messages_of(turns: Sequence[Turn]) -> list[Message]:
    """Return the turns as messages of a Session row."""
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def session_id_of(key: str) -> str:
    """Hash a key into the session's id, which does not reveal the key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:24]


def session_row(session_id: str, turns: Sequence[Turn], *, score: float = math.nan, **columns: Any) -> Session:
    """Build the Session row of a dialogue, as `train_geli.py` reads it.

    Args:
        session_id: of the row.
        turns: the dialogue.
        score: the person's rating; NaN if there is none.
        columns: further columns, such as `feedback` with one value for each turn of the assistant.

    Raises:
        SessionError: the dialogue has no turn of the assistant.
    """
    row = {"session_id": session_id, "conversation_id": session_id, "rater_id": "", "messages": messages_of(turns)}
    row |= {"score": float(score), **columns}
    validate_session(row, "this conversation", {})
    return row
