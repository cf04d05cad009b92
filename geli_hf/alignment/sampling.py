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
    """

    text: str
    prompt_ids: list[int]
    token_ids: list[int]


def generate_replies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]], **options
) -> list[str]:
    """Sample the texts of replies; see `sample_replies` for the arguments."""
    return [reply.text for reply in sample_replies(model, tokenizer, prompts, **options)]


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

    Raises:
        ValueError: the temperature is negative.
    """
    if temperature < 0:
        raise ValueError(f"temperature: expected 0 or more, found {temperature}")
    model.eval()
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    # A new configuration, since a checkpoint's own may set a top-p or a repetition penalty; its end tokens are kept.
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id, **sampling
    )
    ends = {ends} if isinstance(ends, int) else set(ends)
    texts = tokenizer.apply_chat_template(list(map(list, prompts)), tokenize=False, add_generation_prompt=True)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    replies: dict[int, SampledReply] = {}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for first in tqdm(range(0, len(order), batch_size), desc="Replying", unit="batch", disable=not progress):
            batch = order[first : first + batch_size]
            inputs = tokenizer(
                [texts[index] for index in batch],
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=False,  # the template has them
                return_token_type_ids=False,
            ).to(model.device)
            output = model.generate(**inputs, generation_config=config)
            generated = output[:, inputs["input_ids"].shape[1] :]
            decoded = tokenizer.batch_decode(generated, skip_special_tokens=True)
            asked = [ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"])]
            for index, text, prompt, tokens in zip(batch, decoded, asked, generated.tolist()):
                end = next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))
                replies[index] = SampledReply(cut_reply(text), prompt, tokens[:end])
    return [replies[index] for index in range(len(texts))]
