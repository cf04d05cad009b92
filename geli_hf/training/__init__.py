"""Training of the reward model on rated sessions."""

from .arguments import PAPER, GeliRewardArguments
from .dataset import shuffle_feedback
from .features import cached_turn_features, score_cached
from .trainer import GeliRewardTrainer

__all__ = [
    "PAPER",
    "GeliRewardArguments",
    "GeliRewardTrainer",
    "cached_turn_features",
    "score_cached",
    "shuffle_feedback",
]
