"""Every loss against a value computed by hand, its gradient by finite differences, and what must never change it."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geli_hf.decomposition import (
    GLOBAL_EXPLICIT,
    geli_loss,
    ircr_loss,
    li_loss,
    li_slope_loss,
    rrd_loss,
    rudder_loss,
    slope_moments,
)

NAN = math.nan
GLOBAL_VARIANTS = {
    "rrd mean": partial(rrd_loss, aggregation="mean"),
    "rrd sum": partial(rrd_loss, aggregation="sum"),
    "ircr mean": partial(ircr_loss, aggregation="mean"),
    "ircr sum": partial(ircr_loss, aggregation="sum"),
    "rudder": rudder_loss,
}
every_global = pytest.mark.parametrize("loss", GLOBAL_VARIANTS.values(), ids=GLOBAL_VARIANTS)

# Two sessions of three and two turns; the third turn of the second one is padding.
REWARDS = [[1.0, 2.0, 4.0], [3.0, -1.0, 99.0]]
MASK = torch.tensor([[True, True, True], [True, True, False]])
SCORE = [5.0, 1.0]


def sessions(dtype=torch.float64):
    return torch.tensor(REWARDS, dtype=dtype, requires_grad=True), MASK, torch.tensor(SCORE, dtype=dtype)


@st.composite
def batches(draw, max_turns=6):
    """(rewards, mask, score) of a padded batch; the padding may stand anywhere, and each session has a turn."""
    sizes = draw(st.lists(st.integers(1, max_turns), min_size=1, max_size=4))
    width = max(sizes) + draw(st.integers(0, 2))
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(sizes), width, dtype=torch.bool)
    for row, size in enumerate(sizes):
        mask[row, torch.randperm(width, generator=generator)[:size]] = True
    rewards = torch.randn(mask.shape, generator=generator, dtype=torch.float64)
    return rewards, mask, torch.randn(len(sizes), generator=generator, dtype=torch.float64)


def test_values_by_hand():
    rewards, mask, score = sessions()
    # Session 1: sum 7, mean 7/3. Session 2: sum 2, mean 1.
    assert rrd_loss(rewards, mask, score, aggregation="sum").item() == pytest.approx(((5 - 7) ** 2 + (1 - 2) ** 2) / 2)
    assert rrd_loss(rewards, mask, score).item() == pytest.approx(((5 - 7 / 3) ** 2 + 0) / 2)
    # sum: shares 5/3 and 1/2; mean: the score itself
    first = ((5 / 3 - 1) ** 2 + (5 / 3 - 2) ** 2 + (5 / 3 - 4) ** 2) / 3
    second = ((0.5 - 3) ** 2 + (0.5 + 1) ** 2) / 2
    assert ircr_loss(rewards, mask, score, aggregation="sum").item() == pytest.approx((first + second) / 2)
    assert ircr_loss(rewards, mask, score).item() == pytest.approx(((16 + 9 + 1) / 3 + (4 + 4) / 2) / 2)
    # running sums 1, 3, 7 and 3, 2; the squares are averaged, not the errors
    first = (5 - 7) ** 2 + 0.5 * ((5 - 1) ** 2 + (5 - 3) ** 2 + (5 - 7) ** 2) / 3
    second = (1 - 2) ** 2 + 0.5 * ((1 - 3) ** 2 + (1 - 2) ** 2) / 2
    assert rudder_loss(rewards, mask, score).item() == pytest.approx((first + second) / 2)
    assert rudder_loss(rewards, mask, score, auxiliary_weight=0).item() == pytest.approx((4 + 1) / 2)


def test_local_feedback_by_hand():
    rewards, mask, _ = sessions()
    feedback = torch.tensor([[1.0, NAN, 0.0], [1.0, 0.0, 1.0]])
    # Session 1 has two observed turns; the third of session 2 is padding, though it claims feedback.
    expected = (((1 - 1) ** 2 + (0 - 4) ** 2) / 2 + ((1 - 3) ** 2 + (0 + 1) ** 2) / 2) / 2
    assert li_loss(rewards, mask, feedback).item() == pytest.approx(expected)
    # A session that nobody watched counts nothing, rather than as a loss of 0.
    feedback[1] = NAN
    assert li_loss(rewards, mask, feedback).item() == pytest.approx(8.0)


def test_local_feedback_with_a_slope_by_hand():
    rewards, mask, _ = sessions()
    feedback = torch.tensor([[1.0, NAN, 0.0], [1.0, 0.0, 1.0]])
    # Observed rewards 1, 4 and 3, -1: less their means -1.5, 1.5 and 2, -2. The signal's: .5, -.5 both times.
    first = ((0.5 + 0.2 * 1.5) ** 2 + (-0.5 - 0.2 * 1.5) ** 2) / 2
    second = ((0.5 - 0.2 * 2) ** 2 + (-0.5 + 0.2 * 2) ** 2) / 2
    assert li_slope_loss(rewards, mask, feedback, 0.2).item() == pytest.approx((first + second) / 2)
    covariance, variance = slope_moments(rewards, mask, feedback)
    assert covariance.item() == pytest.approx((-0.75 + 1.0) / 2)
    assert variance.item() == pytest.approx((2.25 + 4.0) / 2)
    # One turn has nothing to be compared with, so its session counts nothing.
    feedback[1, 0] = NAN
    assert li_slope_loss(rewards, mask, feedback, 0.2).item() == pytest.approx(first)
    assert [moment.item() for moment in slope_moments(rewards, mask, feedback)] == pytest.approx([-0.75, 2.25])


def test_nothing_observed_is_zero_and_still_backpropagates():
    rewards, mask, score = sessions()
    unobserved = torch.full_like(rewards, NAN).detach()
    losses = [li_loss(rewards, mask, unobserved), li_slope_loss(rewards, mask, unobserved, 0.5)]
    losses += [loss(rewards, mask, torch.full_like(score, NAN)) for loss in GLOBAL_VARIANTS.values()]
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss, rewards)
        assert loss.item() == 0
        assert gradient.tolist() == [[0.0] * 3] * 2


def test_geli_mixes_in_the_direction_that_the_weight_names():
    global_explicit, local_implicit = torch.tensor(8.0), torch.tensor(2.0)
    assert geli_loss(global_explicit, local_implicit, 0.25).item() == pytest.approx(0.75 * 8 + 0.25 * 2)
    assert geli_loss(global_explicit, local_implicit, 1).item() == 2


@every_global
def test_gradient_of_global_losses(loss):
    rewards, mask, score = sessions()
    assert torch.autograd.gradcheck(lambda r: loss(r, mask, score), (rewards,))


@pytest.mark.parametrize("replacement", [False, True])
def test_gradient_of_sampled_rrd(replacement):
    rewards, mask, score = sessions()

    def loss(r):  # the same draw at every call, or there is nothing to differentiate
        generator = torch.Generator().manual_seed(0)
        options = {"num_samples": 2, "replacement": replacement, "aggregation": "sum", "generator": generator}
        return rrd_loss(r, mask, score, **options)

    assert torch.autograd.gradcheck(loss, (rewards,))


def test_gradient_of_local_loss():
    rewards, mask, _ = sessions()
    feedback = torch.tensor([[1.0, NAN, 0.0], [1.0, 0.0, NAN]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r: li_loss(r, mask, feedback), (rewards,))
    assert torch.autograd.gradcheck(lambda r: li_slope_loss(r, mask, feedback, 0.3), (rewards,))


@given(batch=batches(), seed=st.integers(0, 100))
def test_rrd_with_all_turns_ignores_their_order(batch, seed):
    rewards, mask, score = batch
    order = torch.randperm(mask.shape[1], generator=torch.Generator().manual_seed(seed))
    for aggregation in ("mean", "sum"):
        loss = partial(rrd_loss, score=score, aggregation=aggregation)
        torch.testing.assert_close(loss(rewards[:, order], mask[:, order]), loss(rewards, mask))


@every_global
@given(batch=batches(), garbage=st.sampled_from([NAN, math.inf, -1e30]))
@settings(max_examples=40)
def test_what_is_masked_counts_nothing(loss, batch, garbage):
    rewards, mask, score = batch
    dirty = rewards.masked_fill(~mask, garbage).requires_grad_()
    clean = rewards.masked_fill(~mask, 0).requires_grad_()
    dirty_loss, clean_loss = loss(dirty, mask, score), loss(clean, mask, score)
    assert dirty_loss.item() == clean_loss.item()
    (gradient,), (expected,) = torch.autograd.grad(dirty_loss, dirty), torch.autograd.grad(clean_loss, clean)
    assert torch.equal(gradient, expected)
    assert not gradient[~mask].any()


@every_global
@given(batch=batches())
@settings(max_examples=40)
def test_a_batch_is_the_mean_of_its_sessions_whatever_the_padding(loss, batch):
    rewards, mask, score = batch
    alone = [loss(r[m][None], torch.ones(1, int(m.sum()), dtype=torch.bool), s[None]) for r, m, s in zip(*batch)]
    torch.testing.assert_close(loss(rewards, mask, score), torch.stack(alone).mean())


@every_global
def test_a_session_without_score_or_turn_counts_nothing(loss):
    rewards, mask, score = sessions()
    wider = torch.cat([rewards, torch.ones(2, 3, dtype=torch.float64)])
    mask_of_wider = torch.cat([mask, torch.tensor([[True] * 3, [False] * 3])])
    score_of_wider = torch.cat([score, torch.tensor([NAN, 3.0], dtype=torch.float64)])
    value = loss(wider, mask_of_wider, score_of_wider)
    assert value.item() == pytest.approx(loss(rewards, mask, score).item())
    (gradient,) = torch.autograd.grad(value, rewards)
    assert gradient.isfinite().all()


@given(batch=batches(), drop=st.integers(0, 2**31))
@settings(max_examples=60)
def test_unobserved_feedback_counts_nothing(batch, drop):
    rewards, mask, _ = batch
    generator = torch.Generator().manual_seed(drop)
    feedback = torch.rand(mask.shape, generator=generator, dtype=torch.float64)
    feedback[torch.rand(mask.shape, generator=generator) < 0.5] = NAN
    observed = mask & ~feedback.isnan()
    rewards = rewards.masked_fill(~mask, NAN).requires_grad_()
    loss = li_loss(rewards, mask, feedback)
    by_hand = [((f - r)[o] ** 2).mean() for f, r, o in zip(feedback, rewards, observed) if o.any()]
    expected = torch.stack(by_hand).mean().item() if by_hand else 0
    assert loss.item() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(loss, rewards)
    assert gradient.isfinite().all()
    assert not gradient[~observed].any()


@given(batch=batches(), seed=st.integers(0, 2**31), slope=st.floats(-2, 2))
@settings(max_examples=60)
def test_a_slope_compares_turns_of_a_session_alone(batch, seed, slope):
    """Whatever listeners do at every turn, and whatever a session's rewards are all higher by, makes no difference;
    and no slope fits better than the ratio of the moments."""
    rewards, mask, _ = batch
    generator = torch.Generator().manual_seed(seed)
    feedback = torch.randn(mask.shape, generator=generator, dtype=torch.float64)
    feedback[torch.rand(mask.shape, generator=generator) < 0.3] = NAN
    observed = mask & ~feedback.isnan()
    rewards = rewards.masked_fill(~mask, NAN).requires_grad_()
    loss = li_slope_loss(rewards, mask, feedback, slope)
    habit, level = torch.randn(2, len(mask), 1, generator=generator, dtype=torch.float64)
    assert li_slope_loss(rewards + level, mask, feedback + habit, slope).item() == pytest.approx(loss.item())
    assert li_slope_loss(rewards / 2, mask, feedback, slope * 2).item() == pytest.approx(loss.item())

    pairs = [(r[o].detach().numpy(), f[o].numpy()) for r, f, o in zip(rewards, feedback, observed) if o.sum() > 1]
    by_hand = [np.mean((f - f.mean() - slope * (r - r.mean())) ** 2) for r, f in pairs]
    assert loss.item() == pytest.approx(np.mean(by_hand) if by_hand else 0)
    (gradient,) = torch.autograd.grad(loss, rewards)
    assert gradient.isfinite().all()
    assert not gradient[~observed].any()

    covariance, variance = slope_moments(rewards, mask, feedback)
    if pairs:
        best = (covariance / variance).item()
        least = li_slope_loss(rewards, mask, feedback, best).item()
        assert least <= min(li_slope_loss(rewards, mask, feedback, best + step).item() for step in (-0.01, 0.01))


@given(batch=batches())
def test_sum_is_mean_times_the_sessions_own_length(batch):
    rewards, mask, score = batch
    turns = mask.sum(1)
    # Predicting the sum with r/T is predicting the mean with r.
    scaled = rewards / turns[:, None]
    torch.testing.assert_close(
        rrd_loss(scaled, mask, score, aggregation="sum"), rrd_loss(rewards, mask, score, aggregation="mean")
    )


@given(batch=batches(), extra=st.integers(0, 3))
def test_enough_draws_without_replacement_take_all_turns(batch, extra):
    rewards, mask, score = batch
    sampled = rrd_loss(rewards, mask, score, num_samples=int(mask.sum(1).max()) + extra)
    torch.testing.assert_close(sampled, rrd_loss(rewards, mask, score))


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("aggregation", ["mean", "sum"])
def test_sampled_rrd_agrees_with_every_possible_draw(replacement, aggregation):
    """Its expectation is the mean over all subsets, and the prediction in it is without bias."""
    turns = torch.tensor([1.0, -2.0, 4.0, 0.5], dtype=torch.float64)
    draws = itertools.product(range(4), repeat=2) if replacement else itertools.combinations(range(4), 2)
    scale = 4 if aggregation == "sum" else 1
    predictions = torch.stack([turns[list(draw)].mean() * scale for draw in draws])
    torch.testing.assert_close(predictions.mean(), turns.mean() * scale)

    # The same session 40,000 times, each with a draw of its own and padding in the way.
    count = 40_000
    place = torch.tensor([False, True, True, False, True, True])
    rewards = torch.full((count, 6), NAN, dtype=torch.float64)
    rewards[:, place] = turns
    sampled = rrd_loss(
        rewards,
        place.expand(count, -1),
        torch.full((count,), 3.0, dtype=torch.float64),
        aggregation=aggregation,
        num_samples=2,
        replacement=replacement,
        generator=torch.Generator().manual_seed(1),
    )
    losses = (3.0 - predictions) ** 2
    tolerance = 4 * losses.std().item() / math.sqrt(count)  # four standard errors
    assert sampled.item() == pytest.approx(losses.mean().item(), abs=tolerance)


def test_draws_follow_the_generator():
    rewards, mask, score = torch.randn(8, 20), torch.ones(8, 20, dtype=torch.bool), torch.randn(8)

    def loss(seed):
        return rrd_loss(rewards, mask, score, num_samples=3, generator=torch.Generator().manual_seed(seed)).item()

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_the_three_global_losses_share_one_signature():
    rewards, mask, score = sessions()
    assert list(GLOBAL_EXPLICIT) == ["rrd", "ircr", "rudder"]
    for loss in GLOBAL_EXPLICIT.values():
        assert loss(rewards, mask, score).shape == ()


def test_wrong_shapes_are_refused():
    rewards, mask, score = sessions()
    with pytest.raises(ValueError, match=r"score: expected one per session, shape \(2,\), found \(2, 1\)"):
        rrd_loss(rewards, mask, score[:, None])
    with pytest.raises(ValueError, match=r"bool mask .* found \(2, 3\) and torch.int64"):
        ircr_loss(rewards, mask.long(), score)
    with pytest.raises(ValueError, match=r"feedback: expected shape \(2, 3\) like rewards, found \(2,\)"):
        li_loss(rewards, mask, score)
