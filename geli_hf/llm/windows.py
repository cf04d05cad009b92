"""Long sessions in overlapping windows of turns, and one number per turn again out of them. Pure functions."""

from collections.abc import Sequence


def split_windows(turns: int, window: int, overlap: int) -> list[range]:
    """Ranges of at most `window` turns that cover all of them, neighbours with at least `overlap` in common.

    As few as that takes, all of one length and evenly spread, so that no window holds a handful of last turns alone:

        n = ceil((T - O) / (W - O)),    start_k = floor(k (T - W) / (n - 1)),  k = 0 .. n - 1

    Args:
        turns: T, of the session.
        window: W.
        overlap: O, less than W.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"window, overlap: expected 0 <= overlap < window, found {window} and {overlap}")
    if turns <= window:
        return [range(turns)]
    count = -(-(turns - overlap) // (window - overlap))
    starts = (k * (turns - window) // (count - 1) for k in range(count))
    return [range(start, start + window) for start in starts]


def merge_windows(turns: int, windows: Sequence[range], values: Sequence[Sequence[float]]) -> list[float]:
    """One value per turn: the mean of what the windows that hold the turn say about it."""
    said: list[list[float]] = [[] for _ in range(turns)]
    for window, each in zip(windows, values, strict=True):
        for turn, value in zip(window, each, strict=True):
            said[turn].append(value)
    return [sum(each) / len(each) for each in said]
