"""Win rates of one policy's replies over another's: at equal length, and the power of a weak judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from .intervals import LEVEL, Interval, bootstrap_statistic

# Prior precision of both coefficients, in units of one observation's weight: nothing beside a few dozen pairs, and
# finite where one side won them all.
PRECISION = 0.04
STEPS, LONGEST_STEP = 30, 2.0
POWER = 0.8


def length_controlled_win_rate(
    wins: Sequence[float], log_length_ratio: Sequence[float], conversation_ids: Sequence[str]
) -> Interval:
    """Win rate at equal length: 1 / (1 + exp(-a)) of the logistic regression

        P(win of pair i) = 1 / (1 + exp(-(a + b x_i))),    x_i = log length ratio of the pair

    A tie counts as half a win. It extrapolates where no pair is of about equal length.

    Reference: length-controlled AlpacaEval (Dubois et al., COLM 2024, arXiv 2404.04475), here for two policies. There
    the difference of lengths goes through a tanh, and a term for the difficulty of each instruction is added.

    Args:
        wins: (pairs,), 1, .5 or 0, or a mean of such; NaN is left out.
        log_length_ratio: (pairs,), log of the length after over the length before.
        conversation_ids: (pairs,); the interval resamples conversations.

    Returns:
        From 0 to 1, with its interval.

    Example:
        >>> length_controlled_win_rate([1, 1, 0], [0.0, 0.0, 0.0], ["a", "b", "c"]).estimate
        0.658...
    """
    wins, ratio = np.asarray(wins, float), np.asarray(log_length_ratio, float)
    known = ~(np.isnan(wins) | np.isnan(ratio))
    wins, ratio = wins[known], ratio[known]
    unit = (ratio.std() if len(ratio) else 0.0) or 1.0
    return bootstrap_statistic(lambda weights: _at_equal_length(wins, ratio / unit, weights), conversation_ids, known)


def _at_equal_length(wins: np.ndarray, ratio: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit all resamples at once by Newton's method: weights (resamples, pairs) to win rates (resamples,)."""
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-(a[:, None] + b[:, None] * ratio)))
        residual, weight = weights * (wins - chance), weights * chance * (1 - chance)
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
    """True win rate behind a judged one, for a judge whose scores correlate with the truth.

        Phi^-1(true) = Phi^-1(judged) / r,    r = 2 sin(pi rho / 6)

    The true difference d of a pair's replies, in its deviations, and the judge's r d plus noise of variance 1 - r^2
    are both normal: the true win rate is Phi(mean of d), the judged one Phi(r times it). r follows from Spearman's rho
    as between normal variables. The ratings that the judge was compared with count as the truth, their noise included.

    Args:
        judged: win rate by the judge, from 0 to 1.
        spearman: rho of the judge with the truth.

    Returns:
        From 0 to 1; NaN for a judge that knows nothing (rho of 0 or less).

    Example:
        >>> true_win_rate(0.55, 1.0)
        0.55
    """
    r = 2 * math.sin(math.pi * spearman / 6)
    if not r > 0 or math.isnan(judged):
        return math.nan
    normal = NormalDist()
    return normal.cdf(normal.inv_cdf(min(max(judged, 1e-12), 1 - 1e-12)) / r)


def detectable_win_rate(pairs: int) -> float:
    """Judged win rate that an experiment shows to be above one half in four of five cases.

        1/2 + (z_.975 + z_.8) / (2 sqrt(pairs))

    Pairs are independent and ties rare; 95 % intervals lie above .5 with a power of 80 %.

    Args:
        pairs: number of pairs of replies.

    Example:
        >>> round(detectable_win_rate(400), 3)
        0.57
    """
    normal = NormalDist()
    return 0.5 + (normal.inv_cdf((1 + LEVEL) / 2) + normal.inv_cdf(POWER)) / (2 * math.sqrt(max(pairs, 1)))
