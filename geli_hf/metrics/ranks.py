"""Ranks and correlations of turns within sessions, which the metrics share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

PerTurn = Sequence[Sequence[float] | np.ndarray]  # one array (turns,) per session


def flatten_turns(rewards: PerTurn, truth: PerTurn, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flatten sessions to the session index, reward and truth of every turn that has both, in order: (turns,) each.

    Raises:
        ValueError: rewards and truth are not of the same sessions and turns.
    """
    if len(rewards) != len(truth):
        raise ValueError(f"rewards, {name}: expected the same sessions, found {len(rewards)} and {len(truth)}")
    rewards = [np.asarray(values, float) for values in rewards]
    truth = [np.asarray(values, float) for values in truth]
    for index, (x, y) in enumerate(zip(rewards, truth)):
        if x.shape != y.shape or x.ndim != 1:
            raise ValueError(
                f"session {index}: expected one reward and one value of {name} per assistant turn, "
                f"found shapes {x.shape} and {y.shape}"
            )
    session = np.repeat(np.arange(len(rewards)), np.array([len(values) for values in rewards], int))
    x, y = (np.concatenate([np.zeros(0), *side]) for side in (rewards, truth))
    known = ~(np.isnan(x) | np.isnan(y))
    return session[known], x[known], y[known]


def turns_by_session(rewards: PerTurn, ratings: PerTurn) -> list[tuple[np.ndarray, np.ndarray]]:
    """List rewards and ratings, (rated turns,) each, of every session."""
    session, predicted, rated = flatten_turns(rewards, ratings, "ratings")
    edges = np.searchsorted(session, np.arange(len(rewards) + 1))
    return [(predicted[start:stop], rated[start:stop]) for start, stop in itertools.pairwise(edges)]


def ranks_within(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Compute ranks within each group, of ties their mean: (items,) and (items,) to (items,)."""
    return pd.Series(values).groupby(group).rank().to_numpy()


def centre_within(group: np.ndarray, values: np.ndarray, groups: int) -> np.ndarray:
    """Subtract from each value, (items,), the mean of its group."""
    size = np.maximum(np.bincount(group, minlength=groups), 1)
    return values - (np.bincount(group, values, groups) / size)[group]


def weighted_spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute Spearman's correlation of x and y, (items,), where item i occurs `weights[:, i]` times: (resamples,)."""
    x, y = _weighted_ranks(x, weights), _weighted_ranks(y, weights)
    total = weights.sum(1, keepdims=True)
    x = x - (weights * x).sum(1, keepdims=True) / total
    y = y - (weights * y).sum(1, keepdims=True) / total
    return correlation(*((weights * product).sum(1) for product in (x * y, x * x, y * y)))


def correlation(xy: np.ndarray, xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
    """Compute correlations from sums of products, (groups,) each: 0 where x is constant, NaN where y is.

    Ranks are multiples of 1/2, so real variation is far above rounding.
    """
    varies = (xx > 1e-6) & (yy > 1e-6)
    result = np.divide(xy, np.sqrt(xx * yy), out=np.zeros(len(xy)), where=varies)
    return np.where(yy > 1e-6, result, np.nan)


def _weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    _, code = np.unique(values, return_inverse=True)
    order = np.argsort(code, kind="stable")
    start = np.flatnonzero(np.r_[True, np.diff(code[order]) != 0])
    count = np.add.reduceat(weights[:, order], start, axis=1)  # (resamples, distinct values)
    return (count.cumsum(1) - count / 2)[:, code]
