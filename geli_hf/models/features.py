"""Turn features of a frozen backbone, computed once and kept on disk, so that an epoch takes seconds.

The name of a cache is a digest of all that it depends on: the backbone's weights and vocabulary, the settings by which
it reads turns, and the dialogues. A cache gets its name when it is complete, so a half-written one is never read.
"""

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers.utils import logging

from ..cache import atomic_path, cache_root
from ..sessions import assistant_turns
from .geli_reward.joined_geli import weights_digest
from .geli_reward.modeling_geli import GeliRewardModel

logger = logging.get_logger(__name__)

READING_FIELDS = ("pooling", "layers", "causal", "context_messages", "feature_size", "max_length", "prefix_token_ids")
CONSTANT = 1e-6  # a deviation up to which a feature is constant but for rounding
SESSIONS_AT_ONCE = 256  # in memory while a mean is computed


class TurnFeatureCache:
    """Features of the assistant turns of every session, memory-mapped: `cache[i]` is `(turns, hidden)`, float32.

    Args:
        features: (all turns, hidden).
        first: (sessions + 1,), index of each session's first turn.
    """

    def __init__(self, features: np.ndarray, first: np.ndarray):
        self.features = features
        self.spans = np.stack([first[:-1], first[1:]], 1)  # (sessions, 2): first turn, one past the last

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: int) -> np.ndarray:
        first, past = self.spans[index]
        return np.array(self.features[first:past])

    def select(self, rows: Sequence[int]) -> "TurnFeatureCache":
        """Return the features of some of the sessions, in that order, without a copy."""
        selected = copy.copy(self)
        selected.spans = self.spans[np.asarray(rows, int)]
        return selected

    def narrow(self, size: int) -> "TurnFeatureCache":
        """Return the first `size` features of all turns, without a copy."""
        narrowed = copy.copy(self)
        narrowed.features = self.features[:, :size]
        return narrowed

    @property
    def lengths(self) -> np.ndarray:
        """Number of turns of each session, (sessions,)."""
        return self.spans[:, 1] - self.spans[:, 0]

    def all(self) -> np.ndarray:
        """Return the features of all sessions, (turns, hidden), as a copy only if sessions were selected."""
        begin, end = self.spans[:, 0], self.spans[:, 1]
        if not len(self):
            return self.features[:0]
        if (begin[1:] == end[:-1]).all():
            return self.features[begin[0] : end[-1]]
        return np.concatenate([self.features[first:past] for first, past in self.spans])

    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute mean and deviation of each feature over all turns, in memory that does not grow with their number.

        Returns:
            Two arrays `(hidden,)`. The deviation of a constant feature is 1, so that one can divide by it.
        """
        turns, hidden = int(self.lengths.sum()), self.features.shape[1]
        if not turns:
            return np.zeros(hidden), np.ones(hidden)
        mean = sum(part.sum(0, dtype=np.float64) for part in self._parts()) / turns
        std = np.sqrt(sum(np.square(part - mean).sum(0) for part in self._parts()) / turns)
        return mean, np.where(std > CONSTANT, std, 1.0)

    def _parts(self) -> Iterator[np.ndarray]:
        """Yield the turns of some sessions at once."""
        for first in range(0, len(self), SESSIONS_AT_ONCE):
            yield self.select(range(first, min(first + SESSIONS_AT_ONCE, len(self)))).all()


def cached_turn_features(
    model: GeliRewardModel,
    sessions: Dataset,
    *,
    cache_dir: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 32,
) -> TurnFeatureCache:
    """Encode the assistant turns of sessions with a model's backbone, or open what an earlier call has encoded.

    Args:
        model: its backbone encodes.
        sessions: Session rows; only `messages` is read.
        cache_dir: default `features` under `geli_hf.cache.cache_root()`.
        dtype: precision of the backbone's matrix products; `torch.bfloat16` is two to three times as fast where the
            hardware has it. Features are stored in float32.
        batch_size: sessions that are encoded together.

    Returns:
        The cache, memory-mapped.
    """
    folder = Path(cache_dir or cache_root() / "features") / features_key(model, sessions, dtype)
    if not folder.exists():
        with atomic_path(folder) as partial:
            partial.mkdir()
            _write(model, sessions, partial, dtype, batch_size)
    return TurnFeatureCache(np.load(folder / "features.npy", mmap_mode="r"), np.load(folder / "first.npy"))


@torch.inference_mode()
def score_cached(
    model: GeliRewardModel,
    sessions: Dataset,
    *,
    cache_dir: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    features: TurnFeatureCache | None = None,
) -> list[dict]:
    """Score sessions from cached features: of several heads on one backbone, only the first has to encode.

    Args:
        model: its backbone encodes, its head scores.
        sessions: Session rows; only `messages` is read.
        cache_dir, dtype: see [`cached_turn_features`].
        features: cached features of the sessions, in place of these two.

    Returns:
        `turn_rewards` and `score` of every session, and `ratings`, as in `model.score_sessions`.
    """
    cache = features or cached_turn_features(model, sessions, cache_dir=cache_dir, dtype=dtype)
    scored = []
    for index in range(len(sessions)):
        vectors = torch.from_numpy(cache[index])[None].to(model.device)
        mask = torch.ones(vectors.shape[:2], dtype=torch.bool, device=model.device)
        output = model(turn_features=vectors, turn_mask=mask)
        score = model.predict_score(output.turn_rewards, output.turn_mask, output.losses).item()
        [beside] = model.by_rating(output)
        scored.append({"turn_rewards": output.turn_rewards[0].tolist(), "score": score} | beside)
    return scored


@torch.inference_mode()
def _write(model: GeliRewardModel, sessions: Dataset, folder: Path, dtype: torch.dtype, batch_size: int) -> None:
    turns = [len(assistant_turns(messages)) for messages in sessions["messages"]]
    first = np.cumsum([0, *turns])
    shape = (int(first[-1]), model.config.feature_size)
    features = np.lib.format.open_memmap(folder / "features.npy", mode="w+", dtype=np.float32, shape=shape)
    training = model.training
    model.eval()  # dropout would be frozen into the cache
    for start in tqdm(range(0, len(sessions), batch_size), desc="Encoding turns", unit="batch"):
        inputs = model.tokenize(sessions[start : start + batch_size]["messages"])
        with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
            encoded = model.encode_turns(**inputs)
        for row, (vectors, mask) in enumerate(zip(encoded.features, encoded.mask), start):
            features[first[row] : first[row + 1]] = vectors[mask].float().cpu().numpy()
    model.train(training)
    features.flush()
    np.save(folder / "first.npy", first)


def features_key(model: GeliRewardModel, sessions: Dataset, dtype: torch.dtype) -> str:
    """Compute the name of a cache, a digest of all that the features depend on; see `cached_turn_features`."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps({name: getattr(model.config, name) for name in READING_FIELDS}).encode())
    digest.update(f"{dtype} {model.tokenizer.chat_template}".encode())
    digest.update(json.dumps(model.tokenizer.get_vocab(), sort_keys=True).encode())
    digest.update(weights_digest(model.model).encode())
    for messages in sessions["messages"]:
        digest.update(json.dumps(messages, sort_keys=True).encode())
    return digest.hexdigest()
