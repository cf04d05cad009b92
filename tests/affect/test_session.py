"""Sessions from a table of frames and a transcript: roles, turns, and errors."""

import math

import numpy as np
import pandas as pd
import pytest

from geli_hf.affect.emotions import EMOTIONS, FACE_COLUMNS
from geli_hf.affect.session import session_of_recording
from geli_hf.affect.transcripts import Transcript, Utterance, read_transcript
from geli_hf.sessions import SessionError, validate_session

FPS = 5


def frames(*shown):
    """One second each of what a face shows, five times a second, by a classifier that knows no contempt."""
    rows = [
        [math.nan if each == "contempt" or not emotion else 0.7 if each == emotion else 0.05 for each in EMOTIONS]
        for emotion in shown
        for _ in range(FPS)
    ]
    table = pd.DataFrame(rows, columns=FACE_COLUMNS)
    table.insert(0, "time", np.arange(len(rows)) / FPS)
    return table.assign(x=1.0, y=2.0, width=30.0, height=30.0)


def talk(tmp_path, *utterances, name="talk.csv"):
    path = tmp_path / name
    pd.DataFrame(utterances, columns=["speaker", "start", "stop", "text"]).to_csv(path, index=False)
    return read_transcript(path)


TALK = [
    ("Ann", 0.0, 0.9, "I moved."),
    ("Ben", 1.0, 1.9, "Where to, and why"),
    ("Ben", 2.0, 2.9, "so far away?"),
    ("Ann", 2.5, 3.9, "To the sea."),  # while Ben still speaks
    ("Ben", 4.0, 4.9, "Well then, that is that, I suppose."),
]
FRAMES = frames("neutral", "happiness", "happiness", "sadness", "", "happiness")


def test_roles_and_feedback_of_either_listener(tmp_path):
    session = session_of_recording(FRAMES, talk(tmp_path, *TALK), listener="ann")
    validate_session(session, "here", {})
    assert session["session_id"] == session["conversation_id"] == "talk"
    assert session["rater_id"] == "Ann"
    assert math.isnan(session["score"])
    assert [message["role"] for message in session["messages"]] == ["user", "assistant", "user", "assistant"]
    assert session["messages"][1]["content"] == "Where to, and why so far away?"
    assert (session["start"], session["stop"]) == ([0, 1, 2.5, 4], [0.9, 2.9, 3.9, 4.9])
    # Nobody was seen in the fifth second.
    np.testing.assert_array_equal(session["feedback"]["affect"], [1, math.nan])
    np.testing.assert_allclose(session["feedback"]["affect_mean"], [0.7, math.nan])
    assert all(type(value) is float for value in session["feedback"]["affect"])
    assert session["behaviour"] == ["listener smiles throughout this turn", ""]

    other = session_of_recording(FRAMES, talk(tmp_path, *TALK), listener="Ben")
    np.testing.assert_array_equal(other["feedback"]["affect"], [0, 0])
    # Of 2.5 to 3.9 only the sadness counts: until 2.9 Ben talks himself.
    np.testing.assert_allclose(other["feedback"]["affect_mean"][1], 0.05, atol=1e-9)
    np.testing.assert_allclose(other["feedback"]["valence"][1], 0.05 - 0.7 - 3 * 0.05, atol=1e-9)


def test_the_listeners_own_speech_is_no_reaction(tmp_path):
    talkative = [("Ben", 1.0, 3.9, "I have something to say, and it is long."), ("Ann", 1.0, 2.9, "Go on, go on.")]
    quiet = session_of_recording(FRAMES, talk(tmp_path, *talkative), listener="Ann", smooth=0)
    np.testing.assert_allclose(quiet["feedback"]["affect_mean"], [0.05])  # of the sadness after her own words
    talkative[1] = ("Ann", 1.0, 4.5, "Go on, go on.")
    silent = session_of_recording(FRAMES, talk(tmp_path, *talkative), listener="Ann")
    assert np.isnan([silent["feedback"][name][0] for name in ("affect", "affect_mean", "valence")]).all()


def test_the_face_is_smoothed_over_time(tmp_path):
    table = frames("neutral", "neutral")
    table.loc[5, ["prob_face_happiness", "prob_face_neutral"]] = [0.7, 0.05]
    transcript = talk(tmp_path, ("Ben", 0, 1.9, "One two three four five six."), ("Ann", 3, 4, "Yes."))
    smooth, raw = (
        session_of_recording(table, transcript, listener="Ann", smooth=window)["feedback"]["affect_mean"]
        for window in (1.0, 0.0)
    )
    np.testing.assert_allclose(smooth, [0.05])
    np.testing.assert_allclose(raw, [(9 * 0.05 + 0.7) / 10])


