"""A conversation as a value: its changes, what the visitor did with it, and its Session row."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talks import dialogue, lengths, mean

from geli_hf.demo.conversation import ALIGNED, BASE, TIE, Conversation, Turn, session_id_of
from geli_hf.demo.limits import Limits
from geli_hf.sessions import SessionError, validate_session

NAMES = {ALIGNED: "after@1", BASE: "before@2", "reward": "judge@3"}


def row_of(conversation: Conversation) -> dict:
    return conversation.row(NAMES, {})


def texts(conversation: Conversation) -> list[str]:
    return [turn.text for turn in conversation.turns]


def test_rewards_rating_and_cuts():
    conversation = dialogue("hi", "hello", "how", "well")
    assert (conversation.rewards, conversation.score) == ((5.0, 4.0), 4.5)
    assert math.isnan(Conversation().rescore(lengths, mean).score)
    shorter = conversation.cut(2).rescore(lengths, mean)
    assert (texts(shorter), shorter.rewards, shorter.score) == (["hi", "hello"], (5.0,), 5.0)
    assert shorter.key == conversation.key
    empty = conversation.cut(0).rescore(lengths, mean)
    assert empty.rewards == ()
    assert math.isnan(empty.score)
    # A message without an answer is replaced, since roles alternate.
    assert texts(Conversation().add_message("hi", 1.0).add_message("there", 2.0)) == ["there"]


def choosing() -> Conversation:
    replies = (Turn("assistant", "hm", BASE), Turn("assistant", "great", ALIGNED))
    return replace(dialogue("hi", "hello").add_message("how", 3.0), choice=replies)


@pytest.mark.parametrize(("vote", "text", "preferred"), [("0", "hm", BASE), ("1", "great", ALIGNED), (TIE, "hm", TIE)])
def test_a_blind_vote_continues_with_the_chosen_reply(vote, text, preferred):
    conversation = choosing().decide(vote, 4.0)
    assert (conversation.turns[-1].text, conversation.turns[-1].vote, conversation.choice) == (text, preferred, ())
    assert row_of(conversation)["votes"] == ["", preferred]


@given(st.text() | st.just("2") | st.just("-1"))
def test_any_other_vote_decides_nothing(vote):
    for conversation in (choosing(), dialogue("hi", "hello")):
        if vote not in ("0", "1", TIE) or not conversation.choice:
            assert conversation.decide(vote, 4.0) is conversation


def test_the_row_is_a_session_and_does_not_reveal_the_key():
    conversation = replace(dialogue("hi", "hello"), rating=7.0)
    row = conversation.row(NAMES, {"affect": [1.0]})
    validate_session(row, "row", {})
    assert (row["score"], row["feedback"]["affect"], row["rater_id"]) == (7.0, [1.0], "")
    assert row["session_id"] == session_id_of(conversation.key) != conversation.key
    assert conversation.key not in json.dumps(row)
    assert dialogue("hi", "hello").session_id != conversation.session_id
    with pytest.raises(SessionError, match="assistant"):
        row_of(dialogue("hi"))


def test_the_row_says_who_spoke_and_what_the_visitor_did():
    conversation = dialogue("hi", "hello", "how", "well")
    conversation = conversation.mark(1, thumb=0.0, regenerated=2, copied=1).mark(3, rewrite="better", edited=1)
    row = row_of(conversation)
    feedback = row["feedback"]
    assert feedback["thumb"][0] == 0
    assert math.isnan(feedback["thumb"][1])  # none is not a thumb down
    assert (feedback["regenerated"], feedback["copied"]) == ([2, 0], [1, 0])
    assert (feedback["edited"], feedback["rewritten"], row["rewrites"]) == ([0, 1], [0, 1], ["", "better"])
    assert (row["policies"], row["reward_model"]) == (["after@1"] * 2, "judge@3")
    assert [message["content"] for message in row["messages"]] == ["hi", "hello", "how", "well"]  # as it was written


def test_limits_of_a_conversation():
    limits = Limits(characters=10, messages=4)
    assert limits.problem("hello", 2) == ""
    assert "10" in limits.problem("x" * 11, 0)
    assert "4 messages" in limits.problem("hello", 3)
    assert limits.problem("  ", 0)
    assert limits.problem(None, 0)


def test_half_an_emoji_is_replaced_where_it_comes_in():
    assert texts(dialogue("hi \ud83d", "hello"))[0] == "hi \ufffd"
