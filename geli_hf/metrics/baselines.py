"""Baselines that every table prints: turn rewards that need no learning.

Each takes Session rows and returns one array (turns,) per session, one value per assistant turn. A reward model that
does not beat the length or the position of a turn has learned nothing worth a policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..affect.sentiment import NextTurnSentiment
from ..sessions import Session, assistant_turns


def uniform(sessions: Iterable[Session]) -> list[np.ndarray]:
    """Reward every turn with the score of its session, in units of the score; NaN without a score."""
    return [np.full(len(assistant_turns(session["messages"])), session["score"], float) for session in sessions]


def log_length(sessions: Iterable[Session]) -> list[np.ndarray]:
    """Reward a turn with the natural logarithm of its number of words, which white space separates."""
    return [np.log([max(len(content.split()), 1) for content in _turns(session)]) for session in sessions]


def position(sessions: Iterable[Session]) -> list[np.ndarray]:
    """Reward a turn with its index among the assistant's turns of the session, from 0."""
    return [np.arange(len(assistant_turns(session["messages"])), dtype=float) for session in sessions]


def next_turn_sentiment(sessions: Iterable[Session]) -> list[np.ndarray]:
    """Reward a turn with the compound sentiment, from -1 to 1, of the user message that follows (English only).

    It sees the reaction, which a policy's reward may not. NaN where the session ends with the turn: no reaction is not
    a neutral one. Reference: Hutto and Gilbert, "VADER", ICWSM 2014.

    Raises:
        ImportError: without the package vaderSentiment.
    """
    sentiment = NextTurnSentiment()
    return [np.array(sentiment(session["messages"])) for session in sessions]


def mode_score(scores: Sequence[float]) -> float:
    """Find the most frequent training score of (sessions,); the lowest of several."""
    values, counts = np.unique(scores, return_counts=True)
    return float(values[counts.argmax()])


TURN_BASELINES = {
    "uniform, given the score": uniform,
    "log length": log_length,
    "position": position,
    "next-turn sentiment": next_turn_sentiment,
}


def _turns(session: Session) -> list[str]:
    return [session["messages"][turn]["content"] for turn in assistant_turns(session["messages"])]
