"""The stages of a policy: supervised training on the sessions, then reinforcement learning against the reward model.

Both are TRL's own trainers; what is here prepares their rows, holds them to the method (loss on the agent's turns, a
KL penalty against the fine-tuned policy), and writes one plain model folder in the end.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from datasets import Dataset, Features, List, Value
from peft import PeftConfig, PeftModel
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

from ..hub.cards import name_of
from ..hub.policy_cards import save_policy_card, write_own_cards
from ..training.checkpoints import run_training, write_by_one
from .callbacks import StopAtKL, WatchesKL
from .dialogue import context_window, open_with_user
from .limits import check_kl_weight, check_likelihood, check_prompts, naming_memory
from .policy import check_policy, hub_kwargs, is_adapter, load_policy, load_policy_tokenizer

_MESSAGES = List({"role": Value("string"), "content": Value("string")})


def dialogue_prompts(sessions: Dataset, *, context_messages: int = 8) -> Dataset:
    """A prompt for every turn of the agent that answers something: what was said before it.

    Args:
        sessions: Session rows.
        context_messages: longest prompt, in messages; see `context_window`. The first turn of an agent that begins the
            session answers nothing and gives no prompt.

    Returns:
        Rows with `prompt` (messages that end with the user's), `session_id`, `conversation_id`, `position` (index in
        the session's messages of the reply that the person gave) and `reply` (that reply).
    """

    def prompts(batch: dict[str, list]) -> dict[str, list]:
        rows = {"prompt": [], "session_id": [], "conversation_id": [], "position": [], "reply": []}
        for messages, session, conversation in zip(batch["messages"], batch["session_id"], batch["conversation_id"]):
            for position, message in enumerate(messages):
                if message["role"] == "assistant" and position:
                    rows["prompt"].append(context_window(messages[:position], context_messages))
                    rows["session_id"].append(session)
                    rows["conversation_id"].append(conversation)
                    rows["position"].append(position)
                    rows["reply"].append(message["content"])
        return rows

    features = Features(
        {
            "prompt": _MESSAGES,
            "session_id": Value("string"),
            "conversation_id": Value("string"),
            "position": Value("int32"),
            "reply": Value("string"),
        }
    )
    return sessions.map(
        prompts, batched=True, remove_columns=sessions.column_names, features=features, desc="Making prompts"
    )


def sft_rows(sessions: Dataset, *, window_messages: int = 20, per_turn: bool = False) -> Dataset:
    """Rows for SFTTrainer: even pieces of the sessions, each beginning with the user and ending with the agent.

    Args:
        sessions: Session rows.
        window_messages: longest piece, in messages; even, because pieces are made of exchanges.
        per_turn: make a row of every turn of a piece, instead of one of the whole piece.

    Returns:
        Rows with `messages`, or if `per_turn` with `prompt` and `completion`.
    """
    if window_messages < 2 or window_messages % 2:
        raise ValueError(f"window_messages: expected an even number, 2 or more, found {window_messages}")

    def pieces(batch: dict[str, list]) -> dict[str, list]:
        rows = {"prompt": [], "completion": []} if per_turn else {"messages": []}
        for messages in batch["messages"]:
            messages = open_with_user(messages)
            if messages[-1]["role"] == "user":  # nothing to learn from it
                messages = messages[:-1]
            # Even pieces rather than full ones and a rest: less context is lost, and less padding is computed.
            exchanges, count = len(messages) // 2, max(1, -(-len(messages) // window_messages))
            edges = [2 * (exchanges * index // count) for index in range(count + 1)]
            for piece in (messages[start:stop] for start, stop in pairwise(edges)):
                if not per_turn:
                    rows["messages"].append(piece)
                    continue
                for turn in range(1, len(piece), 2):
                    rows["prompt"].append(piece[:turn])
                    rows["completion"].append(piece[turn : turn + 1])
        return rows

    return sessions.map(
        pieces,
        batched=True,
        remove_columns=sessions.column_names,
        features=Features({"prompt": _MESSAGES, "completion": _MESSAGES} if per_turn else {"messages": _MESSAGES}),
        desc="Cutting sessions",
    )


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
    """Teach a policy made from scratch the language: the loss is on everybody's words. Arguments as for `sft`.

    A user's words teach language as well as an agent's do, so that a model that knows none learns it in half the time.
    This is transformers' plain Trainer: SFTTrainer's loss, made for large vocabularies, is slower on a small model.
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
    write_own_cards(trainer)
    run_training(trainer, resume)
    return trainer


def sft(
    model: PreTrainedModel | str,
    tokenizer: PreTrainedTokenizerBase,
    sessions: Dataset,
    args: SFTConfig,
    *,
    eval_sessions: Dataset | None = None,
    window_messages: int = 20,
    peft_config: PeftConfig | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool = False,
) -> SFTTrainer:
    """Fine-tune a policy on the agent's turns of the sessions.

    If the chat template can tell the agent's turns (by `{% generation %}` tags, its own or those that TRL knows for
    it), all turns of a piece are learned at once. If not, each is a row of its own: dearer, but it works with any.

    Args:
        model: the policy, or its name or path.
        tokenizer: its tokenizer.
        sessions: Session rows; scores are not looked at.
        args: of TRL. The loss is on the agent's turns whatever they say.
        eval_sessions: if given, evaluated as `args` say.
        window_messages: sessions are cut into pieces of so many messages.
        peft_config: adapter to train instead of the whole model.
        callbacks: for the trainer.
        resume: continue from the last checkpoint in `args.output_dir`, if there is one.

    Returns:
        The trainer, after training. `save_policy(trainer, folder)` writes the policy.
    """
    args = copy.copy(args)
    args.assistant_only_loss = _marks_turns(tokenizer)
    args.completion_only_loss = not args.assistant_only_loss
    train, evaluation = (
        sft_rows(part, window_messages=window_messages, per_turn=args.completion_only_loss)
        if part is not None
        else None
        for part in (sessions, eval_sessions)
    )
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=list(callbacks),
    )
    write_own_cards(trainer)
    with naming_memory(args):
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
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool = False,
) -> GRPOTrainer | RLOOTrainer:
    """Reinforcement learning of a policy against rewards, by GRPO or, if `args` is an `RLOOConfig`, by RLOO.

    Args:
        policy: folder or name of the fine-tuned policy. It is also the reference of the KL penalty.
        reward: `GeliReward`, or several reward functions, which are added up.
        prompts: rows of `dialogue_prompts`.
        args: of TRL. `beta`, the weight of the KL penalty, must not be 0, which is GRPO's default.
        peft_config: adapter to train. Without one the whole policy is trained, beside a copy for reference.
        callbacks: for the trainer; `AdaptiveKL` and `StopAtKL` are told of it. A `StopAtKL()` is added where there is
            none; `StopAtKL(float("inf"))` never stops.
        resume: continue from the last checkpoint in `args.output_dir`, if there is one.

    Returns:
        The trainer, after training. `save_policy(trainer, folder)` writes the policy.

    Raises:
        PolicyError, ValueError: a policy, arguments or prompts that can't be trained with.
        MemoryError: memory did not suffice; the message says for what, and which settings to lower.
    """
    check_kl_weight(args.beta)
    check_prompts(prompts, args)
    where = hub_kwargs({"trust_remote_code": args.trust_remote_code} | (args.model_init_kwargs or {}))
    check_policy(policy, **where)
    if is_adapter(policy, **where):
        raise ValueError(
            f"policy: {policy} is an adapter, and TRL would take the model under it for the reference of the KL "
            "penalty; merge it first: load_policy(policy) returns a model and a tokenizer to save in a new folder"
        )
    tokenizer = load_policy_tokenizer(policy, **where)
    check_likelihood(reward, tokenizer)
    callbacks = list(callbacks)
    if not any(isinstance(callback, StopAtKL) for callback in callbacks):
        callbacks.append(StopAtKL())
    trainer_class = RLOOTrainer if isinstance(args, RLOOConfig) else GRPOTrainer
    trainer = trainer_class(
        model=str(policy),
        reward_funcs=reward,
        args=args,
        train_dataset=prompts,
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=callbacks,
    )
    write_own_cards(trainer)
    for callback in callbacks:
        if isinstance(callback, WatchesKL):
            callback.trainer = trainer
    with naming_memory(args):
        run_training(trainer, resume)
    return trainer


