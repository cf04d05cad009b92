"""What can't be trained with, and where memory ends: the message names settings and says what to change."""

import pytest
import torch
from peft import LoraConfig
from test_trainers import rl_args, sft_args
from trl import GRPOConfig, RLOOConfig

from geli_hf.alignment import GeliReward, align, dialogue_prompts, generate_replies, load_policy, sft
from geli_hf.alignment.limits import check_groups, check_prompts, naming_memory

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


class TestGroups:
    def refused(self, settings: dict, processes: int = 1) -> str:
        with pytest.raises(ValueError) as caught:
            check_groups(settings, GRPOConfig, processes)
        return str(caught.value)

    def test_what_was_multiplied_is_named_and_what_would_fit(self):
        settings = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 3, "num_generations": 5}
        assert self.refused(settings) == (
            "num_generations: expected a number that divides the 24 completions that are generated together "
            "(per_device_train_batch_size 8 x gradient_accumulation_steps 3), found 5. "
            "Take 2, 3, 4, 6, 8 or 24, or make these a multiple of 5"
        )
        assert "the 48 completions that are generated together" in self.refused(settings, processes=2)
        assert "x gradient_accumulation_steps 3 x 2 processes), found 5" in self.refused(settings, processes=2)

    def test_defaults_count_too(self):
        assert "the 8 completions" in self.refused({"num_generations": 3})  # GRPO's batch
        assert "(per_device_train_batch_size 8 x gradient_accumulation_steps 1)" in self.refused(
            {"num_generations": 3}
        )

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"steps_per_generation": 2}, "the 16 completions .*x steps_per_generation 2"),
            ({"generation_batch_size": 32}, r"the 32 completions .*\(generation_batch_size\)"),
        ],
    )
    def test_a_generation_may_be_of_another_size_than_a_step(self, changed, said):
        settings = {"gradient_accumulation_steps": 5, "num_generations": 5}
        check_groups(settings, GRPOConfig, 1)
        with pytest.raises(ValueError, match=said):
            check_groups(settings | changed, GRPOConfig, 1)

    def test_one_completion_has_nothing_to_be_compared_with(self):
        assert "expected 2 or more completions to compare for each prompt, found 1" in self.refused(
            {"num_generations": 1}
        )

    @pytest.mark.parametrize("cls", [GRPOConfig, RLOOConfig])
    @pytest.mark.parametrize("size", range(2, 13))
    def test_trl_refuses_the_same(self, cls, size, tmp_path):
        settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "num_generations": size}
        refused = []
        for attempt in (
            lambda: check_groups(settings, cls, 1),
            lambda: cls(str(tmp_path), **settings, bf16=False, activation_checkpointing=False),
        ):
            try:
                attempt()
            except ValueError:
                refused.append(True)
            else:
                refused.append(False)
        assert refused[0] == refused[1] == bool(12 % size)


def test_fewer_prompts_than_a_step_answers_are_refused(sessions, tmp_path):
    prompts = dialogue_prompts(sessions)
    args = rl_args(GRPOConfig, tmp_path, gradient_accumulation_steps=2)
    check_prompts(prompts.select(range(4)), args)
    with pytest.raises(ValueError, match=r"prompts: expected 4 or more, found 3: a step answers 4 different ones"):
        check_prompts(prompts.select(range(3)), args)
    with pytest.raises(ValueError, match="prompts: found none: no turn of the assistant answers anything"):
        check_prompts(prompts.select([]), args)


class TestMemory:
    """A real allocation that no machine can serve, in the middle of what runs out of memory first."""

    @staticmethod
    def exhaust(*args, **kwargs):
        torch.empty(2**55, dtype=torch.uint8)

    def problem(self, run) -> str:
        with pytest.raises(MemoryError) as caught:
            run()
        assert "DefaultCPUAllocator: can't allocate memory" in str(caught.value)
        return str(caught.value)

    def aligned(self, sessions, policy, reward, folder) -> str:
        prompts, args = dialogue_prompts(sessions, context_messages=3), rl_args(GRPOConfig, folder)
        lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
        return self.problem(lambda: align(policy, reward, prompts, args, lora))

    def test_in_generation(self, sessions, policy_folder, reward_model, tmp_path, monkeypatch):
        monkeypatch.setattr("peft.PeftModelForCausalLM.generate", self.exhaust)
        said = self.aligned(sessions, policy_folder, GeliReward(reward_model), tmp_path)
        assert said.startswith("out of memory while generating. Lower max_completion_length (now 8), context_messages")
        assert "(8: by steps_per_generation or per_device_train_batch_size)" in said

    def test_in_the_reward_model(self, sessions, policy_folder, reward_model, tmp_path, monkeypatch):
        monkeypatch.setattr(reward_model, "score_messages", self.exhaust)
        said = self.aligned(sessions, policy_folder, GeliReward(reward_model), tmp_path)
        assert said.startswith("out of memory while rewarding completions. Lower the number of completions")

    def test_in_a_training_step(self, sessions, policy_folder, reward_model, tmp_path, monkeypatch):
        monkeypatch.setattr("trl.GRPOTrainer.compute_loss", self.exhaust)
        said = self.aligned(sessions, policy_folder, GeliReward(reward_model), tmp_path)
        assert said.startswith("out of memory while training. Lower per_device_train_batch_size (now 8, with")
        assert "or max_completion_length (now 8), or set activation_checkpointing, or train an adapter" in said

    def test_in_fine_tuning(self, sessions, policy_folder, tmp_path, monkeypatch):
        monkeypatch.setattr("trl.SFTTrainer.compute_loss", self.exhaust)
        model, tokenizer = load_policy(policy_folder)
        said = self.problem(lambda: sft(model, tokenizer, sessions, sft_args(tmp_path, max_length=99)))
        assert "or max_length (now 99), or set activation_checkpointing" in said

    def test_in_replies_to_look_at(self, policy_folder, tmp_path, monkeypatch):
        model, tokenizer = load_policy(policy_folder)
        monkeypatch.setattr(model, "generate", self.exhaust)

        def run():
            with naming_memory(rl_args(GRPOConfig, tmp_path)):
                generate_replies(model, tokenizer, [[{"role": "user", "content": "Hi"}]])

        said = self.problem(run)
        assert said.startswith("out of memory while replying to held-out dialogues. Lower max_completion_length, ")

    def test_any_other_error_is_left_alone(self, sessions, policy_folder, reward_model, tmp_path, monkeypatch):
        def fail(*args, **kwargs):
            raise RuntimeError("a matrix is not square")

        monkeypatch.setattr(reward_model, "score_messages", fail)
        prompts = dialogue_prompts(sessions, context_messages=3)
        with pytest.raises(RuntimeError, match="a matrix is not square"):
            align(policy_folder, GeliReward(reward_model), prompts, rl_args(GRPOConfig, tmp_path), None)
