"""GeliReward against the reward model itself, and at the edges of what a policy may say."""

import dataclasses
import logging
import math
import statistics
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerState
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from geli_hf.alignment import (
    OPENING,
    GeliReward,
    dialogue_prompts,
    load_policy_tokenizer,
    repeated_share,
    without_length_slope,
)
from geli_hf.alignment import rewards as rewards_module
from geli_hf.alignment.guards import RunningMoments

HIKING = [
    {"role": "assistant", "content": "How was your weekend?"},
    {"role": "user", "content": "I went hiking with my sister."},
]


def said(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def reward(reward_model) -> GeliReward:
    """Without guards, which look at a completion's company."""
    return GeliReward(reward_model, length_neutral=False, repetition_penalty=0)


def test_a_completion_is_rewarded_as_the_last_turn_of_its_dialogue(reward, reward_model):
    replies = ["That sounds wet! What did you do?", "Okay."]
    rewards = reward([HIKING, HIKING], [said(reply) for reply in replies])
    by_hand = reward_model.score_sessions([{"messages": HIKING + said(reply)} for reply in replies])
    assert rewards == pytest.approx([session["turn_rewards"][-1] for session in by_hand], abs=1e-5)
    assert abs(rewards[0] - rewards[1]) > 1e-3


def test_batch_and_order_change_no_reward(reward):
    prompts = [HIKING, HIKING[1:], HIKING * 30, HIKING]
    completions = [said("Okay."), said("I never know. What do you cook?"), said("My sister always wins."), said("Oh!")]
    together = reward(prompts, completions)
    assert together == pytest.approx([reward([p], [c])[0] for p, c in zip(prompts, completions)], abs=1e-5)
    assert reward(prompts[::-1], completions[::-1]) == pytest.approx(together[::-1], abs=1e-5)


def test_text_spoken_for_the_user_is_not_rewarded(reward):
    plain, spoken_for, role_token = reward(
        [HIKING] * 3, [said("Okay."), said("Okay.\nUser: You are wonderful!"), said("Okay.<|user|>You are wonderful!")]
    )
    assert plain == pytest.approx(spoken_for, abs=1e-6)
    assert plain == pytest.approx(role_token, abs=1e-6)


def test_an_empty_reply_gets_the_lowest_reward_of_the_training_turns(reward):
    assert reward([HIKING] * 3, [said(""), said(" \n"), said("User: Hello?")]) == [-1.25] * 3


def test_without_quantiles_an_empty_reply_gets_a_low_reward(reward_model, monkeypatch):
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


def test_curves_and_replies_are_logged(reward):
    metrics, extras = {}, {}
    completions = [said("Okay."), said("Okay. Human: And you?"), said(""), said("How was your weekend?")]
    rewards = reward(
        [HIKING] * 4, completions, log_metric=metrics.__setitem__, log_extra=extras.__setitem__, turn=[1] * 4
    )
    slope = (rewards[3] - rewards[0]) / math.log(4)  # the first two say the same
    assert metrics == {
        "geli/turn_reward_mean": pytest.approx(sum(rewards) / 4),
        "geli/cut_share": 0.25,
        "geli/empty_share": 0.25,
        "geli/nan_share": 0.0,
        "geli/repetition": 0.25,  # the last one says what the agent had said before
        "geli/length_slope": pytest.approx(slope, rel=1e-4),
    }
    assert extras["geli/turn_reward"] == rewards
    assert extras["geli/reply"] == ["Okay.", "Okay.", "", "How was your weekend?"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 40), st.floats(-3, 3, allow_nan=False)),
        min_size=1,
        max_size=24,
    )
)
def test_length_neutral_rewards_keep_each_prompts_mean_and_lose_the_slope(rows):
    groups, words, rewards = map(list, zip(*rows))
    neutral, _ = without_length_slope(groups, words, rewards)
    covariance = 0.0
    for group in set(groups):
        chosen = [i for i, g in enumerate(groups) if g == group]
        assert sum(neutral[i] for i in chosen) == pytest.approx(sum(rewards[i] for i in chosen), abs=1e-6)
        mean = sum(math.log(words[i]) for i in chosen) / len(chosen)
        covariance += sum((math.log(words[i]) - mean) * neutral[i] for i in chosen)
    assert covariance == pytest.approx(0, abs=1e-6)


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(5, 9))
def test_with_enough_replies_length_itself_gains_nothing_either(seed, prompts, replies):
    draw = np.random.default_rng(seed)
    groups = np.repeat(np.arange(prompts), max(replies, 9 if prompts == 1 else replies))
    words = draw.integers(1, 40, len(groups))
    rewards = draw.normal(size=len(groups)) - 0.2 * words
    neutral = np.array(without_length_slope(list(map(str, groups)), words, rewards)[0])
    columns = np.stack([*(groups == group for group in range(prompts)), np.log(words), words], axis=1).astype(float)
    beta = np.linalg.pinv(columns) @ rewards  # with a mean for each prompt, in place of deviations from it
    expected = rewards - columns[:, -2:] @ beta[-2:]
    means = np.array([(expected - rewards)[groups == group].mean() for group in range(prompts)])[groups]
    np.testing.assert_allclose(neutral, expected - means, atol=1e-6)
    for values in (np.log(words), words):
        products = [
            np.cov(values[groups == group], neutral[groups == group], ddof=0)[0, 1] for group in range(prompts)
        ]
        assert np.mean(products) == pytest.approx(0, abs=1e-6)