def save_policy(
    trainer: Trainer,
    folder: str | Path,
    *,
    merge: bool = True,
    weights: dict[str, torch.Tensor] | None = None,
    name: str | None = None,
) -> None:
    """Write the trained policy as a plain model folder, with its tokenizer and a card.

    The trainer's model is merged in place, so this is the last thing to do with the trainer.

    Args:
        trainer: after training.
        folder: where to.
        merge: merge an adapter into the weights. If not, the folder holds the adapter, and names the model under it.
        weights: all of them, where the trainer's model holds a part; see `write_policy`.
        name: what the card calls it, if that isn't the folder.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.config.use_cache = True  # the Trainer has switched it off
    merge = merge and isinstance(model, PeftModel)
    if merge and weights is None:
        model = model.merge_and_unload()
    if not trainer.is_world_process_zero():
        return
    model.save_pretrained(folder, state_dict=weights)
    trainer.processing_class.save_pretrained(folder)
    if merge and weights is not None:  # parts can't be merged: the adapter is, with the model on disk under it
        merged, _ = load_policy(folder, dtype=model.dtype)
        for file in Path(folder).glob("adapter_*"):
            file.unlink()
        merged.save_pretrained(folder)
    adapter = isinstance(model, PeftModel) and not merge
    save_policy_card(
        folder, trainer.args, model, len(trainer.train_dataset), name=name or name_of(folder), adapter=adapter
    )


def write_policy(trainer: Trainer, target: Path, *, merge: bool = True) -> None:
    """`save_policy` to a folder that is there when it is whole. All processes of a training have to call it.

    FSDP and DeepSpeed leave a part of the weights with each process: they are gathered first.
    """
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    write_by_one(
        target, lambda folder: save_policy(trainer, folder, merge=merge, weights=weights, name=name_of(target))
    )
