"""Ridge regression that finds its own strength, by the marginal likelihood. numpy, float64, no iteration over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

# Where the strength is looked for, in units of the largest eigenvalue of the features' scatter: a grid first, since
# the likelihood can have several maxima, then the best point's neighbourhood.
GRID = np.geomspace(1e-10, 1e6, 129)
REFINEMENTS = 40
ROWS_AT_ONCE = 4096
# How freely the weights of the second of two groups may vary, against those of the first.
RATIOS = (0.0, 1 / 3, 1.0, 3.0, np.inf)


@dataclass
class Ridge:
    """`intercept + features @ weight`.

    Args:
        weight: (features,), float64.
        intercept: the prediction where all features are 0.
        strength: the ridge, in units of x'x; infinite where the features explain nothing, and `weight` is 0 then.
        explained: share of the target's variance, in 0..1, that the likelihood ascribes to the features.
        evidence: logarithm of the marginal likelihood, over that without any weight; 0 where there is none.
    """

    weight: np.ndarray
    intercept: float
    strength: float
    explained: float
    evidence: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Predictions `(rows,)` of features `(rows, features)`."""
        return np.asarray(features, float) @ self.weight + self.intercept


def fit_ridge(features: np.ndarray, target: np.ndarray, scale: np.ndarray | None = None) -> Ridge:
    """The posterior mean of w in

        y_i = b + w x_i + e_i,    w ~ N(0, s^2 / strength),    e_i ~ N(0, s^2)

    with b flat, s^2 profiled out, and the strength of the highest marginal likelihood (evidence), after MacKay,
    "Bayesian Interpolation", Neural Computation 1992. With x centred, x'x = V diag(g) V', u_j = (V'x'y)_j / sqrt(g_j)
    and k = rows - 1, that is the maximum over the strength of

        -k/2 log( sum_j u_j^2 / (1 + g_j / strength) + rest ) - 1/2 sum_j log(1 + g_j / strength)

    Args:
        features: (rows, features), of any precision.
        target: (rows,).
        scale: (features,), the deviation in which each feature is measured, since all weights are shrunk alike; the
            weights that are returned are for the features as they were given.

    Raises:
        ValueError: the shapes do not fit, there are fewer than two rows, or a value is not finite.
    """
    x, y = np.asarray(features), np.asarray(target, float)
    if x.ndim != 2 or y.shape != x.shape[:1] or len(y) < 2:
        raise ValueError(
            "features, target: expected (rows, features) and (rows,) of at least two rows, "
            f"found shapes {x.shape} and {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("features, target: expected finite numbers, found NaN or infinity")
    middle, level = x.mean(0, dtype=float), y.mean()
    unit = np.ones(x.shape[1]) if scale is None else np.asarray(scale, float)
    y = y - level
    scatter, against = np.zeros((len(unit), len(unit))), np.zeros(len(unit))  # x'x and x'y
    for first in range(0, len(x), ROWS_AT_ONCE):  # no copy of all rows in float64
        part = (x[first : first + ROWS_AT_ONCE] - middle) / unit
        scatter += part.T @ part
        against += part.T @ y[first : first + ROWS_AT_ONCE]
    scatter, basis = np.linalg.eigh(scatter)
    kept = scatter > scatter[-1] * len(scatter) * np.finfo(float).eps if len(scatter) else np.zeros(0, bool)
    total, freedom = y @ y, len(y) - 1
    if not kept.any() or total == 0:
        return Ridge(np.zeros(x.shape[1]), float(level), np.inf, 0.0, 0.0)
    scatter, basis = scatter[kept], basis[:, kept]
    along = basis.T @ against
    power = along**2 / scatter  # u_j^2
    rest = max(total - power.sum(), 1e-12 * total)  # of the target that no weight could explain

    def evidence(strengths: np.ndarray) -> np.ndarray:
        growth = 1 + scatter / strengths[:, None]
        return -(freedom * np.log((power / growth).sum(1) + rest) + np.log(growth).sum(1)) / 2

    grid = GRID * scatter[-1]
    found = evidence(grid)
    best = int(found.argmax())
    none = -freedom * np.log(power.sum() + rest) / 2  # an infinite strength: no weight at all
    # So close to none that nothing but rounding tells them apart.
    if best == len(grid) - 1 or found[best] <= none + 1e-9 * max(1.0, abs(none)):
        return Ridge(np.zeros(x.shape[1]), float(level), np.inf, 0.0, 0.0)
    low, high = np.log(grid[max(best - 1, 0)]), np.log(grid[best + 1])
    for _ in range(REFINEMENTS):
        third = (high - low) / 3
        left, right = evidence(np.exp([low + third, high - third]))
        low, high = (low, high - third) if left > right else (low + third, high)
    strength = float(np.exp((low + high) / 2))
    weight = basis @ (along / (scatter + strength)) / unit
    noise = ((power / (1 + scatter / strength)).sum() + rest) / freedom
    signal = noise * scatter.sum() / strength / len(y)
    found = float(evidence(np.array([strength]))[0] - none)
    return Ridge(weight, float(level - middle @ weight), strength, float(signal / (signal + noise)), found)


def fit_two_ridges(
    features: np.ndarray, target: np.ndarray, scale: np.ndarray, first: int, ratios: Sequence[float] = RATIOS
) -> tuple[Ridge, float]:
    """`fit_ridge` with a strength for the first features and another for the others: which of the two groups matters,
    and how much, is for the likelihood to say.

    Args:
        features, target, scale: as of `fit_ridge`.
        first: how many features are in the first group.
        ratios: those that are tried, of the prior deviations of the second group's weights and of the first's; at 0
            the second is left out, at infinity the first.

    Returns:
        The ridge of all features, with the strength of the first group (of the second where that is alone); and the
        best ratio.
    """
    count = features.shape[1]
    found = []
    for ratio in ratios:
        kept = slice(0, first) if ratio == 0 else slice(first, count) if ratio == np.inf else slice(0, count)
        size = np.array(scale, float)
        if 0 < ratio < np.inf:
            size[first:] /= ratio
        ridge = fit_ridge(features[:, kept], target, size[kept])
        weight = np.zeros(count)
        weight[kept] = ridge.weight
        found.append((replace(ridge, weight=weight), ratio))
    return max(found, key=lambda each: each[0].evidence)
