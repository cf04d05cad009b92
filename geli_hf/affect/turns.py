"""The listener's face while the other one spoke, as one number per turn. Pure functions on arrays.

Rows of features hold a time and the probabilities of eight emotions: CANDOR has one per second, a video several. Where
no face was seen they are NaN, and stay so: nothing is guessed.
"""

import numpy as np
import pandas as pd

from .emotions import EMOTIONS, HAPPINESS, NEGATIVE

# An utterance of so few words is over before a face can answer it, so it counts as neutral (the published rule).
SHORT_WORDS = 5


def affect_of_turns(
    seconds: np.ndarray,
    probabilities: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    words: np.ndarray,
    *,
    min_share: float = 0.0,
    short_words: int = SHORT_WORDS,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the listener's affect over each utterance.

    The defaults are the published rule of GELI (EMNLP 2024, arXiv 2403.11330).

    Args:
        seconds: (n,), the time of each row of features, in any order; NaN if unknown. Rows of one time that show the
            same count once. Rows of one time that show different faces contradict each other, and none of them counts.
        probabilities: (n, 8) in the order of `EMOTIONS`; NaN where no face was seen. An emotion that is NaN in every
            row is one that the classifier has no label of; a row that lacks another one shows no face.
        start, stop: (turns,), seconds; NaN if unknown. A row counts where start <= its time <= stop. Turns may
            overlap, in any order.
        words: (turns,), words of each utterance.
        min_share: the share of an utterance's rows, from 0 to 1, that has to show a face. 0: one row is enough.
        short_words: an utterance of so few words counts as neutral. 0: none does.

    Returns:
        `affect` (turns,): 1 where the most frequent emotion of the utterance's rows (each row's most probable one) is
        happiness, else 0; 0 for an utterance of `short_words` words or fewer. Of equally frequent emotions the first
        in the order of `EMOTIONS` counts.
        `affect_mean` (turns,): mean probability of happiness over the utterance's rows.
        Both are NaN where too few rows of the utterance show a face, where it has no rows or no times, and where it
        stops before it starts.

    Raises:
        ValueError: `min_share` is no share.
    """
    if not 0 <= min_share <= 1:
        raise ValueError(f"min_share: expected a share from 0 to 1, found {min_share!r}")
    times, faces = distinct_faces(seconds, probabilities)
    first, past = rows_of_turns(times, start, stop)
    seen = ~np.isnan(faces[:, HAPPINESS])
    shown = np.zeros((len(EMOTIONS), len(times)))
    shown[np.nan_to_num(faces, nan=-1).argmax(1), np.arange(len(times))] = seen
    emotions = sums_of_turns(shown, first, past)
    mean = means_of_turns(faces[None, :, HAPPINESS], first, past, min_share)[0]
    affect = np.where((emotions.argmax(0) == HAPPINESS) & (np.asarray(words) > short_words), 1.0, 0.0)
    return np.where(np.isnan(mean), np.nan, affect), mean


def face_valence(faces: np.ndarray) -> np.ndarray:
    """Compute the valence (n,) of faces (n, 8), as in `valence_of_turns`."""
    negative = faces[:, NEGATIVE]
    return np.where(np.isnan(negative).all(1), np.nan, faces[:, HAPPINESS] - np.nansum(negative, 1))


def valence_of_turns(
    seconds: np.ndarray,
    probabilities: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    *,
    min_share: float = 0.0,
    own_mean: bool = False,
) -> np.ndarray:
    """Compute the valence of the listener's face over each utterance, from -1 to 1.

        valence = P(happiness) - P(anger) - P(contempt) - P(disgust) - P(fear) - P(sadness)

    Args:
        seconds, probabilities, start, stop, min_share: as in `affect_of_turns`. An emotion that the classifier has no
            label of adds nothing.
        own_mean: subtract the mean over all rows that show a face, since some people look sad, or smile, at rest.

    Returns:
        (turns,): mean over the utterance's rows that show a face. NaN where `affect_of_turns` is, and everywhere where
        the classifier has no label of any negative emotion.
    """
    times, faces = distinct_faces(seconds, probabilities)
    first, past = rows_of_turns(times, start, stop)
    values = face_valence(faces)
    if own_mean and not np.isnan(values).all():
        values -= np.nanmean(values)
    return means_of_turns(values[None], first, past, min_share)[0]


def smooth_faces(seconds: np.ndarray, probabilities: np.ndarray, window: float) -> tuple[np.ndarray, np.ndarray]:
    """Smooth probabilities over time by a running median: the mouth of a speaker smiles in single frames.

    Args:
        seconds, probabilities: (n,) and (n, 8), as in `affect_of_turns`.
        window: seconds, half before a row and half after it; 0 smooths nothing.

    Returns:
        Times and faces as of `distinct_faces`. Each emotion is the median over the faces of the window, and they add
        up to 1 again. A row without a face stays without.
    """
    times, faces = distinct_faces(seconds, probabilities)
    if not window:
        return times, faces
    unseen = np.isnan(faces[:, HAPPINESS])
    table = pd.DataFrame(faces, index=pd.to_timedelta(times, unit="s"))
    rolling = table.rolling(pd.Timedelta(seconds=window), min_periods=1, center=True, closed="both")
    median = rolling.median().to_numpy(copy=True)
    median[unseen] = np.nan
    return times, median / np.maximum(np.nansum(median, 1, keepdims=True), 1e-9)


def distinct_faces(seconds: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge rows of the same time.

    Args:
        seconds, probabilities: (n,) and (n, 8), as in `affect_of_turns`.

    Returns:
        Known times (m,), ascending and without repetition, and the face (m, 8) of each: NaN where none was seen, or
        two that contradict each other.
    """
    seconds, probabilities = np.asarray(seconds, float), np.asarray(probabilities, float)
    missing = np.isnan(probabilities)
    known = ~missing.all(0)
    seen = ~missing[:, known].any(1) & known[HAPPINESS]
    order = np.lexsort((~seen, seconds))  # of rows of one time first those that show a face; unknown times come last
    order = order[: np.count_nonzero(~np.isnan(seconds))]
    times, faces, seen = seconds[order], probabilities[order], seen[order]
    new = np.diff(times, prepend=np.nan) != 0
    if not new.all():
        which = np.cumsum(new) - 1
        differs = seen & (faces[:, known] != faces[new][which][:, known]).any(1)
        contradicted = np.bincount(which, weights=differs) > 0
        times, faces, seen = times[new], faces[new], seen[new] & ~contradicted
    faces[~seen] = np.nan
    return times, faces


