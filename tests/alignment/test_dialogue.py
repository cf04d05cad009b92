"""The end of a reply, the start of a dialogue, and the part of it that a policy sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geli_hf.alignment import OPENING, context_window, cut_reply, dialogue_prompts, open_with_user, without_opening


@pytest.mark.parametrize(
    ("generated", "reply"),
    [
        ("I like that.", "I like that."),
        ("  I like that.\nUser: Me too.", "I like that."),
        ("I like that. User: Me too.", "I like that."),
        ("I like that.\n\nHuman: Me too.\nAI: Yes.", "I like that."),
        ("I like that.<|user|>Me too.", "I like that."),
        ("I like that.<|im_start|>user\nMe too.", "I like that."),
        ("User: Hello?", ""),
        ("", ""),
        ("A superUser: is no user.", "A superUser: is no user."),
        ("The user said: no, every user does.", "The user said: no, every user does."),
    ],
)
def test_a_reply_ends_where_it_speaks_for_the_user(generated, reply):
    assert cut_reply(generated) == reply


@given(st.text())
def test_cutting_twice_cuts_no_more(text):
    assert cut_reply(cut_reply(text)) == cut_reply(text)


def alternating(first: str, length: int) -> list[dict]:
    other = "user" if first == "assistant" else "assistant"
    return [{"role": (first, other)[i % 2], "content": f"message {i}"} for i in range(length)]


@given(st.sampled_from(["user", "assistant"]), st.integers(0, 9))
def test_opening_a_dialogue_can_be_undone(first, length):
    messages = alternating(first, length)
    opened = open_with_user(messages)
    assert not opened or opened[0]["role"] == "user"
    assert without_opening(opened) == messages
    assert without_opening([{"role": "system", "content": "Be kind."}, *opened]) == messages


@given(st.sampled_from(["user", "assistant"]), st.integers(1, 12), st.integers(1, 8))
def test_a_window_begins_with_the_user_and_holds_the_end(first, length, context_messages):
    messages = alternating(first, length)
    window = context_window(messages, context_messages)
    kept = without_opening(window)
    assert len(kept) <= context_messages
    assert kept == messages[len(messages) - len(kept) :]
    assert not window or window[0]["role"] == "user"
    # Nothing but the agent's first message is left out for the sake of that, and only in a dialogue that is cut.
    assert len(kept) >= min(len(messages), context_messages - 1)
    assert (window[:1] == [{"role": "user", "content": OPENING}]) == (
        first == "assistant" and length <= context_messages
    )


def test_every_answer_of_the_agent_gives_a_prompt(sessions):
    prompts = dialogue_prompts(sessions, context_messages=4)
    messages_of = dict(zip(sessions["session_id"], sessions["messages"]))
    answers = sum(m["role"] == "assistant" for messages in messages_of.values() for m in messages[1:])
    assert len(prompts) == answers
    for row in prompts:
        messages = messages_of[row["session_id"]]
        assert row["prompt"][-1] == messages[row["position"] - 1]
        assert row["prompt"][-1]["role"] == "user" == row["prompt"][0]["role"]
        assert len(without_opening(row["prompt"])) <= 4
        assert messages[row["position"]] == {"role": "assistant", "content": row["reply"]}
        assert row["session_id"].startswith(row["conversation_id"])
