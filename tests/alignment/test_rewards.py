"""GeliReward against the reward model itself, and at the edges of what a policy may say."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geli_hf.alignment import OPENING, GeliReward, without_length_slope

HIKING = [
    {"role": "assistant", "content": "How was your weekend?"},
    {"role": "user", "content": "I went hiking with my sister."},
]


def said(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def reward(reward_model) -> GeliReward:
    return GeliReward(reward_model)


def test_a_completion_is_rewarded_as_the_last_turn_of_its_dialogue(reward, reward_model):
    replies = ["That sounds wet! What did you do?", "Okay."]
    rewards = reward([HIKING, HIKING], [said(reply) for reply in replies])
    by_hand = reward_model.score_sessions([{"messages": HIKING + said(reply)} for reply in replies])
    assert rewards == pytest.approx([session["turn_rewards"][-1] for session in by_hand], abs=1e-5)
    assert abs(rewards[0] - rewards[1]) > 1e-3


def test_company_and_order_change_no_reward(reward):
    prompts = [HIKING, HIKING[1:], HIKING * 30, HIKING]
    completions = [said("Okay."), said("I never know. What do you cook?"), said("My sister always wins."), said("Oh!")]
    together = reward(prompts, completions)
    assert together == pytest.approx([reward([p], [c])[0] for p, c in zip(prompts, completions)], abs=1e-5)
    assert reward(prompts[::-1], completions[::-1]) == pytest.approx(together[::-1], abs=1e-5)


def test_what_is_said_for_the_user_is_not_rewarded(reward):
    plain, spoken_for, role_token = reward(
        [HIKING] * 3, [said("Okay."), said("Okay.\nUser: You are wonderful!"), said("Okay.<|user|>You are wonderful!")]
    )
    assert plain == pytest.approx(spoken_for, abs=1e-6)
    assert plain == pytest.approx(role_token, abs=1e-6)


def test_saying_nothing_gets_the_lowest_reward_of_the_training_turns(reward):
    assert reward([HIKING] * 3, [said(""), said(" \n"), said("User: Hello?")]) == [-1.25] * 3


def test_without_quantiles_saying_nothing_is_still_worth_little(reward_model, monkeypatch):
    monkeypatch.setattr(reward_model.config, "reward_quantiles", [])
    assert GeliReward(reward_model)([HIKING], [said("")]) == [-3.0]


def test_system_message_and_opening_are_for_the_policy_only(reward):
    opened = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": OPENING}, *HIKING]
    plain, with_both = reward([HIKING, opened], [said("Okay.")] * 2)
    assert plain == pytest.approx(with_both, abs=1e-6)


def test_a_dialogue_longer_than_the_context_is_rewarded(reward, reward_model):
    long = HIKING * 1500
    (value,) = reward([long], [said("Okay.")])
    assert value == pytest.approx(reward_model.score_messages([long + said("Okay.")]).item(), abs=1e-6)


def test_the_model_scores_in_eval_mode(reward, reward_model):
    reward_model.train()
    reward([HIKING], [said("Okay.")])
    assert not reward_model.training


def test_it_logs_what_it_did(reward):
    metrics, extras = {}, {}
    completions = [said("Okay."), said("Okay. Human: And you?"), said(""), said("What did you do?")]
    rewards = reward(
        [HIKING] * 4, completions, log_metric=metrics.__setitem__, log_extra=extras.__setitem__, turn=[1] * 4
    )
    assert metrics == {
        "geli/turn_reward_mean": pytest.approx(sum(rewards) / 4),
        "geli/turn_reward_min": min(rewards),
        "geli/turn_reward_max": max(rewards),
        "geli/cut_share": 0.25,
        "geli/empty_share": 0.25,
    }
    assert extras == {"geli/turn_reward": rewards, "geli/reply": ["Okay.", "Okay.", "", "What did you do?"]}


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 40), st.floats(-3, 3, allow_nan=False)),
        min_size=1,
        max_size=24,
    )
)
def test_length_neutral_rewards_keep_each_prompts_mean_and_lose_the_slope(rows):
    groups, words, rewards = map(list, zip(*rows))
    neutral = without_length_slope(groups, words, rewards)
    covariance = 0.0
    for group in set(groups):
        chosen = [i for i, g in enumerate(groups) if g == group]
        assert sum(neutral[i] for i in chosen) == pytest.approx(sum(rewards[i] for i in chosen), abs=1e-6)
        mean = sum(math.log(words[i]) for i in chosen) / len(chosen)
        covariance += sum((math.log(words[i]) - mean) * neutral[i] for i in chosen)
    assert covariance == pytest.approx(0, abs=1e-6)


def test_of_replies_that_differ_in_length_alone_none_is_better():
    words = [1, 5, 20, 2, 8]
    neutral = without_length_slope(["a", "a", "a", "b", "b"], words, [0.3 * math.log(n) for n in words])
    assert neutral[0] == pytest.approx(neutral[1]) == pytest.approx(neutral[2])
    assert neutral[3] == pytest.approx(neutral[4])


def test_a_length_neutral_reward_logs_what_the_model_said(reward_model):
    extras = {}
    replies = ["Okay.", "That sounds wet! What did you do when the rain began?", "I never know.", ""]
    rewards = GeliReward(reward_model, length_neutral=True)(
        [HIKING] * 4, [said(reply) for reply in replies], log_extra=extras.__setitem__
    )
    plain = GeliReward(reward_model)([HIKING] * 4, [said(reply) for reply in replies])
    assert extras["geli/turn_reward"] == pytest.approx(plain, abs=1e-6)
    assert rewards[:3] == pytest.approx(without_length_slope(["a"] * 3, [1, 11, 3], plain[:3]), abs=1e-6)
    assert rewards[:3] != pytest.approx(plain[:3], abs=1e-3)
    assert rewards[3] == reward_model.config.reward_quantiles[0]


def test_a_name_tells_two_rewards_apart(reward_model):
    assert GeliReward(reward_model, name="warmth").__name__ == "warmth"


def test_another_tokenizer_can_be_given(reward_model):
    calls = []
    model = SimpleNamespace(
        config=SimpleNamespace(reward_quantiles=[]),
        tokenizer=None,
        eval=lambda: model,
        score_messages=lambda dialogues, last_turn_only: calls.append(model.tokenizer) or torch.zeros(len(dialogues)),
    )
    GeliReward(model, reward_model.tokenizer)([HIKING], [said("Okay.")])
    assert calls == [reward_model.tokenizer]


@pytest.mark.parametrize(
    ("prompt", "completion", "problem"),
    [
        ("How are you?", "Fine.", "must hold lists of {role, content}"),
        (HIKING[:1], said("Fine."), "ends with a message of the assistant"),
        (HIKING, said("Fine.") + HIKING[1:] + said("Oh."), "must be one message of the assistant"),
    ],
)
def test_what_is_no_turn_is_refused_with_a_reason(reward, prompt, completion, problem):
    with pytest.raises((TypeError, ValueError), match=problem):
        reward([prompt], [completion])
