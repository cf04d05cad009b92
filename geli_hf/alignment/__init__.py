"""Aligning a policy with the turn rewards: TRL's trainers, a reward function for them, what comes before and after."""

from .callbacks import AdaptiveKL, StopAtKL
from .dialogue import OPENING, context_window, cut_reply, open_with_user, without_opening
from .guards import length_slope, repeated_share, without_length_slope
from .partners import Answer, EndpointPartner, ModelPartner, Partner, SimulatedPeople
from .policy import PolicyError, check_policy, is_adapter, load_policy, load_policy_tokenizer, small_policy
from .replies import compare_policies, generate_replies, judge_by_reward
from .rewards import GeliReward
from .rollouts import Rollout, SessionRollouts
from .session_grpo import GeliSessionReward, SessionGRPOTrainer
from .shipped import shipped_policy, shipped_reward_model
from .stages import align, dialogue_prompts, pretrain, save_policy, sft, sft_rows, write_policy

__all__ = [
    "OPENING",
    "AdaptiveKL",
    "Answer",
    "EndpointPartner",
    "GeliReward",
    "GeliSessionReward",
    "ModelPartner",
    "Partner",
    "PolicyError",
    "Rollout",
    "SessionGRPOTrainer",
    "SessionRollouts",
    "SimulatedPeople",
    "StopAtKL",
    "align",
    "check_policy",
    "compare_policies",
    "context_window",
    "cut_reply",
    "dialogue_prompts",
    "generate_replies",
    "is_adapter",
    "judge_by_reward",
    "length_slope",
    "load_policy",
    "load_policy_tokenizer",
    "open_with_user",
    "pretrain",
    "repeated_share",
    "save_policy",
    "sft",
    "sft_rows",
    "shipped_policy",
    "shipped_reward_model",
    "small_policy",
    "without_length_slope",
    "without_opening",
    "write_policy",
]
