"""Alignment of a policy with turn rewards: TRL's trainers, a reward function for them, and whole-session rollouts."""

from .._lazy import lazy_exports

_EXPORTS = {
    "callbacks": ["AdaptiveKL", "StopAtKL"],
    "dialogue": ["OPENING", "context_window", "cut_reply", "open_with_user", "without_opening"],
    "guards": ["length_slope", "repeated_share", "without_length_slope"],
    "likelihood": ["ReferenceLikelihood"],
    "partners": ["Answer", "EndpointPartner", "ModelPartner", "Partner", "SimulatedPeople"],
    "policy": ["PolicyError", "check_policy", "is_adapter", "load_policy", "load_policy_tokenizer", "small_policy"],
    "sampling": ["SampledReply", "generate_replies", "sample_replies"],
    "rewards": ["GeliReward"],
    "rollouts": ["Rollout", "SessionRollouts"],
    "session_grpo": ["GeliSessionReward", "SessionGRPOTrainer"],
    "shipped": ["shipped_policy", "shipped_reward_model"],
    "trainers": ["align", "dialogue_prompts", "pretrain", "save_policy", "sft", "sft_rows"],
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
