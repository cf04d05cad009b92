"""`Batches`: dialogues of many clients through one reward model, as many at once as a batch of tokens holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from ..models.geli_reward.modeling_geli import GeliRewardModel


class Full(Exception):
    """So many tokens wait that this dialogue would not come soon."""


class Scored(NamedTuple):
    """Rewards of a dialogue's turns, its predicted rating, and whether it was longer than the model's context."""

    rewards: list[float]
    rating: float
    cropped: bool


@dataclass
class _Waiting:
    ids: Sequence[int]
    result: Future = field(default_factory=Future)


class Batches:
    """Thread that scores whatever waits, in the order of arrival. A batch begins when the one before ends.

    Args:
        model: the reward model, in eval mode.
        batch_tokens: tokens of a batch; a longer dialogue is a batch of its own.
        queue_tokens: tokens that wait at most.
    """

    def __init__(self, model: GeliRewardModel, *, batch_tokens: int = 8_192, queue_tokens: int = 262_144):
        self.model, self.batch_tokens, self.queue_tokens = model, batch_tokens, queue_tokens
        self.waiting_tokens = 0
        self._waiting: deque[_Waiting] = deque()
        self._changed, self._closed = Condition(), False
        self._thread = Thread(target=self._work, name="geli-batches", daemon=True)
        self._thread.start()

    def submit(self, ids: Sequence[int]) -> Future[Scored]:
        """Queue a dialogue.

        Args:
            ids: its tokens, as the chat template of the model's tokenizer writes it, with an assistant's turn.

        Returns:
            What will hold the result. Cancel it if nobody waits any more.

        Raises:
            Full: the queue is.
        """
        with self._changed:
            if self._closed or (self._waiting and self.waiting_tokens + len(ids) > self.queue_tokens):
                raise Full
            self._waiting.append(_Waiting(ids))
            self.waiting_tokens += len(ids)
            self._changed.notify()
            return self._waiting[-1].result

    def close(self) -> None:
        """Score what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            wanted = [each for each in batch if each.result.set_running_or_notify_cancel()]
            try:
                for each, scored in zip(wanted, self._score([each.ids for each in wanted])):
                    each.result.set_result(scored)
            except Exception as error:  # of memory, say; the next batch may be smaller
                for each in wanted:
                    if not each.result.done():
                        each.result.set_exception(error)

    def _next(self) -> list[_Waiting]:
        """Wait for dialogues, and take a batch; an empty one at the end."""
        batch, tokens = [], 0
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            while self._waiting and (not batch or tokens + len(self._waiting[0].ids) <= self.batch_tokens):
                batch.append(self._waiting.popleft())
                tokens += len(batch[-1].ids)
            self.waiting_tokens -= tokens
        return batch

    @torch.inference_mode()
    def _score(self, dialogues: list[Sequence[int]]) -> list[Scored]:
        if not dialogues:
            return []
        ids = [torch.tensor(dialogue) for dialogue in dialogues]
        mask = pad_sequence([torch.ones_like(each) for each in ids], batch_first=True).to(self.model.device)
        output = self.model(pad_sequence(ids, batch_first=True).to(self.model.device), mask)
        ratings = self.model.predict_score(output.turn_rewards, output.turn_mask, output.losses)
        rows = zip(output.turn_rewards, output.turn_mask, ratings.tolist(), output.cropped.tolist())
        return [Scored(rewards[real].tolist(), rating, cropped) for rewards, real, rating, cropped in rows]
