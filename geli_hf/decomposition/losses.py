"""Losses that decompose one rating of a session into a reward per turn: RRD, IRCR, RUDDER, LI, and GELI, their mix.

Pure functions on tensors, without a model or a state. B sessions of T turns each are padded to one length; in the
equations, T is the session's own number of turns. Padded values count nothing, NaN included. A loss is the mean over
the sessions that have what it needs: a score that is not NaN, or observed turns. Without such a session it is 0, with
a gradient of 0. The caller standardises scores and feedback.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rrd_loss(
    rewards: Tensor,
    mask: Tensor,
    score: Tensor,
    *,
    aggregation: str = "mean",
    num_samples: int | None = None,
    replacement: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Randomised return decomposition (RRD), with I a random set of K of the session's T turns.

        sum:   (R - T/K sum_{t in I} r_t)^2
        mean:  (R - 1/K sum_{t in I} r_t)^2

    Source: Ren et al., "Learning Long-Term Reward Redistribution via Randomized Return Decomposition", ICLR 2022,
    arXiv 2111.13485, L_Rand-RD; with all turns it is their L_RD. GELI draws K = 160 with replacement.

    Args:
        rewards: (B, T), r_t, in units of the score.
        mask: (B, T), bool, True where a turn exists.
        score: (B,), R, NaN where missing.
        aggregation: "mean" or "sum" of the rewards predicts the score.
        num_samples: K. None takes all turns, without sampling noise, which is better where memory allows it.
        replacement: draw with replacement. Without it, a session of K turns or fewer gives all of its turns.
        generator: source of the draw, on any device.

    Returns:
        A scalar, the mean over sessions with a score.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(rewards, mask, score)
    if num_samples is None:
        drawn = mask  # how often each turn is in I, (B, T)
    elif replacement:
        drawn = _draw_with_replacement(mask, num_samples, generator)
    else:
        drawn = _draw_without_replacement(mask, num_samples, generator)
    drawn = drawn.to(rewards.dtype)
    prediction = (drawn * torch.where(mask, rewards, 0)).sum(1) / drawn.sum(1).clamp(min=1)  # (B,)
    if aggregation == "sum":
        prediction = prediction * mask.sum(1)
    rated = _rated(mask, score)
    return _mean((torch.where(rated, score, 0) - prediction) ** 2, rated)


def ircr_loss(rewards: Tensor, mask: Tensor, score: Tensor, *, aggregation: str = "mean") -> Tensor:
    """Iterative relative credit refinement (IRCR): every turn gets an equal share of the session's score.

        sum:   1/T sum_t (R/T - r_t)^2
        mean:  1/T sum_t (R - r_t)^2

    Source: Gangwani et al., "Learning Guidance Rewards with Trajectory-space Smoothing", NeurIPS 2020, arXiv
    2010.12718, in the regression form in which RRD and GELI compare against it.

    Args:
        rewards: (B, T), r_t, in units of the score.
        mask: (B, T), bool, True where a turn exists.
        score: (B,), R, NaN where missing.
        aggregation: "mean" or "sum" of the rewards predicts the score.

    Returns:
        A scalar, the mean over sessions with a score.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(rewards, mask, score)
    turns, rated = mask.sum(1).clamp(min=1), _rated(mask, score)
    share = torch.where(rated, score, 0)
    if aggregation == "sum":
        share = share / turns
    error = torch.where(mask, share[:, None] - torch.where(mask, rewards, 0), 0)  # (B, T)
    return _mean((error**2).sum(1) / turns, rated)


def rudder_loss(rewards: Tensor, mask: Tensor, score: Tensor, *, auxiliary_weight: float = 0.5) -> Tensor:
    """RUDDER: the score is predicted at every turn, and differences of predictions are the rewards.

        (R - g_T)^2 + auxiliary_weight 1/T sum_t (R - g_t)^2,    g_t = sum_{i <= t} r_i

    Source: Arjona-Medina et al., "RUDDER: Return Decomposition for Delayed Rewards", NeurIPS 2019, arXiv 1806.07857.
    The auxiliary term averages squared errors; some published scripts square the averaged error, in which errors of
    opposite sign cancel. The recurrent head emits the differences, so the loss takes rewards like the others. Rewards
    add up to the score: aggregate them with "sum".

    Args:
        rewards: (B, T), r_t = g_t - g_{t-1}, in units of the score.
        mask: (B, T), bool, True where a turn exists.
        score: (B,), R, NaN where missing.
        auxiliary_weight: of the predictions before the last.

    Returns:
        A scalar, the mean over sessions with a score.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(rewards, mask, score)
    turns, rated = mask.sum(1).clamp(min=1), _rated(mask, score)
    target = torch.where(rated, score, 0)
    running = torch.where(mask, rewards, 0).cumsum(1)  # (B, T); padding, on either side, adds nothing
    main = (target - running[:, -1]) ** 2
    auxiliary = torch.where(mask, (target[:, None] - running) ** 2, 0).sum(1) / turns
    return _mean(main + auxiliary_weight * auxiliary, rated)


def li_loss(rewards: Tensor, mask: Tensor, feedback: Tensor) -> Tensor:
    """Local implicit feedback (LI): a turn's reward equals the listener's signal.

        1/|O| sum_{t in O} (l_t - r_t)^2,    O = the session's observed turns

    Source: Lee et al., GELI, EMNLP 2024, arXiv 2403.11330, where l_t is 1 if the listener's face shows happiness over
    the utterance and 0 if not. The mean is taken within a session first, so every observed session weighs the same.

    Args:
        rewards: (B, T), r_t, in units of the signal.
        mask: (B, T), bool, True where a turn exists.
        feedback: (B, T), l_t, NaN where nothing was observed.

    Returns:
        A scalar, the mean over sessions with an observed turn.

    Raises:
        ValueError: shapes that do not fit.
    """
    observed = _observed(rewards, mask, feedback)
    error = torch.where(observed, feedback, 0) - torch.where(observed, rewards, 0)  # (B, T)
    count = observed.sum(1)
    return _mean((error**2).sum(1) / count.clamp(min=1), count > 0)


def li_slope_loss(rewards: Tensor, mask: Tensor, feedback: Tensor, slope: Tensor | float) -> Tensor:
    """Local implicit feedback with a slope: within a session, the signal follows the reward.

        1/|O| sum_{t in O} ((l_t - l-bar) - a (r_t - r-bar))^2,    bars = means over O, the session's observed turns

    Source: this project. Under `li_loss` a reward that shows little in the signal has to be small, which contradicts
    the score, and a listener who smiles at everything praises every turn. With the least squares slope a
    (`slope_moments`), this loss and the global one have the same minimum.

    Args:
        rewards: (B, T), r_t.
        mask: (B, T), bool, True where a turn exists.
        feedback: (B, T), l_t, NaN where nothing was observed.
        slope: a, in units of the signal per unit of reward.

    Returns:
        A scalar, the mean over sessions with two observed turns or more.

    Raises:
        ValueError: shapes that do not fit.
    """
    signal, reward, count = _within_sessions(rewards, mask, feedback)
    return _mean(((signal - slope * reward) ** 2).sum(1) / count.clamp(min=1), count > 1)


def slope_moments(rewards: Tensor, mask: Tensor, feedback: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of signal and rewards within sessions; their ratio is the least squares slope of `li_slope_loss`.

        cov = 1/|O| sum_{t in O} (l_t - l-bar)(r_t - r-bar),    var = 1/|O| sum_{t in O} (r_t - r-bar)^2

    Args:
        rewards: (B, T), r_t.
        mask: (B, T), bool, True where a turn exists.
        feedback: (B, T), l_t, NaN where nothing was observed.

    Returns:
        Covariance and variance, scalars, the means over sessions with two observed turns or more.

    Raises:
        ValueError: shapes that do not fit.
    """
    signal, reward, count = _within_sessions(rewards, mask, feedback)
    return tuple(_mean((reward * other).sum(1) / count.clamp(min=1), count > 1) for other in (signal, reward))


