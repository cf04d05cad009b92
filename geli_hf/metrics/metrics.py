"""Metrics of turn rewards over sessions, with intervals over conversations.

Rewards, ratings and feedback are lists with one 1-D array per session, one value per assistant turn. NaN means missing
and is left out, on either side. A metric that is a mean over sessions has a `*_per_session` form, whose NaN marks the
sessions where it is undefined; `bootstrap` and `paired_bootstrap` turn those values into intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .intervals import LEVEL, RESAMPLES, Interval, bootstrap_statistic, mean_of_known
from .ranks import (
    PerTurn,
    centre_within,
    correlation,
    flatten_turns,
    ranks_within,
    turns_by_session,
    weighted_spearman,
)


def spearman_per_session(rewards: PerTurn, ratings: PerTurn) -> np.ndarray:
    """Spearman's rank correlation of rewards with ratings within each session.

        rho_s = corr(rank(r_s), rank(y_s)),    ties share their mean rank

    Reference: Spearman, "The Proof and Measurement of Association between Two Things", 1904.

    Args:
        rewards, ratings: one array (turns,) per session, in any unit.

    Returns:
        (sessions,), from -1 to 1. NaN where fewer than two turns are rated or all ratings are equal. 0 where the
        reward is the same for all turns.

    Example:
        >>> spearman_per_session([[1, 2, 3], [5, 5]], [[1, 2, 3], [1, 2]])
        array([1., 0.])
    """
    session, predicted, rated = flatten_turns(rewards, ratings, "ratings")
    x, y = (centre_within(session, ranks_within(session, values), len(rewards)) for values in (predicted, rated))
    return correlation(*(np.bincount(session, product, len(rewards)) for product in (x * y, x * x, y * y)))


def auc_per_session(rewards: PerTurn, ratings: PerTurn) -> np.ndarray:
    """Area under the ROC curve within each session, generalised to graded ratings.

        AUC_s = P(r_i > r_j | y_i > y_j) + P(r_i = r_j | y_i > y_j) / 2,    over the pairs of turns (i, j)

    Reference: Hanley and McNeil, "The Meaning and Use of the Area under a ROC Curve", 1982.

    Args:
        rewards, ratings: one array (turns,) per session, in any unit.

    Returns:
        (sessions,), from 0 to 1. NaN where no two ratings differ.

    Example:
        >>> auc_per_session([[1, 2, 3], [5, 5]], [[1, 2, 3], [1, 2]])
        array([1. , 0.5])
    """
    result = np.full(len(rewards), np.nan)
    for index, (x, y) in enumerate(turns_by_session(rewards, ratings)):
        better = y[:, None] > y
        if pairs := np.count_nonzero(better):
            won = np.count_nonzero(better & (x[:, None] > x))
            tied = np.count_nonzero(better & (x[:, None] == x))
            result[index] = (won + 0.5 * tied) / pairs
    return result


def within_session_spearman(rewards: PerTurn, ratings: PerTurn) -> float:
    """Compute the mean of `spearman_per_session` over the sessions where it is defined; NaN if there is none."""
    return mean_of_known(spearman_per_session(rewards, ratings))


def squared_error_per_session(predicted: Sequence[float], scores: Sequence[float]) -> np.ndarray:
    """Squared error of the predicted score of each session, (R_hat_s - R_s)^2.

    Args:
        predicted, scores: (sessions,), in units of the score.

    Returns:
        (sessions,), in squared units of the score; NaN where one of the two is missing.

    Raises:
        ValueError: the two have different shapes.

    Example:
        >>> squared_error_per_session([2.0, 3.0], [1.0, 3.0])
        array([1., 0.])
    """
    x, y = np.asarray(predicted, float), np.asarray(scores, float)
    if x.shape != y.shape:  # one number would be compared with all scores
        raise ValueError(f"predicted, scores: expected one of each per session, found shapes {x.shape} and {y.shape}")
    return (x - y) ** 2


def global_loss(predicted: Sequence[float], scores: Sequence[float]) -> float:
    """Compute the mean of `squared_error_per_session`: the Global Explicit loss of GELI (arXiv 2403.11330)."""
    return mean_of_known(squared_error_per_session(predicted, scores))


def global_loss_floor(scores: Sequence[float], train_mean: float) -> float:
    """Compute the global loss of predicting the mean score of the training sessions for every session."""
    return global_loss(np.full(len(scores), train_mean), scores)


def local_difference(rewards: PerTurn, feedback: PerTurn, *, threshold: float = 0.0) -> float:
    """Mean reward of the turns with positive feedback minus that of the other observed turns.

        mean(r_t : f_t > threshold) - mean(r_t : f_t <= threshold)

    A reward that copies the feedback has a large one: by itself it proves nothing about attribution.
    Reference: the reward difference of GELI's Local Implicit evaluation (arXiv 2403.11330).

    Args:
        rewards: one array (turns,) per session.
        feedback: one array (turns,) per session, in units of the signal.
        threshold: feedback above it is positive. 0 fits 0/1 and signed feedback; a mean probability needs its own.

    Returns:
        The difference, in units of the reward; NaN if either side has no turn.

    Example:
        >>> local_difference([[1.0, 2.0], [3.0, 6.0]], [[0, 1], [1, 0]])
        -1.0
    """
    difference, _ = _difference_and_deviation(_local_sums(rewards, feedback, threshold).sum(0))
    return float(difference)


def bootstrap(
    values_per_session: Sequence[float] | np.ndarray,
    conversation_ids: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Compute the mean of the values that are not NaN, with its percentile interval over conversations.

    Args:
        values_per_session: (sessions,), as from `spearman_per_session`.
        conversation_ids: (sessions,); sessions of one conversation are drawn together.
        resamples, seed: of the bootstrap.
        level: share of the resamples that the interval holds; with 95 % and several comparisons, some intervals
            exclude 0 by chance.

    Example:
        >>> bootstrap([1.0, 2.0, 3.0], ["a", "b", "c"]).estimate
        2.0
    """
    values = np.asarray(values_per_session, float)
    known, all_sessions = ~np.isnan(values), np.ones(len(values), bool)
    centre = mean_of_known(values)  # keeps the interval of a constant exact
    sums = np.stack([known, np.where(known, values - centre, 0)], 1)

    def mean(weights: np.ndarray) -> np.ndarray:
        count, total = (weights @ sums).T
        return _divide(total, count)

    interval = bootstrap_statistic(mean, conversation_ids, all_sessions, resamples=resamples, seed=seed, level=level)
    return Interval(*(bound + centre for bound in interval))


