"""Pictures are PNGs that are not blank, with the right values and labels."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from matplotlib.text import Text

from geli_hf.metrics import Interval
from geli_hf.metrics.plots import (
    plot_comparison,
    plot_learning_curve,
    plot_over_optimisation,
    plot_session,
)

SESSION = {
    "session_id": "s1",
    "messages": [
        {"role": "user", "content": r"It cost $5 \frac{ and then $6, _really_ 😀👩‍👩‍👧"},
        {"role": "assistant", "content": "That sounds frustrating. What happened next?"},
        {"role": "user", "content": "MMMM WWWW " * 40},
        {"role": "assistant", "content": "你好，很高兴见到你。" * 12},
        {"role": "assistant", "content": "A line\nand\ta tab \x00 and 1000 words: " + "word " * 1000},
    ],
    "score": 4.0,
}


@pytest.fixture
def picture(tmp_path):
    return tmp_path / "picture.png"


def assert_drawn(path):
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 200
    assert pixels[..., :3].std() > 0.02


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.filterwarnings("error")  # a glyph that no font has is no reason to warn
def test_a_session_reads_as_a_dialogue_with_a_bar_per_turn(picture):
    figure = plot_session(SESSION, [0.4, -1.2, 0.2], picture)
    assert_drawn(picture)
    words = texts(figure)
    assert {"Session s1", "score 4", "User", "Assistant", "+0.40", "−1.20", "+0.20"} <= set(words)
    assert any(text.startswith(r"It cost $5 \frac{ and then $6, _really_") for text in words)
    assert any(text.endswith("…") for text in words)  # the thousand words

    positive, negative, _ = (bar.get_facecolor() for bar in figure.axes[0].patches)
    assert positive[2] > positive[0]  # blue
    assert negative[0] > negative[2]  # red
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths[1] / widths[0] == pytest.approx(-3)

    renderer = figure.canvas.get_renderer()
    left_of_bars = min(bar.get_window_extent(renderer).x0 for bar in figure.axes[0].patches)
    lines = [text for text in figure.findobj(Text) if text.get_ha() == "left" and text.get_position()[0] == 1.2]
    assert len(lines) > 10
    assert max(text.get_window_extent(renderer).x1 for text in lines) < left_of_bars


def test_quantiles_rank_a_turn_and_fix_the_scale(picture):
    quantiles = np.linspace(-2, 2, 101)
    figure = plot_session(SESSION, [1.0, 0.0, -1.0], picture, quantiles=quantiles)
    assert any(text.startswith("+1.00  beats 7") for text in texts(figure))
    assert "2" in texts(figure)  # the end of the scale, not this session's 1.0


def test_a_long_session_is_cut_with_a_note(picture):
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"Message {i}."} for i in range(3000)]
    session = {"session_id": "long", "messages": messages, "score": np.nan}
    figure = plot_session(session, np.ones(1500), picture)
    words = texts(figure)
    assert "no score, first 24 of 3000 messages" in words
    assert "Message 23." in words
    assert "Message 24." not in words
    with pytest.raises(ValueError, match="turn_rewards"):
        plot_session(session, [1, 2, 3], picture)


def test_comparison_colours_rows_that_differ_from_the_reference(picture):
    rows = {
        "GELI": Interval(0.3, 0.2, 0.4),
        "position": Interval(-0.2, -0.3, -0.1),
        "$x$ 😀": Interval(0.1, -0.1, 0.3),
        "absent": Interval(np.nan, np.nan, np.nan),
    }
    figure = plot_comparison(rows, picture)
    assert_drawn(picture)
    assert {"GELI", "position", "$x$ 😀", "0.300 [0.200, 0.400]", "–"} <= set(texts(figure))
    _, *drawn = figure.axes[0].lines  # the reference comes first
    drawn = drawn[:-2]  # what is not measured can't be seen
    above, below, unclear = (to_rgb(line.get_color()) for line in drawn[::2])
    assert len({above, below, unclear}) == 3
    assert [line.get_xdata().tolist() for line in drawn[::2]] == [[0.2, 0.4], [-0.3, -0.1], [-0.1, 0.3]]


def test_over_optimisation_shows_both_rates_over_the_divergence(picture):
    judged = [
        (3.0, Interval(0.6, 0.5, 0.7)),
        (1.0, Interval(0.55, 0.45, 0.65)),
        (8.0, Interval(np.nan, np.nan, np.nan)),
    ]
    rewarded = [(kl, Interval(0.5 + kl / 20, np.nan, np.nan)) for kl, _ in judged]
    figure = plot_over_optimisation(judged, rewarded, picture)
    assert_drawn(picture)
    curves = {line.get_color(): line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_alpha()}
    by_judge, by_reward = curves.values()
    assert by_judge == [[0, 0.5], [1, 0.55], [3, 0.6]]  # from the base on, in the order of the KL
    assert [x for x, _ in by_reward] == [0, 1, 3, 8]
    assert {"base", "KL from the base (nats per reply)"} <= set(texts(figure))
    assert not any("reward" in text for text in texts(plot_over_optimisation(judged, [], picture)))


def test_a_learning_curve_has_a_band_a_line_per_baseline_and_sizes_as_ticks(picture):
    agreement = [Interval(0.1, 0.0, 0.2), Interval(0.2, 0.1, 0.3)]
    figure = plot_learning_curve([50, 1470], agreement, picture, {"messages": -0.1, "length": 0.05})
    assert_drawn(picture)
    [axes] = figure.axes
    assert axes.get_xscale() == "log"
    assert {"50", "1,470", "messages", "length"} <= set(texts(figure))
    by_label = {line.get_label(): line for line in axes.lines}
    [measured] = [line for label, line in by_label.items() if "95 %" in str(label)]
    np.testing.assert_array_equal(measured.get_xydata(), [[50, 0.1], [1470, 0.2]])
    assert set(by_label["length"].get_ydata()) == {0.05}
    assert by_label["messages"].get_linestyle() != by_label["length"].get_linestyle()
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (0.0, 0.3)
