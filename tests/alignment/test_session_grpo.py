"""Credit for each turn: advantages against a hand computation, and the hook of TRL's trainer that they go through."""

import inspect
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from trl import GRPOConfig, GRPOTrainer

from geli_hf.alignment import GeliSessionReward, SessionGRPOTrainer, SessionRollouts, load_policy_tokenizer
from geli_hf.alignment.partners import Answer, Partner
from geli_hf.alignment.rollouts import Rollout
from geli_hf.alignment.session_grpo import over_tokens, turn_advantages, turn_returns

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning", "ignore:You are using 'rollout_func':UserWarning"
)
NAN = math.nan


class Scripted(Partner):
    """Says its lines one after the other; one that is None breaks the sessions with an odd place in the batch."""

    def __init__(self, *lines, leaves_after=99):
        self.lines, self.leaves_after, self.heard = lines, leaves_after, []

    def answer(self, dialogues, seeds):
        self.heard.append([list(dialogue) for dialogue in dialogues])
        answers = []
        for place, dialogue in enumerate(dialogues):
            said = sum(message["role"] == "user" for message in dialogue)
            line = self.lines[(said - 1) % len(self.lines)]
            if line is None and place % 2:
                answers.append(Answer("", broken="the line is dead"))
            else:
                answers.append(Answer("" if said > self.leaves_after else line or "Hello?"))
        return answers


def by_hand(rewards, group_size, gamma):
    """In float64, with loops, from the definition."""
    advantages = [[0.0] * len(row) for row in rewards]
    returns = [
        [sum(gamma ** (later - turn) * row[later] for later in range(turn, len(row))) for turn in range(len(row))]
        for row in rewards
    ]
    for first in range(0, len(rewards), group_size):
        group = range(first, first + group_size)
        for turn in range(max(len(rewards[i]) for i in group)):
            there = [i for i in group if turn < len(rewards[i])]
            values = np.array([returns[i][turn] for i in there], dtype=np.float64)
            deviation = values.std(ddof=1) if len(values) > 1 else 0.0
            for i, value in zip(there, values):
                advantages[i][turn] = (value - values.mean()) / (deviation + 1e-4)
    return advantages


def padded(rows, dtype=torch.float64):
    width = max(map(len, rows))
    return torch.tensor([[*row, *[NAN] * (width - len(row))] for row in rows], dtype=dtype)


ROWS = [
    [0.5, -1.0, 0.25],
    [1.0, 0.0],
    [-0.5, 0.75, 2.0],
    [0.0],
    [1.5, 1.5, -1.5],
    [0.1, 0.2, 0.3],
    [],
    [0.4, -0.4, 0.0],
]


