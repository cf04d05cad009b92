"""How far a session's score bears out the Local Implicit signals: the trust that each of them has earned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RETURNS_NEEDED = 30  # sessions with a listener who was heard before; with fewer the share could be anything
HABIT_LIMIT = 0.9  # something of a session's mean is always the session's


@dataclass
class Trust:
    """What the scores say of each signal, arrays of shape `(signals,)`.

    Args:
        slope: least squares slope of the score on the session means of the signals, all at once.
        t: slope over its standard error; 0 where a signal never changes, or sessions are too few to tell.
        beta: the slope shrunk, `slope max(0, 1 - 1/t^2)`: what a deviation of the signal at one turn adds to that
            turn's reward. 0 for a signal that could as well be noise; negative for one that says the opposite.
    """

    slope: np.ndarray
    t: np.ndarray
    beta: np.ndarray


def fit_trust(score: np.ndarray, signals: np.ndarray) -> Trust:
    """Multiple regression of R on the session means of the signals, R = b + sum_j slope_j mean_t l_jt + e, shrunk.

    The shrinkage is that of a positive-part James-Stein estimate of one slope: it takes off the share of slope^2 that
    is expected from sampling error alone. A useless signal gets nearly nothing and so does no harm.

    Args:
        score: (sessions,), standardised.
        signals: (sessions, signals), the mean over each session's turns of every standardised signal.

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
    varies = spread > 1e-9
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

    The intraclass correlation of one-way analysis of variance, ICC(1) (Shrout and Fleiss, "Intraclass correlations",
    Psychological Bulletin 1979), with the mean number of sessions for unequal groups of Donner and Koval (Biometrics
    1980). Listeners who were in one session only count among the differences between listeners.

    Args:
        signal: (sessions,), the mean over each session's turns; NaN where nothing was observed.
        rater: (sessions,), who listened; "" where that is not known.

    Returns:
        In 0..`HABIT_LIMIT`; 0 where listeners came back fewer than `RETURNS_NEEDED` times.
    """
    y, rater = np.asarray(signal, float), np.asarray(rater)
    known = ~np.isnan(y) & (rater != "")
    _, who = np.unique(rater[known], return_inverse=True)
    y, sessions, people = y[known], int(known.sum()), int(who.max(initial=-1) + 1)
    if people < 2 or sessions - people < RETURNS_NEEDED:
        return 0.0
    each = np.bincount(who)
    means = np.bincount(who, y) / each
    within = np.sum((y - means[who]) ** 2) / (sessions - people)
    between = np.sum(each * (means - y.mean()) ** 2) / (people - 1)
    size = (sessions - np.sum(each**2) / sessions) / (people - 1)
    total = between + (size - 1) * within
    return float(np.clip((between - within) / total, 0, HABIT_LIMIT)) if total > 0 else 0.0
