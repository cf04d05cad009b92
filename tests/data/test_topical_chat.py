"""Topical-Chat on dialogues written here, and on the published file where it is."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from geli_hf.data import load_sessions, read_report
from geli_hf.sessions import SessionError


def turn(agent: str, message: str, sentiment: str, rating: str) -> dict:
    return {"agent": f"agent_{agent}", "message": message, "sentiment": sentiment, "turn_rating": rating}


CONVERSATION = {
    "content": [
        turn("1", "Do you like football?", "Curious to dive deeper", "Good"),
        turn("2", "No, and I hate the noise.", "Disgusted", "Poor"),
        turn("1", "Fair. ", "Neutral", "Passable"),
        turn("1", "Opera then? 🎭", "Happy", "Excellent"),
        turn("2", "¡Sí, me encanta!", "Surprised", ""),
        turn("1", "See you", "Happy", "Not Good"),
    ],
    "conversation_rating": {"agent_1": "Excellent", "agent_2": "Not Good"},
}


def write(folder, conversations, split="valid_freq"):
    (folder / f"{split}.json").write_text(json.dumps(conversations), encoding="utf-8")
    return folder


def load(tmp_path, conversations, **options):
    return load_sessions(
        "topical_chat", data_dir=write(tmp_path, conversations), cache_dir=tmp_path / "cache", **options
    )


def test_a_conversation_is_two_sessions_with_their_own_turns_scores_and_reactions(tmp_path):
    sessions = load(tmp_path, {"t1": CONVERSATION})
    one, two = sessions
    assert [one["session_id"], two["session_id"]] == ["t1/agent_1", "t1/agent_2"]
    assert one["conversation_id"] == two["conversation_id"] == "t1"
    assert [message["role"] for message in one["messages"]] == ["assistant", "user"] * 2 + ["assistant"]
    assert [message["role"] for message in two["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert one["messages"][2]["content"] == "Fair. Opera then? 🎭"  # two rows of one speaker are one turn
    assert (one["score"], two["score"]) == (5, 2)
    # what agent 2 felt after each turn of agent 1, and the other way round; nobody answered the last turn
    np.testing.assert_array_equal(one["feedback"]["label"], [-1, 0.5, math.nan])
    np.testing.assert_array_equal(two["feedback"]["label"], [0, 1])
    np.testing.assert_array_equal(one["turn_rating"], [4, (3 + 5) / 2, 2])
    np.testing.assert_array_equal(two["turn_rating"], [1, math.nan])


def test_sentiment_is_of_the_next_user_turn(tmp_path):
    pytest.importorskip("vaderSentiment")
    one, two = load(tmp_path, {"t1": CONVERSATION}, sentiment=True)
    assert set(one["feedback"]) == {"label", "sentiment"}
    assert one["feedback"]["sentiment"][0] < -0.5  # "I hate the noise"
    assert math.isnan(one["feedback"]["sentiment"][2])
    assert two["feedback"]["sentiment"][0] > 0.2  # "Fair."


def test_skipped_sessions_are_counted_by_reason(tmp_path):
    content = CONVERSATION["content"]
    sessions = load(
        tmp_path,
        {
            "good": CONVERSATION,
            "half": {**CONVERSATION, "conversation_rating": {"agent_1": "Good", "agent_2": ""}},
            "odd": {**CONVERSATION, "conversation_rating": {"agent_1": "Meh"}},
            "alone": {**CONVERSATION, "content": content[:1] + content[2:4]},
            "silent": {**CONVERSATION, "content": [{**content[0], "message": " "}]},
            "bare": {"content": content},
            "broken": {"content": [{"text": "?"}], "conversation_rating": {}},
        },
    )
    assert sessions["session_id"][:] == ["good/agent_1", "good/agent_2", "half/agent_1"]
    report = read_report(sessions)
    assert report.read == 3
    assert report.skipped == {
        "no conversation_rating": 2,
        "a conversation_rating that is none of Poor, Not Good, Passable, Good, Excellent": 1,
        "speakers: 1, not 2": 2,
        "speakers: 0, not 2": 2,
        "no content or conversation_rating in the published form": 4,
    }


def test_several_splits_are_one_corpus_and_an_absent_one_is_named(tmp_path):
    write(tmp_path, {"t2": CONVERSATION}, "valid_rare")
    sessions = load(tmp_path, {"t1": CONVERSATION}, split=["valid_freq", "valid_rare"])
    assert sorted(set(sessions["conversation_id"])) == ["t1", "t2"]
    with pytest.raises(FileNotFoundError, match=r"no train\.json; found valid_freq\.json, valid_rare\.json"):
        load(tmp_path, {"t1": CONVERSATION}, split="train")


def test_an_incomplete_file_is_named_with_the_line(tmp_path):
    (tmp_path / "valid_freq.json").write_text(json.dumps({"t1": CONVERSATION}, indent=1)[:100])
    with pytest.raises(SessionError, match=r"valid_freq\.json, line \d+: no JSON .* downloaded whole"):
        load_sessions("topical_chat", data_dir=tmp_path, cache_dir=tmp_path / "cache")
    with pytest.raises(SessionError, match=r"valid_freq\.json: .* found a list"):
        load(tmp_path, [CONVERSATION])


def test_published_corpus(shared_data, tmp_path):
    sessions = load_sessions(
        "topical_chat", data_dir=shared_data / "topical_chat", split="test_freq", cache_dir=tmp_path
    )
    assert len(sessions) == 1077
    assert read_report(sessions).skipped == {"no conversation_rating": 1}
    turns = {row["session_id"]: pd.Series(row["turn_rating"]).mean() for row in sessions}
    table = pd.DataFrame({"score": sessions["score"][:], "own": turns.values()}, index=list(turns))
    table["partner"] = [turns.get(name[:-1] + {"1": "2", "2": "1"}[name[-1]]) for name in table.index]
    correlation = table.corr()["score"]
    assert correlation["own"] == pytest.approx(0.84, abs=0.005)
    assert abs(correlation["partner"]) < 0.1  # the score belongs to the agent whose turns they are