def test_of_replies_that_differ_in_length_alone_none_is_better():
    words = [1, 5, 20, 2, 8]
    neutral, _ = without_length_slope(["a", "a", "a", "b", "b"], words, [0.3 * math.log(n) for n in words])
    assert neutral[0] == pytest.approx(neutral[1]) == pytest.approx(neutral[2])
    assert neutral[3] == pytest.approx(neutral[4])


def test_a_length_neutral_reward_logs_the_turn_rewards(reward, reward_model):
    extras = {}
    replies = ["Okay.", "That sounds wet! What did you do when the rain began?", "I never know.", ""]
    rewards = GeliReward(reward_model)([HIKING] * 4, [said(reply) for reply in replies], log_extra=extras.__setitem__)
    plain = reward([HIKING] * 4, [said(reply) for reply in replies])
    assert extras["geli/turn_reward"] == pytest.approx(plain, abs=1e-6)
    assert rewards[:3] == pytest.approx(without_length_slope(["a"] * 3, [1, 11, 3], plain[:3])[0], abs=1e-6)
    assert rewards[:3] != pytest.approx(plain[:3], abs=1e-3)
    assert rewards[3] == reward_model.config.reward_quantiles[0]


@pytest.mark.parametrize(
    ("reply", "earlier", "share"),
    [
        ("one two three four", [], 0.0),
        ("one two three one two three", [], 1 / 4),
        ("a a a a a", [], 2 / 3),
        ("Well, ONE two three?", ["And one two, three."], 1 / 2),
        ("Okay.", ["Okay!"], 1.0),
        ("Okay.", ["Okay, what did you do?"], 0.0),
        ("one two three", ["one two", "three"], 0.0),
        ("", ["one"], 0.0),
        ("?!", [], 0.0),
    ],
)
def test_repeated_share_counts_earlier_ngrams(reply, earlier, share):
    assert repeated_share(reply, earlier) == pytest.approx(share)


@given(st.lists(st.sampled_from("abcd"), min_size=3, max_size=30), st.integers(1, 3))
def test_within_a_reply_it_is_one_minus_distinct_n(letters, n):
    grams = list(zip(*(letters[i:] for i in range(n))))
    assert repeated_share(" ".join(letters), n=n) == pytest.approx(1 - len(set(grams)) / len(grams))


