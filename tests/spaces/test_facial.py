"""The facial-signal demo without a browser: the steps of a rating, a live session, a recording, and their HTML."""

import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browsing import tiny_models
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("av")
pytest.importorskip("cv2")

from geli_hf.affect.emotions import FACE_COLUMNS
from geli_hf.affect.transcripts import Transcript, Utterance
from geli_hf.affect.video import COLUMNS
from geli_hf.demo import facial, facial_html
from geli_hf.demo.camera import Watch
from geli_hf.demo.facial import SCRIPT, Decomposition, LiveSession, Recording, combine_recording, decompose, explain
from geli_hf.demo.limits import Limits
from geli_hf.demo.look import signed
from geli_hf.sessions import validate_session

TALK = [
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "the garden"},
    {"role": "assistant", "content": "I am so happy for you and your dog"},
]
LIMITS = Limits(messages=60)


@pytest.fixture(scope="module")
def model():
    return tiny_models().reward


def face(smile: float) -> np.ndarray:
    return np.array([smile if column == "prob_face_happiness" else (1 - smile) / 7 for column in FACE_COLUMNS])


def see(session: LiveSession, smiles: dict[float, float]) -> LiveSession:
    session.watch.seconds += list(smiles)
    session.watch.emotions += map(face, smiles.values())
    return session


# ------------------------------------------------------------------------------------------------ decomposition


@pytest.mark.parametrize("aggregation", ["mean", "sum"])
def test_contributions_add_up_to_the_prediction(model, aggregation, monkeypatch):
    monkeypatch.setattr(model.config, "aggregation", aggregation)
    steps = decompose(model, TALK)
    [expected] = model.score_sessions([{"messages": TALK}])
    assert steps.rewards == pytest.approx(expected["turn_rewards"])
    assert steps.base + sum(steps.contributions) == pytest.approx(expected["score"], abs=1e-5)
    assert steps.rating == pytest.approx(expected["score"], abs=1e-5)
    assert steps.deviation == 1.2
    empty = decompose(model, TALK[1:2])
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
    words = facial_html.rating_steps(decompose(model, session_with()["messages"]), [0.0, 1.0])
    hindsight = facial_html.rating_steps(explain(attribution, session_with(0.0, 1.0)), [0.0, 1.0])
    assert "With hindsight" not in words
    assert "With hindsight" in hindsight
    shown = hindsight.replace("−", "-")
    parts = [float(re.search(rf"{name} ([+-]?\d+\.\d+)", shown)[1]) for name in ("words", "answers", "face")]
    steps = sum(map(float, re.findall(r"Turn \d adds ([+-]?\d+\.\d+)", shown)))
    base, total = (float(re.search(rf'data-{name}="([^"]*)"', shown)[1]) for name in ("base", "score"))
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
    assert turns == sum(role == "assistant" for role, *_ in SCRIPT)
    assert (session.turns[0].text, session.turns[0].at) == ("my own words again", 0.0)
    assert SCRIPT[0][1] not in [turn.text for turn in session.turns]


def test_a_live_session_is_a_session_row():
    session = LiveSession()
    session.add_from_script(50.0)
    row = see(session, {51: 0.5}).row("live-1", 60.0)
    validate_session(row, "the live session", {})
    assert (row["start"], row["stop"]) == ([0, 0], [0, 10])
    assert row["feedback"]["affect_mean"] == pytest.approx([0.5])


def test_a_snapshot_restores_the_turns_and_their_signals():
    session = LiveSession()
    for second in (10.0, 20.0):
        session.add_from_script(second)
    see(session, {11: 0.5, 12: 0.7, 21: 0.9})
    restored = LiveSession.restore(session.snapshot(), LIMITS)
    assert (restored.turns, restored.script) == (session.turns, session.script)
    assert restored.signals() == session.signals()
    assert restored.watch == Watch()
    see(restored, {22: 0.0})  # a value from before the reload stays
    assert restored.signals() == session.signals()
    restored.add_from_script(30.0)
    see(restored, {31: 0.3})
    assert restored.signals()["affect_mean"] == pytest.approx([0.6, 0.9, 0.3])
    assert LiveSession().snapshot() == ""

    unseen = LiveSession()
    unseen.add("assistant", "hello", 10.0)
    restored = LiveSession.restore(unseen.snapshot(), LIMITS)
    assert np.isnan(restored.signals()["affect_mean"]).all()
    assert see(restored, {12: 0.4}).signals()["affect_mean"] == pytest.approx([0.4])