class TestAdvantages:
    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
    def test_they_are_those_of_the_definition(self, gamma):
        found = turn_advantages(padded(ROWS), 4, gamma=gamma)
        assert found.dtype == torch.float64
        for row, expected in zip(found, by_hand(ROWS, 4, gamma)):
            # TRL corrects the deviation for the number of sessions in float32.
            assert row[: len(expected)].tolist() == pytest.approx(expected, abs=1e-6)
            assert not row[len(expected) :].any()

    def test_a_return_counts_later_turns_only(self):
        assert turn_returns(torch.tensor([[1.0, 2.0, 4.0, NAN]]), 0.5).tolist()[0][:3] == [3.0, 4.0, 4.0]
        before, after = torch.randn(4, 3), torch.randn(4, 2)
        first, second = (
            turn_advantages(torch.cat([part, after], 1), 4, gamma=0.9) for part in (before, before.roll(1, 0))
        )
        torch.testing.assert_close(first[:, 3:], second[:, 3:])

    def test_without_scale_they_are_differences(self):
        found = turn_advantages(torch.tensor([[1.0, 2.0], [0.0, NAN]]), 2, gamma=0.0, scale="none")
        assert found.tolist() == [[0.5, 0.0], [-0.5, 0.0]]

    @given(
        st.lists(st.lists(st.floats(-5, 5), max_size=5), min_size=8, max_size=8).filter(any),
        st.floats(0, 1),
        st.sampled_from(["group", "batch", "none"]),
    )
    def test_advantages_of_a_group_at_a_turn_sum_to_zero(self, rows, gamma, scale):
        found = turn_advantages(padded(rows), 4, gamma=gamma, scale=scale)
        assert found.isfinite().all()
        assert not found[padded(rows).isnan()].any()
        assert found.view(2, 4, -1).sum(1).abs().max() < 1e-6

    @given(st.lists(st.lists(st.floats(-5, 5), max_size=4), min_size=6, max_size=6).filter(any), st.floats(0, 1))
    def test_a_session_left_out_changes_no_baseline(self, rows, gamma):
        for credit in ("turn", "session"):
            with_it = turn_advantages(padded([*rows, []]), 7, gamma=gamma, credit=credit)
            without = turn_advantages(padded(rows), 6, gamma=gamma, credit=credit)
            torch.testing.assert_close(with_it[:6], without)
            assert not with_it[6].any()

    @given(st.lists(st.floats(-5, 5), min_size=4, max_size=4), st.floats(0, 1))
    def test_sessions_of_one_turn_know_no_other_credit(self, rewards, gamma):
        rows = torch.tensor(rewards)[:, None]
        torch.testing.assert_close(
            turn_advantages(rows, 4, gamma=gamma), turn_advantages(rows, 4, credit="session"), atol=1e-5, rtol=1e-4
        )

    def test_tokens_get_their_turns(self):
        advantages = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
        spread = over_tokens(advantages, [[0, 0, -1, -1, 1], [0, -1]], 6)
        assert spread.tolist() == [[1.0, 1.0, 0.0, 0.0, -2.0, 0.0], [3.0, 0.0, 0.0, 0.0, 0.0, 0.0]]


def words(rollouts: list[Rollout]) -> list[list[float]]:
    return [[float(len(reply)) for reply in rollout.replies] for rollout in rollouts]


def make_trainer(policy_folder, folder, partner, *, reward=words, turns=3, credit="turn", gamma=1.0, **args):
    defaults = {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 160,
        "max_steps": 1,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "beta": 0.0,
        "report_to": "none",
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "activation_checkpointing": False,
        "bf16": False,
    }
    prompts = [[{"role": "user", "content": "Okay."}], [{"role": "user", "content": "What do you cook?"}]]
    return SessionGRPOTrainer(
        str(policy_folder),
        reward,
        SessionRollouts(partner, turns=turns, max_new_tokens=8),
        GRPOConfig(str(folder), **defaults | args),
        credit=credit,
        gamma=gamma,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts * 4]),
        processing_class=load_policy_tokenizer(policy_folder),
    )


def scored(trainer) -> tuple[dict, list[dict]]:
    """The trainer's result for one batch, and the rows with their rollouts."""
    rows = [dict(row) for row in next(iter(trainer.get_train_dataloader()))]
    trainer.model.train()
    return trainer._generate_and_score_completions(rows), rows


