"""Metrics against scipy, brute force and hand-computed values; intervals against the theory of resampling."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, rankdata, spearmanr

from geli_hf.metrics import metrics, ranks
from geli_hf.metrics.intervals import Interval
from geli_hf.metrics.metrics import bootstrap, paired_bootstrap
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


def by_scipy(correlation, rewards, ratings):
    known = ~np.isnan(ratings)
    x, y = rewards[known], ratings[known]
    if len(y) < 2 or np.ptp(y) == 0:
        return NAN
    return 0.0 if np.ptp(x) == 0 else correlation(x, y).statistic


def auc_by_counting(rewards, ratings):
    won = [
        0.5 + 0.5 * np.sign(rewards[i] - rewards[j])
        for i, j in itertools.permutations(range(len(ratings)), 2)
        if ratings[i] > ratings[j]
    ]
    return np.mean(won) if won else NAN


@given(corpora())
def test_spearman_within_sessions_agrees_with_scipy(corpus):
    rewards, ratings, _ = corpus
    expected = [by_scipy(spearmanr, x, y) for x, y in zip(rewards, ratings)]
    np.testing.assert_allclose(metrics.spearman_per_session(rewards, ratings), expected, atol=1e-12)
    mean = np.nanmean(expected) if not np.isnan(expected).all() else NAN
    np.testing.assert_allclose(metrics.within_session_spearman(rewards, ratings), mean, atol=1e-12)


@given(corpora())
def test_auc_agrees_with_counting_pairs(corpus):
    rewards, ratings, _ = corpus
    expected = [auc_by_counting(x, y) for x, y in zip(rewards, ratings)]
    np.testing.assert_allclose(metrics.auc_per_session(rewards, ratings), expected)


def test_within_session_figures_by_hand():
    rewards = [[1, 2, 3], [5, 5], [1, 2], [3, 1, 7]]
    ratings = [[1, 2, 3], [1, 2], [4, 4], [1, 2, NAN]]
    # in order; a constant reward is worth 0; equal ratings are undefined; the unrated turn does not save the reversal
    np.testing.assert_array_equal(metrics.spearman_per_session(rewards, ratings), [1, 0, NAN, -1])
    np.testing.assert_array_equal(metrics.auc_per_session(rewards, ratings), [1, 0.5, NAN, 0])
    assert metrics.within_session_spearman(rewards, ratings) == 0


def test_a_missing_reward_is_left_out_like_a_missing_rating():
    rewards, ratings = [[1.0, NAN, 3.0], [NAN, 1.0]], [[1.0, 9.0, 2.0], [1.0, 2.0]]
    np.testing.assert_array_equal(metrics.spearman_per_session(rewards, ratings), [1, NAN])
    np.testing.assert_array_equal(metrics.auc_per_session(rewards, ratings), [1, NAN])
    assert metrics.local_difference(rewards, ratings, threshold=1.5) == pytest.approx((3 + 1) / 2 - 1)


@given(corpora())
def test_monotone_transforms_change_nothing(corpus):
    rewards, ratings, _ = corpus
    stretched = [np.exp(x) * 3 - 7 for x in rewards]
    for metric in (metrics.spearman_per_session, metrics.auc_per_session):
        np.testing.assert_array_equal(metric(stretched, ratings), metric(rewards, ratings))
        np.testing.assert_array_equal(metric(rewards, [y**3 for y in ratings]), metric(rewards, ratings))


def test_session_spearman_of_a_resample_is_that_of_the_repeated_sessions():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 12), rng.integers(0, 5, 12)
    times = rng.integers(0, 4, (20, 12)).astype(float)
    expected = [spearmanr(np.repeat(x, t.astype(int)), np.repeat(y, t.astype(int))).statistic for t in times]
    np.testing.assert_allclose(ranks.weighted_spearman(x, y, times), expected)


def test_global_loss_and_its_floor_by_hand():
    scores = [1.0, 3.0, NAN]
    assert metrics.global_loss([2.0, 3.0, 9.0], scores) == 0.5
    assert metrics.global_loss_floor(scores, train_mean=1.5) == (0.25 + 2.25) / 2
    assert np.isnan(metrics.global_loss([1.0], [NAN]))


def test_local_difference_by_hand():
    rewards, feedback = [[1.0, 2.0, 10.0], [3.0, 6.0]], [[0.0, 1.0, NAN], [1.0, 0.0]]
    # positive: 2 and 3; not: 1 and 6; the unobserved turn counts on neither side
    assert metrics.local_difference(rewards, feedback) == pytest.approx(2.5 - 3.5)
    deviation = np.std([1, 2, 3, 6])
    interval = metrics.local_difference_interval([rewards], feedback, ["a", "b"])
    assert interval.estimate == pytest.approx(-1 / deviation)
    graded = [[0.1, 0.6, NAN], [0.7, 0.2]]
    assert np.isnan(metrics.local_difference(rewards, graded))
    assert metrics.local_difference(rewards, graded, threshold=0.5) == pytest.approx(-1)
    constant = [[0.1] * 3, [0.1] * 2]
    assert metrics.local_difference(constant, feedback) == 0
    assert np.isnan(metrics.local_difference_interval([constant], feedback, ["a", "b"]).estimate)


@given(
    st.lists(st.one_of(st.floats(-100, 100), st.just(NAN)), min_size=1, max_size=20),
    st.integers(1, 5),
    st.integers(0, 1000),
)
@settings(max_examples=60)
def test_interval_holds_its_estimate(values, conversations, seed):
    ids = [f"c{index % conversations}" for index in range(len(values))]
    estimate, low, high = bootstrap(values, ids, resamples=500, seed=seed)
    if np.isnan(values).all():
        assert np.isnan([estimate, low, high]).all()
    else:
        assert estimate == pytest.approx(np.nanmean(values))
        assert low - 1e-9 <= estimate <= high + 1e-9


def test_interval_is_as_wide_as_the_theory_of_a_mean():
    values = np.random.default_rng(0).normal(3, 2, 500)
    estimate, low, high = bootstrap(values, np.arange(500), seed=1)
    half = 1.96 * values.std() / np.sqrt(500)
    assert low == pytest.approx(estimate - half, abs=0.15 * half)
    assert high == pytest.approx(estimate + half, abs=0.15 * half)
    assert bootstrap(values, np.arange(500), seed=1) == (estimate, low, high)
    assert bootstrap(values, np.arange(500), seed=2) != (estimate, low, high)


def test_sessions_of_a_conversation_are_drawn_together():
    values = np.random.default_rng(0).normal(size=100)
    ids = [f"conversation {index}" for index in range(100)]
    both_perspectives, twice_the_ids = np.tile(values, 4), ids * 4
    as_conversations = bootstrap(both_perspectives, twice_the_ids)
    as_sessions = bootstrap(both_perspectives, np.arange(400))

    def width(interval):
        return interval.high - interval.low

    assert width(as_conversations) == pytest.approx(width(bootstrap(values, ids)), rel=1e-6)  # copies tell nothing new
    assert width(as_conversations) > 1.7 * width(as_sessions)

    scores = values + np.random.default_rng(1).normal(size=100)
    assert width(
        metrics.session_spearman_interval(np.tile(values, 4), np.tile(scores, 4), twice_the_ids)
    ) > 1.7 * width(metrics.session_spearman_interval(np.tile(values, 4), np.tile(scores, 4), np.arange(400)))


def test_paired_differences():
    rng = np.random.default_rng(0)
    hard, ids = rng.normal(0, 5, 200), np.arange(200)
    assert paired_bootstrap(hard, hard, ids) == Interval(0, 0, 0)
    better = hard + 0.1
    difference = paired_bootstrap(better, hard, ids)  # what the sessions share cancels
    assert difference == pytest.approx((0.1, 0.1, 0.1))
    assert paired_bootstrap([NAN, 1.0], [0.0, 0.5], ["a", "b"]).estimate == 0.5


def test_interval_of_the_session_spearman_and_the_local_difference():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=300)
    predicted = scores + rng.normal(size=300)
    interval = metrics.session_spearman_interval(predicted, scores, np.arange(300))
    assert interval.estimate == pytest.approx(spearmanr(predicted, scores).statistic)
    assert interval.low < interval.estimate < interval.high
    assert interval.high - interval.low == pytest.approx(4 * (1 - interval.estimate**2) / np.sqrt(300), rel=0.3)

    feedback = [rng.integers(0, 2, 10).astype(float) for _ in range(300)]
    rewards = [0.5 * values + rng.normal(size=10) for values in feedback]
    interval = metrics.local_difference_interval([rewards], feedback, np.arange(300))
    deviation = np.std(rewards)
    assert interval.estimate == pytest.approx(metrics.local_difference(rewards, feedback) / deviation)
    assert interval.high - interval.low == pytest.approx(4 * np.sqrt(2 * 2 / 3000) / deviation, rel=0.15)


def test_mismatched_sessions_are_named():
    with pytest.raises(ValueError, match=r"session 1: .* ratings"):
        metrics.spearman_per_session([[1, 2], [1, 2]], [[1, 2], [1, 2, 3]])
    with pytest.raises(ValueError, match="rewards, ratings"):
        metrics.auc_per_session([[1, 2]], [[1, 2], [1, 2]])
    with pytest.raises(ValueError, match="conversation_ids"):
        bootstrap([1.0, 2.0], ["a"])


def test_metrics_without_sessions_are_nan():
    assert np.isnan(metrics.within_session_spearman([], []))
    assert np.isnan(metrics.local_difference([[]], [[]]))
    assert np.isnan(bootstrap([], [])).all()
    assert np.isnan(metrics.session_spearman_interval([], [], [])).all()


def test_text_of_an_interval():
    assert str(Interval(0.27449, 0.25, 0.3)) == "0.274 [0.250, 0.300]"


def test_intervals_over_several_runs():
    rng = np.random.default_rng(0)
    scores, ids = rng.normal(size=60), np.arange(60) // 2
    predicted = scores + rng.normal(size=(3, 60))
    interval = metrics.session_spearman_interval(predicted, scores, ids)
    assert interval.estimate == pytest.approx(np.mean([spearmanr(run, scores).statistic for run in predicted]))
    alike = metrics.session_spearman_interval(predicted[[0, 0]], scores, ids)
    assert alike == pytest.approx(metrics.session_spearman_interval(predicted[0], scores, ids))

    rewards, feedback = rng.normal(size=(3, 60, 4)), rng.integers(0, 2, (60, 4))
    each = [metrics.local_difference(run, feedback) / np.std(run) for run in rewards]
    interval = metrics.local_difference_interval(rewards, feedback, ids)
    assert interval.estimate == pytest.approx(np.mean(each))
    assert interval.low < interval.estimate < interval.high


def test_a_wider_level_is_a_wider_interval():
    values = np.random.default_rng(0).normal(size=100)
    usual, wide = (bootstrap(values, np.arange(100), level=level) for level in (0.95, 0.998))
    assert wide.low < usual.low < usual.high < wide.high
    assert wide.high - wide.low == pytest.approx((usual.high - usual.low) * 3.09 / 1.96, rel=0.15)


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
    expected = [by_scipy(kendalltau, x, y) for x, y in zip(rewards, ratings)]
    np.testing.assert_allclose(kendall_per_session(rewards, ratings), expected, atol=1e-12)


@given(corpora())
def test_the_partial_correlation_is_that_of_the_residuals(corpus):
    expected = [partial_by_regression(*session) for session in zip(*corpus)]
    np.testing.assert_allclose(partial_spearman_per_session(*corpus), expected, atol=1e-9)


def test_a_reward_equal_to_the_control_has_no_partial_correlation():
    ratings, control = [[1.0, 2.0, 2.0, 3.0, 1.0]], [[0.0, 1.0, 2.0, 3.0, 4.0]]
    assert metrics.spearman_per_session(control, ratings) > 0
    assert partial_spearman_per_session(control, ratings, control) == 0
    constant = [[7.0] * 5]
    rewards = [[0.0, 3.0, 1.0, 2.0, 2.0]]
    unchanged = partial_spearman_per_session(rewards, ratings, constant)
    assert unchanged == pytest.approx(metrics.spearman_per_session(rewards, ratings))


def test_kendall_and_partial_spearman_leave_out_a_missing_reward():
    rewards, ratings, control = [[1.0, NAN, 3.0, 2.0, 5.0]], [[1.0, 9.0, 2.0, 4.0, 3.0]], [[5.0, 1.0, 2.0, 8.0, 4.0]]
    keep = [0, 2, 3, 4]
    without = [[[values[0][turn] for turn in keep]] for values in (rewards, ratings, control)]
    assert partial_spearman_per_session(rewards, ratings, control) == partial_spearman_per_session(*without)
    assert kendall_per_session(rewards, ratings) == kendall_per_session(*without[:2])
