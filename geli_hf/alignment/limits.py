"""What a run of TRL's trainers can't be, said in terms of the settings that can be changed.

TRL refuses it too, or runs out of memory, but names what it has derived from the settings instead of them.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainingArguments
from trl import GRPOConfig, RLOOConfig, SFTConfig


def check_kl_weight(beta: float, argument: str = "args.beta") -> None:
    """Raises a ValueError where the weight of the KL penalty is not positive; `argument` is what it is called."""
    if not beta > 0:
        raise ValueError(
            f"{argument}: expected a positive weight of the KL penalty, found {beta}. Without it nothing keeps "
            "the policy near the one that was fine-tuned, and it learns to please the reward model in no language. "
            "Try 0.05"
        )


def check_groups(settings: Mapping[str, Any], cls: type[GRPOConfig] | type[RLOOConfig], processes: int) -> None:
    """Find out whether the completions of a generation are whole groups, `num_generations` for each prompt.

    Args:
        settings: of `cls`, before it is made of them; of right types.
        processes: how many there are, each of which takes `per_device_train_batch_size` at once.

    Raises:
        ValueError: they are not; the message says which numbers there are and which would fit.
    """
    given = {each.name: each.default for each in fields(cls) if each.default is not MISSING} | dict(settings)
    size = given["num_generations"]
    if size < 2:
        raise ValueError(f"num_generations: expected 2 or more completions to compare for each prompt, found {size}")
    if given["generation_batch_size"] is not None:
        total, made_of = given["generation_batch_size"], "generation_batch_size"
    else:
        steps = "steps_per_generation" if given["steps_per_generation"] else "gradient_accumulation_steps"
        total = given["per_device_train_batch_size"] * given[steps] * processes
        made_of = f"per_device_train_batch_size {given['per_device_train_batch_size']} x {steps} {given[steps]}"
        made_of += f" x {processes} processes" if processes > 1 else ""
    if total % size:
        fitting = [number for number in range(2, total + 1) if total % number == 0]
        raise ValueError(
            f"num_generations: expected a number that divides the {total} completions that are generated together "
            f"({made_of}), found {size}. Take {_or(fitting)}, or make these a multiple of {size}"
        )


def check_prompts(prompts: Dataset, args: GRPOConfig | RLOOConfig) -> None:
    """Raises a ValueError where there are fewer prompts than are answered together: TRL would take no step at all."""
    needed = args.generation_batch_size // args.num_generations
    if not len(prompts):
        raise ValueError("prompts: found none: no turn of the assistant answers anything in these sessions")
    if len(prompts) < needed:
        raise ValueError(
            f"prompts: expected {needed} or more, found {len(prompts)}: a step answers {needed} different ones "
            f"({args.generation_batch_size} completions, num_generations {args.num_generations}). Use more sessions, "
            "a smaller batch, or more num_generations"
        )


def check_likelihood(reward: Callable | Sequence[Callable], tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError if the reference of a reward's likelihood has other tokens than the policy."""
    for each in reward if isinstance(reward, Sequence) else [reward]:
        likelihood = getattr(each, "likelihood", None)
        if likelihood is not None and likelihood.tokenizer.get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                "reward: its likelihood is that of a policy with another tokenizer, so it would read other words than "
                "were said; give ReferenceLikelihood the policy that is trained"
            )


@contextmanager
def naming_memory(args: TrainingArguments) -> Iterator[None]:
    """Say which settings to lower where memory does not suffice, by what was being done.

    Raises:
        MemoryError: from PyTorch's own error.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)):
            raise
        doing, lower = _what_to_lower(args, {frame.name for frame in traceback.extract_tb(error.__traceback__)})
        said = str(error).strip().partition("\n")[0]
        raise MemoryError(f"out of memory while {doing}. Lower {lower}. PyTorch said: {said}") from error


def _what_to_lower(args: TrainingArguments, functions: set[str]) -> tuple[str, str]:
    """What was being done, by the names of the functions that were running, and what would make it smaller."""
    batch = f"per_device_train_batch_size (now {args.per_device_train_batch_size}, "
    batch += f"with gradient_accumulation_steps {args.gradient_accumulation_steps} raised in its place)"
    if "_calculate_rewards" in functions:
        return "rewarding completions", (
            f"the number of completions that are rewarded together ({args.generation_batch_size}: by "
            "steps_per_generation or per_device_train_batch_size), or context_messages, or the batch_size of a "
            "ReferenceLikelihood, or take a smaller reward model"
        )
    if "generate_replies" in functions:
        return (
            "replying to held-out dialogues",
            "max_completion_length, context_messages, or the batch_size of replies",
        )
    if "_generate" in functions:
        return "generating", (
            f"max_completion_length (now {args.max_completion_length}), context_messages, or the number of "
            f"completions that are generated together ({args.generation_batch_size}: by steps_per_generation or "
            "per_device_train_batch_size)"
            + (f", or vllm_gpu_memory_utilization (now {args.vllm_gpu_memory_utilization})" if args.use_vllm else "")
        )
    longest = f"max_length (now {args.max_length})" if isinstance(args, SFTConfig) else None
    longest = longest or f"max_completion_length (now {getattr(args, 'max_completion_length', 'not set')})"
    checkpointing = "" if args.activation_checkpointing else ", or set activation_checkpointing"
    return "training", f"{batch} or {longest}{checkpointing}, or train an adapter (LoRA) instead of all weights"


def _or(numbers: list[int], shown: int = 6) -> str:
    words = [str(number) for number in (numbers if len(numbers) <= shown else [*numbers[: shown - 1], numbers[-1]])]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