def rows_of_turns(times: np.ndarray, start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows of each turn.

    Args:
        times: (n,), seconds, ascending.
        start, stop: (turns,), seconds; NaN if unknown.

    Returns:
        (turns,) the first row within start..stop, and (turns,) the one past the last. The two are equal where
        there is none, and where the turn has no times or stops before it starts.
    """
    start, stop = np.asarray(start, float), np.asarray(stop, float)
    first = np.searchsorted(times, start, side="left")
    past = np.searchsorted(times, stop, side="right")
    return first, np.where(start <= stop, past, first)


def rows_in_turns(rows: int, first: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Tell which of the rows, (rows,), lie in any turn, given `rows_of_turns`."""
    borders = np.zeros(rows + 1)
    np.add.at(borders, first, 1)
    np.add.at(borders, past, -1)
    return np.cumsum(borders[:-1]) > 0


def means_of_turns(values: np.ndarray, first: np.ndarray, past: np.ndarray, min_share: float) -> np.ndarray:
    """Average `values` (k, n) over the known rows first..past-1 of each turn, as (k, turns).

    NaN where none, or less than a share of `min_share` of the rows, is known.
    """
    known = ~np.isnan(values)
    sums, count = np.split(sums_of_turns(np.concatenate([np.where(known, values, 0), known]), first, past), 2)
    enough = (count > 0) & (count / np.maximum(past - first, 1) >= min_share)
    return np.where(enough, sums / np.maximum(count, 1), np.nan)


def sums_of_turns(values: np.ndarray, first: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Sum `values` (k, n) over the rows first..past-1 of each turn, as (k, turns) in float64."""
    running = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, 1, out=running[:, 1:])
    return running[:, past] - running[:, first]
