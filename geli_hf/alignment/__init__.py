"""Aligning a policy with the turn rewards: TRL's trainers, a reward function for them, what comes before and after.

Names are imported when they are first used: who only talks with a policy needs no trainer.
"""

from .._lazy import lazy_exports

_EXPORTS = {
    "callbacks": ["AdaptiveKL", "StopAtKL"],
    "dialogue": ["OPENING", "context_window", "cut_reply", "open_with_user", "without_opening"],
    "guards": ["length_slope", "repeated_share", "without_length_slope"],
    "likelihood": ["ReferenceLikelihood"],
    "partners": ["Answer", "EndpointPartner", "ModelPartner", "Partner", "SimulatedPeople"],
    "policy": ["PolicyError", "check_policy", "is_adapter", "load_policy", "load_policy_tokenizer", "small_policy"],
    "sampling": ["compare_policies", "generate_replies", "judge_by_reward"],
    "rewards": ["GeliReward"],
    "rollouts": ["Rollout", "SessionRollouts"],
    "session_grpo": ["GeliSessionReward", "SessionGRPOTrainer"],
    "shipped": ["shipped_policy", "shipped_reward_model"],
    "trainers": ["align", "dialogue_prompts", "pretrain", "save_policy", "sft", "sft_rows", "write_policy"],
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
