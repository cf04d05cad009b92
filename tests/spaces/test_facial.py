"""The facial-signal demo without a browser: the rating by words and by words and face, a live session, and HTML."""

import csv
import json
import math
import re
from html import unescape
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from browsing import ROOT, load_app, tiny_models
from camera_clip import write_clip
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("av")
pytest.importorskip("cv2")

from geli_hf.affect.emotions import EMOTIONS, FACE_COLUMNS
from geli_hf.affect.video import COLUMNS
from geli_hf.demo import facial_html
from geli_hf.demo.camera import FaceReader, Watch
from geli_hf.demo.facial import Decomposition, LiveSession, add_face, decompose, strongest_faces
from geli_hf.models.attribution import SignalTrust
from geli_hf.models.growing import GrowingScorer
from geli_hf.sessions import validate_session

TALK = [
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "the garden"},
    {"role": "assistant", "content": "I am so happy for you and your dog"},
]
TRUST = {"affect_mean": SignalTrust(mean=0.25, std=0.2, slope=0.6, t=4.0, beta=0.5, observed=1.0, habit=0.6)}
SCRIPT = list(csv.reader((ROOT / "spaces" / "facial_signal" / "script.csv").open()))


@pytest.fixture(scope="module")
def model():
    return tiny_models().reward


def face(smile: float) -> np.ndarray:
    return np.array([smile if column == "prob_face_happiness" else (1 - smile) / 7 for column in FACE_COLUMNS])


def watch_of(smiles: dict[float, float]) -> Watch:
    return Watch(seconds=list(smiles), emotions=[face(smile) for smile in smiles.values()])


def table_of(smiles: list[float]) -> pd.DataFrame:
    table = pd.DataFrame(math.nan, index=range(len(smiles)), columns=COLUMNS)
    table["time"] = np.arange(len(smiles)) / 2
    table[FACE_COLUMNS] = [face(smile) for smile in smiles]
    return table


def numbers(shown: str) -> list[float]:
    return [float(each) for each in re.findall(r'data-score="([^"]*)"', shown)]


def test_the_page_shows_no_emotion_that_the_classifier_can_not_tell():
    shown = facial_html.recorded(table_of([0.1, 0.2]), None, Decomposition())
    shown += "".join(facial_html.live([], watch_of({1.0: 0.2}), Decomposition(), [], 2.0))
    shown += facial_html.turns(TALK, Decomposition((0.1, 0.2), (0.0, 0.0), 6.0), [0.9, 0.1])
    assert "smile" in shown.lower()
    assert not [each for each in EMOTIONS if each in shown.lower()]


# ------------------------------------------------------------------------------------------------ the rating


@pytest.mark.parametrize("aggregation", ["mean", "sum"])
def test_contributions_of_the_words_add_up_to_the_prediction(model, aggregation, monkeypatch):
    monkeypatch.setattr(model.config, "aggregation", aggregation)
    scorer = GrowingScorer(model)
    steps = decompose(scorer, TALK)
    [expected] = model.score_sessions([{"messages": TALK}])
    scale = model.config.score_std / (2 if aggregation == "mean" else 1)
    assert steps.words == pytest.approx([scale * reward for reward in expected["turn_rewards"]])
    assert steps.by_words == steps.rating == pytest.approx(expected["score"], abs=1e-5)
    assert (steps.face, steps.deviation) == ((0.0, 0.0), 1.2)
    empty = decompose(scorer, TALK[1:2])
    assert (empty.words, empty.rating, empty.base) == ((), 6.0, 6.0)


def test_the_face_adds_what_hindsight_says(model):
    """By hand: l = (0.75, -1.25), its mean -0.25, so l - 0.6 l-bar = (0.9, -1.1), times 0.5 and s/T = 1.5 / 2."""
    steps = add_face(Decomposition((0.3, -0.1), (0.0, 0.0), 6.0), TRUST, {"affect_mean": [0.4, 0.0]}, model.config)
    assert steps.face == pytest.approx([0.3375, -0.4125])
    assert steps.by_words == pytest.approx(6.2)
    assert steps.rating == pytest.approx(6.2 - 0.075)


def test_the_face_adds_what_an_attribution_adds(attribution):
    """The parts of the face are those of a whole attribution, loaded from its folder."""
    feedback = {"affect": [0.0, 1.0], "noise": [0.3, 0.4]}
    [row] = attribution.score_sessions([{"messages": TALK, "feedback": feedback}])
    expected = (
        sum(np.array(row["parts"][f"feedback.{name}"]) for name in feedback) * attribution.model.config.score_std / 2
    )
    steps = add_face(Decomposition((0.0, 0.0)), attribution.signals, feedback, attribution.model.config)
    assert np.abs(expected).max() > 0.01
    assert steps.face == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.data())
def test_a_smile_raises_the_rating_and_a_hidden_face_changes_nothing(smiles, data):
    config, turns = SimpleNamespace(score_std=1.5), len(smiles)
    steps = Decomposition((0.1,) * turns, (0.0,) * turns, 6.0)
    turn = data.draw(st.integers(0, turns - 1))
    more = [*smiles[:turn], smiles[turn] + 0.1, *smiles[turn + 1 :]]
    before, after = (add_face(steps, TRUST, {"affect_mean": each}, config) for each in (smiles, more))
    assert after.rating > before.rating
    assert after.face[turn] > before.face[turn]
    hidden = add_face(steps, TRUST, {"affect_mean": [math.nan] * turns}, config)
    assert hidden == add_face(steps, TRUST, {}, config) == steps


