"""The facial-signal demo without a browser: what is kept of a face, what turns add up to, what stands on the page."""

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

from geli_hf.affect import DeepFaceAffect
from geli_hf.affect.emotions import EMOTIONS, FACE_COLUMNS
from geli_hf.affect.transcripts import Transcript, Utterance
from geli_hf.affect.video import COLUMNS
from geli_hf.demo import drawn_face, facial, facial_page
from geli_hf.demo.camera import luma
from geli_hf.demo.facial import SCRIPT, Decomposition, Faces, LiveSession, TooMuch, decompose, recording
from geli_hf.demo.look import signed
from geli_hf.sessions import validate_session

TALK = [
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "the garden"},
    {"role": "assistant", "content": "I am so happy for you and your dog"},
]


@pytest.fixture(scope="module")
def faces():
    return Faces()


@pytest.fixture(scope="module")
def model():
    return tiny_models().reward


def face(smile: float) -> np.ndarray:
    return np.array([smile if name == "happiness" else (1 - smile) / 7 for name in EMOTIONS], np.float32)


def seen(session: LiveSession, smiles: dict[float, float]) -> LiveSession:
    for second, smile in smiles.items():
        session.seconds.append(second)
        session.emotions.append(face(smile))
    return session


# ------------------------------------------------------------------------------------------------ the drawn face


def test_the_drawn_face_is_read_as_a_smile_only_where_it_smiles(faces):
    read = [faces.look(faces.live(), drawn_face.draw_face(smile)) for smile in (0.0, 1.0)]
    neutral, smiling = (emotions[EMOTIONS.index("happiness")] for _, emotions in read)
    assert neutral < 0.2
    assert smiling > 0.8


def test_its_clip_shows_the_smile_when_it_is_asked_for(faces, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(drawn_face.draw_clip([0.0] * 15 + [1.0] * 15, rate=10))
    shares = []
    table = faces.watch(path, progress=shares.append)
    smile = table["prob_face_happiness"]
    assert smile[table["time"] < 1.3].max() < 0.4
    assert smile[table["time"] > 1.7].min() > 0.7
    assert shares == sorted(shares)
    assert 0.8 < shares[-1] <= 1


def test_a_video_that_is_too_long_is_not_looked_at(faces, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(drawn_face.draw_clip([0.0] * 20, rate=10))
    with pytest.raises(TooMuch, match=r"longer than 0\.01 minutes"):
        faces.watch(path, minutes=0.01)


def test_the_example_is_the_script_with_times():
    transcript = facial.script_transcript()
    assert [(each.speaker, each.text) for each in transcript.utterances] == [(who, text) for who, text, _ in SCRIPT]
    assert all(one.stop < other.start for one, other in zip(transcript.utterances, transcript.utterances[1:]))


# ------------------------------------------------------------------------------------------------ decomposition


@pytest.mark.parametrize("aggregation", ["mean", "sum"])
def test_contributions_add_up_to_what_the_model_predicts(model, aggregation):
    before, model.config.aggregation = model.config.aggregation, aggregation
    try:
        found = decompose(model, TALK)
        [expected] = model.score_sessions([{"messages": TALK}])
    finally:
        model.config.aggregation = before
    assert found.rewards == pytest.approx(expected["turn_rewards"])
    assert found.base + sum(found.contributions) == pytest.approx(expected["score"], abs=1e-5)
    assert found.rating == pytest.approx(expected["score"], abs=1e-5)
    assert found.deviation == 1.2


def test_nothing_said_is_an_average_session(model):
    found = decompose(model, [{"role": "user", "content": "hello"}])
    assert found.rewards == ()
    assert found.rating == found.base == 6.0


def in_session(*smiles: float) -> dict:
    messages = [
        {"role": "assistant", "content": "you walked today happy happy happy"},
        {"role": "user", "content": "river garden"},
        {"role": "assistant", "content": "maybe they tired tired tired"},
    ]
    return {"messages": messages, "feedback": {"affect": list(smiles), "affect_mean": list(smiles)}}


def test_hindsight_explains_by_words_answers_and_face(attribution):
    session = in_session(0.0, 1.0)
    found = facial.explain(attribution, session)
    [expected] = attribution.score_sessions([session])
    assert found.rewards == pytest.approx(expected["turn_rewards"])
    assert found.base + sum(found.contributions) == pytest.approx(found.rating)
    assert found.rating == pytest.approx(expected["score"])
    assert sum(found.parts.values()) == pytest.approx(sum(found.contributions))
    face = attribution.model.config.score_std * np.mean(expected["parts"]["feedback.affect"])
    assert face != 0
    assert found.parts["face"] == pytest.approx(face)


def test_in_hindsight_a_smile_adds_to_its_turn_alone_and_no_face_adds_nothing(attribution):
    grave, glad, unseen = (facial.explain(attribution, in_session(0.0, smile)) for smile in (0.0, 1.0, math.nan))
    assert glad.contributions[1] > grave.contributions[1]
    assert glad.contributions[0] == pytest.approx(grave.contributions[0])
    alone = facial.explain(attribution, {"messages": in_session()["messages"], "feedback": {}})
    assert alone.parts["face"] == 0
    assert unseen.contributions[1] == pytest.approx(alone.contributions[1])
    assert facial.explain(attribution, {"messages": [], "feedback": {}}) == facial.NOTHING_SAID


def test_the_page_says_whether_the_steps_are_promised_or_known_in_hindsight(attribution, model):
    promised = facial_page.decomposition(decompose(model, in_session()["messages"]), [0.0, 1.0])
    known = facial_page.decomposition(facial.explain(attribution, in_session(0.0, 1.0)), [0.0, 1.0])
    assert "What the words promise" in promised
    assert "With hindsight" not in promised
    assert "With hindsight" in known
    assert "What the words promise" not in known
    told = known.replace("−", "-")
    *parts, steps, base, total = (
        [float(re.search(rf"{name} ([+-]?\d+\.\d+)", told)[1]) for name in ("words", "answers", "face")]
        + [sum(map(float, re.findall(r"Turn \d adds ([+-]?\d+\.\d+)", told)))]
        + [float(re.search(rf'data-{name}="([^"]*)"', told)[1]) for name in ("base", "score")]
    )
    assert sum(parts) == pytest.approx(steps, abs=0.03)
    assert base + steps == pytest.approx(total, abs=0.02)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=30), st.floats(1, 9))
