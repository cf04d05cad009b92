"""Agreement within sessions beyond Spearman and AUC: Kendall's tau, and Spearman with something else held fixed.

Rewards and ratings are as in `metrics`. A reward that follows the length or the place of a turn agrees with ratings
that do too; what is left when these are held fixed is what it knows of the words.
"""

from __future__ import annotations

import itertools

import numpy as np

from .metrics import PerTurn, _correlation, _flatten, _ranks_within


def kendall_per_session(rewards: PerTurn, ratings: PerTurn) -> np.ndarray:
    """Kendall's tau-b of rewards with ratings within each session.

        (concordant - discordant pairs) / sqrt(pairs that differ in reward * pairs that differ in rating)

    Returns:
        (sessions,). NaN where no two ratings differ. A reward that is the same for all turns counts as 0.
    """
    session, predicted, rated = _flatten(rewards, ratings, "ratings")
    edges = np.searchsorted(session, np.arange(len(rewards) + 1))
    sums = np.zeros((3, len(rewards)))
    for index, (start, stop) in enumerate(itertools.pairwise(edges)):
        x, y = (np.sign(values[start:stop, None] - values[start:stop]) for values in (predicted, rated))
        sums[:, index] = (x * y).sum(), (x * x).sum(), (y * y).sum()
    return _correlation(*sums)


def partial_spearman_per_session(rewards: PerTurn, ratings: PerTurn, control: PerTurn) -> np.ndarray:
    """Spearman's partial correlation of rewards with ratings within each session, `control` held fixed:

        (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2))

    that is, the correlation of what is left of the ranks of rewards x and ratings y after regression on those of z.

    Args:
        control: such as the log length or the position of the turn, one value each (none missing).

    Returns:
        (sessions,). NaN where the control explains all of the ratings, as it does with fewer than three rated turns. A
        reward that it explains counts as 0. A control that is the same for all turns explains nothing.
    """
    session, x, y = _flatten(rewards, ratings, "ratings")
    _, z, _ = _flatten(
        [np.where(np.isnan(np.asarray(reward, float)), np.nan, value) for reward, value in zip(rewards, control)],
        ratings,
        "control",
    )
    count = len(rewards)
    size = np.maximum(np.bincount(session, minlength=count), 1)

    def centred(values: np.ndarray) -> np.ndarray:
        ranks = _ranks_within(session, values)
        return ranks - (np.bincount(session, ranks, count) / size)[session]

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.bincount(session, a * b, count)

    x, y, z = map(centred, (x, y, z))
    zz = product(z, z)
    x, y = (v - z * np.divide(product(v, z), zz, out=np.zeros(count), where=zz > 1e-6)[session] for v in (x, y))
    return _correlation(product(x, y), product(x, x), product(y, y))
