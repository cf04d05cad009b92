"""The behaviour of the listener's face, eyes and voice during a turn, in words: for annotators that read.

Words follow from fixed thresholds, and only from what was observed.
"""

from collections.abc import Sequence

import numpy as np

from .emotions import EMOTIONS, HAPPINESS
from .turns import distinct_faces, means_of_turns, rows_in_turns, rows_of_turns

# Shares of a turn's rows that have to show a thing for these words.
THROUGHOUT = 0.9
MOST = 0.5  # more than that, of the turn, or of its first or last third
BRIEFLY = 0.1  # smiles only: the less frequent emotions are mistaken too often to name a moment
UNUSUAL = 1.0  # standard deviations from the listener's own mean, for more or less than usual
LEAST_USUAL = 10  # rows of a session for a mean
LEAST_KNOWN = 0.25  # share of the rows of a turn, or of a third of it, for any words
LEAST_ROWS = 3  # rows of a turn that has thirds
LEAST_SPREAD = 1e-6  # between the least and the greatest row, in their unit

_LOOKS = {
    "happiness": "smiles",
    "surprise": "looks surprised",
    "sadness": "looks sad",
    "anger": "looks angry",
    "fear": "looks afraid",
    "disgust": "looks disgusted",
    "contempt": "looks contemptuous",
}
# For each turn, and each third of one, the first row and the one past the last.
Parts = Sequence[tuple[np.ndarray, np.ndarray]]


def behaviour_of_turns(
    seconds: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    *,
    probabilities: np.ndarray | None = None,
    gaze: np.ndarray | None = None,
    pitch: np.ndarray | None = None,
    intensity: np.ndarray | None = None,
) -> list[str]:
    """Describe the listener during each turn: "listener smiles through most of this turn, looks away at the end".

    Args:
        seconds: (n,), the time of each row, in any order; NaN if unknown.
        start, stop: (turns,), seconds; NaN if unknown. A row counts where start <= its time <= stop.
        probabilities: (n, 8) in the order of `EMOTIONS`; NaN where no face was seen (see `affect_of_turns`).
        gaze: (n,), how much the listener looks at the other one, from 0 to 1, or on and off.
        pitch: (n,), of the listener's voice in Hz. 0 is no voice, and so unknown.
        intensity: (n,), of the listener's voice in dB.

    Returns:
        One sentence per turn; "" where nothing was observed, or nothing worth a word.

    A row smiles, or looks sad (...), where that is its most probable emotion, and looks away where its gaze is
    unusually low. The words are "throughout this turn" (in a share of `THROUGHOUT` of the turn's known rows) or
    "through most of this turn" (more than `MOST`), else "at the start" or "at the end" (more than `MOST` of the first
    or the last third), and for a smile else "briefly" (`BRIEFLY`). A face without any of it that is neutral through
    most of the turn "keeps a neutral face".

    Means over a turn get words where they are unusual: the probability of happiness, pitch and intensity. Usual is
    this listener's mean over the rows of all turns of the session (people are louder while they speak themselves, so
    the rest of the session shows little of how they listen), and unusual is `UNUSUAL` standard deviations of these
    rows away from it. Without `LEAST_USUAL` known rows nothing is unusual.

    Less than `LEAST_KNOWN` known rows of a turn, or of a third, give no words, and a turn of fewer than `LEAST_ROWS`
    rows has no thirds.
    """
    clauses: list[list[str]] = [[] for _ in range(len(start))]
    if probabilities is not None:
        times, faces = distinct_faces(seconds, probabilities)
        _describe_face(clauses, faces, _parts(times, start, stop))
    order = np.argsort(seconds, kind="stable")
    order = order[: np.count_nonzero(~np.isnan(seconds))]  # unknown times come last
    parts = _parts(np.asarray(seconds, float)[order], start, stop)
    if gaze is not None:
        deviation = _deviations(np.asarray(gaze, float)[order], parts[0])
        away = np.where(np.isnan(deviation), np.nan, deviation <= -UNUSUAL)
        for clause, shares in zip(clauses, _means(away[None], parts)[:, 0].T):
            if when := _when(*shares):
                clause.append(f"looks away {when}")
    if pitch is not None:
        voice = np.asarray(pitch, float)[order]
        voice = np.where(voice > 0, voice, np.nan)
        _describe_unusual(clauses, voice, parts, "has a higher voice than usual", "has a lower voice than usual")
    if intensity is not None:
        loudness = np.asarray(intensity, float)[order]
        _describe_unusual(clauses, loudness, parts, "is louder than usual", "is quieter than usual")
    return [f"listener {', '.join(clause)}" if clause else "" for clause in clauses]


def _describe_face(clauses: list[list[str]], faces: np.ndarray, parts: Parts) -> None:
    seen = ~np.isnan(faces[:, HAPPINESS])
    shown = np.full((len(EMOTIONS), len(faces)), np.nan)
    shown[:, seen] = 0
    shown[np.nan_to_num(faces[seen], nan=-1).argmax(1), np.flatnonzero(seen)] = 1
    for clause, shares in zip(clauses, _means(shown, parts).transpose(2, 1, 0)):
        for emotion, words in _LOOKS.items():
            if when := _when(*shares[EMOTIONS.index(emotion)], briefly=emotion == "happiness"):
                clause.append(f"{words} {when}")
        if not clause and shares[EMOTIONS.index("neutral"), 0] > MOST:
            clause.append("keeps a neutral face")
    _describe_unusual(clauses, faces[:, HAPPINESS], parts, "looks happier than usual", "looks less happy than usual")


def _describe_unusual(clauses: list[list[str]], values: np.ndarray, parts: Parts, above: str, below: str) -> None:
    for clause, deviation in zip(clauses, _means(_deviations(values, parts[0])[None], parts)[0, 0]):
        if abs(deviation) >= UNUSUAL:
            clause.append(above if deviation > 0 else below)


def _when(turn: float, first: float, last: float, *, briefly: bool = False) -> str:
    """Say when a thing shows, given its share of the turn, and of the first and the last third."""
    if turn >= THROUGHOUT:
        return "throughout this turn"
    if turn > MOST:
        return "through most of this turn"
    places = [place for place, share in (("at the start", first), ("at the end", last)) if share > MOST]
    if places:
        return " and ".join(places)
    return "briefly" if briefly and turn >= BRIEFLY else ""


def _parts(times: np.ndarray, start: np.ndarray, stop: np.ndarray) -> Parts:
    """Find the rows of each turn, of its first third, and of its last."""
    start, stop = np.asarray(start, float), np.asarray(stop, float)
    third = (stop - start) / 3
    return [rows_of_turns(times, *span) for span in ((start, stop), (start, start + third), (stop - third, stop))]


def _means(values: np.ndarray, parts: Parts) -> np.ndarray:
    """Average `values` (k, n) over the known rows of each part: (parts, k, turns), NaN where too few are known."""
    turn, *thirds = (means_of_turns(values, *part, LEAST_KNOWN) for part in parts)
    without_thirds = np.isnan(turn) | (parts[0][1] - parts[0][0] < LEAST_ROWS)
    return np.stack([turn, *(np.where(without_thirds, np.nan, third) for third in thirds)])


def _deviations(values: np.ndarray, turns: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Compute (n,), the distance from the mean over the rows of all turns, in standard deviations; NaN if unknown."""
    usual = values[rows_in_turns(len(values), *turns) & ~np.isnan(values)]
    if len(usual) < LEAST_USUAL or np.ptp(usual) < LEAST_SPREAD:
        return np.full(len(values), np.nan)
    return (values - usual.mean()) / usual.std()
