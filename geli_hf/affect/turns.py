"""CANDOR's Local Implicit signal: what the listener's face showed while the other one spoke. Pure functions on arrays.

The features hold one row per person and second with the probabilities of eight emotions. Where no face was seen they
are NaN, and stay so: nothing is guessed.
"""

import numpy as np

from .emotions import EMOTIONS, HAPPINESS

# An utterance of so few words is over before a face can answer it, so it counts as neutral (the published rule).
SHORT_WORDS = 5


def affect_of_turns(
    seconds: np.ndarray, probabilities: np.ndarray, start: np.ndarray, stop: np.ndarray, words: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The listener's affect over each utterance (GELI, EMNLP 2024, arXiv 2403.11330).

    Args:
        seconds: (n,), the time of each row of features, in any order; NaN if unknown. Rows of one time that show the
            same count once. Rows of one time that show different faces contradict each other, and none of them counts.
        probabilities: (n, 8) in the order of `EMOTIONS`; NaN where no face was seen.
        start, stop: (turns,), seconds; NaN if unknown. A second counts where start <= second <= stop.
        words: (turns,), words of each utterance.

    Returns:
        `affect` (turns,): 1 where the most frequent emotion of the utterance's seconds (each second's most probable
        one) is happiness, else 0; 0 for an utterance of `SHORT_WORDS` words or fewer. Of equally frequent emotions the
        first in the order of `EMOTIONS` counts.
        `affect_mean` (turns,): mean probability of happiness over the utterance's seconds.
        Both are NaN where no face was seen during the utterance, or nobody knows when that was.
    """
    seen = ~np.isnan(probabilities).any(1)
    order = np.argsort(seconds[seen], kind="stable")  # unknown times come last, where no turn ends
    seconds, probabilities = _one_face_a_time(seconds[seen][order], probabilities[seen][order])
    first = np.searchsorted(seconds, start, side="left")
    past = np.maximum(np.searchsorted(seconds, stop, side="right"), first)
    past = np.where(np.isnan(start) | np.isnan(stop), first, past)

    winners = np.zeros((len(seconds), len(EMOTIONS)))
    winners[np.arange(len(seconds)), probabilities.argmax(1)] = 1
    count = past - first
    most_frequent = _sums(winners, first, past).argmax(1)
    affect = np.where((most_frequent == HAPPINESS) & (words > SHORT_WORDS), 1.0, 0.0)
    mean = _sums(probabilities[:, HAPPINESS, None], first, past)[:, 0] / np.maximum(count, 1)
    return np.where(count > 0, affect, np.nan), np.where(count > 0, mean, np.nan)


def _one_face_a_time(seconds: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted times without repetition, and without those at which two faces are told of."""
    new = np.diff(seconds, prepend=np.nan) != 0
    if new.all():
        return seconds, probabilities
    which = np.cumsum(new) - 1
    differs = (probabilities != probabilities[new][which]).any(1)
    contradicted = np.bincount(which, weights=differs) > 0
    return seconds[new][~contradicted], probabilities[new][~contradicted]


def _sums(values: np.ndarray, first: np.ndarray, past: np.ndarray) -> np.ndarray:
    """(turns, k): sums of the rows first..past-1, by differences of a running sum."""
    running = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, 0)])
    return running[past] - running[first]
