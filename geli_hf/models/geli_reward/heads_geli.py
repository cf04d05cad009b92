"""Heads of the decomposed reward model: from the features of turns to rewards. Travels with every checkpoint."""

import torch
from torch import nn

from .configuration_geli import GeliRewardConfig
from .interactions_geli import ANSWERS


class Standardise(nn.Module):
    """Fixed shift and scale of the features, from the training turns: heads learn faster on features of unit size."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Shift and scale features (..., size)."""
        return (features - self.mean) / self.std


class _Head(nn.Module):
    def __init__(self, config: GeliRewardConfig):
        super().__init__()
        self.size = config.head_size
        self.standardise = Standardise(self.size)
        self.dropout = nn.Dropout(config.head_dropout)


class LinearHead(_Head):
    """Linear head: r_t = w f_t + b, and one such function for each rating that is learned beside the score."""

    def __init__(self, config: GeliRewardConfig):
        super().__init__(config)
        self.out = nn.Linear(self.size, 1 + len(config.ratings))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Compute rewards (batch, turns) of features (batch, turns, head_size)."""
        return self.by_rating(features)[..., 0]

    def by_rating(self, features: torch.Tensor) -> torch.Tensor:
        """Compute rewards (batch, turns, 1 + ratings): those of the score, and those of each rating."""
        return self.out(self.dropout(self.standardise(features)))


class MlpHead(_Head):
    """Head of GELI (arXiv 2403.11330), with dropout between its layers: r_t = tanh(w2 relu(W1 f_t + b1) + b2)."""

    def __init__(self, config: GeliRewardConfig):
        super().__init__(config)
        self.dense = nn.Linear(self.size, config.head_hidden_size)
        self.out = nn.Linear(config.head_hidden_size, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Compute rewards (batch, turns) of features (batch, turns, head_size)."""
        hidden = self.dropout(torch.relu(self.dense(self.standardise(features))))
        return torch.tanh(self.out(hidden)).squeeze(-1)


class RudderHead(_Head):
    """Head of RUDDER: r_t = g_t - g_{t-1}, g_0 = 0, with g an LSTM that predicts the score from the turns so far."""

    def __init__(self, config: GeliRewardConfig):
        super().__init__(config)
        self.lstm = nn.LSTM(self.size, config.head_hidden_size, batch_first=True)
        self.out = nn.Linear(config.head_hidden_size, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Compute rewards (batch, turns) of features (batch, turns, head_size)."""
        hidden, _ = self.lstm(self.dropout(self.standardise(features)))
        return torch.diff(self.out(hidden).squeeze(-1), dim=-1, prepend=features.new_zeros(len(features), 1))


HEADS = {"linear": LinearHead, "mlp": MlpHead, "rudder": RudderHead}


class FitGuard(nn.Module):
    """Loss of reward of turns that don't fit their dialogue: `fit_weight` (P_t - mean of P over the training turns).

    P_t is the probability that turn t was put in place of another. Three networks look for one reason each, and a turn
    fits if none of them objects, P_t = 1 - prod_k (1 - sigmoid(g_k(f_t))): `form` reads the features of the turn
    itself, `answer` its products with the messages before, and `copy` the cosines that tell an echo or a repetition.
    A turn that answers no message, which opens the dialogue, loses nothing.
    Before it is taught, the loss is 0.
    """

    def __init__(self, config: GeliRewardConfig):
        super().__init__()
        self.config = config
        size, width = config.get_text_config().hidden_size, config.fit_hidden_size
        self.spans = {"form": (0, size), "answer": (size, 4 * size + 1), "copy": (4 * size + 1, 4 * size + 6)}
        self.standardise = Standardise(config.feature_size)
        self.reasons = nn.ModuleDict(
            {name: _network(stop - start, width) for name, (start, stop) in self.spans.items()}
        )
        self.register_buffer("level", torch.zeros(()))

    def log_fit(self, features: torch.Tensor) -> torch.Tensor:
        """Compute log(1 - P_t), (batch, turns), of features (batch, turns, feature_size)."""
        features = self.standardise(features)
        logits = [self.reasons[name](features[..., start:stop]) for name, (start, stop) in self.spans.items()]
        return nn.functional.logsigmoid(-torch.cat(logits, -1)).sum(-1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the loss of each turn, (batch, turns), in units of the standardised score."""
        losses = self.config.fit_weight * (-torch.expm1(self.log_fit(features)) - self.level)
        return torch.where(features[..., ANSWERS] > 0.5, losses, 0.0)


def _network(size: int, width: int) -> nn.Sequential:
    layers = nn.Dropout(0.1), nn.Linear(size, width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 1)
    return nn.Sequential(*layers)