def paired_bootstrap(a: Sequence[float], b: Sequence[float], conversation_ids: Sequence[str], **options) -> Interval:
    """Compute the mean of `a - b` with its interval over conversations.

    Args:
        a, b: (sessions,), values of two methods on the same sessions; sessions where either is NaN are left out.
        conversation_ids: (sessions,).
        options: `resamples`, `seed` and `level` of `bootstrap`.

    Example:
        >>> paired_bootstrap([2.0, 3.0], [1.0, 2.0], ["a", "b"])
        Interval(estimate=1.0, low=1.0, high=1.0)
    """
    return bootstrap(np.subtract(a, b), conversation_ids, **options)


def session_spearman_interval(
    predicted: Sequence[float] | Sequence[Sequence[float]],
    scores: Sequence[float],
    conversation_ids: Sequence[str],
    **draw: Any,
) -> Interval:
    """Spearman's rank correlation of predicted with given scores over sessions, with its interval.

    It depends on who rates high as much as on what was said: report it after the within-session figures. Every
    resample is ranked anew. The estimate is 0 if all predictions are equal, NaN if all scores are.

    Args:
        predicted: (sessions,); or (runs, sessions), for the mean over runs, whose sessions are drawn together.
        scores, conversation_ids: (sessions,).
        draw: `resamples` and `seed` of `bootstrap_statistic`.
    """
    runs, y = np.atleast_2d(np.asarray(predicted, float)), np.asarray(scores, float)
    known = ~np.isnan(runs + y).any(0)

    def mean_over_runs(weights: np.ndarray) -> np.ndarray:
        return np.mean([weighted_spearman(x[known], y[known], weights) for x in runs], axis=0)

    return bootstrap_statistic(mean_over_runs, conversation_ids, known, **draw)


def local_difference_interval(
    runs: Sequence[PerTurn],
    feedback: PerTurn,
    conversation_ids: Sequence[str],
    *,
    threshold: float = 0.0,
    **draw: Any,
) -> Interval:
    """Compute the mean of `local_difference` over runs, each in deviations of its reward, with its interval.

    Args:
        runs: the rewards of each run; conversations are drawn for all runs together.
        feedback: one array (turns,) per session.
        conversation_ids: (sessions,).
        threshold: see `local_difference`.
        draw: `resamples` and `seed` of `bootstrap_statistic`.

    Returns:
        In deviations of the reward over the observed turns.
    """
    sums = np.stack([_local_sums(rewards, feedback, threshold) for rewards in runs])  # (runs, sessions, 5)

    def mean_over_runs(weights: np.ndarray) -> np.ndarray:
        difference, deviation = _difference_and_deviation(weights @ sums)
        return _divide(difference, deviation).mean(0)

    return bootstrap_statistic(mean_over_runs, conversation_ids, np.ones(sums.shape[1], bool), **draw)


def _local_sums(rewards: PerTurn, feedback: PerTurn, threshold: float) -> np.ndarray:
    """(sessions, 5): count and sum of the reward over positive turns, the same over the others, sum of squares."""
    session, reward, signal = flatten_turns(rewards, feedback, "feedback")
    if len(reward):
        reward = reward - np.median(reward)  # the difference stays, the variance keeps its digits, a constant is 0
    positive = signal > threshold
    parts = (positive, reward * positive, ~positive, reward * ~positive, reward**2)
    return np.stack([np.bincount(session, part, len(rewards)) for part in parts], 1)


def _difference_and_deviation(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positive, positive_sum, other, other_sum, squares = np.moveaxis(sums, -1, 0)
    difference = _divide(positive_sum, positive) - _divide(other_sum, other)
    mean = _divide(positive_sum + other_sum, positive + other)
    variance = _divide(squares, positive + other) - mean**2
    return difference, np.sqrt(np.maximum(variance, 0))


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)
