"""LLM-GELI: a language model is asked what each turn of a session contributed to its score.

Lee et al., "Aligning Dialogue Agents with Global Feedback via Large Language Model Multimodal Reward Decomposition",
EMNLP Findings 2025, arXiv 2505.15922. What it answers becomes one more signal in `feedback`, from which
`GeliRewardTrainer` distils a reward model with `li="llm", li_weight=1`.
"""

from .answers import parse_contributions, renormalise
from .asking import LlmReport
from .backend import Answer, Backend, BackendError, CallError
from .decomposer import Estimate, LlmDecomposer
from .endpoint import Endpoint
from .local import LocalModel
from .prompting import Prompt
from .windows import merge_windows, split_windows

__all__ = [
    "Answer",
    "Backend",
    "BackendError",
    "CallError",
    "Endpoint",
    "Estimate",
    "LlmDecomposer",
    "LlmReport",
    "LocalModel",
    "Prompt",
    "merge_windows",
    "parse_contributions",
    "renormalise",
    "split_windows",
]