def test_valence_from_the_listeners_own_mean(tmp_path):
    transcript = talk(tmp_path, *TALK)
    plain, own = (
        session_of_recording(FRAMES, transcript, listener="Ann", smooth=0, own_mean=each)["feedback"]["valence"]
        for each in (False, True)
    )
    # She does not talk from 1.0 to 2.4 s, in 8 frames, and in the last second: a smile of .7, less 4 times .05.
    assert plain[0] == pytest.approx(0.5)
    assert own[0] == pytest.approx(0.0)


def test_the_least_share_of_frames_with_the_face(tmp_path):
    # From 4 to 5.9 the listener is out of sight for five frames, and smiles in five; from 4 to 5 in one of six.
    for stop, rules, expected in (
        (5.9, {}, 1),
        (5.9, {"min_share": 0.51}, math.nan),
        (5.0, {}, math.nan),
        (5.0, {"min_share": 0}, 1),
    ):
        transcript = talk(tmp_path, *TALK[:-1], ("Ben", 4.0, stop, TALK[-1][3]))
        session = session_of_recording(FRAMES, transcript, listener="Ann", **rules)
        np.testing.assert_array_equal(session["feedback"]["affect"][1], expected)


@pytest.mark.parametrize("names", [("user", "assistant"), ("Human", "AI"), ("USER", "Agent")])
def test_names_of_roles_need_no_listener(tmp_path, names):
    roles = dict(zip(("Ann", "Ben"), names))
    transcript = talk(tmp_path, *[(roles[who], *rest) for who, *rest in TALK])
    session = session_of_recording(FRAMES, transcript)
    assert session["messages"][0] == {"role": "user", "content": "I moved."}
    assert session["rater_id"] == ""
    assert session_of_recording(FRAMES, transcript, listener=names[1])["messages"][0]["role"] == "assistant"


def test_a_listener_who_is_silent(tmp_path):
    session = session_of_recording(FRAMES, talk(tmp_path, ("assistant", 1, 2, "Once upon a time there was a king.")))
    assert session["feedback"]["affect"] == [1]
    for listener in (None, "Ann"):
        with pytest.raises(SessionError, match=r"talk\.csv.*'assistant'.*'Ann'"):
            session_of_recording(FRAMES, talk(tmp_path, TALK[0]), listener=listener)


@pytest.mark.parametrize(
    ("utterances", "listener", "message"),
    [
        (TALK, None, r"listener: .*talk\.csv.* 'Ann', 'Ben'"),
        (TALK, "Bne", r"listener: .*talk\.csv.*'Bne'.*'Ann', 'Ben'"),
        ([*TALK, ("Cleo", 5, 6, "Hi")], "Ann", r"talk\.csv.*'Ann', 'Ben', 'Cleo'"),
        ([*TALK, ("", 5, 6, "Hi")], "Ann", r"talk\.csv, line 7: no speaker"),
        ([("ann", 0, 1, "Hi"), ("Ann", 2, 3, "Ho")], "ANN", r"listener: .*'ann', 'Ann'"),
        (
            [(who, start * 1000 + 100, stop * 1000 + 100, text) for who, start, stop, text in TALK],
            "Ann",
            r"talk\.csv: .* 5\.8 s",
        ),
    ],
)
def test_a_transcript_that_does_not_fit_is_an_error(tmp_path, utterances, listener, message):
    with pytest.raises(SessionError, match=message):
        session_of_recording(FRAMES, talk(tmp_path, *utterances), listener=listener)


def test_turns_beyond_the_end_are_missing_with_a_warning(tmp_path, caplog):
    with caplog.at_level("WARNING", logger="geli_hf"):
        session = session_of_recording(FRAMES.head(20), talk(tmp_path, *TALK), listener="Ann")
    assert session["feedback"]["affect"][0] == 1
    assert math.isnan(session["feedback"]["affect"][1])
    assert "1 of 4 turns start after the end of the video at 3.8 s" in caplog.text
    caplog.clear()
    session_of_recording(FRAMES, talk(tmp_path, *TALK), listener="Ann")
    assert not caplog.text


def test_a_table_without_columns_or_frames(tmp_path):
    with pytest.raises(ValueError, match="prob_face_fear"):
        session_of_recording(FRAMES.drop(columns="prob_face_fear"), talk(tmp_path, *TALK), listener="Ann")
    with pytest.raises(ValueError, match="table"):
        session_of_recording(FRAMES.head(0), talk(tmp_path, *TALK), listener="Ann")


def test_a_turn_without_times_is_missing_alone(tmp_path):
    utterances = [Utterance(who, text, start, stop, "here") for who, start, stop, text in TALK]
    utterances[1] = utterances[1]._replace(stop=math.nan)
    transcript = Transcript(tmp_path / "t.csv", utterances)
    session = session_of_recording(FRAMES, transcript, listener="Ben")
    np.testing.assert_array_equal(session["feedback"]["affect"], [0, 0])
    session = session_of_recording(FRAMES, transcript, listener="Ann")
    np.testing.assert_array_equal(session["feedback"]["affect"], [math.nan, math.nan])
