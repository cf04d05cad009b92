"""Log-likelihood of replies under a reference policy, as a part of the reward."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..sessions import Message
from .policy import load_policy


class ReferenceLikelihood:
    """Log-likelihood of replies under a frozen policy, for `GeliReward(likelihood=...)`.

    A reward model is most often wrong about replies that never occur in its data, such as unfinished sentences. With
    `weight * log pi(reply | prompt)` added to the reward r, and a KL penalty of weight beta towards the same policy
    pi, the best policy is proportional to

        pi(reply | prompt) ** ((beta + weight) / beta) * exp(r / beta).

    The KL penalty alone allows every reply that pi allows; the likelihood prefers those that pi prefers (Jaques et
    al., ICML 2017, arXiv 1611.02796: augmentation by the log-prior, with weight 1). GRPO divides rewards by the
    standard deviation of their group, so that beta has another unit than r and the weight. The cost is less variety
    of replies, and memory for a second copy of the policy.

    Args:
        policy: the policy before training, or its name or folder; loaded in the dtype of its weights. A model is
            frozen, and must not be the one that is trained.
        tokenizer: of a policy that is given as a model.
        weight: reward of a nat, 0 or more. Among the replies to one prompt the standard deviation is 2.7 nats in the
            shipped policy, and larger for longer replies.
        chat_template_kwargs: those of the trainer's arguments.
        batch_size: replies in one pass.

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
        if isinstance(policy, str | Path):
            policy, tokenizer = load_policy(policy)
        self.policy, self.tokenizer = policy.requires_grad_(False), tokenizer
        self.weight, self.batch_size = weight, batch_size
        self.chat_template_kwargs = dict(chat_template_kwargs or {})

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Sequence[Message]], completion_ids: Sequence[Sequence[int]]) -> list[float]:
        """Sum the log-probabilities of the tokens of each completion, in nats, at temperature 1.

        Args:
            prompts: dialogue before each completion.
            completion_ids: sampled tokens of each completion, with its end token.

        Returns:
            One sum per completion; 0 for a completion without tokens.

        Raises:
            ValueError: the reference is being trained.
        """
        self.policy.eval()
        if any(weights.requires_grad for weights in self.policy.parameters()):
            raise ValueError(
                "policy: the reference of the likelihood is being trained; give ReferenceLikelihood the folder of the "
                "policy, or a copy"
            )
        prompt_ids = self.tokenizer.apply_chat_template(
            list(map(list, prompts)), add_generation_prompt=True, return_dict=True, **self.chat_template_kwargs
        )["input_ids"]
        sums = [0.0] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda index: len(prompt_ids[index]))
        for first in range(0, len(order), self.batch_size):
            batch = order[first : first + self.batch_size]
            completions = [list(completion_ids[index]) for index in batch]
            logits = completion_logits(self.policy, [prompt_ids[index] for index in batch], completions)
            for index, row, ids in zip(batch, logits, completions):
                chosen = torch.tensor(ids, dtype=torch.long, device=row.device)[:, None]
                # One completion at a time: in float32 a batch takes much memory.
                sums[index] = row.float().log_softmax(-1).gather(1, chosen).cpu().double().sum().item()
        return sums


def completion_logits(
    model: PreTrainedModel, prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """Compute the logits of each completion's tokens, given the prompt and the tokens before, in one pass.

    Args:
        model: causal language model.
        prompt_ids: tokens of each prompt, at least one.
        completion_ids: tokens of each completion.

    Returns:
        One tensor (tokens, vocabulary) per completion, in the model's dtype and on its device.
    """
    rows = [
        torch.tensor([*prompt, *completion]) for prompt, completion in zip(prompt_ids, completion_ids, strict=True)
    ]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)
    # Padding stands on the right, so that no token attends to it.
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    first = min(map(len, prompt_ids)) - 1  # position of the logits of the earliest completion token
    # The logits of a long prompt take the most memory, and are not needed.
    skips = "logits_to_keep" in inspect.signature(model.forward).parameters
    kept = {"logits_to_keep": ids.shape[1] - first} if skips else {}
    logits = model(input_ids=ids, attention_mask=mask.long().to(ids.device), use_cache=False, **kept).logits
    logits = logits[:, -(ids.shape[1] - first) :]
    starts = [len(prompt) - 1 - first for prompt in prompt_ids]
    return [row[start : start + len(ids)] for row, start, ids in zip(logits, starts, completion_ids)]
