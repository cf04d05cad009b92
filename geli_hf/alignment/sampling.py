"""Sampling of a policy's replies to given dialogues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..sessions import Message
from .dialogue import cut_reply


@dataclass(frozen=True)
class SampledReply:
    """A sampled reply.

    Args:
        text: the reply, cut as for its reward; "" if nothing is left.
        prompt_ids: tokens of the prompt.
        token_ids: sampled tokens before the cut, with the end token if it was sampled.
        ended: its end token was sampled.
    """

    text: str
    prompt_ids: list[int]
    token_ids: list[int]
    ended: bool = True


def generate_replies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]], **options
) -> list[str]:
    """Sample the texts of replies; see `sample_replies` for the arguments."""
    return [reply.text for reply in sample_replies(model, tokenizer, prompts, **options)]


def end_tokens(config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """List the tokens that end a reply: the configuration's, else the tokenizer's."""
    ends = tokenizer.eos_token_id if config.eos_token_id is None else config.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends)


def generate_tokens(
    model: PreTrainedModel, config: GenerationConfig, contexts: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Generate a reply to each context, in one batch.

    Args:
        model: a causal language model.
        config: of generation; its `eos_token_id` is a list.
        contexts: tokens before each reply.

    Returns:
        Tokens of each reply, with its end token if that was generated.
    """
    longest = max(map(len, contexts))
    ids = [[config.pad_token_id] * (longest - len(context)) + context for context in contexts]
    mask = [[0] * (longest - len(context)) + [1] * len(context) for context in contexts]
    output = model.generate(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        generation_config=config,
    )
    replies = []
    for row in output[:, longest:].tolist():
        end = next((position for position, token in enumerate(row) if token in config.eos_token_id), len(row))
        replies.append(row[: end + 1])
    return replies


@torch.inference_mode()
def sample_replies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = False,
) -> list[SampledReply]:
    """Sample a reply to each prompt.

    Args:
        model: a causal language model; it is put into eval mode.
        tokenizer: its tokenizer, with a chat template.
        prompts: dialogues that end with the user, as in `dialogue_prompts(sessions)["prompt"]`.
        max_new_tokens: longest reply, in tokens.
        temperature: of sampling; 0 decodes greedily.
        seed: of sampling; the caller's random state stays. Another `batch_size` gives other replies.
        batch_size: prompts in one batch, sorted by length.
        progress: show a progress bar.

    Returns:
        Replies in the order of the prompts.
    """
    model.eval()
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    # A new configuration, since a checkpoint's own may set a top-p or a repetition penalty; its end tokens are kept.
    ends = end_tokens(model.generation_config, tokenizer)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id, **sampling
    )
    texts = tokenizer.apply_chat_template(list(map(list, prompts)), tokenize=False, add_generation_prompt=True)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    replies: dict[int, SampledReply] = {}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for first in tqdm(range(0, len(order), batch_size), desc="Replying", unit="batch", disable=not progress):
            batch = order[first : first + batch_size]
            # The template has the special tokens.
            asked = tokenizer([texts[index] for index in batch], add_special_tokens=False)["input_ids"]
            for index, prompt, tokens in zip(batch, asked, generate_tokens(model, config, asked)):
                text = tokenizer.decode(tokens, skip_special_tokens=True)
                replies[index] = SampledReply(cut_reply(text), prompt, tokens, tokens[-1] in ends)
    return [replies[index] for index in range(len(texts))]
