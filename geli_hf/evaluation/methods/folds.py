"""Which sessions a row learns from and which it is judged on, and the features of both, encoded once."""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset

from ...models.features import TurnFeatureCache, cached_turn_features, features_key
from ...models.geli_reward.modeling_geli import GeliRewardModel
from ...training import cached_reaction_features


class Fold(NamedTuple):
    """Rows of the sessions to learn from, and of those to be judged on."""

    train: np.ndarray
    test: np.ndarray


def out_of_fold(sessions: Dataset, folds: int, seed: int) -> list[Fold]:
    """Every session is in the test part of one fold, and all of its conversation with it.

    Raises:
        ValueError: fewer than two folds, or fewer conversations than folds.
    """
    _, conversation = np.unique(np.asarray(sessions["conversation_id"][:]), return_inverse=True)
    count = conversation.max(initial=-1) + 1
    if not 2 <= folds <= count:
        if count < 2:
            raise ValueError(f"folds: found {count} conversation, expected two or more, or a test set of its own")
        raise ValueError(f"folds: expected 2 to {count}, the number of conversations, found {folds}")
    fold = np.empty(count, int)
    fold[np.random.default_rng(seed).permutation(count)] = np.arange(count) % folds
    of_session = fold[conversation]
    return [Fold(np.flatnonzero(of_session != each), np.flatnonzero(of_session == each)) for each in range(folds)]


class Design:
    """What is learned from, and what every method is judged on.

    Args:
        train: Session rows, all with a score.
        test: others to judge on. Without them `train` is judged out of fold, in other folds for each seed.
        folds: how many.
    """

    def __init__(self, train: Dataset, test: Dataset | None = None, *, folds: int = 4):
        for name, sessions in {"train": train, "test": test}.items():
            if sessions is not None and np.isnan(np.array(sessions["score"], float)).any():
                raise ValueError(
                    f"{name}: some sessions have no score; leave them out: "
                    "sessions.filter(lambda row: row['score'] == row['score'])"
                )
        self.train, self.judged, self.folds = train, train if test is None else test, folds if test is None else None

    def of(self, seed: int) -> list[Fold]:
        """The folds of one seed: their test parts are all judged sessions."""
        if self.folds is None:
            return [Fold(np.arange(len(self.train)), np.arange(len(self.judged)))]
        return out_of_fold(self.train, self.folds, seed)

    def shuffled(self, seed: int, permutation: int) -> Dataset:
        """The sessions to learn from, their scores dealt out anew: a control.

        What a method still finds, it did not find in the scores. Out of fold, scores are dealt out within the part
        that one fold is judged on. So every fold learns from the scores of its own sessions, with the mean that they
        had, and a session has the same score in all folds that learn from it, as with the true scores.
        """
        draw, score = np.random.default_rng([seed, permutation]), np.array(self.train["score"], float)
        for part in [slice(None)] if self.folds is None else [fold.test for fold in self.of(seed)]:
            score[part] = draw.permutation(score[part])
        return Dataset.from_dict(self.train.to_dict() | {"score": score}, features=self.train.features)

    def train_means(self, seed: int) -> np.ndarray:
        """(judged sessions,), the mean score of what was learned from when each was judged."""
        score, means = np.array(self.train["score"], float), np.empty(len(self.judged))
        for fold in self.of(seed):
            means[fold.test] = score[fold.train].mean()
        return means


class Encoded:
    """What a frozen backbone makes of a corpus, encoded when first asked for; `seconds` is how long that took."""

    def __init__(
        self,
        model: GeliRewardModel,
        sessions: Dataset,
        cache_dir: str | Path | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.model, self.sessions, self.options = model, sessions, {"cache_dir": cache_dir, "dtype": dtype}
        self.seconds = 0.0

    @cached_property
    def key(self) -> str:
        """A digest of the backbone, of how it reads, and of the dialogues; it is there without encoding them."""
        return features_key(self.model, self.sessions, self.options["dtype"])

    @cached_property
    def turns(self) -> TurnFeatureCache:
        return self._encode(cached_turn_features)

    @cached_property
    def reactions(self) -> TurnFeatureCache:
        return self._encode(cached_reaction_features)

    def _encode(self, encode) -> TurnFeatureCache:
        began = time.perf_counter()
        features = encode(self.model, self.sessions, **self.options)
        self.seconds += time.perf_counter() - began
        return features


class FoldFeatures:
    """The features of a fold's sessions, selected from those of their corpora."""

    def __init__(self, train: Encoded, test: Encoded, fold: Fold):
        self._train, self._test, self._fold = train, test, fold

    @property
    def train(self) -> TurnFeatureCache:
        return self._train.turns.select(self._fold.train)

    @property
    def train_reactions(self) -> TurnFeatureCache:
        return self._train.reactions.select(self._fold.train)

    @property
    def test(self) -> TurnFeatureCache:
        return self._test.turns.select(self._fold.test)

    @property
    def test_reactions(self) -> TurnFeatureCache:
        return self._test.reactions.select(self._fold.test)