def test_the_drawn_steps_end_at_the_rating(contributions, base):
    rating = base + sum(contributions)
    found = Decomposition(tuple(contributions), (0.5,) * len(contributions), tuple(contributions), base, rating, 1.0)
    drawn = facial_page.decomposition(found, [math.nan] * len(contributions))
    assert float(re.search(r'data-score="([^"]*)"', drawn)[1]) == pytest.approx(rating, abs=1e-3)
    assert drawn.count("<rect") == len(contributions)
    assert "nan" not in drawn


# ------------------------------------------------------------------------------------------------ live


def test_a_turn_counts_with_what_the_face_shows_until_the_next():
    session = LiveSession()
    session.say("assistant", "hello", 100.0)
    session.say("user", "well", 104.0)
    session.say("assistant", "goodbye", 110.0)
    seen(session, {99: 0.9, 101: 0.2, 103: 0.4, 105: 0.9, 111: 0.8, 129: 0.6, 131: 0.0})
    signals = session.signals()
    assert signals["affect_mean"] == pytest.approx([(0.2 + 0.4) / 2, (0.8 + 0.6) / 2])
    assert signals["affect"][1] == 1.0


def test_a_turn_nobody_watched_has_no_value():
    session = LiveSession()
    session.say("assistant", "hello", 100.0)
    assert np.isnan(session.signals()["affect_mean"]).all()


def test_who_goes_on_speaking_adds_to_the_turn():
    session = LiveSession()
    session.say("assistant", " hello\n you ", 1.0)
    session.say("assistant", "again", 2.0)
    assert [(each.text, each.at) for each in session.said] == [("hello you again", 1.0)]


def test_the_partner_speaks_through_the_script_and_lets_typed_words_stand():
    session = LiveSession()
    session.say("user", "my own words", 0.0)
    turns = 0
    while session.go_on(float(turns + 1)):
        turns += 1
        assert session.said[-1].role == "assistant"
    assert turns == sum(role == "assistant" for role, *_ in SCRIPT)
    assert session.said[0].text == "my own words"
    assert SCRIPT[0][1] not in [each.text for each in session.said]


def test_a_live_session_is_a_session_row():
    session = LiveSession()
    session.go_on(50.0)
    row = seen(session, {51: 0.5}).row("live-1", 60.0)
    validate_session(row, "the live session", {})
    assert row["start"] == [0, 0]
    assert row["stop"] == [0, 10]
    assert row["feedback"]["affect_mean"] == pytest.approx([0.5])


