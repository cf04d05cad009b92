"""Judges of replies: the simulator's truth, a regressor of people's ratings, and a language model."""

from ..._lazy import lazy_exports

_EXPORTS = {
    "judge": ["Judge", "RatingJudge", "TruthJudge", "judge_by_truth", "same_model"],
    "llm": ["CRITERIA", "LlmJudge"],
    "ratings": ["JudgeReport", "describe", "fit_judge", "measure_judge"],
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
