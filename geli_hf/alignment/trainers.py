"""Training of a policy in stages: supervised fine-tuning on sessions, then reinforcement learning with turn rewards.

Both stages are TRL's own trainers. This module prepares their rows, checks the method (loss on the agent's turns, a
KL penalty towards the fine-tuned policy), and saves one plain model folder.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from datasets import Dataset, Features, List, Value
from peft import PeftConfig, PeftModel, load_peft_weights, set_peft_model_state_dict
from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer, SFTConfig, SFTTrainer
from trl.chat_template_utils import get_training_chat_template
from trl.trainer import utils as trl_utils

from ..sessions import Message
from ..training.checkpoints import run_training, write_by_one
from .callbacks import KLCallback, StopAtKL
from .default import local_policy, public_name
from .dialogue import context_window, open_with_user
from .policy import check_policy, hub_kwargs, is_adapter, load_adapter, load_policy, load_policy_tokenizer

# On a CPU, TRL computes the logits of all tokens and leaves out those of prompts afterwards: half of a step's time. It
# asks this function whether to leave them out before; its kernels ask another one. A TRL without it stays as it is.
_ON_GPU = getattr(trl_utils, "_use_triton", None)
if _ON_GPU is not None:
    trl_utils._use_triton = lambda device: device.type == "cpu" or _ON_GPU(device)

_MESSAGES = List({"role": Value("string"), "content": Value("string")})


def dialogue_prompts(sessions: Dataset, *, context_messages: int = 8) -> Dataset:
    """Make a prompt of the messages before every turn of the agent.

    Args:
        sessions: Session rows.
        context_messages: longest prompt, in messages; see `context_window`. An agent's turn that begins the session
            gives no prompt.

    Returns:
        Rows with `prompt` (messages that end with the user's), `session_id`, `conversation_id`, `position` (index of
        the person's reply in the session's messages) and `reply` (that reply).
    """
    columns = {"session_id": "string", "conversation_id": "string", "position": "int32", "reply": "string"}
    features = Features({"prompt": _MESSAGES} | {name: Value(kind) for name, kind in columns.items()})

    def prompts(batch: dict[str, list]) -> dict[str, list]:
        rows = []
        for messages, session, conversation in zip(batch["messages"], batch["session_id"], batch["conversation_id"]):
            for position, message in enumerate(messages):
                if message["role"] == "assistant" and position:
                    prompt = context_window(messages[:position], context_messages)
                    rows.append((prompt, session, conversation, position, message["content"]))
        return {name: [row[index] for row in rows] for index, name in enumerate(features)}

    return sessions.map(
        prompts, batched=True, remove_columns=sessions.column_names, features=features, desc="Making prompts"
    )


def sft_rows(sessions: Dataset, *, window_messages: int = 20, per_turn: bool = False) -> Dataset:
    """Cut sessions into pieces for SFTTrainer, each from a user's message to an agent's.

    Args:
        sessions: Session rows.
        window_messages: longest piece, in messages; an even number.
        per_turn: make a row of every agent's turn of a piece, in place of one per piece.

    Returns:
        Rows with `messages`, or if `per_turn` with `prompt` and `completion`.
    """

    def rows(batch: dict[str, list]) -> dict[str, list]:
        pieces = [piece for messages in batch["messages"] for piece in _pieces(messages, window_messages)]
        if not per_turn:
            return {"messages": pieces}
        turns = [(piece[:turn], piece[turn : turn + 1]) for piece in pieces for turn in range(1, len(piece), 2)]
        return {"prompt": [before for before, _ in turns], "completion": [reply for _, reply in turns]}

    return sessions.map(
        rows,
        batched=True,
        remove_columns=sessions.column_names,
        features=Features({"prompt": _MESSAGES, "completion": _MESSAGES} if per_turn else {"messages": _MESSAGES}),
        desc="Cutting sessions",
    )


def _pieces(messages: list[Message], window_messages: int) -> list[list[Message]]:
    messages = open_with_user(messages)
    if messages[-1]["role"] == "user":
        messages = messages[:-1]
    # Pieces of equal length, in place of full ones and a rest, lose less context and need less padding.
    exchanges, count = len(messages) // 2, max(1, -(-len(messages) // window_messages))
    edges = [2 * (exchanges * index // count) for index in range(count + 1)]
    return [messages[start:stop] for start, stop in pairwise(edges)]


def pretrain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sessions: Dataset,
    args: TrainingArguments,
    *,
    window_messages: int = 20,
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool = False,
) -> Trainer:
    """Train a policy made from scratch on all words of the sessions, both roles'.

    The users' words teach language too, and halve the time. This is transformers' Trainer: SFTTrainer's loss is made
    for large vocabularies and slower on a small model.

    Args:
        model: the policy.
        tokenizer: its tokenizer.
        sessions: Session rows.
        args: of the Trainer.
        window_messages: longest piece of a session, in messages.
        callbacks: of the Trainer.
        resume: continue from the last checkpoint in `args.output_dir`, if there is one.

    Returns:
        The trainer, after training.
    """

    def tokenize(batch: dict[str, list]) -> dict[str, list]:
        return {"input_ids": tokenizer.apply_chat_template(batch["messages"], return_dict=True)["input_ids"]}

    rows = sft_rows(sessions, window_messages=window_messages)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=rows.map(tokenize, batched=True, remove_columns=["messages"], desc="Tokenizing"),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    run_training(trainer, resume)
    return trainer


def sft(
    model: PreTrainedModel | str,
    tokenizer: PreTrainedTokenizerBase,
    sessions: Dataset,
    args: SFTConfig,
    *,
    window_messages: int = 20,
    peft_config: PeftConfig | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool = False,
) -> SFTTrainer:
    """Fine-tune a policy on the agent's turns of the sessions.

    If the chat template marks the agent's turns (by `{% generation %}` tags, its own or TRL's for it), a row holds
    all turns of a piece. Otherwise each turn is a row, which costs more.

    Args:
        model: the policy, or its name or path.
        tokenizer: its tokenizer.
        sessions: Session rows; scores are not used.
        args: of TRL. The loss is on the agent's turns in any case.
        window_messages: longest piece of a session, in messages.
        peft_config: adapter to train in place of all weights.
        callbacks: of the trainer.
        resume: continue from the last checkpoint in `args.output_dir`, if there is one.

    Returns:
        The trainer, after training. `save_policy(trainer, folder)` saves the policy.
    """
    args = copy.copy(args)
    args.assistant_only_loss = _marks_turns(tokenizer)
    args.completion_only_loss = not args.assistant_only_loss
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=sft_rows(sessions, window_messages=window_messages, per_turn=args.completion_only_loss),
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=list(callbacks),
    )
    run_training(trainer, resume)
    return trainer


def _marks_turns(tokenizer: PreTrainedTokenizerBase) -> bool:
    try:
        get_training_chat_template(tokenizer)
    except ValueError:
        return False
    return True


def align(
    policy: str | Path,
    reward: Callable | list[Callable],
    prompts: Dataset,
    args: GRPOConfig | RLOOConfig,
    peft_config: PeftConfig | None,
    *,
    reference: str | Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool = False,
) -> GRPOTrainer | RLOOTrainer:
    """Train a policy with rewards by GRPO or, for an `RLOOConfig`, by RLOO.

    Args:
        policy: folder or name of the fine-tuned policy, which is the reference of the KL penalty too. An adapter is
            trained on, and its state before is the reference.
        reward: `GeliReward`, or several reward functions, whose rewards are added.
        prompts: rows of `dialogue_prompts`.
        args: of TRL. `beta`, the weight of the KL penalty, must not be 0, GRPO's default.
        peft_config: adapter to train. None trains all weights, or the adapter that `policy` is, with a copy as
            reference: it can't get another, unless `load_policy` has merged it.
        reference: adapter of the same shape that is the reference in place of `policy`, which is an adapter; such as
            the fine-tuned one, when a second stage begins with the adapter of the first.
        callbacks: of the trainer; `AdaptiveKL` and `StopAtKL` get its `trainer`. A `StopAtKL()` is added if there is
            none; `StopAtKL(float("inf"))` never stops.
        resume: continue from the last checkpoint in `args.output_dir`, if there is one.

    Returns:
        The trainer, after training. `save_policy(trainer, folder)` saves the policy.

    Raises:
        ValueError: an adapter is to get another; `beta`, the prompts, the reward or the reference do not fit.
        PolicyError: `policy` is not a policy.
    """
    if not args.beta > 0:  # without a KL penalty a policy leaves language to please the reward model
        raise ValueError(f"args.beta: expected a positive weight of the KL penalty, found {args.beta}. Try 0.05")
    needed = args.generation_batch_size // args.num_generations
    if len(prompts) < needed:  # with fewer, TRL takes no step
        raise ValueError(
            f"prompts: expected {needed} or more, found {len(prompts)}: a batch has {args.generation_batch_size} "
            f"completions, {args.num_generations} for each prompt. Use more sessions or a smaller batch"
        )
    where = hub_kwargs({"trust_remote_code": args.trust_remote_code} | (args.model_init_kwargs or {}))
    check_policy(policy, **where)
    adapter = is_adapter(policy, **where)
    if reference is not None and not adapter:
        raise ValueError(f"reference: for an adapter that is trained on; {policy} is a model, and its own reference")
    tokenizer = load_policy_tokenizer(policy, **where)
    for function in reward if isinstance(reward, Sequence) else [reward]:
        likelihood = getattr(function, "likelihood", None)
        if likelihood is not None and likelihood.tokenizer.get_vocab() != tokenizer.get_vocab():
            raise ValueError("reward: its ReferenceLikelihood has another tokenizer than the trained policy")
    callbacks = list(callbacks)
    if not any(isinstance(callback, StopAtKL) for callback in callbacks):
        callbacks.append(StopAtKL())
    trainer_class = RLOOTrainer if isinstance(args, RLOOConfig) else GRPOTrainer
    model = load_adapter(policy, trainable=True, **args.model_init_kwargs or {}) if adapter else local_policy(policy)
    if adapter:
        args = copy.copy(args)
        args.model_init_kwargs = None  # the model is made
    trainer = trainer_class(
        model=model,
        reward_funcs=reward,
        args=args,
        train_dataset=prompts,
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=callbacks,
    )
    if reference is not None:
        set_peft_model_state_dict(trainer.model, load_peft_weights(str(reference), device="cpu"), adapter_name="ref")
    for callback in callbacks:
        if isinstance(callback, KLCallback):
            callback.trainer = trainer
    run_training(trainer, resume)
    return trainer


def save_policy(trainer: Trainer, folder: str | Path, *, merge: bool = True) -> None:
    """Save the trained policy as a plain model folder with its tokenizer, atomically, from all processes.

    FSDP and DeepSpeed hold a part of the weights in each process, so the weights are gathered first. An adapter is
    merged in the trainer's model, so this is the last use of the trainer.

    Args:
        trainer: after training.
        folder: where to save; it appears when it is complete.
        merge: merge an adapter into the weights; False saves the adapter alone, which names its base model.

    Raises:
        FileExistsError: the folder exists.
    """
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.config.use_cache = True  # the Trainer switches it off
    merge = merge and isinstance(model, PeftModel)
    if merge and not sharded:
        model = model.merge_and_unload()

    def write(path: Path) -> None:
        if Path(folder).exists():
            raise FileExistsError(f"{folder}: exists already; save the policy in a new folder")
        parts = {}
        if isinstance(model, PeftModel):
            parts = {"selected_adapters": ["default"]}  # without the copy that was the reference
            config = model.peft_config["default"]
            config.base_model_name_or_path = public_name(config.base_model_name_or_path)
        model.save_pretrained(path, state_dict=weights, **parts)
        trainer.processing_class.save_pretrained(path)
        if merge and sharded:  # parts can't be merged: merge the saved adapter into the model on disk
            merged, _ = load_policy(path, dtype=model.dtype)
            for file in path.glob("adapter_*"):
                file.unlink()
            merged.save_pretrained(path)

    write_by_one(Path(folder), write)