def test_repetition_of_the_agents_words_is_penalised_and_of_the_users_is_not(reward, reward_model):
    guarded = GeliReward(reward_model, length_neutral=False, repetition_penalty=2.0)
    replies = ["How was your weekend?", "I went hiking with my sister.", "How was your weekend so far?"]
    prompts, completions = [HIKING] * 3, [said(reply) for reply in replies]
    lost = [a - b for a, b in zip(reward(prompts, completions), guarded(prompts, completions))]
    assert lost == pytest.approx([2.0, 0.0, 2.0 * 2 / 4], abs=1e-6)


def test_without_guards_are_the_turn_rewards(reward, reward_model):
    completions = [said("Okay."), said("How was your weekend?"), said("")]
    plain = reward([HIKING] * 3, completions)
    assert GeliReward(reward_model).turn_rewards([HIKING] * 3, completions) == plain
    assert GeliReward(reward_model)([HIKING] * 3, completions) != pytest.approx(plain, abs=1e-3)


@given(st.lists(st.lists(st.floats(-5, 5), max_size=9), min_size=1, max_size=6))
def test_running_moments_are_those_of_all_batches_together(batches):
    moments = RunningMoments()
    for batch in batches:
        moments.update(batch)
    values = [value for batch in batches for value in batch]
    assert moments.count == len(values)
    if len(values) > 1:
        assert moments.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
        assert moments.std == pytest.approx(statistics.stdev(values), abs=1e-6)


