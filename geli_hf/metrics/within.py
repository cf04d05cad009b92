"""Agreement within sessions beyond Spearman and AUC: Kendall's tau, and Spearman with a control held fixed.

Rewards and ratings are as in `metrics`. A reward that follows the length or the position of a turn agrees with ratings
that do too; what is left when these are held fixed is what it knows of the words.
"""

from __future__ import annotations

import numpy as np

from .ranks import PerTurn, centre_within, correlation, flatten_turns, ranks_within, turns_by_session


def kendall_per_session(rewards: PerTurn, ratings: PerTurn) -> np.ndarray:
    """Kendall's tau-b of rewards with ratings within each session.

        tau_s = (concordant - discordant pairs) / sqrt(pairs that differ in reward * pairs that differ in rating)

    Reference: Kendall, "The Treatment of Ties in Ranking Problems", 1945.

    Args:
        rewards, ratings: one array (turns,) per session, in any unit.

    Returns:
        (sessions,), from -1 to 1. NaN where no two ratings differ. 0 where the reward is the same for all turns.

    Example:
        >>> kendall_per_session([[1, 2, 3]], [[1, 3, 2]])
        array([0.33333333])
    """
    sums = np.zeros((3, len(rewards)))
    for index, turns in enumerate(turns_by_session(rewards, ratings)):
        x, y = (np.sign(values[:, None] - values) for values in turns)
        sums[:, index] = (x * y).sum(), (x * x).sum(), (y * y).sum()
    return correlation(*sums)


def partial_spearman_per_session(rewards: PerTurn, ratings: PerTurn, control: PerTurn) -> np.ndarray:
    """Spearman's partial correlation of rewards with ratings within each session, `control` held fixed.

        (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2))

    that is, the correlation of what is left of the ranks of rewards x and ratings y after regression on those of z.

    Reference: Kendall and Stuart, "The Advanced Theory of Statistics", volume 2, chapter 27.

    Args:
        rewards, ratings: one array (turns,) per session, in any unit.
        control: one array (turns,) per session without a missing value, such as the log length of the turn.

    Returns:
        (sessions,), from -1 to 1. NaN where the control explains all of the ratings, as it does with fewer than three
        rated turns. 0 where it explains the reward. A control that is the same for all turns explains nothing.

    Example:
        >>> partial_spearman_per_session([[1, 2, 3, 5]], [[1, 2, 3, 4]], [[7, 7, 7, 7]])
        array([1.])
    """
    session, x, y = flatten_turns(rewards, ratings, "ratings")
    known = [np.where(np.isnan(np.asarray(reward, float)), np.nan, value) for reward, value in zip(rewards, control)]
    _, z, _ = flatten_turns(known, ratings, "control")
    count = len(rewards)

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.bincount(session, a * b, count)

    x, y, z = (centre_within(session, ranks_within(session, values), count) for values in (x, y, z))
    zz = product(z, z)
    x, y = (v - z * np.divide(product(v, z), zz, out=np.zeros(count), where=zz > 1e-6)[session] for v in (x, y))
    return correlation(product(x, y), product(x, x), product(y, y))
