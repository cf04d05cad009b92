"""Training and test sessions of the benchmark, and their features, encoded once."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset

from ...models.features import TurnFeatureCache, cached_turn_features, features_key
from ...models.geli_reward.modeling_geli import GeliRewardModel
from ...training import cached_reaction_features

Features = dict[str, TurnFeatureCache]  # of the "turns" and of the "reactions" to them


class Fold(NamedTuple):
    """Indices of the training and test sessions: (sessions,) each."""

    train: np.ndarray
    test: np.ndarray


def out_of_fold(sessions: Dataset, folds: int, seed: int) -> list[Fold]:
    """Split sessions into folds by conversation: each session is in the test part of exactly one fold.

    Args:
        sessions: Session rows.
        folds: number of folds.
        seed: of the split.

    Raises:
        ValueError: fewer than two folds, or fewer conversations than folds.
    """
    _, conversation = np.unique(np.asarray(sessions["conversation_id"][:]), return_inverse=True)
    count = conversation.max(initial=-1) + 1
    if not 2 <= folds <= count:
        raise ValueError(f"folds: expected 2 to {count}, the number of conversations, found {folds}")
    fold = np.empty(count, int)
    fold[np.random.default_rng(seed).permutation(count)] = np.arange(count) % folds
    of_session = fold[conversation]
    return [Fold(np.flatnonzero(of_session != index), np.flatnonzero(of_session == index)) for index in range(folds)]


class Design:
    """Training sessions, and the sessions on which every method is judged.

    Args:
        train: Session rows, all with a score.
        test: test sessions. Without them `train` is judged out of fold, in other folds for each seed.
        folds: number of folds.

    Raises:
        ValueError: a session has no score.
    """

    def __init__(self, train: Dataset, test: Dataset | None = None, *, folds: int = 4):
        self.train, self.judged, self.folds = train, train if test is None else test, folds if test is None else None
        for name, sessions in {"train": train, "test": self.judged}.items():
            if np.isnan(np.array(sessions["score"], float)).any():
                raise ValueError(f"{name}: some sessions have no score; leave them out")

    def of(self, seed: int) -> list[Fold]:
        """List the folds of one seed; their test parts are all judged sessions together."""
        if self.folds is None:
            return [Fold(np.arange(len(self.train)), np.arange(len(self.judged)))]
        return out_of_fold(self.train, self.folds, seed)

    def shuffled(self, seed: int, permutation: int) -> Dataset:
        """Permute the scores of the training sessions, for a control that learns nothing from the scores.

        Out of fold, scores are permuted within the test part of each fold. So the training part of a fold keeps its
        scores and their mean, and a session has the same score in all folds that learn from it.
        """
        draw, score = np.random.default_rng([seed, permutation]), np.array(self.train["score"], float)
        for part in [slice(None)] if self.folds is None else [fold.test for fold in self.of(seed)]:
            score[part] = draw.permutation(score[part])
        return Dataset.from_dict(self.train.to_dict() | {"score": score}, features=self.train.features)

    def train_means(self, seed: int) -> np.ndarray:
        """Compute the mean training score for each judged session: (judged sessions,)."""
        score, means = np.array(self.train["score"], float), np.empty(len(self.judged))
        for fold in self.of(seed):
            means[fold.test] = score[fold.train].mean()
        return means


class Encoded:
    """Features of a corpus by a frozen backbone, computed on first use.

    Args:
        model: holds the backbone.
        sessions: Session rows.
        cache_dir, dtype: see `cached_turn_features`.
        batch_size: sessions whose turns are encoded together.
    """

    def __init__(
        self,
        model: GeliRewardModel,
        sessions: Dataset,
        cache_dir: str | Path | None = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ):
        self.model, self.sessions, self.batch_size = model, sessions, batch_size
        self.options = {"cache_dir": cache_dir, "dtype": dtype}

    @cached_property
    def key(self) -> str:
        """Digest of the backbone, its context and the dialogues, computed without encoding them."""
        return features_key(self.model, self.sessions, self.options["dtype"])

    @cached_property
    def features(self) -> Features:
        return {
            "turns": cached_turn_features(self.model, self.sessions, batch_size=self.batch_size, **self.options),
            "reactions": cached_reaction_features(self.model, self.sessions, **self.options),
        }

    def select(self, sessions: np.ndarray) -> Features:
        """Select the features of the sessions with these indices, (sessions,)."""
        return {name: cache.select(sessions) for name, cache in self.features.items()}
