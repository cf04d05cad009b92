"""Aligning a policy with the turn rewards: TRL's trainers, a reward function for them, what comes before and after."""

from .dialogue import OPENING, context_window, cut_reply, open_with_user, without_opening
from .policy import load_policy, load_policy_tokenizer, small_policy
from .replies import generate_replies
from .rewards import GeliReward, without_length_slope
from .stages import align, dialogue_prompts, pretrain, save_policy, sft, sft_rows

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
