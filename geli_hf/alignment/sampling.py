"""Replies of a policy to given dialogues, to look at and to compare before and after alignment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..evaluation.comparison import JudgedReply, PolicyComparison
from ..sessions import Message
from .dialogue import cut_reply
from .policy import load_policy
from .rewards import GeliReward
from .trainers import dialogue_prompts

if TYPE_CHECKING:
    from ..models.geli_reward.modeling_geli import GeliRewardModel


@dataclass(frozen=True)
class SampledReply:
    """A reply as it was sampled.

    Args:
        text: cut where the reward function would cut it; "" where the policy said nothing.
        prompt_ids: tokens of the prompt, as the policy was given them.
        token_ids: tokens that were sampled, before the cut; the one that ends the reply is the last, if it came.
    """

    text: str
    prompt_ids: list[int]
    token_ids: list[int]


def generate_replies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]], **options
) -> list[str]:
    """The texts of `sample_replies`, with the same arguments."""
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
        Replies in the order of the prompts.
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
    replies: list[Any] = [None] * len(texts)
    last = {config.eos_token_id} if isinstance(config.eos_token_id, int) else set(config.eos_token_id)
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
            said = tokenizer.batch_decode(generated, skip_special_tokens=True)
            asked = [ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"])]
            for index, text, prompt, tokens in zip(chosen, said, asked, generated.tolist()):
                end = next((place + 1 for place, token in enumerate(tokens) if token in last), len(tokens))
                replies[index] = SampledReply(cut_reply(text), prompt, tokens[:end])
    return replies


def compare_policies(
    before: str | Path,
    after: str | Path,
    sessions: Dataset,
    judge: Callable[[list[list[Message]], list[str]], list[JudgedReply]],
    *,
    true: bool,
    replies: int,
    context_messages: int = 8,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    **model_kwargs,
) -> PolicyComparison:
    """What two policies answer to the same held-out dialogues, and what a judge says of it.

    Args:
        before, after: folders or names of the policies.
        sessions: that neither has learned from.
        judge: called with dialogues, as long as they are, and a reply to each.
        true: whether the judge knows the truth.
        replies: number of dialogues, drawn by `seed`; all of them if there are fewer.
        context_messages: messages of a dialogue that a policy is shown.
        max_new_tokens, temperature, seed: see `generate_replies`.
        model_kwargs: see `load_policy`.
    """
    prompts = dialogue_prompts(sessions, context_messages=context_messages).shuffle(seed=seed)
    prompts = prompts.select(range(min(replies, len(prompts))))
    messages = dict(zip(sessions["session_id"], sessions["messages"]))
    dialogues = [messages[row["session_id"]][: row["position"]] for row in prompts]
    sides = []
    for policy in (before, after):
        model, tokenizer = load_policy(policy, **model_kwargs)
        answers = generate_replies(
            model.to(PartialState().device),
            tokenizer,
            prompts["prompt"],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            progress=True,
        )
        sides.append(judge(dialogues, answers))
    return PolicyComparison(dialogues, *sides, prompts["conversation_id"][:], true)


def judge_by_reward(
    model: GeliRewardModel, dialogues: Sequence[Sequence[Message]], replies: Sequence[str]
) -> list[JudgedReply]:
    """Replies judged by a reward model, which is no judge of a policy that was trained to please it."""
    completions = [[{"role": "assistant", "content": reply}] for reply in replies]
    values = GeliReward(model).turn_rewards(dialogues, completions)
    return [JudgedReply(reply, value, recognised=None) for reply, value in zip(replies, values)]
