"""The slope of the listener's signal on the rewards, estimated while the rewards are learned."""

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from .losses import slope_moments

DECAY = 0.99  # of a batch's weight per step: the last hundred batches count most
# The prior slope, with the weight of a batch whose rewards have this variance. Where a session's score says as much as
# real ones do, a turn is worth some two deviations of the score, and a good signal correlates with it by .2.
FIRST_SLOPE, FIRST_VARIANCE = 0.1, 0.1
# Batches without information let both moments decay to 0. Below this variance the prior slope is left, never 0 / 0.
LEAST_VARIANCE = 1e-8


class SignalSlope(TrainerCallback, ExportableState):
    """Least squares slope of the signal on the rewards within sessions, over the last batches.

        a = cov / var,    (cov, var) <- DECAY (cov, var) + (1 - DECAY) `slope_moments` of a batch

    As a callback, it saves its state in every checkpoint.
    """

    def __init__(self):
        self._set(FIRST_SLOPE * FIRST_VARIANCE, FIRST_VARIANCE)

    def _set(self, covariance: float, variance: float) -> None:
        # Tensors, so that numbers from a checkpoint have the precision of those that were saved.
        self.covariance, self.variance = torch.tensor(covariance), torch.tensor(variance)

    @property
    def value(self) -> torch.Tensor:
        """Slope in units of the signal per unit of reward."""
        return (self.covariance + FIRST_SLOPE * LEAST_VARIANCE) / (self.variance + LEAST_VARIANCE)

    @torch.no_grad()
    def update(self, rewards: torch.Tensor, mask: torch.Tensor, feedback: torch.Tensor) -> None:
        """Add a batch.

        Args:
            rewards: (B, T), r_t.
            mask: (B, T), bool, True where a turn exists.
            feedback: (B, T), l_t, NaN where nothing was observed.
        """
        covariance, variance = slope_moments(rewards, mask, feedback)
        self.covariance = DECAY * self.covariance + (1 - DECAY) * covariance
        self.variance = DECAY * self.variance + (1 - DECAY) * variance

    def state(self) -> dict:
        known = {"covariance": float(self.covariance), "variance": float(self.variance)}
        return {"args": {}, "attributes": known}

    def on_train_begin(self, args, state, control, **kwargs):
        known = state.stateful_callbacks.get(type(self).__name__, self.state())["attributes"]
        self._set(**known)
