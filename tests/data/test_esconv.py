"""ESConv on dialogues written here, and on the published file where it is."""

import json
import math

import numpy as np
import pytest

from geli_hf.data import load_sessions, read_report
from geli_hf.sessions import SessionError


def says(speaker: str, content: str, feedback=None) -> dict:
    return {"speaker": speaker, "content": content, "annotation": {"feedback": feedback} if feedback else {}}


SURVEY = {"initial_emotion_intensity": "5", "empathy": "4", "relevance": "2", "final_emotion_intensity": "1"}
DIALOG = [
    says("supporter", "Hello"),
    says("supporter", "How are you?\n"),
    says("seeker", "Bad."),
    says("supporter", "I am sorry."),
    says("seeker", "Merci 💙", "5"),
    says("supporter", "Cheer up."),
    says("seeker", "I hate that, it is horrible.", "1"),
    says("seeker", "Really.", "3"),
    says("supporter", "Bye."),
]
GOOD = {"dialog": DIALOG, "survey_score": {"seeker": SURVEY, "supporter": {}}}


def load(tmp_path, *conversations, **options):
    (tmp_path / "ESConv.json").write_text(json.dumps(conversations), encoding="utf-8")
    return load_sessions("esconv", data_dir=tmp_path, cache_dir=tmp_path / "cache", **options)


def test_feedback_rates_the_supporter_turns_since_the_last_one(tmp_path):
    (session,) = load(tmp_path, GOOD)
    assert session["session_id"] == session["conversation_id"] == "ESConv-0"
    assert session["score"] == 4
    assert [message["role"] for message in session["messages"]] == ["assistant", "user"] * 3 + ["assistant"]
    assert session["messages"][0]["content"] == "Hello How are you?"
    np.testing.assert_array_equal(session["turn_rating"], [5, 5, 1, math.nan])


def test_speaker_and_listener_are_seeker_and_supporter(tmp_path):
    words = {"seeker": "speaker", "supporter": "listener"}
    other = {**GOOD, "dialog": [{**row, "speaker": words[row["speaker"]]} for row in DIALOG]}
    one, two = load(tmp_path, GOOD, other)
    assert one["messages"] == two["messages"]
    np.testing.assert_array_equal(one["turn_rating"], two["turn_rating"])


@pytest.mark.parametrize(("score", "value"), [("relevance", 2), ("final_emotion_intensity", 1)])
def test_any_answer_of_the_seeker_is_a_score(tmp_path, score, value):
    assert load(tmp_path, GOOD, score=score)["score"][:] == [value]


def test_an_unknown_answer_is_named(tmp_path):
    with pytest.raises(SessionError, match="no sympathy from the seeker"):
        load(tmp_path, GOOD, score="sympathy")


def test_sentiment_of_the_next_seeker_turn(tmp_path):
    pytest.importorskip("vaderSentiment")
    (session,) = load(tmp_path, GOOD, sentiment=True)
    assert session["feedback"]["sentiment"][2] < -0.5
    assert math.isnan(session["feedback"]["sentiment"][3])


def test_skipped_sessions_are_counted_by_reason(tmp_path):
    def answered(empathy):
        return {**GOOD, "survey_score": {"seeker": {**SURVEY, "empathy": empathy}}}

    sessions = load(
        tmp_path,
        GOOD,
        {"dialog": DIALOG},
        {"dialog": DIALOG, "survey_score": {"seeker": {}}},
        answered(""),
        answered("6"),
        answered("very"),
        answered("nan"),
        {**GOOD, "dialog": DIALOG[:2]},
        {**GOOD, "dialog": [*DIALOG[:2], says("seeker", " ", "1")]},
        {**GOOD, "dialog": DIALOG[2:3]},
        {**GOOD, "dialog": [says("robot", "Hello")]},
        {"survey_score": GOOD["survey_score"]},
        "Hello",
    )
    assert sessions["session_id"][:] == ["ESConv-0"]
    assert read_report(sessions).skipped == {
        "no empathy from the seeker": 3,
        "empathy outside of 1..5": 3,
        "no turn of the seeker or of the supporter": 3,
        "no dialog of seeker and supporter in the published form": 3,
    }


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no \*\.json"):
        load_sessions("esconv", data_dir=tmp_path, cache_dir=tmp_path)
    (tmp_path / "ESConv.json").write_text('[{"dialog": [')
    with pytest.raises(SessionError, match=r"ESConv\.json, line 1: no JSON .* downloaded whole"):
        load_sessions("esconv", data_dir=tmp_path, cache_dir=tmp_path)
    (tmp_path / "ESConv.json").write_text("{}")
    with pytest.raises(SessionError, match="expected a list of conversations, found a dict"):
        load_sessions("esconv", data_dir=tmp_path / "ESConv.json", cache_dir=tmp_path)


def test_published_corpus(shared_data, tmp_path):
    sessions = load_sessions("esconv", data_dir=shared_data / "esconv", cache_dir=tmp_path)
    assert len(sessions) == 142
    assert read_report(sessions).skipped == {"no empathy from the seeker": 54}
    ratings = np.concatenate([np.array(ratings) for ratings in sessions["turn_rating"]])
    assert 0.05 < np.isnan(ratings).mean() < 0.15
    assert set(ratings[~np.isnan(ratings)]) >= {1, 2, 3, 4, 5}
