"""Share of a GRPO step that the reward takes, with a reward backbone a tenth of the policy's size."""

from statistics import median
from time import perf_counter

import pytest
from peft import LoraConfig
from tokenizers import AddedToken
from transformers import BertConfig, BertModel, TrainerCallback
from trl import GRPOConfig

from geli_hf import GeliRewardModel
from geli_hf.alignment import GeliReward, align, dialogue_prompts, small_policy

STEPS = 4


class Timed(GeliReward):
    """Record the seconds of each call."""

    def __call__(self, *args, **kwargs):
        start = perf_counter()
        rewards = super().__call__(*args, **kwargs)
        self.seconds.append(perf_counter() - start)
        return rewards


class StepTime(TrainerCallback):
    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *args, **kwargs):
        self.start = perf_counter()

    def on_step_end(self, *args, **kwargs):
        self.seconds.append(perf_counter() - self.start)


def decoder(sample, folder):
    model, tokenizer = small_policy(sample, hidden_size=96, layers=3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def encoder(sample, folder):
    _, tokenizer = small_policy(sample, hidden_size=32, layers=1)
    tokenizer.add_special_tokens({"sep_token": AddedToken("<|end|>", special=True)})
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=384,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("backbone", [decoder, encoder])
def test_the_share_of_a_step(benchmark, sample, tmp_path, backbone):
    """Median over the steps but the first; both times are of the same step, so other work slows both."""
    policy, tokenizer = small_policy(sample, hidden_size=256, layers=5)
    policy.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    backbone(sample, tmp_path / "backbone")
    model = GeliRewardModel.from_backbone(str(tmp_path / "backbone"))
    sizes = [sum(p.numel() for p in part.parameters()) for part in (model, policy)]
    assert 0.08 < sizes[0] / sizes[1] < 0.15

    reward, steps = Timed(model, normalise=True), StepTime()
    reward.seconds = []
    args = GRPOConfig(
        str(tmp_path / "run"),
        max_steps=STEPS + 1,
        per_device_train_batch_size=32,
        num_generations=8,
        max_completion_length=32,
        beta=0.05,
        bf16=False,
        activation_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")

    def train():
        align(tmp_path / "policy", reward, dialogue_prompts(sample), args, lora, callbacks=[steps])

    benchmark.pedantic(train, rounds=1)
    shares = [mine / step for mine, step in zip(reward.seconds[1:], steps.seconds[1:], strict=True)]
    benchmark.extra_info |= {
        "share": median(shares),
        "reward_seconds": median(reward.seconds[1:]),
        "step_seconds": median(steps.seconds[1:]),
        "parameters": sizes,
    }
    assert median(shares) <= 0.05
