"""Training of the reward model on rated sessions.

Names are imported when they are first used: who explains sessions needs no trainer.
"""

from .._lazy import lazy_exports

_EXPORTS = {
    "arguments": ["PAPER", "GeliRewardArguments"],
    "data": ["shuffle_feedback"],
    "hindsight": ["Hindsight", "HindsightReport", "cached_reaction_features", "fit_hindsight"],
    "trainer": ["GeliRewardTrainer"],
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
