"""Training of the reward model on rated sessions."""

from .arguments import PAPER, GeliRewardArguments
from .attribution import HindsightAttribution
from .dataset import shuffle_feedback
from .features import cached_turn_features, score_cached
from .hindsight import Hindsight, HindsightReport, cached_reaction_features, fit_hindsight
from .judge import JudgeReport, fit_judge, measure_judge
from .trainer import GeliRewardTrainer

__all__ = [
    "PAPER",
    "GeliRewardArguments",
    "GeliRewardTrainer",
    "Hindsight",
    "HindsightAttribution",
    "HindsightReport",
    "JudgeReport",
    "cached_reaction_features",
    "cached_turn_features",
    "fit_hindsight",
    "fit_judge",
    "measure_judge",
    "score_cached",
    "shuffle_feedback",
]
