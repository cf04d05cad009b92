"""Turn features of a frozen backbone, computed once and kept on disk, so that an epoch costs seconds.

A cache is named by what it depends on: the backbone's weights and vocabulary, how turns are read, and the dialogues
themselves. It is there when it is whole, so a half-written one is never read.
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

from ..cache import cache_root, whole
from ..sessions import assistant_turns
from .geli_reward.modeling_geli import GeliRewardModel

logger = logging.get_logger(__name__)

READING_FIELDS = ("pooling", "layers", "causal", "context_messages", "max_length", "prefix_token_ids")
TURNS_AT_ONCE = 4096  # that are read from a cache to compute with all of them


class TurnFeatureCache:
    """Features of the assistant turns of every session, memory-mapped: `cache[i]` is `(turns, hidden)`, float32.

    Args:
        features: (all turns, hidden).
        first: (sessions + 1,), where each session's turns begin.
    """

    def __init__(self, features: np.ndarray, first: np.ndarray):
        self.features = features
        self.spans = np.stack([first[:-1], first[1:]], 1)  # (sessions, 2): first turn and the one past the last

    @classmethod
    def read(cls, folder: Path) -> "TurnFeatureCache":
        return cls(np.load(folder / "features.npy", mmap_mode="r"), np.load(folder / "first.npy"))

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: int) -> np.ndarray:
        first, past = self.spans[index]
        return np.array(self.features[first:past])

    def select(self, rows: Sequence[int]) -> "TurnFeatureCache":
        """The features of some of the sessions, in that order; nothing is copied."""
        selected = copy.copy(self)
        selected.spans = self.spans[np.asarray(rows, int)]
        return selected

    @property
    def lengths(self) -> np.ndarray:
        """(sessions,), how many turns each session has."""
        return self.spans[:, 1] - self.spans[:, 0]

    def all(self) -> np.ndarray:
        """(turns, hidden), those of all sessions, one after the other; a copy only where sessions were selected."""
        begin, end = self.spans[:, 0], self.spans[:, 1]
        if not len(self):
            return self.features[:0]
        if (begin[1:] == end[:-1]).all():
            return self.features[begin[0] : end[-1]]
        return np.concatenate([self.features[first:past] for first, past in self.spans])

    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation `(hidden,)` of each feature over all turns, in memory that does not grow with them."""
        turns = sum(len(part) for part in self._parts())
        mean = sum(part.sum(0, dtype=np.float64) for part in self._parts()) / turns
        return mean, np.sqrt(sum(np.square(part - mean).sum(0) for part in self._parts()) / turns)

    def _parts(self) -> Iterator[np.ndarray]:
        """All turns, some thousand at once, whatever the lengths of the sessions."""
        waiting, turns = [], 0
        for index in range(len(self)):
            waiting.append(self[index])
            turns += len(waiting[-1])
            if turns >= TURNS_AT_ONCE or index == len(self) - 1:
                yield np.concatenate(waiting)
                waiting, turns = [], 0


def cached_turn_features(
    model: GeliRewardModel,
    sessions: Dataset,
    *,
    cache_dir: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 32,
) -> TurnFeatureCache:
    """The features that `model`'s backbone gives the assistant turns of `sessions`.

    Args:
        cache_dir: default `features` under `geli_hf.cache.cache_root()`.
        dtype: what the backbone's matrices are multiplied in; `torch.bfloat16` is two to three times as fast where
            the hardware has it. Features are kept in float32.
        batch_size: sessions that are encoded together.
    """
    folder = Path(cache_dir or cache_root() / "features") / features_key(model, sessions, dtype)
    if not folder.exists():
        with whole(folder) as partial:
            partial.mkdir()
            _write(model, sessions, partial, dtype, batch_size)
    return TurnFeatureCache.read(folder)


@torch.inference_mode()
def score_cached(
    model: GeliRewardModel,
    sessions: Dataset,
    *,
    cache_dir: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    features: TurnFeatureCache | None = None,
) -> list[dict]:
    """`turn_rewards` and `score` of every session, as of `model.score_sessions`, from cached features.

    For several heads on one backbone: only the first has to encode. `features` are those of the sessions, where they
    are at hand.
    """
    cache = features or cached_turn_features(model, sessions, cache_dir=cache_dir, dtype=dtype)
    scored = []
    for index in range(len(sessions)):
        vectors = torch.from_numpy(cache[index])[None].to(model.device)
        mask = torch.ones(vectors.shape[:2], dtype=torch.bool, device=model.device)
        output = model(turn_features=vectors, turn_mask=mask)
        score = model.predict_score(output.turn_rewards, output.turn_mask).item()
        scored.append({"turn_rewards": output.turn_rewards[0].tolist(), "score": score})
    return scored


@torch.inference_mode()
def _write(model: GeliRewardModel, sessions: Dataset, folder: Path, dtype: torch.dtype, batch_size: int) -> None:
    turns = [len(assistant_turns(messages)) for messages in sessions["messages"]]
    first = np.cumsum([0, *turns])
    shape = (int(first[-1]), model.config.get_text_config().hidden_size)
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
    """What names a cache: a digest of all that the features of the sessions' turns depend on."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps({name: getattr(model.config, name) for name in READING_FIELDS}).encode())
    digest.update(f"{dtype} {model.tokenizer.chat_template}".encode())
    digest.update(json.dumps(model.tokenizer.get_vocab(), sort_keys=True).encode())
    for name, tensor in model.model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    for messages in sessions["messages"]:
        digest.update(json.dumps(messages, sort_keys=True).encode())
    return digest.hexdigest()
