"""The facial-signal demo without a browser: the steps of a rating, a live session, and their HTML."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from browsing import tiny_models
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("av")
pytest.importorskip("cv2")

from geli_hf.affect.emotions import EMOTIONS, FACE_COLUMNS
from geli_hf.affect.video import COLUMNS
from geli_hf.demo import facial_html
from geli_hf.demo.facial import SCRIPT, Decomposition, LiveSession, decompose, explain
from geli_hf.models.growing import GrowingScorer
from geli_hf.sessions import validate_session

TALK = [
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "the garden"},
    {"role": "assistant", "content": "I am so happy for you and your dog"},
]


@pytest.fixture(scope="module")
def model():
    return tiny_models().reward


def face(smile: float) -> np.ndarray:
    return np.array([smile if column == "prob_face_happiness" else (1 - smile) / 7 for column in FACE_COLUMNS])


def see(session: LiveSession, smiles: dict[float, float]) -> LiveSession:
    session.watch.seconds += list(smiles)
    session.watch.emotions += map(face, smiles.values())
    return session


def test_the_page_shows_no_emotion_that_the_classifier_can_not_tell():
    table = pd.DataFrame(np.full((3, len(COLUMNS)), 0.1), columns=COLUMNS)
    shown = facial_html.recorded_curve(table) + facial_html.live_curve(see(LiveSession(), {1.0: 0.2}), 2.0)
    shown += facial_html.turns(TALK, Decomposition(), [0.9, 0.1])
    assert "smile" in shown
    assert not [each for each in EMOTIONS if each in shown.lower()]


# ------------------------------------------------------------------------------------------------ decomposition


@pytest.mark.parametrize("aggregation", ["mean", "sum"])
def test_contributions_add_up_to_the_prediction(model, aggregation, monkeypatch):
    monkeypatch.setattr(model.config, "aggregation", aggregation)
    scorer = GrowingScorer(model)
    steps = decompose(scorer, TALK)
    [expected] = model.score_sessions([{"messages": TALK}])
    assert steps.rewards == pytest.approx(expected["turn_rewards"])
    assert steps.base + sum(steps.contributions) == pytest.approx(expected["score"], abs=1e-5)
    assert steps.rating == pytest.approx(expected["score"], abs=1e-5)
    assert steps.deviation == 1.2
    empty = decompose(scorer, TALK[1:2])
    assert (empty.rewards, empty.rating, empty.base) == ((), 6.0, 6.0)


def session_with(*smiles: float) -> dict:
    messages = [
        {"role": "assistant", "content": "you walked today happy happy happy"},
        {"role": "user", "content": "river garden"},
        {"role": "assistant", "content": "maybe they tired tired tired"},
    ]
    return {"messages": messages, "feedback": {"affect": list(smiles), "affect_mean": list(smiles)}}


def test_hindsight_explains_by_words_answers_and_face(attribution):
    session = session_with(0.0, 1.0)
    steps = explain(attribution, session)
    [expected] = attribution.score_sessions([session])
    assert steps.rewards == pytest.approx(expected["turn_rewards"])
    assert steps.base + sum(steps.contributions) == pytest.approx(steps.rating)
    assert steps.rating == pytest.approx(expected["score"])
    assert sum(steps.parts.values()) == pytest.approx(sum(steps.contributions))
    share = attribution.model.config.score_std * np.mean(expected["parts"]["feedback.affect"])
    assert share != 0
    assert steps.parts["face"] == pytest.approx(share)


def test_in_hindsight_a_smile_adds_to_its_turn_alone_and_no_face_adds_nothing(attribution):
    grave, glad, unseen = (explain(attribution, session_with(0.0, smile)) for smile in (0.0, 1.0, math.nan))
    assert glad.contributions[1] > grave.contributions[1]
    assert glad.contributions[0] == pytest.approx(grave.contributions[0])
    without = explain(attribution, {"messages": session_with()["messages"], "feedback": {}})
    assert without.parts["face"] == 0
    assert unseen.contributions[1] == pytest.approx(without.contributions[1])
    assert explain(attribution, {"messages": [], "feedback": {}}).rewards == ()


def test_the_page_tells_steps_of_the_words_from_steps_with_hindsight(attribution, model):
    words = facial_html.rating_steps(decompose(GrowingScorer(model), session_with()["messages"]), [0.0, 1.0])
    hindsight = facial_html.rating_steps(explain(attribution, session_with(0.0, 1.0)), [0.0, 1.0])
    assert "With hindsight" not in words
    assert "With hindsight" in hindsight
    shown = hindsight.replace("−", "-")
    parts = [float(re.search(rf"{name} ([+-]?\d+\.\d+)", shown)[1]) for name in ("words", "answers", "face")]
    steps = sum(map(float, re.findall(r"Turn \d: ([+-]?\d+\.\d+)", shown)))
    base, total = float(re.search(r">(\d\.\d\d) ", shown)[1]), float(re.search(r'data-score="([^"]*)"', shown)[1])
    assert sum(parts) == pytest.approx(steps, abs=0.03)
    assert base + steps == pytest.approx(total, abs=0.02)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=30), st.floats(1, 9))
def test_the_drawn_steps_end_at_the_rating(contributions, base):
    rating = base + sum(contributions)
    steps = Decomposition(tuple(contributions), (0.5,) * len(contributions), tuple(contributions), base, rating, 1.0)
    drawn = facial_html.rating_steps(steps, [math.nan] * len(contributions))
    assert float(re.search(r'data-score="([^"]*)"', drawn)[1]) == pytest.approx(rating, abs=1e-3)
    assert drawn.count("<rect") == len(contributions)
    assert "nan" not in drawn


# ------------------------------------------------------------------------------------------------ live


def test_messages_of_one_speaker_are_one_turn_and_the_script_leaves_typed_ones():
    session = LiveSession()
    session.add("user", " my own\n words ", 0.0)
    session.add("user", "again", 0.5)
    turns = 0
    while session.add_from_script(float(turns + 1)):
        turns += 1
        assert session.turns[-1].role == "assistant"
    assert turns == len(SCRIPT)
    assert (session.turns[0].text, session.turns[0].at) == ("my own words again", 0.0)
    assert SCRIPT[0][0] not in [turn.text for turn in session.turns]


def test_a_live_session_is_a_session_row():
    session = LiveSession()
    session.add_from_script(50.0)
    row = see(session, {51: 0.5}).row("live-1", 60.0)
    validate_session(row, "the live session", {})
    assert (row["start"], row["stop"]) == ([0, 0], [0, 10])
    assert row["feedback"]["affect_mean"] == pytest.approx([0.5])


def test_a_turn_without_a_reward_or_a_face_is_shown_without_numbers():
    session = LiveSession()
    for message in TALK:
        session.add(message["role"], message["content"], 1.0)
    shown = facial_html.turns(session.messages, session.words, [math.nan, math.nan])
    assert shown.count("no reward yet") == shown.count("no face seen") == 2


# ------------------------------------------------------------------------------------------------ recorded


def table_of(smiles: list[float]) -> pd.DataFrame:
    table = pd.DataFrame(math.nan, index=range(len(smiles)), columns=COLUMNS)
    table["time"] = np.arange(len(smiles)) / 2
    table[FACE_COLUMNS] = [face(smile) for smile in smiles]
    return table


def test_the_curve_breaks_without_a_face_and_numbers_the_partners_turns():
    drawn = facial_html.recorded_curve(table_of([0.5, 0.5, math.nan, 0.7, 0.7]), [0.5, 1.5])
    assert "60 % on average; a face was seen in 80 % of the frames" in drawn
    [path] = re.findall(r'class="f-curve" d="([^"]*)"', drawn)
    assert path.count("M") == path.count("L") == 2
    assert drawn.count("f-mark") == 2
    assert "no face was seen" in facial_html.recorded_curve(table_of([math.nan] * 3))


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "${alert(1)}"])
def test_words_stay_text(evil):
    shown = facial_html.turns([{"role": "assistant", "content": evil}], Decomposition(), [0.5])
    for part in ("<script", "<img", "${"):
        assert part not in shown
