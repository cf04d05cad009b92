"""From what a face showed over time to one number per turn. Pure functions on arrays.

A row is a moment at which a camera looked: a second of CANDOR's features, or a frame of a video. Where no face was
seen its probabilities are NaN, and stay so: nothing is guessed.
"""

import numpy as np

from .emotions import EMOTIONS, HAPPINESS

# An utterance of so few words is over before a face can answer it, so it counts as neutral (the published rule).
SHORT_WORDS = 5


def affect_of_turns(
    times: np.ndarray,
    probabilities: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    words: np.ndarray | None = None,
    *,
    lag: float = 0.0,
    min_share: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The listener's affect over each utterance (GELI, EMNLP 2024, arXiv 2403.11330).

    Args:
        times: (n,), seconds of each row, in any order; NaN if unknown. Rows of one time that show the same count once.
            Rows of one time that show different faces contradict each other, and none of them counts.
        probabilities: (n, 8) in the order of `EMOTIONS`; NaN where no face was seen. An emotion that is NaN in every
            row is one that the classifier doesn't know, and says nothing about whether a face was seen.
        start, stop: (turns,), seconds; NaN if unknown. A row counts where start <= time <= stop + lag. Turns may
            overlap.
        words: (turns,), words of each utterance, for the published rule about short ones; without them there is none.
        lag: seconds for which a face may answer after the utterance.
        min_share: a turn of which fewer of its rows than this show a face is missing, 0..1.

    Returns:
        `affect` (turns,): 1 where the most frequent emotion of the utterance's rows (each row's most probable one) is
        happiness, else 0; 0 for an utterance of `SHORT_WORDS` words or fewer. Of equally frequent emotions the first
        in the order of `EMOTIONS` counts.
        `affect_mean` (turns,): mean probability of happiness over the utterance's rows.
        Both are NaN where no face was seen during the utterance, or in too few rows, or nobody knows when that was.
    """
    if not lag >= 0:
        raise ValueError(f"lag: expected seconds from 0, found {lag}")
    if not 0 <= min_share <= 1:
        raise ValueError(f"min_share: expected a share from 0 to 1, found {min_share}")
    unknown = np.isnan(probabilities).all(0)
    seen = ~np.isnan(probabilities[:, ~unknown]).any(1) & (not unknown.all())
    order = np.argsort(times[seen], kind="stable")  # unknown times come last, where no turn ends
    seconds, probabilities = _one_face_a_time(times[seen][order], np.nan_to_num(probabilities[seen][order]))
    stop = stop + lag
    first, past = _rows_of_turns(seconds, start, stop)
    looks = np.subtract(*_rows_of_turns(np.unique(times[~np.isnan(times)]), start, stop)[::-1])

    winners = np.zeros((len(seconds), len(EMOTIONS)))
    winners[np.arange(len(seconds)), probabilities.argmax(1)] = 1
    count = past - first
    most_frequent = _sums(winners, first, past).argmax(1)
    long_enough = True if words is None else words > SHORT_WORDS
    affect = np.where((most_frequent == HAPPINESS) & long_enough, 1.0, 0.0)
    mean = _sums(probabilities[:, HAPPINESS, None], first, past)[:, 0] / np.maximum(count, 1)
    enough = (count > 0) & (count >= min_share * looks)
    return np.where(enough, affect, np.nan), np.where(enough, mean, np.nan)


def _rows_of_turns(times: np.ndarray, start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(turns,) twice: of sorted times the first that lies in each turn, and the first past it."""
    first = np.searchsorted(times, start, side="left")
    past = np.maximum(np.searchsorted(times, stop, side="right"), first)
    return first, np.where(np.isnan(start) | np.isnan(stop), first, past)


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
    """(turns, k): sums of the rows first..past-1, by differences of a running sum in float64."""
    running = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, 0, dtype=float)])
    return running[past] - running[first]
