"""How well turn rewards attribute: metrics over sessions, with intervals over conversations. numpy only.

Rewards, ratings and feedback are lists with one 1-D array per session, one value per assistant turn. NaN means missing
and is left out, on either side. A metric that is a mean over sessions has a `*_per_session` form, whose NaN marks the
sessions where it is undefined; `bootstrap` and `paired_bootstrap` turn those values into intervals. Both perspectives
of a conversation share its words, so every interval resamples conversations, never sessions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

PerTurn = Sequence[Sequence[float] | np.ndarray]
RESAMPLES = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate with its bootstrap interval, of 95 % unless it says otherwise.

    NaN throughout where there is nothing to estimate from; without bounds where there is too little for an interval.
    """

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        bounds = "" if np.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.estimate:.3f}{bounds}"


def spearman_per_session(rewards: PerTurn, ratings: PerTurn) -> np.ndarray:
    """Spearman's correlation of rewards with ratings within each session, ties sharing their mean rank.

    Returns:
        (sessions,). NaN where fewer than two turns are rated or all ratings are equal. A reward that is the same for
        all turns tells nothing about them and counts as 0.
    """
    session, predicted, rated = _flatten(rewards, ratings, "ratings")
    count = len(rewards)
    x, y = _ranks_within(session, predicted), _ranks_within(session, rated)
    size = np.maximum(np.bincount(session, minlength=count), 1)
    x = x - (np.bincount(session, x, count) / size)[session]
    y = y - (np.bincount(session, y, count) / size)[session]
    return _correlation(*(np.bincount(session, product, count) for product in (x * y, x * x, y * y)))


def auc_per_session(rewards: PerTurn, ratings: PerTurn) -> np.ndarray:
    """Share of a session's pairs of differently rated turns whose rewards stand in the same order; a tie counts .5.

    Returns:
        (sessions,). NaN where no two ratings differ.
    """
    session, predicted, rated = _flatten(rewards, ratings, "ratings")
    edges = np.searchsorted(session, np.arange(len(rewards) + 1))
    result = np.full(len(rewards), np.nan)
    for index, (start, stop) in enumerate(itertools.pairwise(edges)):
        x, y = predicted[start:stop], rated[start:stop]
        better = y[:, None] > y
        if pairs := np.count_nonzero(better):
            won = np.count_nonzero(better & (x[:, None] > x))
            tied = np.count_nonzero(better & (x[:, None] == x))
            result[index] = (won + 0.5 * tied) / pairs
    return result


def within_session_spearman(rewards: PerTurn, ratings: PerTurn) -> float:
    """Mean of `spearman_per_session` over the sessions where it is defined; NaN if there is none."""
    return _mean(spearman_per_session(rewards, ratings))


def within_session_auc(rewards: PerTurn, ratings: PerTurn) -> float:
    """Mean of `auc_per_session` over the sessions where it is defined; NaN if there is none."""
    return _mean(auc_per_session(rewards, ratings))


def session_spearman(predicted: Sequence[float], scores: Sequence[float]) -> float:
    """Spearman's correlation, over sessions, of predicted with given scores; 0 if all predictions are equal.

    It measures who rates high as much as what was said: report it after the within-session figures.
    """
    x, y, known = _scores(predicted, scores)
    return float(_weighted_spearman(x[known], y[known], np.ones((1, known.sum())))[0])


def squared_error_per_session(predicted: Sequence[float], scores: Sequence[float]) -> np.ndarray:
    """(sessions,), squared error of the predicted score, in squared units of the score; NaN where one is missing."""
    x, y, _ = _scores(predicted, scores)
    return (x - y) ** 2


def global_loss(predicted: Sequence[float], scores: Sequence[float]) -> float:
    """Mean squared error of the predicted session score, in squared units of the score."""
    return _mean(squared_error_per_session(predicted, scores))


def global_loss_floor(scores: Sequence[float], train_mean: float) -> float:
    """The global loss of predicting the mean score of the training sessions for every session."""
    return global_loss(np.full(len(scores), train_mean), scores)


def local_difference(
    rewards: PerTurn, feedback: PerTurn, *, threshold: float = 0.0, in_deviations: bool = False
) -> float:
    """Mean reward of the turns with positive feedback minus that of the other observed turns.

    A reward that copies the feedback has a large one: by itself it proves nothing about attribution.

    Args:
        threshold: feedback above it is positive. 0 fits 0/1 and signed feedback; a mean probability needs its own.
        in_deviations: divide by the standard deviation of the reward over the observed turns.
    """
    sums = _local_sums(rewards, feedback, threshold)
    return float(_local_difference_of(sums.sum(0), in_deviations))


