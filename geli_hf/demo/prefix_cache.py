"""Keys and values of the conversations that a policy read last, so that its next reply reads only what is new."""

from __future__ import annotations

from collections.abc import Sequence
from threading import RLock

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from ..models.growing import common_length


class PrefixCache:
    """Keys and values of token sequences, found by the longest prefix that a prompt has in common with one of them.

    Threads may share it: a model appends to copies, and never changes what is kept. Keys and values belong to one
    model's weights and precision.

    Args:
        tokens: most tokens that are kept, of all conversations together; the one that was used longest ago goes
            first. A token of SmolLM2-135M takes 23 kB in bfloat16, so 8,192 take 190 MB.
    """

    def __init__(self, tokens: int = 8_192):
        self.tokens = tokens
        # Garbage collection may close an abandoned reply, which calls `keep`, while this thread is in here. So the
        # lock lets a thread in again, and a list is never changed, only replaced.
        self._lock = RLock()
        # Token ids, with keys and values of each layer; the one that was used last is the last.
        self._kept: list[tuple[list[int], list[tuple[torch.Tensor, torch.Tensor]]]] = []

    def find(self, ids: Sequence[int]) -> tuple[DynamicCache | None, int]:
        """Copy the keys and values of the longest known prefix of a prompt.

        Args:
            ids: tokens of the prompt. Its last one is always left to be read, since the reply follows from it.

        Returns:
            The keys and values, None if there are none, and the number of tokens that they belong to.
        """
        with self._lock:
            entries = self._kept
            common = [common_length(ids, kept) for kept, _ in entries]
            length = min(max(common, default=0), len(ids) - 1)
            if length <= 0:
                return None, 0
            place = common.index(max(common))
            self._kept = [*entries[:place], *entries[place + 1 :], entries[place]]
        layers = entries[place][1]
        return DynamicCache([(keys[..., :length, :], values[..., :length, :]) for keys, values in layers]), length

    def keep(self, ids: Sequence[int], past: Cache | None) -> None:
        """Keep the keys and values of tokens that were read, in the place of those of their prefixes.

        Args:
            ids: the tokens.
            past: of one sequence, as the model returned it. It may hold more tokens in some layers, when an error
                ended the last pass. What can't be cut, such as a recurrent state, is not kept.
        """
        if type(past) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in past.layers):
            return
        ids, layers = list(ids), [(layer.keys, layer.values) for layer in past.layers]
        with self._lock:
            entries = [each for each in self._kept if each[0] != ids[: len(each[0])]] + [(ids, layers)]
            while sum(len(kept) for kept, _ in entries) > self.tokens:
                del entries[0]
            self._kept = entries
