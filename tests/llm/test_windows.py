"""Windows over the turns of a long session, and back to one number per turn."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geli_hf.llm import merge_windows, split_windows


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (6, [range(0, 6)]),
        (9, [range(0, 6), range(3, 9)]),  # two windows must do, so they share three turns
        (10, [range(0, 6), range(4, 10)]),
        (11, [range(0, 6), range(2, 8), range(5, 11)]),
    ],
)
def test_windows_of_six_that_share_two(turns, expected):
    assert split_windows(turns, 6, 2) == expected


def test_a_turn_gets_the_mean_of_its_windows():
    windows = [range(0, 3), range(1, 4), range(2, 5)]
    assert merge_windows(5, windows, [[1, 2, 3], [4, 5, 6], [10, 8, 7]]) == [1, 3, 6, 7, 7]


@given(st.integers(1, 400), st.integers(1, 50), st.integers(0, 49))
def test_windows_cover_every_turn_and_share_the_overlap(turns, window, overlap):
    if overlap >= window:
        with pytest.raises(ValueError, match="overlap < window"):
            split_windows(turns, window, overlap)
        return
    windows = split_windows(turns, window, overlap)
    assert windows[0].start == 0
    assert windows[-1].stop == turns
    assert all(len(each) == min(window, turns) for each in windows)
    shared = [before.stop - after.start for before, after in pairwise(windows)]
    assert all(each >= overlap for each in shared)
    # One fewer could not do it: with all overlaps as small as allowed it would end before the last turn.
    assert len(windows) == 1 or window + (len(windows) - 2) * (window - overlap) < turns
    # What is said twice in the same way is merged to what was said.
    assert merge_windows(turns, windows, [[float(turn) for turn in each] for each in windows]) == list(range(turns))