def test_only_a_snapshot_is_restored():
    session = LiveSession()
    session.add("assistant", "hello", 10.0)
    session.add("user", "well", 12.0)
    stored = json.loads(session.snapshot())
    row = json.loads(stored["row"])
    system, number = ([{"role": role, "content": text}] * 2 for role, text in (("system", "hello"), ("user", 7)))
    rows = [
        {"messages": []},
        {"messages": system},
        {"messages": number},
        {"messages": row["messages"] * 40},
        {"messages": [{"role": "assistant", "content": "hello" * 200_000}, row["messages"][1]]},
        {"start": [None, 2.0]},
        {"start": None},
        {"feedback": {"affect": [0.5]}},
        {"feedback": {"affect": [0.5, 0.5], "affect_mean": [0.5]}},
        {"feedback": {"affect": ["<b>"], "affect_mean": [0.5]}},
    ]
    wrong = [{"row": json.dumps(row | change)} for change in rows]
    wrong += [{"row": 7}, {"began": "now"}, {"began": math.inf}, {"script": 99}, {"script": math.inf}]
    texts = [None, "", "[]", "7", "{", *(json.dumps(stored | change) for change in wrong)]
    assert [LiveSession.restore(text, LIMITS) for text in texts] == [None] * len(texts)


def test_a_turn_without_a_reward_or_a_face_is_shown_without_numbers():
    session = LiveSession()
    for message in TALK:
        session.add(message["role"], message["content"], 1.0)
    shown = facial_html.live_turns(session, session.signals()["affect_mean"])
    assert shown.count("no reward yet") == shown.count("no face seen") == 2


# ------------------------------------------------------------------------------------------------ recorded


def table_of(smiles: list[float]) -> pd.DataFrame:
    table = pd.DataFrame(math.nan, index=range(len(smiles)), columns=COLUMNS)
    table["time"] = np.arange(len(smiles)) / 2
    table[FACE_COLUMNS] = [face(smile) for smile in smiles]
    return table


def test_a_recording_combines_face_and_words(model, attribution):
    utterances = [
        Utterance("Robot", "I am so very happy for you and your dog", 0.0, 2.0),
        Utterance("Anna", "oh", 2.0, 3.0),
        Utterance("Robot", "the old garden was quiet yesterday afternoon", 3.0, 5.0),
    ]
    transcript, seen = Transcript(Path("a.csv"), utterances), table_of([0.8] * 5 + [math.nan] * 8)
    recording = combine_recording("a.mp4", seen, transcript, "Anna", model, attribution)
    session = recording.session
    assert session["feedback"]["affect_mean"] == pytest.approx([0.8, math.nan], nan_ok=True)
    [expected] = model.score_sessions([{"messages": session["messages"]}])
    assert recording.words.rewards == pytest.approx(expected["turn_rewards"])
    [expected] = attribution.score_sessions([session])
    adds = attribution.model.config.score_std * np.array(expected["turn_rewards"]) / 2
    assert recording.hindsight.contributions == pytest.approx(adds)
    frames = pd.read_csv(io.StringIO(recording.csv()))
    assert frames["prob_face_happiness"].round(3).tolist()[:5] == [0.8] * 5
    assert frames["time"].max() == 6.0
    shown = facial_html.table(recording)
    assert shown.count("<tr tabindex") == 2
    for cell in ("80 %", "–", *(signed(value, 2) for value in adds)):
        assert f"<td>{cell}</td>" in shown


def test_without_a_transcript_there_is_a_timeline_whose_curve_breaks_without_a_face(model):
    recording = combine_recording("clip.mp4", table_of([0.5, 0.5, math.nan, 0.7, 0.7]), None, None, model)
    assert recording.session is None
    drawn = facial_html.recorded_timeline(recording)
    assert "60 % on average; a face was seen in 80 % of the frames" in drawn
    [path] = re.findall(r'class="f-curve" d="([^"]*)"', drawn)
    assert path.count("M") == path.count("L") == 2
    long = facial_html.recorded_timeline(Recording("x", table_of([0.5] * 700 + [math.nan] * 700)))
    [path] = re.findall(r'class="f-curve" d="([^"]*)"', long)
    assert 200 < path.count("L") < facial_html.MAX_POINTS


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "${alert(1)}"])
def test_words_names_and_speakers_stay_text(evil, model):
    utterances = [Utterance("assistant", evil, 0.0, 1.0), Utterance("user", evil, 1.0, 2.0)]
    transcript, live = Transcript(Path("t.csv"), utterances), LiveSession()
    recording = combine_recording(f"{evil}.mp4", table_of([0.5] * 4), transcript, None, model)
    live.add("assistant", evil, 0.0)
    for text in (
        facial_html.recorded_timeline(recording),
        facial_html.table(recording),
        facial_html.live_turns(live, [0.5]),
    ):
        assert "<script" not in text
        assert "<img" not in text
        assert "${" not in text


def test_the_example_is_the_script_with_times():
    transcript = facial.script_transcript()
    assert [(each.speaker, each.text) for each in transcript.utterances] == [(who, text) for who, text, _ in SCRIPT]
    assert all(one.stop < other.start for one, other in zip(transcript.utterances, transcript.utterances[1:]))
