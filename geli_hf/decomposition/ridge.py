"""Ridge regression whose strength maximises the marginal likelihood. numpy, float64, no iteration over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

# Strengths to try, in units of the largest eigenvalue of the features' scatter: a grid first, since the likelihood can
# have several maxima, then the neighbourhood of the best point.
GRID = np.geomspace(1e-10, 1e6, 129)
REFINEMENTS = 40
ROWS_AT_ONCE = 4096
# Prior deviations of the weights of the second of two groups, over those of the first.
RATIOS = (0.0, 1 / 3, 1.0, 3.0, np.inf)


@dataclass
class Ridge:
    """A linear function, `intercept + features @ weight`.

    Args:
        weight: (features,), float64.
        intercept: the prediction where all features are 0.
        strength: the ridge, in units of x'x; infinite, with a `weight` of 0, where the features explain nothing.
        explained: share of the target's variance, in 0..1, that the likelihood ascribes to the features.
        evidence: logarithm of the marginal likelihood over that without any weight; 0 if `weight` is 0.
    """

    weight: np.ndarray
    intercept: float
    strength: float
    explained: float
    evidence: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Predict `(rows,)` from features `(rows, features)`."""
        return np.asarray(features, float) @ self.weight + self.intercept


def fit_ridge(features: np.ndarray, target: np.ndarray, scale: np.ndarray | None = None) -> Ridge:
    """Ridge regression: the posterior mean of w at the strength of the highest marginal likelihood (evidence).

        y_i = b + w x_i + e_i,    w ~ N(0, s^2 / strength),    e_i ~ N(0, s^2)

    with b flat and s^2 profiled out. With x centred, x'x = V diag(g) V', u_j = (V'x'y)_j / sqrt(g_j) and k = rows - 1,
    the logarithm of the evidence is

        -k/2 log( sum_j u_j^2 / (1 + g_j / strength) + rest ) - 1/2 sum_j log(1 + g_j / strength)

    Source: MacKay, "Bayesian Interpolation", Neural Computation 1992.

    Args:
        features: (rows, features), of any precision.
        target: (rows,).
        scale: (features,), unit of each feature while all weights are shrunk alike; the returned weights are for the
            features as given.

    Returns:
        The fitted function.

    Raises:
        ValueError: a value is not finite.
    """
    x, y = np.asarray(features), np.asarray(target, float)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("features, target: expected finite numbers, found NaN or infinity")
    center, level = x.mean(0, dtype=float), y.mean()
    unit = np.ones(x.shape[1]) if scale is None else np.asarray(scale, float)
    y = y - level
    scatter, against = np.zeros((len(unit), len(unit))), np.zeros(len(unit))  # x'x and x'y
    for first in range(0, len(x), ROWS_AT_ONCE):  # no copy of all rows in float64
        part = (x[first : first + ROWS_AT_ONCE] - center) / unit
        scatter += part.T @ part
        against += part.T @ y[first : first + ROWS_AT_ONCE]
    scatter, basis = np.linalg.eigh(scatter)
    used = scatter > scatter[-1] * len(scatter) * np.finfo(float).eps if len(scatter) else np.zeros(0, bool)
    total, freedom = y @ y, len(y) - 1
    if not used.any() or total == 0:
        return Ridge(np.zeros(x.shape[1]), float(level), np.inf, 0.0, 0.0)
    scatter, basis = scatter[used], basis[:, used]
    along = basis.T @ against
    power = along**2 / scatter  # u_j^2
    rest = max(total - power.sum(), 1e-12 * total)  # of the target that no weight could explain

    def evidence(strengths: np.ndarray) -> np.ndarray:
        growth = 1 + scatter / strengths[:, None]
        return -(freedom * np.log((power / growth).sum(1) + rest) + np.log(growth).sum(1)) / 2

    grid = GRID * scatter[-1]
    likelihood = evidence(grid)
    best = int(likelihood.argmax())
    none = -freedom * np.log(power.sum() + rest) / 2  # an infinite strength: no weight at all
    # So close to none that nothing but rounding tells them apart.
    if best == len(grid) - 1 or likelihood[best] <= none + 1e-9 * max(1.0, abs(none)):
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
    gain = float(evidence(np.array([strength]))[0] - none)
    return Ridge(weight, float(level - center @ weight), strength, float(signal / (signal + noise)), gain)


def fit_two_ridges(
    features: np.ndarray, target: np.ndarray, scale: np.ndarray, first: int, ratios: Sequence[float] = RATIOS
) -> tuple[Ridge, float]:
    """Ridge regression with a strength for each of two groups of features, chosen by the marginal likelihood.

        y_i = b + w x_i + q z_i + e_i,    w ~ N(0, s^2 / strength),    q ~ N(0, ratio^2 s^2 / strength)

    Source: see `fit_ridge`.

    Args:
        features: (rows, features), of any precision.
        target: (rows,).
        scale: (features,), see `fit_ridge`.
        first: number of features in the first group.
        ratios: to try; 0 leaves the second group out, infinity the first.

    Returns:
        The function of all features, with the strength of the first group (of the second if that is alone), and the
        best ratio.

    Raises:
        ValueError: see `fit_ridge`.
    """
    count = features.shape[1]
    fits = []
    for ratio in ratios:
        used = slice(0, first) if ratio == 0 else slice(first, count) if ratio == np.inf else slice(0, count)
        unit = np.array(scale, float)
        if 0 < ratio < np.inf:
            unit[first:] /= ratio
        ridge = fit_ridge(features[:, used], target, unit[used])
        weight = np.zeros(count)
        weight[used] = ridge.weight
        fits.append((replace(ridge, weight=weight), ratio))
    return max(fits, key=lambda fit: fit[0].evidence)
