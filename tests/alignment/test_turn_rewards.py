"""Rewards of every turn for other trainers: against the reward model itself, and in the trainers' own forms."""

import asyncio
import math
import os
import subprocess
import sys

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from geli_hf.alignment import (
    OPENING,
    TurnRewards,
    dialogue_prompts,
    load_policy_tokenizer,
    nemo_gym_rewards,
    trl_reward,
    verifiers_reward,
)

TALK = [
    {"role": "user", "content": "I went hiking."},
    {"role": "assistant", "content": "That sounds wet!"},
    {"role": "user", "content": "It rained all day."},
    {"role": "assistant", "content": "What did you do?"},
]
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


@pytest.fixture
def turn_rewards(reward_model) -> TurnRewards:
    return TurnRewards(reward_model)


@pytest.fixture
def expected(reward_model):
    """The reward model's own rewards of plain messages."""
    return lambda messages: pytest.approx(reward_model.score_sessions([{"messages": messages}])[0]["turn_rewards"])


def test_plain_turns_have_the_models_rewards(turn_rewards, expected):
    assert turn_rewards(TALK) == expected(TALK)
    opened = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": OPENING}, *TALK[1:]]
    assert turn_rewards(opened) == expected(TALK[1:])


def test_the_developers_words_are_left_out(turn_rewards, expected):
    assert turn_rewards([{"role": "developer", "content": "Be kind."}, *TALK]) == expected(TALK)


@pytest.mark.parametrize("wrong", [{"content": "Hello"}, {"role": "bot", "content": "Hello"}, "Hello"])
def test_what_is_no_message_is_named(turn_rewards, wrong):
    with pytest.raises(ValueError, match=r"messages\[1\]: .*developer"):
        turn_rewards([TALK[0], wrong])


def test_thoughts_parts_and_words_for_the_user_are_cut(turn_rewards, expected):
    said = [{"type": "text", "text": "<think>Rain.</think>What did you do? User: I cried."}]
    assert turn_rewards([*TALK[:3], TALK[3] | {"content": said}]) == expected(TALK)


def test_a_turn_around_a_tool_call_is_one(turn_rewards, expected):
    calls = [
        *TALK[:2],
        TALK[2],
        {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "more rain"},
        TALK[3],
    ]
    first, *others, last = turn_rewards(calls)
    assert others == [None, None]
    assert [first, last] == expected([*TALK[:3], TALK[3] | {"content": "Let me look.\nWhat did you do?"}])


def test_silence_has_the_lowest_reward_and_what_is_no_number_none(turn_rewards, monkeypatch):
    assert turn_rewards([TALK[0], {"role": "assistant", "content": " "}]) == [turn_rewards.floor]
    assert turn_rewards(TALK[:1]) == []
    nan = torch.full((1, 2), math.nan)
    monkeypatch.setattr(turn_rewards.model, "score_messages", lambda *args, **kwargs: nan)
    assert turn_rewards(TALK) == [None, None]


def test_images_are_refused(turn_rewards):
    with pytest.raises(ValueError, match="image_url"):
        turn_rewards([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])


def test_a_folder_will_do(reward_model, tmp_path, expected):
    reward_model.save_pretrained(tmp_path)
    assert TurnRewards(tmp_path)(TALK) == expected(TALK)


# -- NeMo-Gym: the form of `BaseVerifyRequest` in nemo-gym 0.4.0, which needs Python 3.12 and is not installed here


@pytest.mark.parametrize("as_text", [True, False])
def test_nemo_gym_requests(turn_rewards, expected, as_text):
    reply = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
    reply |= {"content": [{"type": "output_text", "text": "That sounds wet!", "annotations": []}]}
    output = [{"type": "reasoning", "summary": []}, {"type": "function_call", "name": "f", "arguments": "{}"}, reply]
    asked = "I went hiking." if as_text else [{"role": "developer", "content": "Be kind."}, TALK[0]]
    body = {"responses_create_params": {"input": asked}, "response": {"output": output}}
    rewards = nemo_gym_rewards(turn_rewards, body)
    assert rewards["step_rewards"] == expected(TALK[:2])
    assert rewards["reward"] == rewards["step_rewards"][0]
    history = {"responses_create_params": {"input": TALK[:3]}, "response": {"output": [reply]}}
    assert len(nemo_gym_rewards(turn_rewards, history)["step_rewards"]) == 1
    nothing = body | {"response": {"output": output[:2]}}
    assert nemo_gym_rewards(turn_rewards, nothing) == {"reward": 0.0, "step_rewards": []}


# -- verifiers, where it is installed


def test_a_trace_of_verifiers(turn_rewards, expected):
    vf = pytest.importorskip("verifiers.v1", reason="pip install verifiers==0.4.0")
    from verifiers.v1.types import AssistantMessage, UserMessage

    kinds = {"user": UserMessage, "assistant": AssistantMessage}
    nodes = [
        vf.MessageNode(
            parent=place - 1 if place else None, message=kinds[message["role"]](**message), sampled=place == 3
        )
        for place, message in enumerate(TALK)
    ]

    class Talk(vf.Task):
        @vf.reward
        async def geli(self, trace) -> float:
            return verifiers_reward(turn_rewards, trace)

    data = vf.TaskData(prompt=TALK[0]["content"])
    agent = vf.AgentInfo.model_construct(name="agent", trainable=True)
    about = {"task": vf.TraceTask(type="Talk", data=data), "agent": agent, "nodes": nodes}
    trace = vf.Trace.model_construct(info={}, rewards={}, metrics={}, calls=[], mm_token_type_id_map={}, **about)
    asyncio.run(Talk(data).score(trace))
    assert trace.info["turn_rewards"] == [turn_rewards(TALK)[-1]]
    assert trace.rewards["geli"].score == trace.info["turn_rewards"][0]


# -- TRL


def test_completions_of_several_messages(turn_rewards):
    whole = [*TALK[1:3], TALK[3]]
    called = [{"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "x"}, TALK[1]]
    mean, with_tool, nothing = trl_reward(turn_rewards)([TALK[:1]] * 3, [whole, called, []], trainer_state=None)
    assert mean == pytest.approx(sum(turn_rewards(TALK)) / 2)
    assert with_tool == turn_rewards(TALK[:2])[0]
    assert nothing is None


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_trl_trains_on_it(turn_rewards, policy_folder, sessions, tmp_path):
    trainer = GRPOTrainer(
        model=str(policy_folder),
        reward_funcs=trl_reward(turn_rewards),
        args=GRPOConfig(
            str(tmp_path),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=4,
            max_steps=1,
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            bf16=False,
            activation_checkpointing=False,
            dataloader_pin_memory=False,
        ),
        train_dataset=dialogue_prompts(sessions),
        processing_class=load_policy_tokenizer(str(policy_folder)),
    )
    trainer.train()
    assert any("rewards/geli/mean" in row for row in trainer.state.log_history)


def test_trl_takes_a_folder_on_its_command_line(reward_model, policy_folder, sessions, tmp_path):
    reward_model.save_pretrained(tmp_path / "reward")
    (tmp_path / "prompts").mkdir()
    dialogue_prompts(sessions).select_columns("prompt").to_json(tmp_path / "prompts" / "train.jsonl")
    options = {
        "model_name_or_path": policy_folder,
        "reward_model_name_or_path": tmp_path / "reward",
        "trust_remote_code": True,
        "dataset_name": tmp_path / "prompts",
        "output_dir": tmp_path / "out",
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 4,
        "max_steps": 1,
        "logging_steps": 1,
        "report_to": "none",
        "bf16": False,
        "use_cpu": True,
        "activation_checkpointing": False,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "trl.scripts.grpo", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "rewards/reward/mean" in done.stdout
