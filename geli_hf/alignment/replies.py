"""Replies of a policy to given dialogues, to look at and to compare before and after alignment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..sessions import Message
from .dialogue import cut_reply


@torch.inference_mode()
def generate_replies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = False,
) -> list[str]:
    """One reply to each prompt, cut where the reward function would cut it.

    Args:
        model: a causal language model; it is put into eval mode.
        tokenizer: its tokenizer, with a chat template.
        prompts: dialogues that end with the user, as `dialogue_prompts(sessions)["prompt"]` holds them.
        max_new_tokens: longest reply, in tokens.
        temperature: of sampling; 0 takes the most likely token each time.
        seed: of sampling; the caller's random state is left alone. With another `batch_size` other replies are drawn.
        batch_size: prompts that are answered together, those of similar length first.
        progress: show a progress bar.

    Returns:
        Replies in the order of the prompts; "" where the policy said nothing.
    """
    if temperature < 0:
        raise ValueError(f"temperature: expected 0 or more, found {temperature}")
    model.eval()
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    # Made anew, so that what a checkpoint says of sampling (a top-p, a repetition penalty) doesn't get in between;
    # which tokens end a reply is kept.
    ends = model.generation_config.eos_token_id
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id if ends is None else ends,
        pad_token_id=tokenizer.pad_token_id,
        **sampling,
    )
    texts = tokenizer.apply_chat_template(list(map(list, prompts)), tokenize=False, add_generation_prompt=True)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    replies = [""] * len(texts)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for first in tqdm(range(0, len(order), batch_size), desc="Replying", unit="batch", disable=not progress):
            chosen = order[first : first + batch_size]
            inputs = tokenizer(
                [texts[index] for index in chosen],
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=False,  # the template has written them
                return_token_type_ids=False,
            ).to(model.device)
            output = model.generate(**inputs, generation_config=config)
            generated = output[:, inputs["input_ids"].shape[1] :]
            for index, text in zip(chosen, tokenizer.batch_decode(generated, skip_special_tokens=True)):
                replies[index] = cut_reply(text)
    return replies
