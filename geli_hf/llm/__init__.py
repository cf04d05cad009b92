"""LLM-GELI: a language model estimates what each turn of a session contributed to its score.

Lee et al., "Aligning Dialogue Agents with Global Feedback via Large Language Model Multimodal Reward Decomposition",
EMNLP Findings 2025, arXiv 2505.15922. The estimates become one more signal in `feedback`, from which
`GeliRewardTrainer` distils a reward model with `li="llm", li_weight=1`.
"""

from .._lazy import lazy_exports

_EXPORTS = {
    "answers": ["parse_contributions", "renormalise"],
    "asking": ["LlmReport"],
    "backend": ["Answer", "Backend", "BackendError", "CallError"],
    "decomposer": ["LlmDecomposer", "merge_windows", "split_windows"],
    "endpoint": ["Endpoint"],
    "local": ["LocalModel"],
    "prompting": ["Prompt"],
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