class TestHookOfTRL:
    """If one of these fails after an update of TRL, read its `_generate_and_score_completions` again."""

    def test_its_signature(self):
        assert list(inspect.signature(GRPOTrainer._generate_and_score_completions).parameters) == ["self", "inputs"]
        assert "rollout_func" in inspect.signature(GRPOTrainer.__init__).parameters

    def test_its_output(self, policy_folder, tmp_path, monkeypatch):
        trainer = make_trainer(policy_folder, tmp_path, Scripted("Okay."))
        plain = {}
        monkeypatch.setattr(
            GRPOTrainer,
            "_generate_and_score_completions",
            lambda self, inputs, real=GRPOTrainer._generate_and_score_completions: (
                plain.update(real(self, inputs)) or dict(plain)
            ),
        )
        output, rows = scored(trainer)
        assert plain.keys() == {
            *("prompt_ids", "prompt_mask", "completion_ids", "completion_mask"),
            *("advantages", "num_items_in_batch", "tool_mask"),
        }
        assert plain["advantages"].shape == (8,)
        assert output["advantages"].shape == plain["completion_ids"].shape == plain["tool_mask"].shape
        for row, ids, own in zip(rows, plain["completion_ids"], plain["tool_mask"]):
            rollout = row["rollout"]
            assert ids[: len(rollout.completion_ids)].tolist() == rollout.completion_ids
            assert own[: len(rollout.token_turns)].tolist() == [int(turn >= 0) for turn in rollout.token_turns]

    def test_its_loss_takes_an_advantage_per_token(self, policy_folder, tmp_path):
        """At the sampling policy, the gradient of the loss is that of -mean(advantage * log p)."""
        trainer = make_trainer(policy_folder, tmp_path, Scripted("Okay."), turns=2)
        trainer.current_gradient_accumulation_steps = 1
        output, _ = scored(trainer)
        parameter = trainer.model.model.layers[0].mlp.down_proj.weight
        trainer._compute_loss(trainer.model, output).backward()
        found, parameter.grad = parameter.grad, None
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], 1)
        mask = torch.cat([output["prompt_mask"], output["completion_mask"]], 1)
        logits = trainer.model(input_ids=ids, attention_mask=mask).logits[:, output["prompt_ids"].shape[1] - 1 : -1]
        logps = logits.log_softmax(-1).gather(2, output["completion_ids"][:, :, None])[:, :, 0]
        loss = -(logps * output["advantages"]).sum() / output["tool_mask"].mul(output["completion_mask"]).sum()
        loss.backward()
        torch.testing.assert_close(found, parameter.grad, atol=1e-5, rtol=1e-3)


class TestTrainer:
    @pytest.mark.parametrize("scale", ["group", "batch", "none"])
    def test_credit_to_the_session_is_plain_grpo(self, policy_folder, tmp_path, monkeypatch, scale):
        trainer = make_trainer(
            policy_folder, tmp_path, Scripted("Okay.", None, "Hm?"), credit="session", scale_rewards=scale
        )
        plain = []
        real = GRPOTrainer._generate_and_score_completions

        def kept(self, inputs):
            output = real(self, inputs)
            plain.append(output["advantages"])
            return output

        monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", kept)
        output, rows = scored(trainer)
        assert any(row["rollout"].broken for row in rows)
        assert plain[0].abs().max() > 0.1
        own = output["tool_mask"] * output["completion_mask"]
        torch.testing.assert_close(output["advantages"], plain[0][:, None] * own)

    def test_each_turns_tokens_get_that_turns_advantage(self, policy_folder, tmp_path):
        trainer = make_trainer(policy_folder, tmp_path, Scripted("Okay.", "Really?"), gamma=0.5)
        output, rows = scored(trainer)
        rewards = words([row["rollout"] for row in rows])
        expected = by_hand(rewards, 4, 0.5)
        for row, found, advantages in zip(rows, output["advantages"], expected):
            turns = row["rollout"].token_turns
            assert set(turns) == {-1, 0, 1, 2}
            hoped = [0.0 if turn < 0 else advantages[turn] for turn in turns]
            assert found[: len(turns)].tolist() == pytest.approx(hoped, abs=1e-3)
            assert not found[len(turns) :].any()

    def test_broken_sessions_are_counted_and_not_learned_from(self, policy_folder, tmp_path):
        trainer = make_trainer(policy_folder, tmp_path, Scripted(None, "Okay."))
        output, rows = scored(trainer)
        broken = [bool(row["rollout"].broken) for row in rows]
        assert sum(broken) == 4
        assert not output["advantages"][torch.tensor(broken)].any()
        assert output["advantages"][~torch.tensor(broken)].any()
        assert trainer._metrics["train"]["session/broken"] == [0.5]
        assert not math.isnan(trainer._metrics["train"]["reward"][0])

    def test_a_broken_session_may_be_the_longest(self, policy_folder, tmp_path):
        class LeavesTheEven(Scripted):
            def answer(self, dialogues, seeds):
                if len(dialogues) == 8:
                    return [Answer("" if place % 2 == 0 else "Okay.") for place in range(8)]
                return [Answer("", broken="gone") for _ in dialogues]

        output, rows = scored(make_trainer(policy_folder, tmp_path, LeavesTheEven("Okay.")))
        assert [row["rollout"].turns for row in rows] == [1, 2] * 4
        assert not output["advantages"][1::2].any()
        assert output["advantages"][::2].any()

    def test_a_reward_of_nan_leaves_its_session_out(self, policy_folder, tmp_path):
        def reward(rollouts):
            return [[NAN] * 3 if i == 2 else row for i, row in enumerate(words(rollouts))]

        output, _ = scored(make_trainer(policy_folder, tmp_path, Scripted("Okay."), reward=reward))
        assert not output["advantages"][2].any()
        assert output["advantages"].isfinite().all()

    def test_a_reward_too_few_is_named(self, policy_folder, tmp_path):
        for rewards in ([[1.0]] * 8, [[1.0] * 3] * 7):
            trainer = make_trainer(policy_folder, tmp_path, Scripted("Okay."), reward=lambda _, found=rewards: found)
            with pytest.raises(ValueError, match="session_reward"):
                scored(trainer)

    def test_it_trains_against_the_reward_model(self, policy_folder, reward_model, tmp_path):
        trainer = make_trainer(
            policy_folder, tmp_path, Scripted("Okay."), reward=GeliSessionReward(reward_model), max_steps=2, beta=0.05
        )
        before = trainer.model.lm_head.weight.detach().clone()
        trainer.train()
        assert not torch.equal(trainer.model.lm_head.weight, before)
        [first, *_] = trainer.state.log_history
        assert first["session/turns"] == 3.0
        assert {"rewards/session_reward/mean", "session/turn_reward", "session/cut", "session/empty"} <= first.keys()

    def test_fsdp_is_refused(self, policy_folder, tmp_path):
        trainer = make_trainer(policy_folder, tmp_path, Scripted("Okay."))
        trainer.is_fsdp_enabled = True
        with pytest.raises(ValueError, match="FSDP and"):
            trainer.rollout_func([[{"role": "user", "content": "Okay."}]], trainer)

    def test_an_unknown_credit_is_named(self, policy_folder, tmp_path):
        with pytest.raises(ValueError, match="credit: "):
            make_trainer(policy_folder, tmp_path, Scripted("Okay."), credit="token")


@pytest.mark.multiprocess
def test_a_group_may_lie_across_processes(policy_folder, tmp_path):
    """Two sessions of a group of four in each, with fewer turns in one process than in the other, and one broken."""
    worker = [str(Path(__file__).with_name("session_process.py")), str(policy_folder), str(tmp_path)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *worker]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads((tmp_path / f"process-{rank}.json").read_text()) for rank in (0, 1)]
    assert [each["world"] for each in told] == [2, 2]
    prompts, rewards, turns, found = (
        told[0][key] + told[1][key] for key in ("prompts", "rewards", "token_turns", "advantages")
    )
    assert all(prompt == prompts[0] for prompt in prompts)
    assert [len(row) for row in rewards] == [0, 1, 2, 2]
    for advantages, row, tokens in zip(by_hand(rewards, 4, 1.0), turns, found):
        hoped = [advantages[turn] if turn >= 0 and advantages else 0.0 for turn in row]
        assert tokens[: len(row)] == pytest.approx(hoped, abs=1e-3)
    assert any(any(tokens) for tokens in found)


class TestSessionReward:
    def test_all_turns_of_the_policy_are_rewarded_in_their_context(self, reward_model):
        messages = [
            {"role": role, "content": text}
            for role, text in (
                ("assistant", "How are you?"),
                ("user", "Fine, thanks."),
                ("assistant", "What do you cook?"),
                ("user", "Rice."),
                ("assistant", "Okay."),
            )
        ]
        [rewards] = GeliSessionReward(reward_model)([Rollout(messages, turns=2)])
        alone = reward_model.score_messages([messages[:3], messages])
        assert rewards == pytest.approx(alone.tolist(), abs=1e-5)

    def test_a_reward_of_nan_stays_with_its_turn(self, reward_model, monkeypatch):
        rewards = torch.tensor([[9.0, 1.0, NAN, 3.0], [1.0, NAN, NAN, NAN]])
        monkeypatch.setattr(reward_model, "score_messages", lambda dialogues, last_turn_only: rewards)
        turn = [{"role": "user", "content": "Fine."}, {"role": "assistant", "content": "Okay."}]
        first, second = GeliSessionReward(reward_model)([Rollout(turn * 4, turns=3), Rollout(turn, turns=1)])
        assert first == pytest.approx([1.0, NAN, 3.0], nan_ok=True)
        assert second == [1.0]

    def test_saying_nothing_gets_the_lowest_reward(self, reward_model):
        messages = [{"role": "user", "content": "Fine."}, {"role": "assistant", "content": ""}]
        longer = [*messages, {"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Okay."}]
        short, long = GeliSessionReward(reward_model)([Rollout(messages, turns=1), Rollout(longer, turns=2)])
        assert short == [-1.25]
        assert long[0] == -1.25 != long[1]