def test_a_snapshot_brings_back_the_turns_and_the_numbers_of_each():
    session = LiveSession()
    for second in (10.0, 20.0):
        session.go_on(second)
    seen(session, {11: 0.5, 12: 0.7, 21: 0.9})
    back = LiveSession.restored(session.snapshot(), facial.Limits())
    assert back.said == session.said
    assert back.script == session.script
    assert back.signals() == session.signals()
    assert back.seconds == back.emotions == []
    seen(back, {22: 0.0})  # what was seen before the reload stands
    assert back.signals() == session.signals()
    back.go_on(30.0)
    seen(back, {31: 0.3})
    assert back.signals()["affect_mean"] == pytest.approx([0.6, 0.9, 0.3])
    assert LiveSession().snapshot() == ""


def test_a_turn_that_was_not_watched_before_a_reload_may_be_after_it():
    session = LiveSession()
    session.say("assistant", "hello", 10.0)
    back = LiveSession.restored(session.snapshot(), facial.Limits())
    assert np.isnan(back.signals()["affect_mean"]).all()
    assert seen(back, {12: 0.4}).signals()["affect_mean"] == pytest.approx([0.4])


def test_what_is_no_snapshot_is_not_restored():
    session = LiveSession()
    session.say("assistant", "hello", 10.0)
    session.say("user", "well", 12.0)
    told = json.loads(session.snapshot())
    assert LiveSession.restored(json.dumps(told), facial.Limits())
    wrong = [
        {"said": []},
        {"said": [["system", "hello", 1.0], ["user", "well", 2.0]]},
        {"said": [["assistant", "hello", 2.0], ["user", "well", 1.0]]},
        {"said": [["assistant", "hello", math.nan], ["user", "well", 2.0]]},
        {"said": [["assistant", 7, 1.0], ["user", "well", 2.0]]},
        {"said": [["assistant", "hello", 1.0], ["assistant", "well", 2.0]]},
        {"said": [["assistant", "hello" * 20_000, 1.0], ["user", "well", 2.0]]},
        {"said": [["assistant", "hello", 1.0], ["user", "well", 2.0]] * 40},
        {"signals": {"affect": [0.5]}},
        {"signals": {"affect": [0.5], "affect_mean": [1.5]}},
        {"signals": {"affect": [0.5, 0.5], "affect_mean": [0.5]}},
        {"script": 99},
        {"script": math.inf},
    ]
    texts = ["", "[]", "7", "{", *(json.dumps(told | change) for change in wrong)]
    assert [LiveSession.restored(text, facial.Limits()) for text in texts] == [None] * len(texts)


def test_only_numbers_are_kept_of_a_frame_and_old_ones_are_forgotten(faces):
    session = LiveSession()
    box, smile = session.see(faces, drawn_face.draw_face(1.0), 0.0)
    assert smile > 0.8
    assert box.width > 100
    assert session.see(faces, np.full((120, 160, 3), 90, np.uint8), 1.0) == (
        None,
        pytest.approx(math.nan, nan_ok=True),
    )
    assert [each.shape for each in session.emotions] == [(8,), (8,)]
    session.see(faces, np.full((120, 160, 3), 90, np.uint8), facial.KEPT_SECONDS + 0.5)
    assert session.seconds == [1.0, facial.KEPT_SECONDS + 0.5]


def test_deepface_reads_the_same_box(deepface_home, faces):
    """Of stand-in weights, which say nothing of the face, but say it of what DeepFace cuts out of the picture."""
    picture, session = drawn_face.draw_face(1.0), LiveSession(backend="deepface")
    box, smile = session.see(faces, picture, 0.0)
    deepface = DeepFaceAffect()
    [expected] = deepface.classify(deepface.crop(luma(picture), box)[None])
    assert smile == pytest.approx(expected[EMOTIONS.index("happiness")], abs=0.02)
    np.testing.assert_allclose(session.emotions[0], expected, atol=0.02)
    assert 0 < smile < 1


def test_two_viewers_have_a_track_each(faces):
    one, other = LiveSession(), LiveSession()
    assert one.see(faces, drawn_face.draw_face(1.0), 0.0)[1] > 0.8
    assert other.see(faces, np.full((480, 640), 90, np.uint8), 0.0)[0] is None
    assert one.live is not other.live
    assert len(other.seconds) == 1


