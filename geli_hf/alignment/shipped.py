"""The small policy that comes with the package, and the reward model that aligned it: for the demo and for tests.

Both know the sample corpus and little else; `examples/train_policy.py` made them, and their cards say how well.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..models.geli_reward.modeling_geli import GeliRewardModel
from .policy import load_policy

WEIGHTS = Path(__file__).parents[1] / "weights"
POLICY, ADAPTER, REWARD = (WEIGHTS / name for name in ("policy", "policy_adapter", "policy_reward"))


def shipped_policy(*, aligned: bool = True) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The policy of the package and its tokenizer, in float32. Needs no network.

    Args:
        aligned: with the adapter that GRPO trained, which `model.disable_adapters()` takes off again; otherwise as it
            was fine-tuned.
    """
    model, tokenizer = load_policy(POLICY, dtype=torch.float32)
    if aligned:
        model.load_adapter(ADAPTER)
    return model.eval(), tokenizer


def shipped_reward_model() -> GeliRewardModel:
    """The reward model of the package, which the policy was aligned with, in float32. Needs no network."""
    return GeliRewardModel.from_pretrained(REWARD, dtype=torch.float32).eval()
