"""Trust in Local Implicit signals, estimated from the scores of sessions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RETURNS_NEEDED = 30  # further sessions of listeners; with fewer the share could be anything
LEAST_SPREAD = 1e-6  # of a standardised signal between sessions: signals are stored in float32, and less is rounding
HABIT_LIMIT = 0.9  # a part of a session's mean is always the session's own


@dataclass
class Trust:
    """Regression of the scores on the signals, arrays of shape `(signals,)`.

    Args:
        slope: least squares slope of the score on the session means of the signals, all at once.
        t: slope over its standard error; 0 where a signal never changes, or sessions are too few to tell.
        beta: the slope shrunk, `slope max(0, 1 - 1/t^2)`, the part of a turn's reward per deviation of the signal. It
            is 0 for a signal that could as well be noise, and negative for one with the opposite meaning.
    """

    slope: np.ndarray
    t: np.ndarray
    beta: np.ndarray


def fit_trust(score: np.ndarray, signals: np.ndarray) -> Trust:
    """Multiple regression of the score on the session means of the signals, with shrunk slopes.

        R = b + sum_j slope_j mean_t l_jt + e,    beta_j = slope_j max(0, 1 - 1/t_j^2)

    The shrinkage is that of the positive-part James-Stein estimate (James and Stein, "Estimation with Quadratic Loss",
    Berkeley Symposium 1961) of one slope: it takes off the share of slope^2 that sampling error alone
    explains. A useless signal gets nearly no weight.

    Args:
        score: (sessions,), R, standardised.
        signals: (sessions, signals), the mean over each session's turns of every standardised signal.

    Returns:
        Slope, t and beta of each signal.

    Raises:
        ValueError: the shapes do not fit, or a value is not finite.
    """
    r, x = np.asarray(score, float), np.asarray(signals, float)
    if r.ndim != 1 or x.ndim != 2 or len(x) != len(r):
        raise ValueError(
            f"score, signals: expected (sessions,) and (sessions, signals), found shapes {r.shape} and {x.shape}"
        )
    if not (np.isfinite(r).all() and np.isfinite(x).all()):
        raise ValueError("score, signals: expected finite numbers, found NaN or infinity; standardise, NaN as 0")
    slope, t = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    if not len(r):
        return Trust(slope, t, slope.copy())
    r, x = r - r.mean(), x - x.mean(0)
    spread = np.sqrt((x**2).mean(0))
    varies = spread > LEAST_SPREAD
    unit = x[:, varies] / spread[varies]
    freedom = len(r) - 1 - unit.shape[1]
    if freedom < 1 or not varies.any():
        return Trust(slope, t, slope.copy())
    # Signals that say the same share their slope between them (the pseudo-inverse), and their error too.
    inverse = np.linalg.pinv(unit.T @ unit, hermitian=True, rcond=1e-10)
    found = inverse @ (unit.T @ r)
    noise = np.sum((r - unit @ found) ** 2) / freedom
    error = np.sqrt(np.maximum(np.diag(inverse) * noise, np.finfo(float).tiny))
    slope[varies], t[varies] = found / spread[varies], found / error
    with np.errstate(divide="ignore"):
        return Trust(slope, t, slope * np.maximum(0, 1 - 1 / t**2))


def habit_share(signal: np.ndarray, rater: np.ndarray) -> float:
    """Share of the variance between sessions' means of a signal that is the listener's habit: some people smile more.

        (MS_between - MS_within) / (MS_between + (n - 1) MS_within),    n = mean number of sessions per listener

    Source: the intraclass correlation ICC(1) of one-way analysis of variance (Shrout and Fleiss, "Intraclass
    correlations", Psychological Bulletin 1979), with the n of Donner and Koval (Biometrics 1980) for unequal groups.
    A listener of one session only counts in MS_between.

    Args:
        signal: (sessions,), the mean over each session's turns; NaN where nothing was observed.
        rater: (sessions,), id of the listener; "" where unknown.

    Returns:
        In 0..`HABIT_LIMIT`; 0 where listeners came back fewer than `RETURNS_NEEDED` times.
    """
    y, rater = np.asarray(signal, float), np.asarray(rater)
    known = ~np.isnan(y) & (rater != "")
    _, listener = np.unique(rater[known], return_inverse=True)
    y, sessions, listeners = y[known], int(known.sum()), int(listener.max(initial=-1) + 1)
    if listeners < 2 or sessions - listeners < RETURNS_NEEDED:
        return 0.0
    count = np.bincount(listener)
    means = np.bincount(listener, y) / count
    within = np.sum((y - means[listener]) ** 2) / (sessions - listeners)
    between = np.sum(count * (means - y.mean()) ** 2) / (listeners - 1)
    size = (sessions - np.sum(count**2) / sessions) / (listeners - 1)
    total = between + (size - 1) * within
    return float(np.clip((between - within) / total, 0, HABIT_LIMIT)) if total > 0 else 0.0
