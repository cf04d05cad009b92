"""Stages of a policy in a run's folder: fine-tuned on the sessions, then aligned with a reward model.

What lies in the folder already is whole and is not made again, so that a run that was stopped goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig, PeftConfig
from transformers import TrainerCallback, TrainingArguments, set_seed
from trl import GRPOConfig, RLOOConfig, SFTConfig

from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..settings import build
from ..training.checkpoints import write_by_one, write_history
from ..training.script import is_finished, setting_errors
from .callbacks import AdaptiveKL, StopAtKL
from .policy import check_policy, hub_kwargs, is_adapter, load_policy
from .rewards import GeliReward
from .shipped import POLICY
from .trainers import align, dialogue_prompts, save_policy, sft

TRAINERS = {"sft": SFTConfig, "grpo": GRPOConfig}


@dataclass
class PolicySettings:
    """The section `policy` of a run's settings.

    Args:
        model_name_or_path: chat model to fine-tune; unset: the small one that ships, see [`shipped_policy`].
        window_messages: longest piece of a session to fine-tune on, in messages.
        context_messages: longest dialogue before a reply, in messages.
        lora: of `peft.LoraConfig`.
        length_neutral: see [`GeliReward`].
        replies: number of held-out dialogues that both policies answer.
        max_new_tokens, temperature: of these replies.
    """

    model_name_or_path: str | None = None
    window_messages: int = 8
    context_messages: int = 6
    lora: dict = field(default_factory=lambda: {"r": 16, "lora_alpha": 32})
    length_neutral: bool = True
    replies: int = 400
    max_new_tokens: int = 40
    temperature: float = 0.8


@dataclass
class RewardSettings:
    """The section `reward` of a run that aligns a policy with a reward model of its own.

    Args:
        model: folder or name on the Hub.
        options: of [`GeliReward`], in place of those that were saved beside the model.
        likelihood: weight of a reply's log-likelihood before RL, see [`ReferenceLikelihood`].
    """

    model: str
    options: dict = field(default_factory=dict)
    likelihood: float = 0.0

    def load(self) -> GeliReward:
        """Load the reward, without its likelihood.

        Raises:
            OSError, TypeError, ValueError: it is no reward model, or an option can't have its value.
        """
        reward = GeliReward.from_pretrained(self.model, **self.options)
        reward.model.to(PartialState().device)
        return reward


@dataclass
class KlSettings:
    """The section `kl` of a run that aligns a policy.

    Args:
        target: nats per reply that [`AdaptiveKL`] holds by changing beta; unset: beta stays.
        horizon: replies in which beta changes by a factor of e^.2 or less.
        limit: nats per reply at which training stops; None: never.
    """

    target: float | None = None
    horizon: int = 10_000
    limit: float | None = 10.0

    def callbacks(self, beta: float) -> list[TrainerCallback]:
        """Make the callbacks of a trainer whose KL penalty begins with the weight `beta`."""
        callbacks: list[TrainerCallback] = [StopAtKL(math.inf if self.limit is None else self.limit)]
        if self.target is not None:
            callbacks.append(AdaptiveKL(beta, self.target, self.horizon))
        return callbacks


def train_policy(
    policy: PolicySettings,
    trainers: Mapping[str, Mapping[str, Any]],
    reward_model: GeliRewardModel,
    sessions: Dataset,
    output: Path,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    seed: int = 0,
    resume: bool = False,
) -> None:
    """Train the policy of a run, and write `sft_policy`, `policy` and `policy_history.json` into its folder.

    Args:
        policy: the section `policy`.
        trainers: settings of the trainers, by the names of [`TRAINERS`].
        reward_model: the reward of the alignment.
        sessions: Session rows to train on.
        output: folder of the run.
        callbacks: of the trainers.
        seed: of training.
        resume: go on from the last checkpoints.

    Raises:
        SettingsError: a setting can't have its value.
    """

    def arguments(name: str) -> TrainingArguments:
        common = {"seed": seed, "report_to": "none", "output_dir": str(output / "checkpoints" / name)}
        return build(TRAINERS[name], common | trainers[name])

    # A new one for each use: PEFT writes into it.
    lora = partial(LoraConfig, **{"target_modules": "all-linear", "task_type": "CAUSAL_LM"} | policy.lora)
    how = {"callbacks": callbacks, "resume": resume}
    pieces = how | {"window_messages": policy.window_messages, "peft_config": lora()}
    name = policy.model_name_or_path
    if name is None:  # its weights ship in bfloat16, which would round off most of what a merged adapter learned
        name, pieces["dtype"] = str(POLICY), torch.float32
    with setting_errors("policy.model_name_or_path"):
        check_policy(name)
    set_seed(seed)
    fine_tune_once(output, name, sessions, arguments("sft"), **pieces)
    set_seed(seed)
    reward = GeliReward(reward_model, length_neutral=policy.length_neutral)
    prompts = dialogue_prompts(sessions, context_messages=policy.context_messages)
    align_once(output, output / "sft_policy", reward, prompts, arguments("grpo"), lora(), **how)


def fine_tune_once(
    output: Path,
    policy: str,
    sessions: Dataset,
    args: SFTConfig | None,
    *,
    window_messages: int,
    peft_config: PeftConfig | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool = False,
    **model_kwargs,
) -> str:
    """Fine-tune a chat model and write it to `output/sft_policy`, unless it is there.

    Args:
        output: folder of the run.
        policy: folder or name of the model, or of an adapter, which is merged first.
        sessions: Session rows to train on.
        args: of the trainer; None: the model is taken as it is, and an adapter merged.
        window_messages, peft_config, callbacks, resume: see [`sft`].
        model_kwargs: see [`load_policy`].

    Returns:
        Folder or name of the policy to align. A folder is absolute, because an adapter on it names it.
    """
    target = output / "sft_policy"
    if args is None and not is_adapter(policy, **hub_kwargs(model_kwargs)):
        return str(Path(policy).resolve()) if Path(policy).exists() else policy
    if not is_finished(target):
        model, tokenizer = load_policy(policy, **model_kwargs)
        if args is not None:
            how = {"peft_config": peft_config, "callbacks": callbacks, "resume": resume}
            save_policy(sft(model, tokenizer, sessions, args, window_messages=window_messages, **how), target)
        else:
            write_by_one(target, lambda folder: [part.save_pretrained(folder) for part in (model, tokenizer)])
    return str(target.resolve())


def align_once(
    output: Path,
    policy: str | Path,
    reward: GeliReward,
    prompts: Dataset,
    args: GRPOConfig | RLOOConfig,
    peft_config: PeftConfig | None,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    merge: bool = True,
    resume: bool = False,
) -> None:
    """Align a policy and write it to `output/policy`, with `policy_history.json` beside it, unless it is there.

    Args:
        output: folder of the run.
        policy, reward, prompts, args, peft_config, callbacks, resume: see [`align`].
        merge: merge the adapter into the policy.
    """
    if is_finished(output / "policy"):
        return
    trainer = align(policy, reward, prompts, args, peft_config, callbacks=callbacks, resume=resume)
    write_history(trainer, output / "policy_history.json")
    save_policy(trainer, output / "policy", merge=merge)


def final_kl(history: Path) -> dict[str, Any]:
    """Read from an alignment's history its last step, and the KL divergence of a reply logged last.

    Args:
        history: file of `write_history`.

    Returns:
        `steps`, and `kl` in nats per reply, None where no log has both the KL per token and the mean length.
    """
    entries = json.loads(history.read_text(encoding="utf-8"))
    # Replies that are used more than once are generated in some steps only; logs in between have no length.
    known = [(entry.get("kl"), entry.get("completions/mean_length")) for entry in reversed(entries)]
    kl = next((kl * tokens for kl, tokens in known if None not in (kl, tokens)), None)
    return {"steps": entries[-1]["step"] if entries else 0, "kl": kl}
