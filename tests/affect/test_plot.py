"""The picture of a recording: curves, gaps without a face, and turns."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from geli_hf.affect.emotions import EMOTIONS, FACE_COLUMNS
from geli_hf.affect.plot import POINTS, plot_affect

SESSION = {
    "session_id": r"dyad_$7",
    "messages": [{"role": role, "content": "so"} for role in ("assistant", "user", "assistant", "user", "assistant")],
    "start": [0.0, 5.0, 10.0, np.nan, 20.0],
    "stop": [4.0, 9.0, 14.0, np.nan, 19.0],  # the last ends before it begins
    "feedback": {"affect_mean": [0.9, np.nan, 0.3]},
}


def watched(frames: int = 100, unseen: slice = slice(40, 60)) -> pd.DataFrame:
    faces = np.zeros((frames, len(EMOTIONS)))
    faces[:, EMOTIONS.index("happiness")] = 0.7
    faces[:, EMOTIONS.index("neutral")] = 0.2
    faces[:, EMOTIONS.index("surprise")] = 0.1
    faces[:, EMOTIONS.index("contempt")] = np.nan
    faces[unseen] = np.nan
    return pd.DataFrame(faces, columns=FACE_COLUMNS).assign(time=np.arange(frames) / 5)


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.filterwarnings("error")
def test_curves_gaps_and_turns(tmp_path):
    figure = plot_affect(watched(), SESSION, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    curves, lanes = figure.axes
    assert [line.get_label() for line in curves.lines] == ["no face seen", "happiness", "neutral", "surprise"]
    [gaps] = curves.collections
    corners = np.concatenate([path.vertices[:, 0] for path in gaps.get_paths()])
    assert (corners.min(), corners.max()) == pytest.approx((8.0, 12.0))
    assert "probability\n(80% of the frames show a face)" in texts(figure)
    assert any("dyad_$7" in text for text in texts(figure))

    turns = [(bar.get_x(), bar.get_width(), bar.get_facecolor()[:3]) for bar in lanes.patches]
    assert [turn[:2] for turn in turns] == [(0.0, 4.0), (5.0, 4.0), (10.0, 4.0)]
    assert turns[2][2] == to_rgb("white")  # missing is not 0
    assert {"0.90", "–"} <= set(texts(figure))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("frames", [0, 1, 10])
def test_nothing_was_seen(tmp_path, frames):
    figure = plot_affect(watched(frames, unseen=slice(None)), SESSION, tmp_path / "picture.png")
    expected = "no frames" if not frames else "0% of the frames show a face"
    assert any(expected in text for text in texts(figure))


def test_of_a_long_recording_means_are_drawn(tmp_path):
    table = watched(10 * POINTS, unseen=slice(0, 0))
    table["prob_face_happiness"] = np.arange(10 * POINTS) % 10 / 10  # mean .45 in every stretch of ten
    curves = plot_affect(table, SESSION, tmp_path / "picture.png").axes[0]
    [happiness] = [line for line in curves.lines if line.get_label() == "happiness"]
    assert len(happiness.get_ydata()) == POINTS
    assert happiness.get_ydata() == pytest.approx(0.45)
