"""`best_of` against single scores, and what comes last."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import WORDS, reward_model, talk

DIALOGUE = talk(5)  # ends with the user
REPLIES = st.lists(st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join), max_size=6)


@pytest.fixture(scope="module")
def model():
    return reward_model("bert", context_messages=1)


@settings(max_examples=15, deadline=None)
@given(REPLIES)
def test_it_sorts_by_the_reward_of_each_reply_alone(model, replies):
    alone = {
        reply: model.score_messages([[*DIALOGUE, {"role": "assistant", "content": reply}]]).item()
        for reply in replies
        if reply
    }
    ordered = model.best_of(replies, DIALOGUE)
    assert sorted(reply for reply, _ in ordered) == sorted(replies)
    spoken = ordered[: len(replies) - replies.count("")]
    assert all(reward == pytest.approx(alone[reply], abs=1e-5) for reply, reward in spoken)
    assert all(first >= second for (_, first), (_, second) in pairwise(spoken))
    assert all(reply == "" and math.isnan(reward) for reply, reward in ordered[len(spoken) :])


def test_no_number_comes_after_the_numbers_and_silence_last(model, monkeypatch):
    monkeypatch.setattr(model, "score_messages", lambda dialogues: torch.tensor([1.0, math.nan, 2.0]))
    ordered = model.best_of(["", "one", "lost", "<think>Hm.</think> ", "two"], DIALOGUE)
    assert [reply for reply, _ in ordered] == ["two", "one", "lost", "", "<think>Hm.</think> "]
    assert [math.isnan(reward) for _, reward in ordered] == [False, False, True, True, True]


def test_thoughts_earn_nothing(model):
    [(reply, with_thoughts)] = model.best_of(["<think>I know.</think>i like the river"], DIALOGUE)
    [(_, plain)] = model.best_of(["i like the river"], DIALOGUE)
    assert reply.startswith("<think>")
    assert with_thoughts == pytest.approx(plain, abs=1e-6)


def test_the_dialogue_ends_with_the_user(model):
    assert model.best_of([], DIALOGUE) == []
    for messages in ([], DIALOGUE[:-1]):
        with pytest.raises(ValueError, match="messages: "):
            model.best_of(["i know"], messages)
