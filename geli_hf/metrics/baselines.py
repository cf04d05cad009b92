"""Rows that every table prints: what turn rewards are worth that know nothing of the method.

Each takes Session rows and returns one array per session, with one value per assistant turn. A reward model that does
not beat the length of a turn or its place has learned nothing worth a policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..affect.sentiment import NextTurnSentiment
from ..sessions import Session, assistant_turns


def uniform(sessions: Iterable[Session]) -> list[np.ndarray]:
    """The session's own score for each of its turns: knows all about the session and nothing about its turns."""
    return [np.full(len(assistant_turns(session["messages"])), session["score"], float) for session in sessions]


def log_length(sessions: Iterable[Session]) -> list[np.ndarray]:
    """Natural logarithm of the number of words, words being what white space separates."""
    return [np.log([max(len(content.split()), 1) for content in _turns(session)]) for session in sessions]


def position(sessions: Iterable[Session]) -> list[np.ndarray]:
    """Index of the turn among the assistant's turns of the session, from 0."""
    return [np.arange(len(assistant_turns(session["messages"])), dtype=float) for session in sessions]


def next_turn_sentiment(sessions: Iterable[Session]) -> list[np.ndarray]:
    """VADER's compound sentiment, from -1 to 1, of the user message that follows the turn (English only).

    It sees the reaction, which a policy's reward may not. NaN where the session ends with the turn: there was no
    reaction, which is not a neutral one.

    Raises:
        ImportError: without the package vaderSentiment.
    """
    sentiment = NextTurnSentiment()
    return [np.array(sentiment(session["messages"])) for session in sessions]


def mean_score(scores: Sequence[float]) -> float:
    """The mean of the training scores, NaN left out: the constant that is hardest to beat in squared error."""
    return float(np.mean(_known(scores)))


def mode_score(scores: Sequence[float]) -> float:
    """The most frequent training score, NaN left out; the lowest of several."""
    values, counts = np.unique(_known(scores), return_counts=True)
    return float(values[counts.argmax()])


TURN_BASELINES = {
    "uniform, given the score": uniform,
    "log length": log_length,
    "position": position,
    "next-turn sentiment": next_turn_sentiment,
}


def _turns(session: Session) -> list[str]:
    return [session["messages"][turn]["content"] for turn in assistant_turns(session["messages"])]


def _known(scores: Sequence[float]) -> np.ndarray:
    scores = np.asarray(scores, float)
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        raise ValueError("scores: expected at least one training session with a score, found none")
    return scores