def test_the_trust_that_ships_makes_a_smile_count(model):
    """It was fitted to the sample corpus, and bears a smile out."""
    trust = load_app("facial_signal").load_trust(ROOT / "spaces" / "facial_signal")
    assert list(trust) == ["affect_mean"]
    assert trust["affect_mean"].t > 2
    assert 0 < trust["affect_mean"].habit < 1
    steps = Decomposition((0.0, 0.0), (0.0, 0.0), 6.0)
    grave, glad = (add_face(steps, trust, {"affect_mean": [0.1, smile]}, model.config) for smile in (0.1, 0.9))
    assert glad.rating - grave.rating > 0.1


# ------------------------------------------------------------------------------------------------ live


def test_messages_of_one_speaker_are_one_turn_and_the_script_leaves_typed_ones():
    session = LiveSession()
    session.add("user", " my own\n words ", 0.0)
    session.add("user", "again", 0.5)
    turns = 0
    while session.add_from_script(SCRIPT, float(turns + 1)):
        turns += 1
        assert session.turns[-1].role == "assistant"
    assert turns == len(SCRIPT) > 4
    assert (session.turns[0].text, session.turns[0].at) == ("my own words again", 0.0)
    assert SCRIPT[0][0] not in [turn.text for turn in session.turns]


def test_a_live_session_is_a_session_row():
    session = LiveSession(watch=watch_of({51.0: 0.5}))
    session.add_from_script(SCRIPT, 50.0)
    row = session.row("live-1", 60.0)
    validate_session(row, "the live session", {})
    assert (row["start"], row["stop"]) == ([0, 0], [0, 10])
    assert row["feedback"]["affect_mean"] == pytest.approx([0.5])


def test_a_frame_that_is_on_its_way_is_left_out():
    session = LiveSession(watch=watch_of({51.0: 0.5, 52.0: 0.7}))
    session.add_from_script(SCRIPT, 50.0)
    session.watch.seconds.append(53.0)
    assert session.watch.signals(session.turns)["affect_mean"] == pytest.approx([0.6])
    _, curve, _ = facial_html.live([], session.watch, Decomposition(), [], 54.0)
    assert "60" in curve


# ------------------------------------------------------------------------------------------------ HTML


def test_both_ratings_stand_side_by_side():
    words, both = numbers(facial_html.rating(Decomposition((0.5, -0.2), (0.3, 0.1), 6.0, 1.2)))
    assert (words, both) == pytest.approx((6.3, 6.7))
    assert "nan" not in re.sub(r'data-score="nan"', "", facial_html.rating(Decomposition()))


@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=30),
    st.floats(1, 9),
    st.floats(0.01, 100),
)
def test_the_drawn_lines_begin_at_the_mean_and_end_at_the_ratings(parts, base, gap):
    words, both = zip(*parts)
    steps = Decomposition(words, both, base, 1.0)
    messages = [TALK[0], TALK[1]] * len(parts)
    start = [gap * index for index in range(len(messages))]
    session = {"messages": messages, "start": start, "feedback": {"affect_mean": [math.nan] * len(parts)}}
    shown = facial_html.recorded(table_of([0.5, math.nan]), session, steps)
    track = json.loads(unescape(re.search(r'data-track="([^"]*)"', shown)[1]))
    assert track["words"][0] == track["both"][0] == pytest.approx(base)
    assert [track["words"][-1], track["both"][-1]] == pytest.approx(numbers(shown), abs=1e-3)
    assert numbers(shown) == pytest.approx([steps.by_words, steps.rating], abs=1e-3)
    assert shown.count("<polyline") == 2
    assert "nan" not in shown.lower()


def test_a_turn_of_unknown_time_is_shown_and_never_played():
    session = {"messages": TALK, "start": [0.0, math.nan, math.nan], "feedback": {"affect_mean": [0.5, math.nan]}}
    shown = facial_html.recorded(table_of([0.5, 0.5]), session, Decomposition((0.1, 0.2), (0.0, 0.0), 6.0))
    track = json.loads(unescape(re.search(r'data-track="([^"]*)"', shown)[1]))
    assert track["marks"][1] > track["last"]
    assert shown.count("no face seen") == 1


def test_the_curve_breaks_without_a_face_and_numbers_the_partners_turns():
    session = {"messages": TALK, "start": [0.5, 1.0, 1.5], "feedback": {"affect_mean": [0.5, 0.7]}}
    table = table_of([0.5, 0.5, math.nan, 0.7, 0.7])
    drawn = facial_html.recorded(table, session, Decomposition((0.1, 0.2), (0.0, 0.0), 6.0))
    assert re.search(r"60\s% on average; a face was seen in 80\s% of the frames", drawn)
    [path] = re.findall(r'class="f-curve" d="([^"]*)"', drawn)
    assert path.count("M") == path.count("L") == 2
    assert drawn.count("f-mark") == 2
    assert "no face was seen" in facial_html.recorded(table_of([math.nan] * 3), None, Decomposition())


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "${alert(1)}"])
def test_words_stay_text(evil):
    messages = [{"role": "assistant", "content": evil}, {"role": "user", "content": evil}]
    session = {"messages": messages, "start": [0.0, 1.0], "feedback": {"affect_mean": [0.5]}}
    shown = facial_html.recorded(table_of([0.5, 0.5]), session, Decomposition((0.1,), (0.0,), 6.0))
    for part in ("<script", "<img", "${"):
        assert part not in shown


def test_the_strongest_moments_are_cut_out_in_memory(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", seconds=1.5)
    moments = strongest_faces(FaceReader().read_video(clip), clip)
    assert moments
    time, valence, picture = moments[0]
    assert time > 1.4
    assert valence > 0.7
    assert picture.shape == (160, 160)
    assert facial_html.contact_sheet(moments).count("data:image/jpeg;base64,") == len(moments)
    assert strongest_faces(table_of([math.nan] * 3), clip) == []
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