def bootstrap(
    values_per_session: Sequence[float],
    conversation_ids: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Mean of the values that are not NaN, with its percentile interval over conversations.

    Args:
        values_per_session: (sessions,), as from `spearman_per_session`.
        conversation_ids: (sessions,); sessions of one conversation are drawn together.
        level: share of the resamples that the interval holds; with 95 % and several comparisons, some intervals
            exclude 0 by chance.
    """
    values = np.asarray(values_per_session, float)
    known = ~np.isnan(values)
    centre = _mean(values)  # keeps the interval of a constant exact
    sums = np.stack([known, np.where(known, values - centre, 0)], 1)

    def mean(sums: np.ndarray) -> np.ndarray:
        return _divide(sums[..., 1], sums[..., 0])

    interval = _bootstrap_sums(sums, mean, conversation_ids, resamples, seed, level)
    return Interval(*(float(bound + centre) for bound in interval))


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    conversation_ids: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Mean of `a - b`, values of two methods on the same sessions; sessions where either is NaN are left out."""
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.shape != second.shape:
        raise ValueError(f"a, b: expected values for the same sessions, found {len(first)} and {len(second)}")
    return bootstrap(first - second, conversation_ids, resamples=resamples, seed=seed, level=level)


def session_spearman_interval(
    predicted: Sequence[float] | Sequence[Sequence[float]],
    scores: Sequence[float],
    conversation_ids: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """`session_spearman` with its interval; every resample is ranked anew.

    Args:
        predicted: (sessions,); or (runs, sessions), for the mean over runs, whose sessions are drawn together.
    """
    runs = [_scores(run, scores) for run in np.atleast_2d(np.asarray(predicted, float))]
    known = np.logical_and.reduce([known for *_, known in runs])
    if not known.any():
        return Interval(np.nan, np.nan, np.nan)
    conversation = _conversations(conversation_ids, len(known))[known]
    conversation = np.unique(conversation, return_inverse=True)[1]  # draw only those that have a score
    parts = np.array_split(_resample(conversation, resamples, seed), 20)  # bounds the memory of many sessions
    drawn = np.zeros(resamples)
    for x, y, _ in runs:
        each = [_weighted_spearman(x[known], y[known], times[:, conversation]) for times in parts]
        drawn += np.concatenate(each) / len(runs)
    return _interval(float(np.mean([session_spearman(x[known], y[known]) for x, y, _ in runs])), drawn, LEVEL)


def local_difference_interval(
    runs: Sequence[PerTurn],
    feedback: PerTurn,
    conversation_ids: Sequence[str],
    *,
    threshold: float = 0.0,
    in_deviations: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean of `local_difference` over runs with its interval.

    Args:
        runs: the rewards of each run; conversations are drawn for all runs together.
    """
    sums = np.stack([_local_sums(rewards, feedback, threshold) for rewards in runs], 1)  # (sessions, runs, 5)

    def mean_over_runs(s: np.ndarray) -> np.ndarray:
        return _local_difference_of(s.reshape(*s.shape[:-1], len(runs), 5), in_deviations).mean(-1)

    return _bootstrap_sums(sums.reshape(len(sums), -1), mean_over_runs, conversation_ids, resamples, seed, LEVEL)


def _flatten(rewards: PerTurn, truth: PerTurn, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Session index, reward and truth of every turn that has both, in order."""
    if len(rewards) != len(truth):
        raise ValueError(f"rewards, {name}: expected the same sessions, found {len(rewards)} and {len(truth)}")
    if not len(rewards):
        return np.zeros(0, int), np.zeros(0), np.zeros(0)
    rewards = [np.asarray(values, float) for values in rewards]
    truth = [np.asarray(values, float) for values in truth]
    for index, (x, y) in enumerate(zip(rewards, truth)):
        if x.shape != y.shape or x.ndim != 1:
            raise ValueError(
                f"session {index}: expected one reward and one value of {name} per assistant turn, "
                f"found shapes {x.shape} and {y.shape}"
            )
    session = np.repeat(np.arange(len(rewards)), [len(values) for values in rewards])
    x, y = np.concatenate(rewards), np.concatenate(truth)
    known = ~(np.isnan(x) | np.isnan(y))
    return session[known], x[known], y[known]


def _ranks_within(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean ranks within each group, up to a constant of the group's own."""
    if not len(values):
        return np.zeros(0)
    order = np.lexsort((values, group))
    new = np.r_[True, (np.diff(group[order]) != 0) | (np.diff(values[order]) != 0)]
    tie = np.cumsum(new) - 1
    start = np.r_[np.flatnonzero(new), len(values)]
    ranks = np.empty(len(values))
    ranks[order] = ((start[:-1] + start[1:] - 1) / 2)[tie]
    return ranks


def _weighted_spearman(x: np.ndarray, y: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(resamples,), Spearman's correlation where item i occurs `times[:, i]` times."""
    if not len(x):
        return np.full(len(times), np.nan)
    x, y = _weighted_ranks(x, times), _weighted_ranks(y, times)
    total = times.sum(1, keepdims=True)
    x = x - (times * x).sum(1, keepdims=True) / total
    y = y - (times * y).sum(1, keepdims=True) / total
    return _correlation(*((times * product).sum(1) for product in (x * y, x * x, y * y)))


def _weighted_ranks(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    _, code = np.unique(values, return_inverse=True)
    order = np.argsort(code, kind="stable")
    start = np.flatnonzero(np.r_[True, np.diff(code[order]) != 0])
    count = np.add.reduceat(times[:, order], start, axis=1)  # (resamples, distinct values)
    return (count.cumsum(1) - count / 2)[:, code]


def _correlation(xy: np.ndarray, xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
    """0 where x is constant, NaN where y is. Ranks are multiples of 1/2: real variation is far above rounding."""
    varies = (xx > 1e-6) & (yy > 1e-6)
    result = np.divide(xy, np.sqrt(xx * yy), out=np.zeros(len(xy)), where=varies)
    return np.where(yy > 1e-6, result, np.nan)


def _local_sums(rewards: PerTurn, feedback: PerTurn, threshold: float) -> np.ndarray:
    """(sessions, 5): count and sum of the reward over positive turns, the same over the others, sum of squares."""
    session, reward, felt = _flatten(rewards, feedback, "feedback")
    if len(reward):
        reward = reward - np.median(reward)  # the difference stays, the variance keeps its digits, a constant is 0
    positive = felt > threshold
    parts = (positive, reward * positive, ~positive, reward * ~positive, reward**2)
    return np.stack([np.bincount(session, part, len(rewards)) for part in parts], 1)


def _local_difference_of(sums: np.ndarray, in_deviations: bool) -> np.ndarray:
    positive, positive_sum, other, other_sum, squares = np.moveaxis(sums, -1, 0)
    difference = _divide(positive_sum, positive) - _divide(other_sum, other)
    if not in_deviations:
        return difference
    mean = _divide(positive_sum + other_sum, positive + other)
    variance = _divide(squares, positive + other) - mean**2
    return _divide(difference, np.sqrt(np.maximum(variance, 0)))


def _bootstrap_sums(
    sums: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    conversation_ids: Sequence[str],
    resamples: int,
    seed: int,
    level: float,
) -> Interval:
    """Interval of a statistic of sums over sessions: (sessions, k) -> (resamples, k) -> (resamples,)."""
    conversation = _conversations(conversation_ids, len(sums))
    if not len(sums):
        return Interval(np.nan, np.nan, np.nan)
    of_conversation = np.stack([np.bincount(conversation, column) for column in sums.T], 1)
    drawn = _resample(conversation, resamples, seed) @ of_conversation
    return _interval(float(statistic(sums.sum(0))), statistic(drawn), level)


def _resample(conversation: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(resamples, conversations), how often each conversation is drawn."""
    count = conversation.max() + 1
    draws = np.random.default_rng(seed).integers(0, count, (resamples, count))
    flat = (draws + np.arange(resamples)[:, None] * count).ravel()
    return np.bincount(flat, minlength=resamples * count).reshape(resamples, count).astype(float)


def _conversations(conversation_ids: Sequence[str], sessions: int) -> np.ndarray:
    if len(conversation_ids) != sessions:
        raise ValueError(f"conversation_ids: expected one per session, {sessions}, found {len(conversation_ids)}")
    return np.unique(np.asarray(conversation_ids, dtype=str), return_inverse=True)[1].reshape(-1)


def _scores(predicted: Sequence[float], scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.asarray(predicted, float), np.asarray(scores, float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"predicted, scores: expected one of each per session, found shapes {x.shape} and {y.shape}")
    return x, y, ~(np.isnan(x) | np.isnan(y))


def _interval(estimate: float, drawn: np.ndarray, level: float) -> Interval:
    drawn = drawn[~np.isnan(drawn)]  # a resample without a defined session has no value
    if np.isnan(estimate) or not len(drawn):
        return Interval(estimate, np.nan, np.nan)
    low, high = np.percentile(drawn, [50 - 50 * level, 50 + 50 * level])
    return Interval(float(estimate), float(low), float(high))


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan
