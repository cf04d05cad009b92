"""Fine-tuning and reinforcement learning with TRL's real trainers, on tiny models."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, TrainingArguments
from trl import GRPOConfig, RLOOConfig, SFTConfig
from trl.trainer import utils as trl_utils

from geli_hf.alignment import (
    OPENING,
    GeliReward,
    PolicyError,
    align,
    dialogue_prompts,
    generate_replies,
    load_policy,
    pretrain,
    save_policy,
    sft,
    sft_rows,
)

# TRL asks transformers for a name that transformers is about to change.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

QUIET = {
    "report_to": "none",
    "dataloader_pin_memory": False,
    "disable_tqdm": True,
    "activation_checkpointing": False,
    "bf16": False,
}


def lora() -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def sft_args(folder: Path, **kwargs) -> SFTConfig:
    return SFTConfig(
        str(folder), **QUIET | {"per_device_train_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1} | kwargs
    )


def rl_args(config: type, folder: Path, **kwargs):
    defaults = QUIET | {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 8,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "max_steps": 2,
        "beta": 0.05,
    }
    return config(str(folder), **defaults | kwargs)


def logged(trainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


class TestRows:
    def test_pieces_hold_every_turn_of_the_agent_once(self, sessions):
        rows = sft_rows(sessions, window_messages=4)
        learned = [m["content"] for row in rows for m in row["messages"] if m["role"] == "assistant"]
        assert learned == [m["content"] for s in sessions for m in s["messages"] if m["role"] == "assistant"]
        for row in rows:
            assert len(row["messages"]) <= 4
            assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * (len(row["messages"]) // 2)
        assert sum(row["messages"][0]["content"] == OPENING for row in rows) == len(sessions) / 2

    def test_pieces_of_a_session_are_of_even_length(self, sessions):
        lengths = [len(row["messages"]) for row in sft_rows(sessions.select([0]), window_messages=6)]
        whole = sum(lengths)
        assert 6 < whole <= 8
        assert lengths == [4, 4]

    def test_a_row_can_be_made_of_every_turn(self, sessions):
        pieces = sft_rows(sessions, window_messages=4)["messages"]
        rows = sft_rows(sessions, window_messages=4, per_turn=True)
        assert rows.column_names == ["prompt", "completion"]
        assert [r["prompt"] + r["completion"] for r in rows] == [
            p[: t + 1] for p in pieces for t in range(1, len(p), 2)
        ]
        assert all([m["role"] for m in row["completion"]] == ["assistant"] for row in rows)


class TestSft:
    def test_it_learns_the_agents_turns_and_only_those(self, sessions, policy_folder, tmp_path):
        model, tokenizer = load_policy(policy_folder)
        trainer = sft(model, tokenizer, sessions.select([0]), sft_args(tmp_path, max_steps=12))
        batch = next(iter(trainer.get_train_dataloader()))
        learned = tokenizer.decode(batch["labels"][0][batch["labels"][0] != -100])
        turns = [m["content"] for m in sessions[0]["messages"] if m["role"] == "assistant"]
        assert learned == "".join(turn + "<|end|>" for turn in turns)
        losses = logged(trainer, "loss")
        assert losses[-1] < losses[0] - 1

    def test_before_that_a_policy_from_scratch_learns_everybodys_words(self, sessions, policy_folder, tmp_path):
        model, tokenizer = load_policy(policy_folder)
        args = TrainingArguments(
            str(tmp_path), max_steps=2, report_to="none", disable_tqdm=True, dataloader_pin_memory=False
        )
        trainer = pretrain(model, tokenizer, sessions, args)
        batch = next(iter(trainer.get_train_dataloader()))
        words = batch["attention_mask"].bool()
        assert torch.equal(batch["labels"] != -100, words)
        assert torch.equal(batch["labels"][words], batch["input_ids"][words])
        assert trainer.state.global_step == 2

    def test_it_works_with_any_template(self, sessions, policy_folder, tmp_path):
        model, tokenizer = load_policy(policy_folder)
        tokenizer.chat_template = tokenizer.chat_template.replace("{%- generation -%}", "").replace(
            "{%- endgeneration -%}", ""
        )
        trainer = sft(model, tokenizer, sessions, sft_args(tmp_path, max_steps=2))
        batch = next(iter(trainer.get_train_dataloader()))
        for labels in batch["labels"]:
            assert tokenizer.decode(labels[labels != -100]).count("<|end|>") == 1

    @pytest.mark.parametrize("killed", ["before", "in the middle of"])
    def test_a_resumed_run_ends_where_an_unbroken_one_does(self, killed, sessions, policy_folder, tmp_path):
        """The run was killed before it wrote its last checkpoint, or in the middle of it."""

        def run(**kwargs):
            model, tokenizer = load_policy(policy_folder)
            args = sft_args(tmp_path, max_steps=4, save_steps=2, save_strategy="steps", learning_rate=1e-3)
            return sft(model, tokenizer, sessions, args, **kwargs)

        unbroken, last = run(), tmp_path / "checkpoint-4"
        shutil.rmtree(last) if killed == "before" else (last / "trainer_state.json").unlink()
        resumed = run(resume=True)
        assert [entry["step"] for entry in resumed.state.log_history if "loss" in entry] == [1, 2, 3, 4]
        assert (last / "trainer_state.json").exists()
        for before, after in zip(unbroken.model.parameters(), resumed.model.parameters()):
            torch.testing.assert_close(before, after)

    def test_a_training_that_had_ended_takes_no_step_more(self, sessions, policy_folder, tmp_path):
        """It ends within an epoch, and the Trainer's own loop would."""

        def run(**kwargs):
            model, tokenizer = load_policy(policy_folder)
            args = sft_args(tmp_path, max_steps=2, save_steps=1, save_strategy="steps", save_total_limit=1)
            return sft(model, tokenizer, sessions, args, **kwargs)

        ended = run()
        again = run(resume=True)
        assert again.state.global_step == 2
        assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
        assert logged(again, "loss") == logged(ended, "loss")
        for before, after in zip(ended.model.parameters(), again.model.parameters()):
            assert torch.equal(before, after)

    def test_resuming_without_a_checkpoint_begins_anew(self, sessions, policy_folder, tmp_path):
        model, tokenizer = load_policy(policy_folder)
        trainer = sft(model, tokenizer, sessions, sft_args(tmp_path / "new", max_steps=1), resume=True)
        assert trainer.state.global_step == 1


class TestAlign:
    @pytest.mark.parametrize("config", [GRPOConfig, RLOOConfig])
    def test_the_reward_model_drives_trls_trainers(self, config, sessions, policy_folder, reward_model, tmp_path):
        prompts = dialogue_prompts(sessions, context_messages=3)
        trainer = align(policy_folder, GeliReward(reward_model), prompts, rl_args(config, tmp_path), lora())
        assert trainer.state.global_step == 2
        for key in ("rewards/geli/mean", "geli/turn_reward_mean", "geli/empty_share", "kl"):
            assert len(logged(trainer, key)) == 2, key
        assert logged(trainer, "rewards/geli/mean") == pytest.approx(
            logged(trainer, "geli/turn_reward_mean"), abs=1e-4
        )
        assert logged(trainer, "reward_std")[0] > 0

    def test_the_policy_moves_towards_the_reward(self, sessions, policy_folder, tmp_path):
        def asks(prompts, completions, **kwargs):
            return [float("?" in completion[0]["content"]) for completion in completions]

        model, tokenizer = load_policy(policy_folder)
        args = sft_args(tmp_path / "sft", max_steps=60, save_strategy="no")
        save_policy(sft(model, tokenizer, sessions, args), tmp_path / "policy")
        args = rl_args(
            GRPOConfig,
            tmp_path,
            max_steps=15,
            per_device_train_batch_size=32,
            max_completion_length=24,
            learning_rate=0.03,
            save_strategy="no",
        )
        trainer = align(tmp_path / "policy", asks, dialogue_prompts(sessions, context_messages=3), args, lora())
        rewards = logged(trainer, "reward")
        assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2

    def test_the_reference_is_the_policy_before_alignment(self, sessions, policy_folder, reward_model, tmp_path):
        prompts = dialogue_prompts(sessions, context_messages=3)
        trainer = align(policy_folder, GeliReward(reward_model), prompts, rl_args(GRPOConfig, tmp_path), lora())
        assert trainer.beta == 0.05
        kl = logged(trainer, "kl")
        assert kl[0] == pytest.approx(0, abs=1e-6)
        assert kl[1] > 1e-5
        trainer.model.eval()
        ids = torch.arange(20, 40)[None]
        with torch.no_grad(), trainer.model.disable_adapter():
            reference = trainer.model(input_ids=ids).logits
        torch.testing.assert_close(
            reference, AutoModelForCausalLM.from_pretrained(policy_folder)(input_ids=ids).logits
        )

    def test_alignment_needs_a_kl_penalty_and_a_batch_of_prompts(self, sessions, policy_folder, tmp_path):
        prompts = dialogue_prompts(sessions)
        with pytest.raises(ValueError, match=r"args\.beta"):
            align(policy_folder, lambda **_: [], prompts, rl_args(GRPOConfig, tmp_path, beta=0.0), lora())
        args = rl_args(GRPOConfig, tmp_path, gradient_accumulation_steps=2)
        with pytest.raises(ValueError, match="prompts: expected 4 or more, found 3"):
            align(policy_folder, lambda **_: [], prompts.select(range(3)), args, lora())

    def test_a_stopped_run_is_resumed(self, sessions, policy_folder, reward_model, tmp_path):
        prompts = dialogue_prompts(sessions, context_messages=3)
        args = {"save_steps": 1, "save_strategy": "steps"}
        align(
            policy_folder,
            GeliReward(reward_model),
            prompts,
            rl_args(GRPOConfig, tmp_path, max_steps=1, **args),
            lora(),
        )
        resumed = align(
            policy_folder,
            GeliReward(reward_model),
            prompts,
            rl_args(GRPOConfig, tmp_path, **args),
            lora(),
            resume=True,
        )
        steps = [entry["step"] for entry in resumed.state.log_history if "kl" in entry]
        assert steps == [1, 2]
        assert logged(resumed, "kl")[1] > 1e-5  # the adapter of step 1 was there, not a new one


def test_the_aligned_policy_is_saved_as_one_plain_folder(sessions, policy_folder, reward_model, tmp_path):
    prompts = dialogue_prompts(sessions, context_messages=3)
    trainer = align(policy_folder, GeliReward(reward_model), prompts, rl_args(GRPOConfig, tmp_path / "run"), lora())
    ids = torch.arange(20, 40)[None]
    trainer.model.eval()
    with torch.no_grad():
        adapted = trainer.model(input_ids=ids).logits
    save_policy(trainer, tmp_path / "policy")

    assert not (tmp_path / "policy" / "adapter_config.json").exists()
    assert json.loads((tmp_path / "policy" / "config.json").read_text())["use_cache"] is True
    model, tokenizer = load_policy(tmp_path / "policy")
    with torch.no_grad():
        merged = model(input_ids=ids).logits
        base = AutoModelForCausalLM.from_pretrained(policy_folder)(input_ids=ids).logits
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=1e-4)
    assert (merged - base).abs().max() > 1e-3
    assert len(generate_replies(model, tokenizer, prompts["prompt"][:3], max_new_tokens=4)) == 3


class TestWhatIsWritten:
    """An adapter, merged or kept apart, in one process or gathered from several: it answers as the trained one did."""

    IDS = torch.arange(20, 40)[None]

    def logits(self, model) -> torch.Tensor:
        model.eval()
        with torch.no_grad():
            return model(input_ids=self.IDS).logits

    @pytest.fixture
    def trained(self, sessions, policy_folder, reward_model, tmp_path):
        prompts = dialogue_prompts(sessions, context_messages=3)
        args = rl_args(GRPOConfig, tmp_path / "run", max_steps=1, save_strategy="no")
        return align(policy_folder, GeliReward(reward_model), prompts, args, lora())

    @pytest.mark.parametrize("sharded", [False, True])
    @pytest.mark.parametrize("merge", [False, True])
    def test_it_answers_as_it_was_trained_to(self, merge, sharded, trained, policy_folder, tmp_path, monkeypatch):
        expected = self.logits(trained.model)
        monkeypatch.setattr(trained, "is_fsdp_enabled", sharded)
        save_policy(trained, tmp_path / "policy", merge=merge)
        files = {path.name for path in (tmp_path / "policy").iterdir()}
        assert ("adapter_config.json" in files) is not merge
        assert ("model.safetensors" in files) is merge
        for loaded in (load_policy(tmp_path / "policy")[0], AutoModelForCausalLM.from_pretrained(tmp_path / "policy")):
            torch.testing.assert_close(self.logits(loaded), expected, atol=1e-4, rtol=1e-4)
        base = AutoModelForCausalLM.from_pretrained(policy_folder)
        assert (self.logits(base) - expected).abs().max() > 1e-3
        tokenizer = load_policy(tmp_path / "policy")[1]
        assert len(generate_replies(loaded, tokenizer, [[{"role": "user", "content": "Hi"}]], max_new_tokens=4)) == 1

    def test_an_adapter_is_no_reference_for_the_next_alignment(self, trained, sessions, reward_model, tmp_path):
        save_policy(trained, tmp_path / "adapter", merge=False)
        with pytest.raises(FileExistsError, match="adapter"):
            save_policy(trained, tmp_path / "adapter", merge=False)
        prompts, args = dialogue_prompts(sessions), rl_args(GRPOConfig, tmp_path / "next")
        with pytest.raises(ValueError, match=r"PeftModel.*peft_config"):
            align(tmp_path / "adapter", GeliReward(reward_model), prompts, args, lora())

    def test_an_adapter_is_trained_on_and_its_state_before_is_the_reference(
        self, trained, sessions, reward_model, tmp_path
    ):
        """KL is 0 at the first step, though the adapter is far from its base model."""
        save_policy(trained, tmp_path / "adapter", merge=False)
        prompts = dialogue_prompts(sessions, context_messages=3)
        args = rl_args(GRPOConfig, tmp_path / "next", save_strategy="no")
        following = align(tmp_path / "adapter", GeliReward(reward_model), prompts, args, None)
        kl = logged(following, "kl")
        assert kl[0] == pytest.approx(0, abs=1e-6)
        assert kl[1] > 1e-5
        expected = self.logits(following.model)
        save_policy(following, tmp_path / "second", merge=False)
        names = {path.name for path in (tmp_path / "second").iterdir()}
        assert "adapter_config.json" in names
        assert "ref" not in names
        torch.testing.assert_close(self.logits(load_policy(tmp_path / "second")[0]), expected, atol=1e-4, rtol=1e-4)

        args = rl_args(GRPOConfig, tmp_path / "third", max_steps=1, save_strategy="no")
        how = {"reference": tmp_path / "adapter"}
        third = align(tmp_path / "second", GeliReward(reward_model), prompts, args, None, **how)
        assert logged(third, "kl")[0] > 1e-5  # from the first adapter, not from where it began

    def test_a_reference_apart_is_for_adapters(self, policy_folder, sessions, reward_model, tmp_path):
        prompts, args = dialogue_prompts(sessions), rl_args(GRPOConfig, tmp_path / "run")
        with pytest.raises(ValueError, match="reference"):
            align(policy_folder, GeliReward(reward_model), prompts, args, lora(), reference=policy_folder)

    def test_a_reward_model_is_refused_as_policy(self, sessions, reward_model, tmp_path):
        reward_model.save_pretrained(tmp_path / "reward")
        prompts, args = dialogue_prompts(sessions), rl_args(GRPOConfig, tmp_path / "run")
        with pytest.raises(PolicyError, match="reward"):
            align(tmp_path / "reward", GeliReward(reward_model), prompts, args, lora())


def test_the_logits_of_prompts_are_left_out(sessions, policy_folder, monkeypatch):
    """TRL computes those of all tokens on a CPU; log-probabilities and gradients are the same without."""

    def step() -> list[torch.Tensor]:
        model = AutoModelForCausalLM.from_pretrained(policy_folder)
        trl_utils.add_fused_lm_head(model, outputs=("log_probs", "entropy"))
        ids = torch.arange(20, 60).reshape(2, 20)
        labels = ids.masked_fill(torch.arange(20) < 12, -100)
        output = model(input_ids=ids, labels=labels, fused_lm_head=True)
        (output.log_probs.sum() + output.entropy.detach().sum()).backward()
        return [output.log_probs, output.entropy, model.get_input_embeddings().weight.grad]

    left_out = step()
    monkeypatch.setattr(trl_utils, "_use_triton", lambda device: False)
    for found, expected in zip(left_out, step()):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
