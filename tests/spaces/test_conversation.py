"""A conversation as a value: its changes, undo, and its Session row."""

import json
import math

import pytest
from talks import dialogue, lengths, mean

from geli_hf.demo.conversation import (
    ALIGNED,
    BASE,
    PERSON,
    UNDO_STEPS,
    Conversation,
    Reply,
    session_id_of,
    session_row,
)
from geli_hf.demo.limits import Limits, Visit
from geli_hf.sessions import SessionError, validate_session


def row_of(conversation: Conversation, **columns) -> dict:
    return session_row(conversation.session_id, conversation.turns, **columns)


def test_rewards_rating_and_edits():
    conversation = dialogue("hi", "hello", "how", "well")
    assert (conversation.rewards, conversation.score) == ((5.0, 4.0), 4.5)
    assert math.isnan(Conversation().rescore(lengths, mean).score)
    edited = conversation.edit(1, "good morning").rescore(lengths, mean)
    assert [turn.text for turn in edited.turns] == ["hi", "good morning", "how", "well"]
    assert edited.turns[1].source == PERSON
    assert (edited.before, edited.rewards) == ((5.0, 4.0), (12.0, 4.0))
    assert edited.edit(0, "hey").turns[0].source == ""  # no policy wrote that
    assert edited.add_message("and now", 9.0).before == ()
    unanswered = Conversation().add_message("hi", 1.0).add_message("there", 2.0)
    assert unanswered.messages == [{"role": "user", "content": "hi there"}]


def test_undo_goes_back_step_by_step():
    steps = [dialogue("hi", "hello")]
    steps.append(steps[-1].edit(1, "good morning"))
    steps.append(steps[-1].add_message("how", 3.0))
    conversation = steps[-1]
    for step in reversed(steps[:-1]):
        conversation = conversation.undo()
        assert (conversation.turns, conversation.rewards) == (step.turns, step.rewards)
    assert conversation.undo().turns == Conversation().undo().turns == ()
    for number in range(100):
        conversation = conversation.change(score=float(number))
    assert len(conversation.past) == UNDO_STEPS
    assert all(step.past == () for step in conversation.past)


def choosing(blind: bool) -> Conversation:
    replies = [Reply(BASE, "hm"), Reply(ALIGNED, "great")]
    return dialogue("hi", "hello").add_message("how", 3.0).offer(replies, blind).rescore(lengths, mean)


def test_a_choice_is_rewarded_and_continues_with_the_chosen_reply():
    conversation = choosing(blind=False)
    assert [reply.reward for reply in conversation.choice.replies] == [2.0, 5.0]
    assert conversation.rewards == (5.0,)
    chosen = conversation.decide(0, 4.0).rescore(lengths, mean)
    assert chosen.turns[-1].text == "hm"
    assert sum(chosen.votes.values()) == 0
    assert chosen.undo().choice == conversation.choice
    assert [turn.text for turn in chosen.drop_reply().turns] == ["hi", "hello", "how"]
    assert conversation.drop_reply().turns == conversation.turns
    assert conversation.drop_reply().choice is None
    # Another message chooses the aligned policy's reply.
    assert [turn.text for turn in conversation.add_message("more", 5.0).turns][-2:] == ["great", "more"]


@pytest.mark.parametrize(
    ("index", "text", "votes"), [(0, "hm", (0, 1, 0)), (1, "great", (1, 0, 0)), (-1, "hm", (0, 0, 1))]
)
def test_a_blind_vote_is_counted(index, text, votes):
    conversation = choosing(blind=True).decide(index, 4.0)
    assert conversation.turns[-1].text == text
    assert tuple(conversation.votes.values()) == votes


@pytest.mark.parametrize("index", [2, -2, 10**9])
def test_an_index_without_a_reply_decides_nothing(index):
    for conversation in (choosing(blind=True), choosing(blind=False), dialogue("hi", "hello")):
        assert conversation.decide(index, 4.0) is conversation
    conversation = choosing(blind=False)  # a tie needs a blind vote
    assert conversation.decide(-1, 4.0) is conversation


def test_the_row_is_a_session_and_does_not_reveal_the_key():
    conversation = dialogue("hi", "hello")
    row = row_of(conversation, score=7, feedback={"affect": [1.0]})
    validate_session(row, "row", {})
    assert (row["score"], row["feedback"], row["rater_id"]) == (7.0, {"affect": [1.0]}, "")
    assert row["session_id"] == session_id_of(conversation.key) != conversation.key
    assert conversation.key not in json.dumps(row)
    assert dialogue("hi", "hello").session_id != conversation.session_id
    assert conversation.edit(0, "hey").add_message("how", 3.0).key == conversation.key
    with pytest.raises(SessionError, match="assistant"):
        row_of(dialogue("hi"))


def test_limits_of_a_conversation_and_of_a_visit():
    limits = Limits(characters=10, messages=4, replies_per_minute=3)
    assert limits.problem("hello", 2) == ""
    assert "10" in limits.problem("x" * 11, 0)
    assert "4 messages" in limits.problem("hello", 3)
    assert limits.problem("  ", 0)
    visit = Visit()
    assert [visit.too_often(limits, second) for second in (0, 1, 2, 3)] == [False, False, False, True]
    assert not visit.too_often(limits, 61)
    assert visit.too_often(limits, 61)
    first = visit.begin()
    visit.stopped = True
    assert visit.begin() > first
    assert not visit.stopped


def test_half_an_emoji_is_replaced_where_it_comes_in():
    conversation = dialogue("hi \ud83d", "hello").edit(1, "ho \ud83d")
    assert [turn.text for turn in conversation.turns] == ["hi �", "ho �"]
