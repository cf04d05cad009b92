"""What keeps a policy from winning its reward cheaply, by length or by saying the same again, and the reward's scale.

Pure functions and one running estimate; `GeliReward` applies them. The third guard, against going too far from the
policy that one began with, is `geli_hf.alignment.callbacks.StopAtKL`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_WORD = re.compile(r"\w+")


def length_slope(groups: Sequence[str], words: Sequence[int], rewards: Sequence[float]) -> float:
    """Slope of the rewards on the logarithm of the length, within the completions of each prompt.

    Both are taken as deviations from the means of their group, over the whole batch. 0 where lengths don't differ.

    Args:
        groups: of which prompt each completion is.
        words: length of each completion, at least 1.
        rewards: of each completion.
    """
    length, reward = _within(groups, np.log(np.asarray(words, dtype=np.float64))), _within(groups, rewards)
    spread = length @ length
    return float(length @ reward / spread) if spread > 1e-9 else 0.0


def without_length_slope(groups: Sequence[str], words: Sequence[int], rewards: Sequence[float]) -> list[float]:
    """Rewards less their regression on the logarithm of the length, within the completions of each prompt.

    r'_i = r_i - b (x_i - mean of x over the group of i), x = log(words), and b of `length_slope`. Then no group's mean
    changes, and within the groups r' is uncorrelated with x: at first order a policy gains nothing by talking more or
    less. Arguments as for `length_slope`.
    """
    length = _within(groups, np.log(np.asarray(words, dtype=np.float64)))
    return (np.asarray(rewards, dtype=np.float64) - length_slope(groups, words, rewards) * length).tolist()


def _within(groups: Sequence[str], values: Sequence[float]) -> np.ndarray:
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    values = np.asarray(values, dtype=np.float64)
    return values - (np.bincount(group, weights=values) / np.bincount(group))[group]


def repeated_share(reply: str, earlier: Sequence[str] = (), *, n: int = 3) -> float:
    """Share of a reply's n-grams of words that were there before, in the reply itself or in an earlier turn: 0..1.

    1 - distinct-n (arXiv 1510.03055), where what the agent has said before does not count as distinct either. Of fewer
    than n words, all together are the one n-gram: an "Okay." after an "Okay." is repeated. 0 without any word.

    Args:
        reply: what is looked at.
        earlier: what the same speaker has said before.
        n: words that make an n-gram.
    """
    seen = {gram for turn in earlier for gram in _ngrams(turn, n)}
    grams, repeated = _ngrams(reply, n), 0
    for gram in grams:
        repeated += gram in seen
        seen.add(gram)
    return repeated / len(grams) if grams else 0.0


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return [tuple(words[first : first + n]) for first in range(max(1, len(words) - n + 1))] if words else []


@dataclass
class RunningMoments:
    """Mean and deviation of everything seen so far, taken in by batches (Chan et al. 1979).

    Args:
        count: of values.
        mean: of the values.
        squares: sum of their squared deviations from the mean.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def std(self) -> float:
        """Deviation, with count - 1; NaN of fewer than two values."""
        return (self.squares / (self.count - 1)) ** 0.5 if self.count > 1 else float("nan")

    def update(self, values: Sequence[float]) -> None:
        values = np.asarray(values, dtype=np.float64)
        if not values.size:
            return
        count, shift = self.count + values.size, values.mean() - self.mean
        self.squares += float(((values - values.mean()) ** 2).sum() + shift**2 * self.count * values.size / count)
        self.mean += float(shift * values.size / count)
        self.count = count

    def normalise(self, values: Sequence[float]) -> list[float]:
        """(value - mean) / std; only the mean is taken off where all values so far were the same."""
        scale = self.std if self.std > 1e-8 else 1.0
        return ((np.asarray(values, dtype=np.float64) - self.mean) / scale).tolist()
