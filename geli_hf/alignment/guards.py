"""Guards against rewards for length or repetition, and the running scale of rewards; `GeliReward` applies them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TWO_TERMS = 8  # degrees of freedom; a second term of the length would take most of what fewer can show
_WORD = re.compile(r"\w+")


def without_length_slope(
    groups: Sequence[str], words: Sequence[int], rewards: Sequence[float]
) -> tuple[list[float], float]:
    """Subtract from rewards their regression on the length and its logarithm, within the completions of each prompt.

        r'_i = r_i - b x_i - c y_i,    (b, c) = argmin sum_i (r_i - b x_i - c y_i)^2

    with r, x and y the deviations of reward, log(words) and words from their means over the group. The mean of a
    group's rewards stays, and within groups r' is uncorrelated with both: neither longer nor shorter replies gain, nor
    those of the most usual length. With fewer than 8 degrees of freedom (completions less groups) y is left out.

    Args:
        groups: (completions,), the prompt of each.
        words: (completions,), length of each, at least 1.
        rewards: (completions,).

    Returns:
        r', (completions,), and b of the regression on log(words) alone; 0 where lengths do not differ.
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    count, words = np.bincount(group), np.asarray(words, float)

    def centered(values: np.ndarray) -> np.ndarray:
        return values - (np.bincount(group, weights=values) / count)[group]

    rewards, log_length = np.asarray(rewards, float), centered(np.log(words))
    variation = log_length @ log_length
    slope = float(log_length @ rewards / variation) if variation > 1e-9 else 0.0
    if len(group) - len(count) < TWO_TERMS:
        return (rewards - slope * log_length).tolist(), slope
    terms = np.stack([log_length, centered(words)], axis=1)
    fitted, *_ = np.linalg.lstsq(terms, centered(rewards), rcond=1e-9)
    return (rewards - terms @ fitted).tolist(), slope


def repeated_share(reply: str, earlier: Sequence[str] = (), *, n: int = 3) -> float:
    """Compute the share of a reply's n-grams that occur before, in the reply or in an earlier turn.

    It is 1 - distinct-n (arXiv 1510.03055), with the speaker's earlier turns counted as seen. A reply of fewer than n
    words is one n-gram: an "Okay." after an "Okay." is repeated.

    Args:
        reply: the reply.
        earlier: earlier turns of the same speaker.
        n: words of an n-gram.

    Returns:
        0 to 1; 0 of a reply without words.
    """
    grams = _ngrams(reply, n)
    new = set(grams).difference(*(_ngrams(turn, n) for turn in earlier))
    return (len(grams) - len(new)) / len(grams) if grams else 0.0


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return [tuple(words[first : first + n]) for first in range(max(1, len(words) - n + 1))] if words else []


@dataclass
class RunningMoments:
    """Mean and standard deviation of all values so far, updated batch by batch (Chan et al. 1979).

    Args:
        count: number of values.
        mean: of the values.
        squares: sum of their squared deviations from the mean.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def std(self) -> float:
        """Standard deviation with Bessel's correction; NaN of fewer than two values."""
        return (self.squares / (self.count - 1)) ** 0.5 if self.count > 1 else float("nan")

    def update(self, values: Sequence[float]) -> None:
        """Add a batch of values."""
        values = np.asarray(values, dtype=np.float64)
        if not values.size:
            return
        count, shift = self.count + values.size, values.mean() - self.mean
        self.squares += float(((values - values.mean()) ** 2).sum() + shift**2 * self.count * values.size / count)
        self.mean += float(shift * values.size / count)
        self.count = count

    def normalise(self, values: Sequence[float]) -> list[float]:
        """Compute (value - mean) / std; value - mean where all values so far are equal."""
        scale = self.std if self.std > 1e-8 else 1.0
        return ((np.asarray(values, dtype=np.float64) - self.mean) / scale).tolist()
