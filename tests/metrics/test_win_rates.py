"""Win rates at equal length and the power of a weak judge, against scipy, simulation and brute force."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binom, norm, spearmanr

from geli_hf.metrics.win_rates import PRECISION, detectable_win_rate, length_controlled_win_rate, true_win_rate


def drawn(pairs: int, a: float, b: float, seed: int = 0, shift: float = 0.0):
    draw = np.random.default_rng(seed)
    ratio = draw.normal(shift, 0.5, pairs)
    wins = (draw.random(pairs) < 1 / (1 + np.exp(-(a + b * ratio)))).astype(float)
    return wins, ratio, [str(index) for index in range(pairs)]


def test_it_is_the_logistic_regression_at_equal_length():
    wins, ratio, ids = drawn(200, 0.4, 2.0, shift=0.3)
    wins[:20] = 0.5
    x = ratio / ratio.std()

    def objective(theta):
        margin = theta[0] + theta[1] * x
        return (np.logaddexp(0, margin) - wins * margin).sum() + PRECISION / 2 * (theta @ theta)

    best = minimize(objective, [0, 0], tol=1e-12).x
    found = length_controlled_win_rate(wins, ratio, ids)
    assert found.estimate == pytest.approx(1 / (1 + np.exp(-best[0])), abs=1e-5)
    assert found.low < found.estimate < found.high


def test_a_policy_that_wins_by_length_alone_gains_nothing():
    wins, ratio, ids = drawn(3000, 0.0, 3.0, shift=0.6)
    assert wins.mean() > 0.7
    assert length_controlled_win_rate(wins, ratio, ids).estimate == pytest.approx(0.5, abs=0.05)


def test_at_equal_lengths_it_is_the_win_rate():
    wins = np.array([1.0] * 60 + [0.0] * 30 + [0.5] * 10)
    found = length_controlled_win_rate(wins, np.zeros(100), [str(index) for index in range(100)])
    assert found.estimate == pytest.approx(0.65, abs=1e-3)
    # over 100 independent pairs: about two standard errors on either side
    assert found.high - found.low == pytest.approx(2 * 1.96 * wins.std() / 10, rel=0.1)


def test_a_side_that_wins_every_pair():
    found = length_controlled_win_rate(np.ones(50), np.linspace(-1, 1, 50), list("ab" * 25))
    assert 0.97 < found.low <= found.estimate <= 1
    assert np.isfinite(found).all()


def test_pairs_without_a_verdict_are_left_out():
    wins, ratio, ids = drawn(100, 0.5, 1.0)
    with_holes = np.append(wins, [np.nan, np.nan])
    found = length_controlled_win_rate(with_holes, np.append(ratio, [0.0, 9.0]), [*ids, "x", "y"])
    assert found == length_controlled_win_rate(wins, ratio, ids)
    assert np.isnan(length_controlled_win_rate([np.nan], [0.0], ["a"]).estimate)


def test_true_win_rate_of_a_weak_judge():
    draw, r = np.random.default_rng(0), 0.3
    true = draw.normal(0.5, 1, 400_000)
    judged = r * true + np.sqrt(1 - r**2) * draw.normal(size=true.size)
    rho = spearmanr(judged[:50_000], true[:50_000]).statistic
    assert true_win_rate(np.mean(judged > 0), rho) == pytest.approx(np.mean(true > 0), abs=0.02)
    assert true_win_rate(0.5, 0.2) == pytest.approx(0.5)
    assert true_win_rate(0.55, 1.0) == pytest.approx(0.55)
    assert np.isnan(true_win_rate(0.6, 0.0))
    assert np.isnan(true_win_rate(0.6, -0.1))


def test_detectable_win_rate_has_a_power_of_80_percent():
    pairs = 1000
    wins = np.arange(pairs + 1)
    low = wins / pairs - norm.ppf(0.975) * np.sqrt(0.25 / pairs)
    shown = binom.pmf(wins, pairs, detectable_win_rate(pairs))[low > 0.5].sum()
    assert shown == pytest.approx(0.8, abs=0.02)
