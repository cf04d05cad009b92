"""How likely the policy that one began with finds a reply: the guard against replies that nobody would give."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..sessions import Message
from .policy import load_policy


class ReferenceLikelihood:
    """The log-likelihood of replies under a policy that does not learn, for `GeliReward(likelihood=...)`.

    A reward model has learned from what is said, and is wrong most often about what never is: a sentence that breaks
    off, a question about something nobody has named. With `weight * log pi(reply | prompt)` added to the reward r, and
    beta times the KL divergence from the same policy pi taken off, the best policy is in proportion to

        pi(reply | prompt) ** ((beta + weight) / beta) * exp(r / beta):

    the penalty alone holds it to replies that pi might give, and this to those that pi would rather give (Jaques et
    al., ICML 2017, arXiv 1611.02796: augmentation by the log-prior, with the weight 1). GRPO divides rewards by the
    deviation of their group, and then beta is in another unit than r and the weight. What it costs is variety, and
    memory for a second copy of the policy.

    Args:
        policy: the policy that training begins with, or its name or folder; loaded in the dtype that it was saved in.
            A model is frozen, and must not be the one that learns.
        tokenizer: that of a policy which is given as a model.
        weight: what a nat is worth, in units of the reward: 0 or more. Among the replies to one prompt the standard
            deviation is 2.7 nats in the small policy that comes with the package, and more where more is said.
        chat_template_kwargs: what the trainer's arguments have under this name.
        batch_size: replies that are read together.

    Example:

    ```python
    reward = GeliReward("reward_model", likelihood=ReferenceLikelihood("sft_policy"))
    ```
    """

    def __init__(
        self,
        policy: PreTrainedModel | str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        weight: float = 0.2,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        batch_size: int = 16,
    ):
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight: expected a number, 0 or more, found {weight}")
        if isinstance(policy, str | Path):
            policy, tokenizer = load_policy(policy)
        elif tokenizer is None:
            raise ValueError("tokenizer: a policy that is given as a model needs its tokenizer")
        self.policy, self.tokenizer = policy.requires_grad_(False), tokenizer
        self.weight, self.batch_size = weight, batch_size
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        # Logits of a long prompt are the most that this takes, and nobody wants them.
        self._keeps = "logits_to_keep" in inspect.signature(policy.forward).parameters

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Sequence[Message]], completion_ids: Sequence[Sequence[int]]) -> list[float]:
        """Sums of the log-probabilities of the tokens of each completion, in nats, at temperature 1.

        Args:
            prompts: for each completion the dialogue before it.
            completion_ids: the tokens that were sampled, the one that ends a reply included.

        Returns:
            One for each completion; 0 of one without a token.

        Raises:
            ValueError: the reference has another tokenizer, or is the policy that learns.
        """
        self.policy.eval()
        if any(weights.requires_grad for weights in self.policy.parameters()):
            raise ValueError(
                "policy: the reference of the likelihood learns, for the trainer has put an adapter into it or trains "
                "it; give ReferenceLikelihood the folder of the policy, or a copy"
            )
        known = self.policy.get_input_embeddings().num_embeddings
        if (highest := max((max(ids, default=0) for ids in completion_ids), default=0)) >= known:
            raise ValueError(
                f"completion_ids: found the token {highest}, but the reference knows {known}; the likelihood is that "
                "of the policy which training begins with, or of another with the same tokenizer"
            )
        given = [self._prompt_ids(prompt) for prompt in prompts]
        result = [0.0] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda index: len(given[index]))
        for first in range(0, len(order), self.batch_size):
            batch = order[first : first + self.batch_size]
            found = self._read([given[index] for index in batch], [list(completion_ids[index]) for index in batch])
            for index, value in zip(batch, found):
                result[index] = value
        return result

    def place(self) -> None:
        """Move to where the trainer is, if that is not known before."""
        if self.policy.device.type == "cpu" and PartialState().device != self.policy.device:
            self.policy.to(PartialState().device)

    def _prompt_ids(self, prompt: Sequence[Message]) -> list[int]:
        encoded = self.tokenizer.apply_chat_template(
            list(prompt), add_generation_prompt=True, return_dict=True, **self.chat_template_kwargs
        )
        return encoded["input_ids"]

    def _read(self, prompts: list[list[int]], replies: list[list[int]]) -> list[float]:
        rows = [torch.tensor(prompt + reply) for prompt, reply in zip(prompts, replies)]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.policy.device)
        # Padding comes after all that counts, so no token sees it.
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        first = min(map(len, prompts)) - 1  # whose logits are of the first token of any reply
        kept = {"logits_to_keep": ids.shape[1] - first} if self._keeps else {}
        logits = self.policy(input_ids=ids, attention_mask=mask.long().to(ids.device), use_cache=False, **kept).logits
        logits = logits[:, -(ids.shape[1] - first) :]
        result = []
        for row, prompt, reply in zip(logits, prompts, replies):  # by one: in float32 all together take much memory
            start = len(prompt) - 1 - first
            said = row[start : start + len(reply)].float().log_softmax(-1)
            chosen = said.gather(1, torch.tensor(reply, dtype=torch.long, device=said.device)[:, None])
            result.append(chosen.cpu().double().sum().item())
        return result
