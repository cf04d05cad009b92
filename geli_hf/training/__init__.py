"""Training of the reward model on rated sessions."""

from .arguments import PAPER, GeliRewardArguments
from .attribution import HindsightAttribution
from .dataset import shuffle_feedback
from .features import cached_turn_features, score_cached
from .hindsight import Hindsight, HindsightReport, cached_reaction_features, fit_hindsight
from .trainer import GeliRewardTrainer

__all__ = [
    "PAPER",
    "GeliRewardArguments",
    "GeliRewardTrainer",
    "Hindsight",
    "HindsightAttribution",
    "HindsightReport",
    "cached_reaction_features",
    "cached_turn_features",
    "fit_hindsight",
    "score_cached",
    "shuffle_feedback",
]
