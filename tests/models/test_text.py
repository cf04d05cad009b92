"""Text of messages as people see it, at every door that takes messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import reward_model, talk

from geli_hf.alignment import GeliReward, cut_reply
from geli_hf.models.geli_reward.pipeline_geli import TurnRewardsPipeline
from geli_hf.models.geli_reward.text_geli import message_text, plain_messages, valid_unicode, without_thoughts

HALF = "\ud83d"  # of an emoji


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_becomes_valid_and_valid_text_stays(text):
    valid = valid_unicode(text)
    valid.encode()
    assert valid_unicode(valid) == valid
    if all(not "\ud800" <= character <= "\udfff" for character in text):
        assert valid == text


def test_halves_of_an_emoji():
    assert valid_unicode(f"a {HALF} b") == "a � b"
    assert valid_unicode(f"{HALF}\ude00") == "😀"


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("<think>She is sad.</think>\n\nOh no.", "Oh no."),
        ("She is sad.\n</think>\n\nOh no.", "Oh no."),
        ("<think>One.</think>Oh<thinking>two</thinking> no.", "Oh no."),
        ("<THINK>She is sad.</Think> Oh no.", "Oh no."),
        ("Oh no. <think>And now", "Oh no."),
        ("<think>And now", ""),
        ("Oh no.", "Oh no."),
        ("I think so, <b>really</b>.", "I think so, <b>really</b>."),
    ],
)
def test_thoughts_are_taken_out(said, seen):
    assert without_thoughts(said) == cut_reply(said) == seen


def test_parts_are_joined_and_thoughts_among_them_left_out():
    parts = [
        {"type": "thinking", "thinking": "sad"},
        {"type": "text", "text": "Oh no."},
        "When?",
        {"type": "output_text", "text": HALF},
    ]
    assert message_text(parts) == "Oh no.\nWhen?\n�"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "None"),
        (3, "3"),
        ({"text": "a"}, "'text'"),
        ([{"type": "image_url", "image_url": {}}], "'image_url'"),
        ([{"type": "text"}], "'text'"),
        ([{"text": "a"}], "'text'"),
        ([3], "3"),
    ],
)
def test_other_content_is_refused_by_name(content, found):
    with pytest.raises(ValueError, match=f"dialogue, message 1: expected .*found .*{found}"):
        plain_messages([{"role": "user", "content": "a"}, {"role": "assistant", "content": content}])


# ------------------------------------------------------------------------------------------------ doors

MODEL = reward_model("bert")
DIALOGUE = talk(4, words=4)


def by_sessions(messages):
    return MODEL.score_sessions([{"messages": DIALOGUE}, {"messages": messages}])[1]["turn_rewards"][-1]


def by_messages(messages):
    return MODEL.score_messages([DIALOGUE, messages])[1].item()


def by_pipeline(messages):
    return TurnRewardsPipeline(MODEL)([DIALOGUE, messages])[1][-1]["reward"]


def by_reward(messages):
    reward = GeliReward(MODEL, length_neutral=False, repetition_penalty=0)
    return reward([DIALOGUE[:-1], messages[:-1]], [DIALOGUE[-1:], messages[-1:]])[1]


DOORS = [by_sessions, by_messages, by_pipeline, by_reward]


def with_content(index: int, change) -> list[dict]:
    messages = [dict(message) for message in DIALOGUE]
    messages[index]["content"] = change(messages[index]["content"])
    return messages


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("index", [0, 3])
def test_parts_are_rewarded_as_their_text(door, index):
    def in_parts(text):
        return [{"type": "text", "text": part} for part in text.split(" ", 1)]

    assert door(with_content(index, in_parts)) == pytest.approx(door(DIALOGUE), abs=1e-5)


@pytest.mark.parametrize("door", DOORS)
def test_half_an_emoji_is_rewarded_as_its_replacement(door):
    half = door(with_content(0, lambda text: f"{text} {HALF}"))
    assert half == pytest.approx(door(with_content(0, lambda text: f"{text} �")), abs=1e-6)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("role", ["human", "User", "tool", None])
def test_no_message_of_another_role_is_dropped(door, role):
    messages = [DIALOGUE[0] | {"role": role}, *DIALOGUE[1:]]
    with pytest.raises(ValueError, match=rf"(dialogue|prompt).*message 0: expected the role .*{role or 'None'}"):
        door(messages)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("content", [None, 3, [{"type": "image_url"}]])
def test_no_other_content_becomes_text(door, content):
    with pytest.raises(ValueError, match="message 2: expected"):
        door([*DIALOGUE[:2], {"role": "user", "content": content}, DIALOGUE[3]])


@pytest.mark.parametrize("rows", [[DIALOGUE], DIALOGUE, [{"turns": DIALOGUE}]])
def test_what_is_no_row_is_refused(rows):
    with pytest.raises(ValueError, match="session 0: expected a row with `messages`"):
        MODEL.score_sessions(rows)


def test_what_a_policy_thinks_is_not_rewarded():
    def thinking(text):
        return f"I wonder what to say.</think>\n\n{text}"

    assert by_reward(with_content(3, thinking)) == pytest.approx(by_reward(DIALOGUE), abs=1e-5)
    assert by_reward(with_content(1, thinking)) == pytest.approx(by_reward(DIALOGUE), abs=1e-5)
