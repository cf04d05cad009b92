"""Training of the reward model on rated sessions."""

from .arguments import PAPER, GeliRewardArguments
from .trainer import GeliRewardTrainer

__all__ = ["PAPER", "GeliRewardArguments", "GeliRewardTrainer"]
