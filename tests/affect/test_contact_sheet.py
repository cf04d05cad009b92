"""The contact sheet: which moments, and a picture of them."""

import math

import numpy as np
import pandas as pd
from faces import film
from matplotlib.figure import Figure

from geli_hf.affect.contact_sheet import APART, MOMENTS, draw_contact_sheet, strongest_moments
from geli_hf.affect.emotions import FACE_COLUMNS
from geli_hf.affect.video import COLUMNS

SESSION = {
    "session_id": "talk",
    "messages": [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Ho"}],
    "start": [0.0, 2.5],
    "stop": [1.9, math.nan],
}


def test_moments_are_strong_and_apart():
    times = np.arange(0, 60, 0.2)
    valence = np.cos(times)
    valence[times > 40] = np.nan
    rows = strongest_moments(times, valence)
    assert len(rows) == 2 * MOMENTS
    assert (valence[rows[:MOMENTS]] > 0).all()
    assert (valence[rows[MOMENTS:]] < 0).all()
    assert all(np.diff(np.sort(times[part])).min() >= APART for part in (rows[:MOMENTS], rows[MOMENTS:]))
    assert rows[0] == np.nanargmax(valence)
    assert rows[MOMENTS] == np.nanargmin(valence)


def test_there_may_be_fewer_moments_or_none():
    times = np.arange(0, 3, 0.2)
    assert strongest_moments(times, np.full(len(times), np.nan)) == []
    assert len(strongest_moments(times, np.full(len(times), 0.5))) == 2
    assert strongest_moments(times, np.zeros(len(times))) == []


def sheet(tmp_path, happy: float, sad: float) -> Figure:
    """Draw the sheet of a clip whose face is gone after two seconds, and is happy for the first one."""
    video = film(tmp_path / "one.mp4")
    table = pd.DataFrame(np.nan, index=range(15), columns=COLUMNS)
    table["time"] = np.arange(15) / 5
    table.loc[:9, ["x", "y", "width", "height"]] = [110.0, 66.0, 99.0, 99.0]
    table.loc[:9, FACE_COLUMNS] = 0.0
    table.loc[:4, "prob_face_happiness"], table.loc[5:9, "prob_face_sadness"] = happy, sad
    return draw_contact_sheet(table, SESSION, tmp_path / "sheet.png", video=video, fps=5.0)


def test_a_face_at_each_moment_with_time_and_turn(tmp_path):
    figure = sheet(tmp_path, 1.0, 1.0)
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    shown = [axis for axis in figure.axes if axis.images]
    titles = [axis.get_title() for axis in shown]
    assert len(shown) == 2
    assert all("1 (assistant)" in title for title in titles)
    assert "+1.00" in titles[0]
    assert "−1.00" in titles[1]
    assert all(axis.images[0].get_array().std() > 20 for axis in shown)  # a face and no wall


def test_without_a_moment_the_sheet_is_empty(tmp_path):
    assert not any(axis.images for axis in sheet(tmp_path, 0.0, 0.0).axes)
