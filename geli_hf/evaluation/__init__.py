"""Evaluation of reward models, policies and methods of attribution.

`rewards` compares saved reward models with turn ratings, `policies` compares aligned policies with their base by one
of the `judges`, `methods` is the benchmark of methods of attribution, and `report` describes a training run.
"""

from .._lazy import lazy_exports

_EXPORTS = {
    "comparison": ["JudgedReply", "PolicyComparison", "compare_policies", "judge_by_reward", "policy_table"],
    "divergence": ["reply_divergence"],
    "policies": ["EvaluatedPolicy", "PolicyEvaluation", "Sampling", "evaluate_policies"],
    "policy_report": ["policy_markdown", "write_policy_evaluation"],
    "report": ["write_report"],
    "rewards": ["evaluate_models", "run_models", "write_evaluation"],
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
