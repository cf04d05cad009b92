"""Bootstrap intervals over conversations.

Both perspectives of a conversation share its words, so every interval resamples conversations, never sessions. An
interval holds the percentiles of the resampled statistic (Efron and Tibshirani, "An Introduction to the Bootstrap",
1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
MISSING = "–"
PARTS = 20  # of the resamples; bounds the memory of many sessions


class Interval(NamedTuple):
    """An estimate with its bootstrap interval, at the level of 95 % unless stated otherwise.

    All fields are NaN where there is nothing to estimate from; the bounds alone are NaN where there is too little data
    for an interval.
    """

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.estimate):
            return MISSING
        bounds = "" if np.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.estimate:.3f}{bounds}"


UNKNOWN = Interval(np.nan, np.nan, np.nan)


def bootstrap_statistic(
    statistic: Callable[[np.ndarray], np.ndarray],
    conversation_ids: Sequence[str],
    known: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Compute the percentile interval of any statistic of weighted items.

    Args:
        statistic: maps weights (resamples, items), the number of times that each item is drawn, to (resamples,).
        conversation_ids: (items,); items of one conversation are drawn together.
        known: (items,), bool; the other items are left out.
        resamples: number of resamples.
        seed: of the resampling.
        level: share of the resamples that the interval holds.

    Returns:
        The statistic at weight 1 and its interval; `UNKNOWN` without any item.

    Raises:
        ValueError: there is not one conversation id per item.
    """
    if len(conversation_ids) != len(known):
        raise ValueError(f"conversation_ids: expected one per item, {len(known)}, found {len(conversation_ids)}")
    conversation = np.unique(np.asarray(conversation_ids, dtype=str)[known], return_inverse=True)[1]
    if not len(conversation):
        return UNKNOWN
    count = conversation.max() + 1
    draws = np.random.default_rng(seed).integers(0, count, (resamples, count))
    values = []
    for part in np.array_split(draws, PARTS):
        flat = (part + np.arange(len(part))[:, None] * count).ravel()
        weights = np.bincount(flat, minlength=len(part) * count).reshape(len(part), count).astype(float)
        values.append(statistic(weights[:, conversation]))
    values = np.concatenate(values)
    values = values[~np.isnan(values)]  # a resample without a defined session has no value
    estimate = float(statistic(np.ones((1, len(conversation))))[0])
    if np.isnan(estimate) or not len(values):
        return Interval(estimate, np.nan, np.nan)
    low, high = np.percentile(values, [50 - 50 * level, 50 + 50 * level])
    return Interval(estimate, float(low), float(high))


def mean_of_known(values: Sequence[float] | np.ndarray) -> float:
    """Compute the mean of the values, (items,), that are not NaN; NaN if there is none."""
    values = np.asarray(values, float)
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan
