"""Losses that decompose one rating of a session into a reward per turn: RRD, IRCR, RUDDER, LI, and GELI, their mix.

Pure functions on tensors, with no model and no state. All of them take
    rewards  (B, T)  predicted reward r_t of every turn, in units of the (standardised) score
    mask     (B, T)  bool, True where a turn exists; whatever stands elsewhere, NaN included, counts nothing
    score    (B,)    the session's rating R, in the same units; a session whose score is NaN counts nothing
and return a scalar, the mean over the sessions that count (0, with a gradient of 0, if there are none). T is always
the session's own number of turns, never the padded length. Scaling score and feedback is the caller's business.
"""

from __future__ import annotations

import torch
from torch import Tensor

AGGREGATIONS = ("mean", "sum")


def aggregate(rewards: Tensor, mask: Tensor, aggregation: str) -> Tensor:
    """The session score that turn rewards amount to: `sum_t r_t` or `1/T sum_t r_t`.

    Args:
        rewards: (B, T).
        mask: (B, T), bool.
        aggregation: "mean" or "sum".

    Returns:
        (B,), NaN for a session without a turn.
    """
    _check(rewards, mask, aggregation=aggregation)
    total, turns = torch.where(mask, rewards, 0).sum(1), mask.sum(1)
    if aggregation == "mean":
        total = total / turns.clamp(min=1)
    return torch.where(turns > 0, total, torch.nan)


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
    """Randomised return decomposition, with I a random set of K of the session's T turns:

        sum:   (R - T/K sum_{t in I} r_t)^2
        mean:  (R - 1/K sum_{t in I} r_t)^2

    Ren et al., "Learning Long-Term Reward Redistribution via Randomized Return Decomposition", ICLR 2022,
    arXiv 2111.13485 (L_Rand-RD; with all turns it is their L_RD). GELI draws K = 160 with replacement.

    Args:
        num_samples: K. None takes all turns, which has no sampling noise and does better where memory allows it.
        replacement: draw with replacement. Without it, a session of K turns or fewer gives all of its turns.
        generator: source of the draw, on any device.
    """
    _check(rewards, mask, score, aggregation)
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples: expected at least 1, or None for all turns, found {num_samples}")
    turns = mask.sum(1)
    if num_samples is None:
        drawn = mask.to(rewards.dtype)  # (B, T), how often each turn is in I
    elif replacement:
        drawn = _draw_with_replacement(mask, num_samples, generator).to(rewards.dtype)
    else:
        drawn = _draw_without_replacement(mask, num_samples, generator).to(rewards.dtype)
    prediction = (drawn * torch.where(mask, rewards, 0)).sum(1) / drawn.sum(1).clamp(min=1)  # (B,)
    if aggregation == "sum":
        prediction = prediction * turns
    counts = _counting(mask, score)
    return _mean((torch.where(counts, score, 0) - prediction) ** 2, counts)


def ircr_loss(rewards: Tensor, mask: Tensor, score: Tensor, *, aggregation: str = "mean") -> Tensor:
    """Iterative relative credit refinement: every turn gets an equal share of the session's score.

        sum:   1/T sum_t (R/T - r_t)^2
        mean:  1/T sum_t (R - r_t)^2

    Gangwani et al., "Learning Guidance Rewards with Trajectory-space Smoothing", NeurIPS 2020, arXiv 2010.12718,
    in the regression form in which RRD and GELI compare against it.
    """
    _check(rewards, mask, score, aggregation)
    turns = mask.sum(1).clamp(min=1)
    counts = _counting(mask, score)
    share = torch.where(counts, score, 0)
    if aggregation == "sum":
        share = share / turns
    error = torch.where(mask, share[:, None] - torch.where(mask, rewards, 0), 0)  # (B, T)
    return _mean((error**2).sum(1) / turns, counts)


def rudder_loss(rewards: Tensor, mask: Tensor, score: Tensor, *, auxiliary_weight: float = 0.5) -> Tensor:
    """RUDDER: the score predicted at every step, whose differences are the rewards.

        (R - g_T)^2 + auxiliary_weight 1/T sum_t (R - g_t)^2,    g_t = sum_{i <= t} r_i

    Arjona-Medina et al., "RUDDER: Return Decomposition for Delayed Rewards", NeurIPS 2019, arXiv 1806.07857. The
    predictions come from a recurrent head that emits the differences r_t = g_t - g_{t-1} (r_1 = g_1), so that the loss
    is a function of turn rewards like the others. Rewards add up to the score here: aggregate them with "sum".

    The auxiliary term averages squared errors; some published scripts square the averaged error, which lets errors of
    opposite sign cancel.
    """
    _check(rewards, mask, score)
    turns = mask.sum(1).clamp(min=1)
    counts = _counting(mask, score)
    target = torch.where(counts, score, 0)
    running = torch.where(mask, rewards, 0).cumsum(1)  # (B, T); padding, on either side, adds nothing
    main = (target - running[:, -1]) ** 2
    auxiliary = torch.where(mask, (target[:, None] - running) ** 2, 0).sum(1) / turns
    return _mean(main + auxiliary_weight * auxiliary, counts)


def li_loss(rewards: Tensor, mask: Tensor, feedback: Tensor) -> Tensor:
    """Local implicit feedback: a turn's reward follows how its listener took it.

        1/|O| sum_{t in O} (l_t - r_t)^2,    O = the session's observed turns

    GELI (EMNLP 2024, arXiv 2403.11330), where l_t = 1 if the listener's face shows happiness over the utterance and 0
    if not. The mean is taken within a session first, so a session that is watched closely weighs no more than another;
    one that is not watched at all counts nothing.

    Args:
        feedback: (B, T), l_t, NaN where nothing was observed.
    """
    observed = _observed(rewards, mask, feedback)
    error = torch.where(observed, feedback, 0) - torch.where(observed, rewards, 0)  # (B, T)
    seen = observed.sum(1)
    return _mean((error**2).sum(1) / seen.clamp(min=1), seen > 0)


def li_slope_loss(rewards: Tensor, mask: Tensor, feedback: Tensor, slope: Tensor | float) -> Tensor:
    """Local implicit feedback that a reward need not equal: it shows in it by some slope, whoever listens.

        1/|O| sum_{t in O} ((l_t - l) - a (r_t - r))^2,    l, r = means over O, the session's observed turns

    `li_loss` wants a reward to be the signal. One that shows little of it would then have to be small, which the score
    does not want; and what is a listener's habit, who smiles at everything, would count as praise of every turn. With
    the slope `a` of the signal on the rewards (`slope_moments`) both losses are least for the same rewards.

    Args:
        feedback: (B, T), l_t, NaN where nothing was observed. A session with fewer than two observed turns counts
            nothing.
        slope: a, in units of the signal per unit of reward.
    """
    felt, given, observed = _within_sessions(rewards, mask, feedback)
    seen = observed.sum(1)
    return _mean(((felt - slope * given) ** 2).sum(1) / seen.clamp(min=1), seen > 1)


def slope_moments(rewards: Tensor, mask: Tensor, feedback: Tensor) -> tuple[Tensor, Tensor]:
    """Covariance of rewards and signal, and variance of rewards, within sessions: their ratio is the least squares
    slope `a` of `li_slope_loss`. Arguments as there; both are 0 where no session counts."""
    felt, given, observed = _within_sessions(rewards, mask, feedback)
    seen = observed.sum(1)
    return tuple(_mean((given * other).sum(1) / seen.clamp(min=1), seen > 1) for other in (felt, given))


def _within_sessions(rewards: Tensor, mask: Tensor, feedback: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Signal and rewards less their means over the session's observed turns, 0 elsewhere, and which these are."""
    observed = _observed(rewards, mask, feedback)
    seen = observed.sum(1, keepdim=True).clamp(min=1)
    felt, given = (torch.where(observed, values, 0) for values in (feedback, rewards))
    felt, given = (torch.where(observed, row - row.sum(1, keepdim=True) / seen, 0) for row in (felt, given))
    return felt, given, observed


def geli_loss(global_explicit: Tensor, local_implicit: Tensor, li_weight: float) -> Tensor:
    """GELI: `(1 - li_weight) L_GE + li_weight L_LI`, any global loss with any local one.

    EMNLP 2024, arXiv 2403.11330, which writes lambda for the weight of GE, that is `1 - li_weight`, and uses .5.
    """
    if not 0 <= li_weight <= 1:
        raise ValueError(f"li_weight: expected a weight of LI from 0 (GE alone) to 1 (LI alone), found {li_weight}")
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


def _counting(mask: Tensor, score: Tensor) -> Tensor:
    """(B,) bool: sessions that have a turn and a score."""
    return mask.any(1) & ~score.isnan()


def _mean(loss: Tensor, counts: Tensor) -> Tensor:
    """Mean over the sessions that count; 0, still attached to the graph, where none does."""
    return torch.where(counts, loss, 0).sum() / counts.sum().clamp(min=1)


def _observed(rewards: Tensor, mask: Tensor, feedback: Tensor) -> Tensor:
    """(B, T) bool: turns that have a signal."""
    _check(rewards, mask)
    if feedback.shape != rewards.shape:
        raise ValueError(
            f"feedback: expected shape {tuple(rewards.shape)} like rewards, found {tuple(feedback.shape)}"
        )
    return mask & ~feedback.isnan()


def _check(rewards: Tensor, mask: Tensor, score: Tensor | None = None, aggregation: str = "mean") -> None:
    # A score of shape (B, 1) would broadcast to (B, B) and train on other sessions' ratings without a word.
    if rewards.dim() != 2 or mask.shape != rewards.shape or mask.dtype != torch.bool:
        raise ValueError(
            "rewards, mask: expected (batch, turns) and a bool mask of the same shape, "
            f"found {tuple(rewards.shape)} and {mask.dtype} {tuple(mask.shape)}"
        )
    if score is not None and score.shape != rewards.shape[:1]:
        raise ValueError(f"score: expected one per session, shape ({len(rewards)},), found {tuple(score.shape)}")
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation: expected one of {', '.join(AGGREGATIONS)}, found {aggregation!r}")