# ------------------------------------------------------------------------------------------------ recorded, the page


def watched(smiles: list[float]) -> pd.DataFrame:
    table = pd.DataFrame(math.nan, index=range(len(smiles)), columns=COLUMNS)
    table["time"] = np.arange(len(smiles)) / 2
    table[FACE_COLUMNS] = [face(smile) if not math.isnan(smile) else np.full(8, math.nan) for smile in smiles]
    return table


def test_a_recording_puts_face_and_words_side_by_side(model):
    says = [
        Utterance("Robot", "I am so very happy for you and your dog", 0.0, 2.0),
        Utterance("Anna", "oh", 2.0, 3.0),
        Utterance("Robot", "the old garden was quiet yesterday afternoon", 3.0, 5.0),
    ]
    found = recording("a.mp4", watched([0.8] * 5 + [math.nan] * 8), Transcript(Path("a.csv"), says), "Anna", model)
    assert found.session["feedback"]["affect_mean"] == pytest.approx([0.8, math.nan], nan_ok=True)
    [expected] = model.score_sessions([{"messages": found.session["messages"]}])
    assert found.decomposition.rewards == pytest.approx(expected["turn_rewards"])
    read = pd.read_csv(io.StringIO(found.csv()))
    assert read["prob_face_happiness"].round(3).tolist()[:5] == [0.8] * 5
    assert read["time"].max() == 6.0
    table = facial_page.table(
        found.session["messages"],
        found.decomposition,
        found.session["feedback"]["affect_mean"],
        found.session["start"],
    )
    assert table.count("<tr tabindex") == 2
    assert "80 %" in table
    assert "<td>–</td>" in table


def test_a_recording_is_explained_with_hindsight_too(model, attribution):
    says = [
        Utterance("Robot", "I am so very happy for you and your dog", 0.0, 2.0),
        Utterance("Anna", "oh", 2.0, 3.0),
        Utterance("Robot", "the old garden was quiet yesterday afternoon", 3.0, 5.0),
    ]
    transcript = Transcript(Path("a.csv"), says)
    found = recording("a.mp4", watched([0.8] * 5 + [0.1] * 8), transcript, "Anna", model, attribution)
    [expected] = attribution.score_sessions([found.session])
    adds = attribution.model.config.score_std * np.array(expected["turn_rewards"]) / 2
    assert found.explained.contributions == pytest.approx(adds)
    smiles, start = found.session["feedback"]["affect_mean"], found.session["start"]
    table = facial_page.table(found.session["messages"], found.decomposition, smiles, start, found.explained)
    for value in adds:
        assert f"<td>{signed(value, 2)}</td>" in table


def test_without_a_transcript_there_is_a_timeline(model):
    found = recording("clip.mp4", watched([0.5, math.nan, 0.7]), None, None, model)
    assert found.session is None
    assert "60 % on average; a face was seen in 67 % of the frames" in facial_page.recorded_timeline(found)


def test_a_curve_breaks_where_no_face_is_seen():
    drawn = facial_page.recorded_timeline(facial.Recording("x", watched([0.1, 0.2, math.nan, 0.3, 0.4])))
    [path] = re.findall(r'class="f-curve" d="([^"]*)"', drawn)
    assert path.count("M") == 2
    assert path.count("L") == 2


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "${alert(1)}"])
def test_words_names_and_speakers_stay_text(evil, model):
    says = [Utterance("assistant", evil, 0.0, 1.0), Utterance("user", evil, 1.0, 2.0)]
    found = recording(f"{evil}.mp4", watched([0.5] * 4), Transcript(Path("t.csv"), says), None, model)
    messages, smiles = found.session["messages"], found.session["feedback"]["affect_mean"]
    shown = [
        facial_page.recorded_timeline(found),
        facial_page.turns(messages, found.decomposition, smiles, found.session["start"]),
        facial_page.table(messages, found.decomposition, smiles, found.session["start"]),
        facial_page.note(evil),
    ]
    for text in shown:
        assert "<script" not in text
        assert "<img" not in text
        assert "${" not in text


def test_a_turn_that_is_not_rewarded_yet_is_shown_without_a_number():
    shown = facial_page.turns(TALK, facial.NOTHING_SAID, [])
    assert shown.count("no reward yet") == 2
    assert shown.count("no face seen") == 2
