"""Ridge regression against the normal equations and against the density of the data it is derived from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from geli_hf.decomposition import fit_ridge, fit_two_ridges
from geli_hf.decomposition.ridge import RATIOS


def linear(rows: int, features: int, *, noise: float = 1.0, seed: int = 0):
    """Features, a target, and the weights that made it."""
    draw = np.random.default_rng(seed)
    x, weight = draw.normal(size=(rows, features)), draw.normal(size=features)
    return x, x @ weight + noise * draw.normal(size=rows) + 3, weight


def log_density(x: np.ndarray, y: np.ndarray, strength: float) -> float:
    """Of the target without its mean, as one draw from N(0, s^2 (1 + xx' / strength)) with the best s."""
    rows = len(y)
    basis = np.linalg.svd(np.eye(rows) - 1 / rows)[0][:, : rows - 1]  # what is orthogonal to the intercept
    covariance = basis.T @ (np.eye(rows) + x @ x.T / strength) @ basis
    y = basis.T @ y
    variance = y @ np.linalg.solve(covariance, y) / len(y)
    return multivariate_normal.logpdf(y, np.zeros(len(y)), variance * covariance)


@pytest.mark.parametrize(("rows", "features"), [(40, 5), (12, 30)])
def test_the_weights_solve_the_penalised_equations(rows, features):
    x, y, _ = linear(rows, features)
    ridge = fit_ridge(x, y)
    z = x - x.mean(0)
    expected = np.linalg.solve(z.T @ z + ridge.strength * np.eye(features), z.T @ (y - y.mean()))
    np.testing.assert_allclose(ridge.weight, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ridge(x).mean(), y.mean())


@pytest.mark.parametrize(("rows", "features", "noise"), [(30, 4, 1.0), (25, 8, 4.0), (15, 20, 12.0)])
def test_no_other_strength_makes_the_data_likelier(rows, features, noise):
    x, y, _ = linear(rows, features, noise=noise)
    found = fit_ridge(x, y).strength
    best = log_density(x, y, found)
    assert all(log_density(x, y, strength) <= best + 1e-7 for strength in np.geomspace(1e-4, 1e6, 200))
    assert log_density(x, y, found * 1.01) < best
    assert log_density(x, y, found / 1.01) < best


@pytest.mark.parametrize(("rows", "features", "noise"), [(30, 4, 1.0), (15, 20, 12.0)])
def test_the_evidence_is_the_ratio_of_two_densities(rows, features, noise):
    x, y, _ = linear(rows, features, noise=noise)
    ridge = fit_ridge(x, y)
    assert ridge.evidence == pytest.approx(log_density(x, y, ridge.strength) - log_density(x, y, 1e15), abs=1e-5)


@pytest.mark.parametrize("sizes", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.2, 1.0)])
def test_of_two_groups_the_likelihood_says_which_matters(sizes):
    """Against every ratio by brute force, each by the density itself."""
    draw = np.random.default_rng(1)
    x = draw.normal(size=(60, 8))
    size = np.repeat(sizes, 4)
    y = x @ (size * draw.normal(size=8)) + draw.normal(size=60)
    scale = np.ones(8)
    found, chosen = fit_two_ridges(x, y, scale, 4)
    tried = {}
    for ratio in RATIOS:
        shrunk = x * np.repeat([float(ratio < np.inf), 1.0 if ratio == np.inf else ratio], 4)
        tried[ratio] = max(log_density(shrunk, y, strength) for strength in np.geomspace(1e-3, 1e5, 400))
    best = max(tried, key=tried.get)
    assert chosen == best
    assert found.evidence == pytest.approx(tried[best] - log_density(x, y, 1e15), abs=1e-2)
    left_out = {0.0: slice(4, 8), np.inf: slice(0, 4)}.get(best, slice(0, 0))
    assert not found.weight[left_out].any()
    assert np.count_nonzero(found.weight) == 8 - len(found.weight[left_out])
    if 0 in sizes:
        assert best in ((0.0, 1 / 3) if sizes[1] == 0 else (3.0, np.inf))


def test_groups_are_measured_in_their_own_units():
    x, y, _ = linear(60, 6)
    units = np.array([1.0, 10, 0.1, 5, 2, 1e3])
    np.testing.assert_allclose(
        fit_two_ridges(x * units, y, units, 2)[0].weight * units,
        fit_two_ridges(x, y, np.ones(6), 2)[0].weight,
        rtol=1e-5,
    )


def test_a_ratio_that_is_given_is_taken():
    x, y, _ = linear(60, 6)
    ridge, ratio = fit_two_ridges(x, y, np.ones(6), 2, [3.0])
    assert ratio == 3
    apart = fit_ridge(x * np.repeat([1, 3.0], [2, 4]), y)
    np.testing.assert_allclose(ridge.weight, apart.weight * np.repeat([1, 3.0], [2, 4]), rtol=1e-6)


def test_much_data_tells_the_truth():
    x, y, weight = linear(5000, 10)
    ridge = fit_ridge(x, y)
    np.testing.assert_allclose(ridge.weight, weight, atol=0.08)
    assert ridge.intercept == pytest.approx(3, abs=0.08)
    assert ridge.explained == pytest.approx(weight @ weight / (weight @ weight + 1), abs=0.05)


def test_a_target_of_chance_gets_next_to_no_weight():
    shares = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        shares.append(fit_ridge(draw.normal(size=(200, 50)), draw.normal(size=200)).explained)
    assert np.mean(shares) < 0.06
    assert np.mean(np.array(shares) == 0) > 0.2


@given(seed=st.integers(0, 2**31), shift=st.floats(-50, 50), factor=st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_shift_and_scale_change_nothing_but_units(seed, shift, factor):
    x, y, _ = linear(20, 4, seed=seed)
    plain = fit_ridge(x, y)
    moved = fit_ridge(x * factor + shift, factor * y - shift, scale=np.full(4, factor))
    np.testing.assert_allclose(moved(x * factor + shift), factor * plain(x) - shift, rtol=1e-4, atol=1e-3 * factor)


def test_constant_and_repeated_features_do_no_harm():
    x, y, _ = linear(60, 3)
    ridge = fit_ridge(np.c_[x, np.full(60, 7.0), x[:, 0]], y)
    assert ridge.weight[3] == pytest.approx(0, abs=1e-9)
    assert ridge.weight[0] == pytest.approx(ridge.weight[4])
    nothing = fit_ridge(np.ones((5, 2)), np.arange(5.0))
    assert (nothing.weight.tolist(), nothing.intercept, nothing.explained) == ([0, 0], 2, 0)
    assert fit_ridge(x, np.full(60, 4.0)).intercept == 4


def test_many_rows_are_read_in_pieces(monkeypatch):
    x, y, _ = linear(50, 4)
    whole = fit_ridge(x, y)
    monkeypatch.setattr("geli_hf.decomposition.ridge.ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(fit_ridge(x, y).weight, whole.weight, rtol=1e-8)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="found NaN or infinity"):
        fit_ridge(np.array([[1.0], [np.nan]]), np.zeros(2))
