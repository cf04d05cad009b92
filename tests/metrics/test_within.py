"""Kendall's tau against scipy, and partial correlations against a regression by numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, rankdata

from geli_hf.metrics.metrics import spearman_per_session
from geli_hf.metrics.within import kendall_per_session, partial_spearman_per_session

NAN = np.nan


@st.composite
def corpora(draw):
    """Rewards, ratings and a control of a few sessions, with ties and missing ratings."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    sizes = draw(st.lists(st.integers(0, 8), min_size=1, max_size=8))
    rewards = [rng.integers(-3, 4, size).astype(float) for size in sizes]
    ratings = [rng.choice([1.0, 2.0, 3.0, NAN], size) for size in sizes]
    return rewards, ratings, [rng.integers(0, 5, size).astype(float) for size in sizes]


def kendall_by_scipy(rewards, ratings):
    known = ~np.isnan(ratings)
    x, y = rewards[known], ratings[known]
    if len(y) < 2 or np.ptp(y) == 0:
        return NAN
    return 0.0 if np.ptp(x) == 0 else kendalltau(x, y).statistic


def partial_by_regression(rewards, ratings, control):
    known = ~np.isnan(ratings)
    if not known.any():
        return NAN
    x, y, z = (rankdata(values[known]) for values in (rewards, ratings, control))
    design = np.stack([np.ones(len(z)), z], 1)
    x, y = (v - design @ np.linalg.lstsq(design, v)[0] for v in (x, y))
    if y @ y < 1e-6:
        return NAN
    return 0.0 if x @ x < 1e-6 else x @ y / np.sqrt(x @ x * (y @ y))


@given(corpora())
def test_kendall_within_sessions_agrees_with_scipy(corpus):
    rewards, ratings, _ = corpus
    expected = [kendall_by_scipy(x, y) for x, y in zip(rewards, ratings)]
    np.testing.assert_allclose(kendall_per_session(rewards, ratings), expected, atol=1e-12)


@given(corpora())
def test_the_partial_correlation_is_that_of_the_residuals(corpus):
    expected = [partial_by_regression(*session) for session in zip(*corpus)]
    np.testing.assert_allclose(partial_spearman_per_session(*corpus), expected, atol=1e-9)


def test_a_reward_equal_to_the_control_has_no_partial_correlation():
    ratings, control = [[1.0, 2.0, 2.0, 3.0, 1.0]], [[0.0, 1.0, 2.0, 3.0, 4.0]]
    assert spearman_per_session(control, ratings) > 0
    assert partial_spearman_per_session(control, ratings, control) == 0
    constant = [[7.0] * 5]
    rewards = [[0.0, 3.0, 1.0, 2.0, 2.0]]
    unchanged = partial_spearman_per_session(rewards, ratings, constant)
    assert unchanged == pytest.approx(spearman_per_session(rewards, ratings))


def test_a_missing_reward_leaves_out_its_turn():
    rewards, ratings, control = [[1.0, NAN, 3.0, 2.0, 5.0]], [[1.0, 9.0, 2.0, 4.0, 3.0]], [[5.0, 1.0, 2.0, 8.0, 4.0]]
    keep = [0, 2, 3, 4]
    without = [[[values[0][turn] for turn in keep]] for values in (rewards, ratings, control)]
    assert partial_spearman_per_session(rewards, ratings, control) == partial_spearman_per_session(*without)
    assert kendall_per_session(rewards, ratings) == kendall_per_session(*without[:2])