def geli_loss(global_explicit: Tensor, local_implicit: Tensor, li_weight: float) -> Tensor:
    """GELI: any global loss with any local one.

        (1 - li_weight) L_GE + li_weight L_LI

    Source: Lee et al., GELI, EMNLP 2024, arXiv 2403.11330, which writes lambda for the weight of GE, that is
    `1 - li_weight`, and uses .5.

    Args:
        global_explicit: L_GE, a scalar, from scores (B,).
        local_implicit: L_LI, a scalar, from feedback (B, T).
        li_weight: from 0 (GE alone) to 1 (LI alone).

    Returns:
        A scalar.
    """
    return (1 - li_weight) * global_explicit + li_weight * local_implicit


GLOBAL_EXPLICIT = {"rrd": rrd_loss, "ircr": ircr_loss, "rudder": rudder_loss}


def _draw_without_replacement(mask: Tensor, num_samples: int, generator: torch.Generator | None) -> Tensor:
    """(B, T) bool: min(K, T) turns of each session, every set of them equally likely."""
    keys = _uniform(mask.shape, mask.device, generator).masked_fill(~mask, torch.inf)
    rank = keys.argsort(1).argsort(1)
    return mask & (rank < num_samples)


def _draw_with_replacement(mask: Tensor, num_samples: int, generator: torch.Generator | None) -> Tensor:
    """(B, T) float: how often each turn comes up in K draws; 0 throughout for a session without a turn."""
    turns = mask.sum(1, keepdim=True)
    draw = (_uniform((len(mask), num_samples), mask.device, generator) * turns).long()
    draw = draw.minimum((turns - 1).clamp(min=0))  # u * T may round up to T
    times = torch.zeros(mask.shape, device=mask.device)  # of the n-th turn
    times.scatter_add_(1, draw, torch.ones(draw.shape, device=mask.device))
    return torch.where(mask, times.gather(1, (mask.cumsum(1) - 1).clamp(min=0)), 0)


def _uniform(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> Tensor:
    source = device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=source).to(device)


def _within_sessions(rewards: Tensor, mask: Tensor, feedback: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Center signal and rewards on their means over the session's observed turns, and count these, (B,)."""
    observed = _observed(rewards, mask, feedback)
    count = observed.sum(1, keepdim=True).clamp(min=1)

    def centered(values: Tensor) -> Tensor:
        values = torch.where(observed, values, 0)
        return torch.where(observed, values - values.sum(1, keepdim=True) / count, 0)

    return centered(feedback), centered(rewards), observed.sum(1)


def _rated(mask: Tensor, score: Tensor) -> Tensor:
    """(B,) bool: sessions that have a turn and a score."""
    return mask.any(1) & ~score.isnan()


def _mean(loss: Tensor, counts: Tensor) -> Tensor:
    """Average over the sessions that count; 0, still attached to the graph, if none does."""
    return torch.where(counts, loss, 0).sum() / counts.sum().clamp(min=1)


def _observed(rewards: Tensor, mask: Tensor, feedback: Tensor) -> Tensor:
    """(B, T) bool: turns that have a signal."""
    _check(rewards, mask)
    if feedback.shape != rewards.shape:
        raise ValueError(
            f"feedback: expected shape {tuple(rewards.shape)} like rewards, found {tuple(feedback.shape)}"
        )
    return mask & ~feedback.isnan()


def _check(rewards: Tensor, mask: Tensor, score: Tensor | None = None) -> None:
    # A score of shape (B, 1) would broadcast to (B, B) and train on other sessions' ratings silently.
    if rewards.dim() != 2 or mask.shape != rewards.shape or mask.dtype != torch.bool:
        raise ValueError(
            "rewards, mask: expected (batch, turns) and a bool mask of the same shape, "
            f"found {tuple(rewards.shape)} and {mask.dtype} {tuple(mask.shape)}"
        )
    if score is not None and score.shape != rewards.shape[:1]:
        raise ValueError(f"score: expected one per session, shape ({len(rewards)},), found {tuple(score.shape)}")