# -- the bias of verl issue 7244, computed exactly: a policy that only decides, after each turn, whether to go on

CONTINUES = [0.7, 0.6]  # probability of a further turn after the first and the second
TURN_REWARDS = [1.0, 1.0, -1.2]  # of each turn, so that the second pays and the third does not
GROUP = 3


def exact_gradient(advantages_of) -> np.ndarray:
    """Expected gradient of the logits of going on, over every group of sessions that can come about."""
    lengths = {1: 1 - CONTINUES[0], 2: CONTINUES[0] * (1 - CONTINUES[1]), 3: CONTINUES[0] * CONTINUES[1]}
    gradient = np.zeros(2)
    for group in itertools.product(lengths, repeat=GROUP):
        probability = math.prod(lengths[length] for length in group)
        advantages = advantages_of(padded([TURN_REWARDS[:length] for length in group] + [TURN_REWARDS])[:-1]).numpy()
        for session, length in enumerate(group):
            for turn in range(min(length, 2)):  # d log p / d logit = went on - p
                gradient[turn] += probability * advantages[session, turn] * ((length > turn + 1) - CONTINUES[turn])
    return gradient


def policy_gradient() -> np.ndarray:
    """Gradient of the expected return by the same logits, for a group, by hand."""
    p, q = CONTINUES
    second, third = TURN_REWARDS[1:]
    return GROUP * np.array([p * (1 - p) * (second + q * third), p * q * (1 - q) * third])


def summed_over_turns(rewards: torch.Tensor) -> torch.Tensor:
    """The biased way: each turn's reward less its mean over the group, summed from the turn on."""
    return turn_returns(rewards - rewards.nanmean(0), 1.0).nan_to_num(0.0)


def test_advantages_of_turns_are_not_biased_where_the_policy_decides_when_to_stop():
    share = CONTINUES[0]  # of the sessions that have a second turn; the baseline takes the weight of one of them
    binomial = [math.comb(GROUP, n) * share**n * (1 - share) ** (GROUP - n) for n in range(GROUP + 1)]
    left = np.array([GROUP - 1, sum(p * max(n - 1, 0) for n, p in enumerate(binomial))])
    unbiased = policy_gradient() * left / (GROUP * np.array([1, share]))
    assert exact_gradient(lambda rewards: turn_advantages(rewards, GROUP, scale="none")) == pytest.approx(unbiased)


def test_the_deviation_of_a_small_group_turns_the_sign():
    # Of the returns after the first turn .8 is likelier than 2, and a deviation makes the two distances more alike.
    scaled = exact_gradient(lambda rewards: turn_advantages(rewards, GROUP, scale="group"))
    assert scaled[0] < 0 < policy_gradient()[0]


def test_normalising_each_turn_and_summing_is_biased():
    biased = exact_gradient(summed_over_turns)
    assert policy_gradient()[0] > 0.1  # the second turn pays for the third
    assert biased[0] == pytest.approx(0, abs=1e-12)  # and nothing is learned, since all rewards of a turn are the same
