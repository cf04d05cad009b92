"""How far a policy has gone from the one that it was made of: the KL divergence of their replies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..alignment.sampling import SampledReply

ESTIMATOR = (
    "KL(aligned || base) in nats per reply: over replies that the aligned policy sampled, the sum over their tokens "
    "of the exact divergence of the two next-token distributions, at the temperature of sampling"
)


def why_not_comparable(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base: PreTrainedModel, base_tokenizer
) -> str | None:
    """Why two policies have no divergence: they don't choose between the same tokens. None if they do."""
    if tokenizer.get_vocab() != base_tokenizer.get_vocab():
        return "the two policies have different vocabularies, so there is no divergence of their tokens"
    sizes = [each.get_output_embeddings().weight.shape[0] for each in (policy, base)]
    if sizes[0] != sizes[1]:
        return f"the two policies choose between {sizes[0]} and {sizes[1]} tokens, so there is no divergence of them"
    return None


@torch.inference_mode()
def reply_divergence(
    policy: PreTrainedModel,
    base: PreTrainedModel,
    replies: Sequence[SampledReply],
    *,
    temperature: float = 1.0,
    batch_size: int = 16,
    progress: bool = False,
) -> np.ndarray:
    """The divergence from the base along each reply that the policy sampled, in nats:

        sum_t sum_v p(v | prompt, y_<t) (log p(v | prompt, y_<t) - log q(v | prompt, y_<t)),    y ~ p

    with p the policy and q the base, both at the temperature of sampling. Its mean over replies is an unbiased
    estimate of KL(p || q) of whole replies of at most so many tokens, as that of `log p(y) - log q(y)` is, at a lower
    variance and never below 0 (Amini, Vieira and Cotterell, arXiv 2504.10637).

    Args:
        policy, base: on the same vocabulary, see `why_not_comparable`.
        replies: of the policy.
        temperature: at which they were sampled; of greedy replies, 0, it is the divergence at temperature 1.
        batch_size: replies that are read together.

    Returns:
        (replies,), float64, 0 of a reply without a token.
    """
    policy.eval()
    base.eval()
    result = np.zeros(len(replies))
    order = sorted(range(len(replies)), key=lambda index: len(replies[index].prompt_ids + replies[index].token_ids))
    starts = range(0, len(order), batch_size)
    for first in tqdm(starts, desc="Measuring the divergence", unit="batch", disable=not progress):
        chosen = [replies[index] for index in order[first : first + batch_size]]
        rows = [torch.tensor(reply.prompt_ids + reply.token_ids) for reply in chosen]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # whatever pads: it is masked, and comes after
        length = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(ids.shape[1]) < length[:, None]).long()
        said = [_logits(model, ids, mask) for model in (policy, base)]
        for row, (index, reply) in enumerate(zip(order[first : first + batch_size], chosen)):
            places = slice(len(reply.prompt_ids) - 1, len(reply.prompt_ids) + len(reply.token_ids) - 1)
            p, q = (_log_probabilities(logits[row, places], temperature) for logits in said)
            result[index] = (p.exp() * (p - q)).sum().item()
    return result


def _logits(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits


def _log_probabilities(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    return torch.log_softmax(logits.cpu().double() / (temperature or 1.0), dim=-1)
