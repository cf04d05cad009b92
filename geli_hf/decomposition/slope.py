"""How much of a reward shows in the listener's signal, found out while the rewards are learned."""

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from . import slope_moments

DECAY = 0.99  # of what a batch counts, from one to the next: the last hundred count most
# What is believed at first, and as firmly as a batch whose rewards have this variance. Where a session's score says as
# much as real ones do, a turn is worth some two deviations of the score, and a good signal correlates with it by .2.
FIRST_SLOPE, FIRST_VARIANCE = 0.1, 0.1
# Batches that tell nothing let both moments fade. Below this variance the first belief is all there is, never 0 / 0.
LEAST_VARIANCE = 1e-8


class SignalSlope(TrainerCallback, ExportableState):
    """The slope of the signal on the rewards within sessions, by least squares over the last batches.

    It changes with the rewards while they are learned. A checkpoint keeps it, for a training that is resumed.
    """

    def __init__(self):
        self._set(FIRST_SLOPE * FIRST_VARIANCE, FIRST_VARIANCE)

    def _set(self, covariance: float, variance: float) -> None:
        # Tensors, so that numbers that come from a checkpoint are rounded as they would have been.
        self.covariance, self.variance = torch.tensor(covariance), torch.tensor(variance)

    @property
    def value(self) -> torch.Tensor:
        """Units of the signal per unit of reward."""
        return (self.covariance + FIRST_SLOPE * LEAST_VARIANCE) / (self.variance + LEAST_VARIANCE)

    @torch.no_grad()
    def update(self, rewards: torch.Tensor, mask: torch.Tensor, feedback: torch.Tensor) -> None:
        """Take note of a batch. Arguments as of [`li_slope_loss`]."""
        covariance, variance = slope_moments(rewards, mask, feedback)
        self.covariance = DECAY * self.covariance + (1 - DECAY) * covariance
        self.variance = DECAY * self.variance + (1 - DECAY) * variance

    def state(self) -> dict:
        known = {"covariance": float(self.covariance), "variance": float(self.variance)}
        return {"args": {}, "attributes": known}

    def on_train_begin(self, args, state, control, **kwargs):
        known = state.stateful_callbacks.get(type(self).__name__, self.state())["attributes"]
        self._set(**known)
