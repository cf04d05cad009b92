"""A conversation as a value: what changes, what goes back, and what becomes a Session row."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from talks import lengths, mean, talked

from geli_hf.demo.conversation import (
    ALIGNED,
    BASE,
    PERSON,
    Conversation,
    Reply,
    conversation_of,
    restored,
    session_id_of,
    session_row,
    snapshot,
)
from geli_hf.sessions import SessionError, validate_session

LIMITS = {"most_messages": 20, "most_characters": 200}


def test_rewards_and_the_rating_that_they_predict():
    conversation = talked("hi", "hello", "how", "well")
    assert conversation.rewards == (5.0, 4.0)
    assert conversation.score == 4.5
    assert math.isnan(Conversation().scored(lengths, mean).score)


def test_an_edit_keeps_what_follows_and_what_it_was_worth_before():
    conversation = talked("hi", "hello", "how", "well").edited(1, "good morning").scored(lengths, mean)
    assert [turn.text for turn in conversation.turns] == ["hi", "good morning", "how", "well"]
    assert conversation.turns[1].source == PERSON
    assert (conversation.before, conversation.rewards) == ((5.0, 4.0), (12.0, 4.0))
    assert conversation.edited(0, "hey").turns[0].source == ""  # no policy wrote that
    assert conversation.said("and now", 9.0).before == ()  # that is no what-if


def test_undo_goes_back_step_by_step():
    steps = [talked("hi", "hello")]
    steps.append(steps[-1].edited(1, "good morning"))
    steps.append(steps[-1].said("how", 3.0))
    conversation = steps[-1]
    for step in reversed(steps[:-1]):
        conversation = conversation.undone()
        assert conversation.turns == step.turns
        assert conversation.rewards == step.rewards
    assert conversation.undone().turns == ()
    assert Conversation().undone().turns == ()


def test_undo_does_not_grow_without_end():
    conversation = Conversation()
    for number in range(100):
        conversation = conversation.changed(score=float(number))
    assert len(conversation.past) == 30
    assert all(step.past == () for step in conversation.past)


def choosing(blind: bool) -> Conversation:
    replies = [Reply(BASE, "hm"), Reply(ALIGNED, "great")]
    return talked("hi", "hello").said("how", 3.0).asked(replies, blind).scored(lengths, mean)


def test_a_choice_is_rewarded_and_goes_on_with_what_was_chosen():
    conversation = choosing(blind=False)
    assert [reply.reward for reply in conversation.choice.replies] == [2.0, 5.0]
    assert conversation.rewards == (5.0,)
    chosen = conversation.decided(0, 4.0).scored(lengths, mean)
    assert chosen.turns[-1].text == "hm"
    assert [reply.text for reply in chosen.turns[-1].instead_of] == ["great"]
    assert sum(chosen.votes.values()) == 0
    assert chosen.undone().choice == conversation.choice
    # Who just goes on talking gets the aligned policy's reply.
    assert [turn.text for turn in conversation.said("more", 5.0).turns][-2:] == ["great", "more"]


@pytest.mark.parametrize(
    ("index", "text", "votes"), [(0, "hm", (0, 1, 0)), (1, "great", (1, 0, 0)), (-1, "hm", (0, 0, 1))]
)
def test_a_blind_vote_is_counted(index, text, votes):
    conversation = choosing(blind=True).decided(index, 4.0)
    assert conversation.turns[-1].text == text
    assert tuple(conversation.votes.values()) == votes


@pytest.mark.parametrize("index", [2, -2, 10**9])
def test_what_cannot_be_decided_changes_nothing(index):
    for conversation in (choosing(blind=True), choosing(blind=False), talked("hi", "hello")):
        assert conversation.decided(index, 4.0) is conversation
    conversation = choosing(blind=False)  # where nobody voted, nothing can be alike
    assert conversation.decided(-1, 4.0) is conversation


def test_two_messages_without_an_answer_become_one():
    conversation = Conversation().said("hi", 1.0).said("there", 2.0)
    assert conversation.messages == [{"role": "user", "content": "hi there"}]


def test_the_row_is_a_session_and_does_not_tell_the_key():
    conversation = talked("hi", "hello")
    row = session_row(conversation, 7, {"affect": [1.0]})
    validate_session(row, "row", {})
    assert (row["score"], row["feedback"], row["rater_id"]) == (7.0, {"affect": [1.0]}, "")
    assert row["session_id"] == session_id_of(conversation.key) != conversation.key
    assert conversation.key not in json.dumps(row)
    assert talked("hi", "hello").session_id != conversation.session_id
    with pytest.raises(SessionError, match="assistant"):
        session_row(talked("hi"))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=40).filter(str.strip), min_size=2, max_size=8))
def test_a_reload_brings_back_what_was_said(texts):
    conversation = talked(*texts)
    found = restored(snapshot(conversation), **LIMITS)
    assert found.messages == conversation.messages
    assert [turn.source for turn in found.turns] == [turn.source for turn in conversation.turns]
    assert found.session_id == conversation.session_id
    assert conversation_of(json.loads(snapshot(conversation))["row"], **LIMITS).messages == conversation.messages


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"key": "x", "row": "", "sources": []}',
        '{"key": 3, "row": 4, "sources": 5}',
        "\x00",
        "[" * 9999,
    ],
)
def test_a_browsers_storage_may_hold_anything(text):
    assert restored(text, **LIMITS) is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("3", "no JSON object"),
        ("{}", "session_id"),
        (json.dumps(session_row(talked("a", "b" * 201)) | {"score": 1}), "too long"),
        (json.dumps(session_row(talked(*"ab" * 11)) | {"score": 1}), "22 messages"),
    ],
)
def test_what_is_no_conversation_is_not_loaded(line, told):
    with pytest.raises(SessionError, match=told):
        conversation_of(line, **LIMITS)
