"""The trust in a signal against textbook regression, and what it is for: a useless signal gets none."""

import numpy as np
import pytest
from scipy import stats

from geli_hf.decomposition import fit_trust, habit_share


def drawn(sessions: int, slopes: list[float], *, seed: int = 0):
    draw = np.random.default_rng(seed)
    signals = draw.normal(size=(sessions, len(slopes)))
    return signals @ np.array(slopes) + draw.normal(size=sessions), signals


def test_one_signal_is_the_textbook_slope_shrunk():
    score, signals = drawn(80, [0.4])
    expected = stats.linregress(signals[:, 0], score)
    trust = fit_trust(score, signals)
    t = expected.slope / expected.stderr
    assert trust.slope == pytest.approx([expected.slope])
    assert trust.t == pytest.approx([t])
    assert trust.beta == pytest.approx([expected.slope * (1 - 1 / t**2)])


def test_several_signals_are_judged_together():
    score, signals = drawn(4000, [0.5, 0.0, -0.3])
    trust = fit_trust(score, signals)
    np.testing.assert_allclose(trust.beta, [0.5, 0.0, -0.3], atol=0.05)
    # A copy of the first with noise is correlated with the score, and adds nothing to it.
    follower = signals[:, :1] + np.random.default_rng(1).normal(size=(4000, 1))
    assert fit_trust(score, follower).beta[0] > 0.2
    assert abs(fit_trust(score, np.c_[signals[:, :1], follower]).beta[1]) < 0.04


def test_a_useless_signal_gets_next_to_nothing():
    betas, slopes = [], []
    for seed in range(200):
        trust = fit_trust(*drawn(100, [0.0], seed=seed))
        betas.append(abs(trust.beta[0]))
        slopes.append(abs(trust.slope[0]))
    assert np.mean(np.array(betas) == 0) > 0.6
    assert np.mean(betas) < 0.4 * np.mean(slopes)


def test_the_same_signal_twice_shares_its_trust():
    score, signals = drawn(100, [0.5])
    once, twice = fit_trust(score, signals), fit_trust(score, np.c_[signals, signals])
    assert twice.slope == pytest.approx([once.slope[0] / 2] * 2)
    assert twice.beta.sum() == pytest.approx(once.beta[0], rel=0.02)


@pytest.mark.parametrize("sessions", [0, 1, 2])
def test_too_few_sessions_trust_nothing(sessions):
    trust = fit_trust(np.arange(float(sessions)), np.arange(float(sessions))[:, None])
    assert (trust.slope.tolist(), trust.t.tolist(), trust.beta.tolist()) == ([0], [0], [0])


def test_a_signal_that_never_changes_is_not_trusted_and_disturbs_no_other():
    score, signals = drawn(50, [0.5])
    with_constant = fit_trust(score, np.c_[signals, np.full(50, 3.0)])
    assert with_constant.beta == pytest.approx([fit_trust(score, signals).beta[0], 0])
    assert fit_trust(score, np.zeros((50, 0))).beta.shape == (0,)


def test_what_differs_by_the_rounding_of_float32_only_is_not_trusted():
    for seed in range(20):  # of a signal that is centred in each session
        score, signals = drawn(50, [0.5], seed=seed)
        rounding = np.random.default_rng(seed).normal(size=50) * np.finfo(np.float32).eps / 4
        found = fit_trust(score, np.c_[signals, rounding])
        assert found.beta == pytest.approx([fit_trust(score, signals).beta[0], 0])


def test_wrong_shapes_and_nan_are_refused():
    with pytest.raises(ValueError, match=r"found shapes \(3,\) and \(3,\)"):
        fit_trust(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="NaN or infinity"):
        fit_trust(np.zeros(2), np.array([[0.0], [np.nan]]))


# ---------------------------------------------------------------------------------------------------------- habit


def smiles(people: int, each: int, share: float, seed: int = 0):
    """Session means whose variance is to that share the listener's."""
    draw = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), each)
    habit = draw.normal(size=people)[who] * np.sqrt(share)
    return habit + draw.normal(size=len(who)) * np.sqrt(1 - share), who.astype(str)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_the_share_of_a_habit_is_found(share):
    assert habit_share(*smiles(2000, 2, share)) == pytest.approx(share, abs=0.06)


def test_it_is_the_intraclass_correlation_by_hand():
    signal = np.tile([1.0, 2.0, 4.0, 7.0], 20) + np.arange(80) // 4 % 5 * 1.5
    rater = np.repeat(np.arange(20), 4).astype(str)
    groups = signal.reshape(20, 4)
    between = 4 * groups.mean(1).var(ddof=1)
    within = groups.var(1, ddof=1).mean()
    expected = max(0, (between - within) / (between + 3 * within))
    assert habit_share(signal, rater) == pytest.approx(expected, abs=1e-12)


def test_who_came_once_is_one_more_listener():
    signal, rater = smiles(3000, 2, 0.4)
    kept = np.arange(6000) % 2 + np.arange(6000) // 3000 > 0  # half of the listeners lose a session
    assert habit_share(signal[kept], rater[kept]) == pytest.approx(0.4, abs=0.06)


def test_nothing_is_taken_off_where_nobody_is_known_to_come_back():
    signal, rater = smiles(200, 2, 0.7)
    assert habit_share(signal, np.full(400, "")) == 0
    assert habit_share(signal, np.arange(400).astype(str)) == 0
    assert habit_share(signal[:40], rater[:40]) == 0  # twenty returns say little
    missing = np.where(np.arange(400) % 2, np.nan, signal)
    assert habit_share(missing, rater) == 0
    assert habit_share(np.ones(400), rater) == 0
    assert habit_share(signal * 0 + rater.astype(float), rater) == 0.9  # nothing but habit: the limit