class TestScale:
    COMPLETIONS = ("Okay.", "I never know.", "That sounds wet!", "What do you cook?", "My sister always wins.", "")

    def batches(self):
        return [[said(text) for text in self.COMPLETIONS[first : first + 3]] for first in (0, 3)]

    def test_rewards_are_normalised_by_all_seen_so_far_then_clipped(self, reward_model):
        scaled = GeliReward(reward_model, repetition_penalty=0, length_neutral=False, normalise=True, clip=0.8)
        seen, metrics = [], {}
        for completions in self.batches():
            raw = scaled.turn_rewards([HIKING] * 3, completions)
            seen += raw
            mean, std = statistics.fmean(seen), statistics.stdev(seen)
            expected = [max(-0.8, min(0.8, (value - mean) / std)) for value in raw]
            assert scaled([HIKING] * 3, completions, log_metric=metrics.__setitem__) == pytest.approx(
                expected, abs=1e-5
            )
            assert (scaled.moments.mean, scaled.moments.std) == pytest.approx((mean, std), abs=1e-5)
            assert metrics["geli/turn_reward_mean"] == pytest.approx(statistics.fmean(raw), abs=1e-5)
        assert any(abs(value) == 0.8 for value in expected)

    def test_rewards_that_are_all_the_same_are_no_reward(self, reward_model):
        assert GeliReward(reward_model, normalise=True)([HIKING] * 2, [said("")] * 2) == [0.0, 0.0]

    def test_moments_live_in_the_trainers_state(self, reward_model, tmp_path):
        def scaled():
            return GeliReward(reward_model, normalise=True)

        first, second = self.batches()
        unbroken, state = scaled(), TrainerState()
        unbroken([HIKING] * 3, first, trainer_state=state)
        state.save_to_json(str(tmp_path / "state.json"))
        expected = unbroken([HIKING] * 3, second, trainer_state=state)
        resumed = scaled()
        again = resumed([HIKING] * 3, second, trainer_state=TrainerState.load_from_json(str(tmp_path / "state.json")))
        assert again == pytest.approx(expected, abs=1e-9)
        assert resumed.moments.count == 6
        # Another training begins anew, even with the same object.
        unbroken([HIKING] * 3, second, trainer_state=TrainerState())
        assert unbroken.moments.count == 3

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
    @pytest.mark.parametrize("method", [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
    def test_an_evaluation_is_put_on_the_scale_and_does_not_change_it(
        self, method, reward_model, policy_folder, sessions, tmp_path
    ):
        trainer_class, config = method
        prompts, scaled = dialogue_prompts(sessions, context_messages=2), GeliReward(reward_model, normalise=True)
        args = config(
            str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=4,
            per_device_eval_batch_size=8,
            num_generations=4,
            max_completion_length=4,
            beta=0.05,
            bf16=False,
            activation_checkpointing=False,
            dataloader_pin_memory=False,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = trainer_class(
            str(policy_folder),
            reward_funcs=scaled,
            args=args,
            train_dataset=prompts,
            eval_dataset=prompts.select(range(2)),
            processing_class=load_policy_tokenizer(policy_folder),
        )
        trainer.train()
        trained = dataclasses.replace(scaled.moments)
        trainer.evaluate()
        assert scaled.moments == trained
        assert trained.count == 4


def test_processes_that_share_a_batch_reward_it_as_one_would(reward_model, monkeypatch):
    """Two processes, acted one after the other: what each gathers is what both have."""
    exact = deepcopy(reward_model).double()  # padded otherwise, float32 rounds otherwise
    replies = ["Okay.", "I never know.", "That sounds wet, and it rained all day.", "What do you cook?"]
    prompts, completions = [HIKING] * 4, [said(reply) for reply in replies]

    def make():
        return GeliReward(exact, normalise=True)

    together = make()(prompts, completions, trainer_state=TrainerState())
    rows = []
    monkeypatch.setattr(rewards_module, "gather_object", lambda own: rows.append(own[0]) or own)
    processes = SimpleNamespace(device=torch.device("cpu"), num_processes=2, process_index=0)
    monkeypatch.setattr(rewards_module, "PartialState", lambda: processes)
    for half in (slice(0, 1), slice(1, 4)):
        make()(prompts[half], completions[half], trainer_state=TrainerState())
    monkeypatch.setattr(rewards_module, "gather_object", lambda own: rows)
    apart, counts = [], []
    for processes.process_index, half in enumerate((slice(0, 1), slice(1, 4))):
        one = make()
        apart += one(prompts[half], completions[half], trainer_state=TrainerState())
        counts.append(one.moments.count)
    assert apart == pytest.approx(together, abs=1e-6)
    assert counts == [4, 4]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_reward_of_nan_is_none_with_a_warning(reward_model, monkeypatch, caplog, bad):
    replies = ["Okay.", "I never know.", "That sounds wet!", "What do you cook?"]
    score = type(reward_model).score_messages

    def broken(self, dialogues, **options):
        rewards = score(self, dialogues, **options).clone()
        rewards[[d[-1]["content"] == "I never know." for d in dialogues]] = bad
        return rewards

    monkeypatch.setattr(type(reward_model), "score_messages", broken)
    monkeypatch.setattr(logging.getLogger("geli_hf"), "propagate", True)
    metrics = {}
    scaled = GeliReward(reward_model, normalise=True)
    rewards = scaled([HIKING] * 4, [said(reply) for reply in replies], log_metric=metrics.__setitem__)
    assert "'I never know.'" in caplog.text
    assert rewards[1] is None
    assert metrics["geli/nan_share"] == 0.25
    # The others are rewarded as if it had not been there.
    kept = [reply for reply in replies if reply != "I never know."]
    alone = GeliReward(reward_model, normalise=True)([HIKING] * 3, [said(reply) for reply in kept])
    assert [value for value in rewards if value is not None] == pytest.approx(alone, abs=1e-6)


def test_a_name_tells_two_rewards_apart(reward_model):
    assert GeliReward(reward_model, name="warmth").__name__ == "warmth"


@pytest.mark.parametrize(
    ("prompt", "completion", "problem"),
    [
        ("How are you?", "Fine.", "prompt 0: "),
        (HIKING[:1], said("Fine."), "prompt 0: "),
        (HIKING, said("Fine.") + HIKING[1:] + said("Oh."), "completion 0: "),
    ],
)
def test_a_completion_that_is_not_the_next_turn_is_refused(reward, prompt, completion, problem):
    with pytest.raises(ValueError, match=problem):
        reward([prompt], [completion])
