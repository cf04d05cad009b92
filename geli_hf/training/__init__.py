"""Training of the reward model on rated sessions.

Names are imported at their first use.
"""

from .._lazy import lazy_exports

_EXPORTS = {
    "arguments": ["PAPER", "GeliRewardArguments"],
    "data": ["shuffle_feedback"],
    "hindsight": ["Hindsight", "HindsightReport", "cached_reaction_features", "fit_hindsight", "set_linear_head"],
    "trainer": ["GeliRewardTrainer"],
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
