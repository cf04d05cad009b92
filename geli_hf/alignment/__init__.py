"""Aligning a policy with the turn rewards: TRL's trainers, a reward function for them, what comes before and after."""

from geli_hf.alignment.dialogue import OPENING, context_window, cut_reply, open_with_user, without_opening
from geli_hf.alignment.policy import load_policy, load_policy_tokenizer, small_policy
from geli_hf.alignment.replies import generate_replies
from geli_hf.alignment.rewards import GeliReward, without_length_slope
from geli_hf.alignment.stages import align, dialogue_prompts, pretrain, save_policy, sft, sft_rows

__all__ = [
    "OPENING",
    "GeliReward",
    "align",
    "context_window",
    "cut_reply",
    "dialogue_prompts",
    "generate_replies",
    "load_policy",
    "load_policy_tokenizer",
    "open_with_user",
    "pretrain",
    "save_policy",
    "sft",
    "sft_rows",
    "small_policy",
    "without_length_slope",
    "without_opening",
]
