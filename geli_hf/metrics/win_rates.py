"""Win rates of one policy's replies over another's: with length held fixed, and how much a weak judge can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from . import metrics
from .metrics import Interval

# Prior precision of both coefficients, in units of one observation's weight: nothing beside a few dozen pairs, and
# finite where one side won them all.
PRECISION = 0.04
STEPS, LONGEST_STEP = 30, 2.0
POWER = 0.8


def length_controlled_win_rate(
    wins: Sequence[float],
    log_length_ratio: Sequence[float],
    conversation_ids: Sequence[str],
    *,
    resamples: int = metrics.RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The win rate at equal length: 1 / (1 + exp(-a)) of the logistic regression

        P(win of pair i) = 1 / (1 + exp(-(a + b x_i))),    x_i = log length ratio of the pair

    A tie counts as half a win. This is the idea of length-controlled AlpacaEval (Dubois et al., "Length-Controlled
    AlpacaEval", COLM 2024, arXiv 2404.04475) for two policies; there the difference of lengths goes through a tanh,
    and a term for the difficulty of each instruction is added. It says what the win rate would be if replies differed
    in nothing but length from these, and so is an extrapolation where no pair is of about equal length.

    Args:
        wins: (pairs,), 1, .5 or 0, or a mean of such; NaN is left out.
        log_length_ratio: (pairs,), log of the length after over the length before.
        conversation_ids: (pairs,); the interval resamples conversations.
    """
    wins, ratio = np.asarray(wins, float), np.asarray(log_length_ratio, float)
    if wins.shape != ratio.shape:
        raise ValueError(f"wins, log_length_ratio: expected one of each per pair, found {len(wins)} and {len(ratio)}")
    known = ~(np.isnan(wins) | np.isnan(ratio))
    if not known.any():
        return Interval(math.nan, math.nan, math.nan)
    conversation = metrics._conversations(conversation_ids, len(wins))[known]
    conversation = np.unique(conversation, return_inverse=True)[1]
    wins, ratio = wins[known], ratio[known]
    unit = ratio.std() or 1.0
    times = metrics._resample(conversation, resamples, seed)
    parts = np.array_split(times, 20)  # bounds the memory of many pairs
    drawn = np.concatenate([_at_equal_length(wins, ratio / unit, part[:, conversation]) for part in parts])
    estimate = _at_equal_length(wins, ratio / unit, np.ones((1, len(wins))))[0]
    return metrics._interval(float(estimate), drawn, metrics.LEVEL)


def _at_equal_length(wins: np.ndarray, ratio: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(resamples,), by Newton's method, for all resamples at once; `times` is (resamples, pairs)."""
    a, b = np.zeros(len(times)), np.zeros(len(times))
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-(a[:, None] + b[:, None] * ratio)))
        residual, weight = times * (wins - chance), times * chance * (1 - chance)
        slope_a, slope_b = residual.sum(1) - PRECISION * a, residual @ ratio - PRECISION * b
        aa, ab, bb = weight.sum(1) + PRECISION, weight @ ratio, weight @ ratio**2 + PRECISION
        determinant = aa * bb - ab**2
        step = np.stack([bb * slope_a - ab * slope_b, aa * slope_b - ab * slope_a]) / determinant
        step *= np.minimum(1.0, LONGEST_STEP / np.maximum(np.hypot(*step), 1e-12))
        a, b = a + step[0], b + step[1]
        if np.abs(step).max() < 1e-9:
            break
    return 1 / (1 + np.exp(-a))


def true_win_rate(judged: float, spearman: float) -> float:
    """The true win rate behind a judged one, of a judge whose scores correlate with the truth.

    With d the true difference of a pair's replies, in its deviations, and a judge that sees r d plus noise of variance
    1 - r^2 (both normal), the true win rate is Phi(mean of d) and the judged one Phi(r times it). So

        Phi^-1(true) = Phi^-1(judged) / r,    r = 2 sin(pi rho / 6)

    r from Spearman's rho as between normal variables. What the judge was compared with counts as the truth here:
    ratings of single turns by one person, say, whose own noise is then a part of it.

    Returns:
        NaN of a judge that knows nothing (rho of 0 or less).
    """
    r = 2 * math.sin(math.pi * spearman / 6)
    if not r > 0 or math.isnan(judged):
        return math.nan
    normal = NormalDist()
    return normal.cdf(normal.inv_cdf(min(max(judged, 1e-12), 1 - 1e-12)) / r)


def detectable_win_rate(pairs: int) -> float:
    """The judged win rate that so many pairs show to be above one half in four of five experiments.

    That is, 95 % intervals lie above .5 with a power of 80 %: 1/2 + (1.96 + .84) / (2 sqrt(pairs)), pairs being
    independent and ties rare.
    """
    normal = NormalDist()
    return 0.5 + (normal.inv_cdf((1 + metrics.LEVEL) / 2) + normal.inv_cdf(POWER)) / (2 * math.sqrt(max(pairs, 1)))
