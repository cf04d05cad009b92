"""A table of what a face showed and a transcript become a Session row."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from geli_hf.affect.emotions import EMOTIONS, FACE_COLUMNS
from geli_hf.affect.transcripts import read_transcript
from geli_hf.recordings import session_of_recording
from geli_hf.sessions import validate_sessions

SAID = [
    ("Robot", "Hello.", 0.0, 1.0),
    ("Robot", "Nice to see you.", 1.2, 3.0),
    ("Anna", "Hi.", 2.5, 4.0),
    ("Robot", "Shall I sing?", 4.0, 6.0),
    ("Anna", "Please don't.", 6.0, 7.0),
    ("Robot", "La la la.", 7.0, 9.0),
]


def watched(happiness, *, fps: float = 5.0) -> pd.DataFrame:
    """Frames with these probabilities of happiness, the rest is neutral; NaN where no face was seen."""
    happiness = np.asarray(happiness, float)
    faces = np.zeros((len(happiness), len(EMOTIONS)))
    faces[:, EMOTIONS.index("happiness")] = happiness
    faces[:, EMOTIONS.index("neutral")] = 1 - happiness
    faces[np.isnan(happiness)] = math.nan
    faces[:, EMOTIONS.index("contempt")] = math.nan  # as of a classifier that doesn't know it
    return pd.DataFrame(faces, columns=FACE_COLUMNS).assign(time=np.arange(len(happiness)) / fps)


@pytest.fixture
def transcript(tmp_path):
    def write(said=SAID, **row):
        path = tmp_path / "talk.json"
        entries = [dict(zip(("speaker", "text", "start", "stop"), line)) for line in said]
        path.write_text(json.dumps(row or {"utterances": entries}), encoding="utf-8")
        return read_transcript(path)

    return write


# Smiles for three seconds, looks away for three, and is neutral for three.
SMILE, AWAY, NEUTRAL = [0.9] * 15, [math.nan] * 16, [0.1] * 15


def test_each_turn_has_what_the_face_showed_meanwhile(transcript):
    session = session_of_recording(watched(SMILE + AWAY + NEUTRAL), transcript(), listener="anna")
    assert session["messages"] == [
        {"role": "assistant", "content": "Hello. Nice to see you."},
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Shall I sing?"},
        {"role": "user", "content": "Please don't."},
        {"role": "assistant", "content": "La la la."},
    ]
    assert (session["start"], session["stop"]) == ([0, 2.5, 4, 6, 7], [3, 4, 6, 7, 9])
    assert session["feedback"]["affect"] == pytest.approx([1, math.nan, 0], nan_ok=True)
    # The first turn ends at 3.0 s, the very frame at which she looks away.
    assert session["feedback"]["affect_mean"] == pytest.approx([0.9, math.nan, 0.1], nan_ok=True)
    assert (session["session_id"], session["conversation_id"], session["rater_id"]) == ("talk", "talk", "Anna")
    assert math.isnan(session["score"])
    validate_sessions([session])
    validate_sessions(Dataset.from_list([session]))


def test_a_face_may_answer_after_the_turn(transcript):
    """She smiles from 3.0 s on; the first turn ends then."""
    table = watched([0.0] * 15 + [1.0] * 31)
    now, later = (
        session_of_recording(table, transcript(), listener="Anna", lag=lag)["feedback"]["affect_mean"][0]
        for lag in (0.0, 3.0)
    )
    assert now == pytest.approx(1 / 16)
    assert later == pytest.approx(16 / 31)


def test_how_much_has_to_be_seen(transcript):
    """Of the frames of the last turn, 7.0 to 9.0 s, the first four of eleven show a face."""
    table = watched([math.nan] * 35 + [0.5] * 4 + [math.nan] * 7)
    shares = (0.0, 4 / 11, 0.4)
    last = [
        session_of_recording(table, transcript(), listener="Anna", min_share=share)["feedback"]["affect_mean"][2]
        for share in shares
    ]
    assert last == pytest.approx([0.5, 0.5, math.nan], nan_ok=True)


def test_a_session_row_keeps_what_it_has(transcript):
    row = {
        "session_id": "s-1",
        "conversation_id": "c-1",
        "rater_id": "r",
        "score": 4,
        "messages": [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Hi."}],
        "start": [0, 1],
        "stop": [1, 2],
        "feedback": {"sentiment": [None]},
        "turn_rating": [3],
        "unknown": 1,
    }
    session = session_of_recording(watched(SMILE), transcript(**row), session_id="no", score=1.0)
    assert {name: session[name] for name in ("session_id", "conversation_id", "rater_id", "score")} == {
        name: row[name] for name in ("session_id", "conversation_id", "rater_id", "score")
    }
    assert session["feedback"]["affect_mean"] == pytest.approx([0.9])
    assert math.isnan(session["feedback"]["sentiment"][0])
    assert session["turn_rating"] == [3]
    assert "unknown" not in session


@pytest.mark.parametrize(
    ("said", "listener", "problem"),
    [
        ([(who.replace("Robot", "Bob"), *rest) for who, *rest in SAID], None, r"whose face .*\? .* 'Bob', 'Anna'"),
        (
            SAID,
            "Ana",
            r"listener: 'Ana' says nothing in .*talk.json; there speak 'Robot', 'Anna'; did you mean 'Anna'",
        ),
        (SAID[:2], "Robot", r"talk.json: 1 speaker \('Robot'\), expected the listener and the one who"),
        ([*SAID, ("Bob", "Me too.", 9, 9.5)], "Anna", r"3 speakers \('Robot', 'Anna', 'Bob'\).* cut it to two"),
        ([(who, text, None, None) for who, text, *_ in SAID], "Anna", "no utterance has times"),
        (
            [(who, text, a + 100, b + 100) for who, text, a, b in SAID],
            "Anna",
            "begins at 100.0 s and the video ends",
        ),
    ],
)
def test_what_can_not_belong_together(transcript, said, listener, problem):
    with pytest.raises(ValueError, match=problem):
        session_of_recording(watched(SMILE + AWAY + NEUTRAL), transcript(said), listener=listener)


def test_turns_past_the_end_of_the_video_are_missing_and_told_of(transcript, caplog):
    session = session_of_recording(watched(SMILE), transcript(), listener="Anna")
    assert session["feedback"]["affect_mean"] == pytest.approx([0.9, math.nan, math.nan], nan_ok=True)
    assert "2 of 3 turns of the assistant reach beyond the end of the video, 2.8 s" in caplog.text


@pytest.mark.parametrize("names", [("assistant", "user"), ("Agent", "Listener"), ("bot", "Anna"), ("Robot", "human")])
def test_names_that_tell_who_listens(transcript, names):
    said = [(names[who == "Anna"], *rest) for who, *rest in SAID]
    session = session_of_recording(watched(SMILE + AWAY + NEUTRAL), transcript(said))
    assert session["messages"][0]["role"] == "assistant"
