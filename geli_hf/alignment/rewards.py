"""The reward model as a reward function of TRL's GRPOTrainer and RLOOTrainer.

TRL can load a reward model by itself, by its name, its folder or as a module. Then it gives the rewards of
`GeliReward.turn_rewards`, but for three things that only a callable can do: it cuts what a policy says on behalf of
the user, gives a policy that says nothing the lowest reward, and names a completion whose reward is not a number. It
also guards against rewards that are won cheaply, puts them on one scale, and logs what it did.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from peft import PeftModel
from transformers.utils import logging

from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import Message
from .dialogue import cut_reply, without_opening
from .guards import RunningMoments, length_slope, repeated_share, without_length_slope
from .likelihood import ReferenceLikelihood

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerState

logger = logging.get_logger(__name__)

# Reward of saying nothing where the model knows no quantiles of its training turns. Rewards are in units of the
# standardised session score, so this is a turn of a session far worse than nearly all.
UNTRAINED_FLOOR = -3.0

# Dialogues of a batch whose turns are all rewarded, for the completion log: an encoder reads each turn anew.
LOGGED_DIALOGUES = 2


class _Row(NamedTuple):
    """What the guards look at of a completion: its prompt, its length in words, and the rest as in `GeliReward`."""

    prompt: str
    words: int
    repeated: float
    reward: float
    log_likelihood: float


class GeliReward:
    """Rewards each completion as a turn of the dialogue that its prompt is.

    A completion counts up to where it starts to speak for the user (`geli_hf.alignment.dialogue.cut_reply`). One of
    which nothing is left gets `floor`: the lowest reward of the model's training turns, or -3 where the model's
    configuration has no quantiles. System messages and `OPENING` are not shown to the reward model. One whose reward
    is not a number is named in a warning and gets None, which leaves it out of its group.

    On this turn reward work, in this order, the guards and the scale, over the completions of all processes:

    1. `likelihood` is added, times its weight, if there is one; silence, which is short, gets the lowest of the batch,
    2. `length_neutral` takes out what length alone explains,
    3. `repetition_penalty` is subtracted, times the share of repeated n-grams,
    4. `normalise` and `clip` make the scale that of the published run.

    With `length_neutral=False, repetition_penalty=0` the rewards are those that TRL's own doors give.

    Args:
        model: the reward model, a PEFT adapter on one, or its name or folder. It is put into eval mode.
        tokenizer: only if it is not the model's own.
        likelihood: for replies that the policy would rather give than others before it learned; see
            `ReferenceLikelihood`. Default: none.
        length_neutral: see `without_length_slope`. A policy that gets better turns by talking more, or less, has
            learned nothing about turns.
        repetition_penalty: what a reply loses that only repeats itself or the agent's own earlier turns, in units of
            the standardised session score; one that repeats a part loses that part of it. See `repeated_share`.
        normalise: take off the running mean of the rewards of all training so far and divide by their running
            deviation. Both are saved and resumed with the trainer's checkpoints. An evaluation does not change them.
        clip: bounds what is returned to -clip..clip.
        device: where the reward model works. Default: where it is, but if that is the CPU, where the trainer is.
        name: heads the logged names, and tells rewards apart when a trainer has several.

    Example:

    ```python
    reward = GeliReward("reward_model")
    trainer = GRPOTrainer(model="policy", reward_funcs=reward, args=args, train_dataset=prompts)
    ```
    """

    def __init__(
        self,
        model: GeliRewardModel | PeftModel | str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        likelihood: ReferenceLikelihood | None = None,
        length_neutral: bool = True,
        repetition_penalty: float = 1.0,
        normalise: bool = False,
        clip: float | None = None,
        device: torch.device | str | None = None,
        name: str = "geli",
    ):
        if repetition_penalty < 0:
            raise ValueError(f"repetition_penalty: expected 0 or more, found {repetition_penalty}")
        if not isinstance(likelihood, ReferenceLikelihood | None):
            raise TypeError(f"likelihood: expected a ReferenceLikelihood, found {likelihood!r}")
        if clip is not None and not clip > 0:
            raise ValueError(f"clip: expected a positive bound, found {clip}")
        if isinstance(model, str | Path):
            model = GeliRewardModel.from_pretrained(model)
        # An adapter's layers stand within the model that it was put on.
        self.model = (model.get_base_model() if isinstance(model, PeftModel) else model).eval()
        if tokenizer is not None:
            self.model.tokenizer = tokenizer
        _ = self.model.tokenizer  # if it is missing, that is said now and not after the first generation
        self.likelihood = likelihood
        self.length_neutral, self.repetition_penalty = length_neutral, repetition_penalty
        self.normalise, self.clip = normalise, clip
        self.device = device
        self.moments = RunningMoments()
        self.__name__ = name  # TRL logs `rewards/<name>/mean`
        self.floor = float(min(self.model.config.reward_quantiles, default=UNTRAINED_FLOOR))

    def __call__(
        self,
        prompts: Sequence[Sequence[Message]],
        completions: Sequence[Sequence[Message]],
        completion_ids: Sequence[Sequence[int]] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list], None] | None = None,
        trainer_state: TrainerState | None = None,
        **kwargs,
    ) -> list[float | None]:
        """Reward completions; the names of the arguments are TRL's.

        Args:
            prompts: for each completion the dialogue before it, a list of {role, content} that ends with the user.
            completions: for each a list that holds one message of the assistant.
            completion_ids: their tokens, which a `likelihood` needs.
            log_metric: logs, under `name/`: `turn_reward_mean`, `_min` and `_max`, before guards and scale (TRL logs
                what is returned as `rewards/name/mean`); the shares of completions that were `cut`, `empty` and
                `nan`; of the guards `log_likelihood`, the mean in nats a reply before the weight, `length_slope`, the
                reward that length would have won per unit of log(words), and `repetition`, the mean share of repeated
                n-grams; of the scale `running_mean`, `running_std` and `clipped_share`.
            log_extra: logs each completion's `turn_reward` and the `reply` that it was given for, and of the first two
                dialogues `turn_rewards`, those of all turns of the agent.
            trainer_state: of the trainer that calls, which keeps the running moments. Without it nothing is shared
                between processes.
            kwargs: TRL passes the other columns of the dataset; they are not needed here.

        Returns:
            One reward per completion, in units of the standardised session score, or if `normalise` of the running
            deviation; None where the model's is not a number.
        """
        if trainer_state is not None:
            self._place()
        said = [self._said(prompt, completion) for prompt, completion in zip(prompts, completions)]
        replies = [cut_reply(text) for text in said]
        dialogues = [self._dialogue(prompt, reply) for prompt, reply in zip(prompts, replies)]
        raw = self._turn_rewards(dialogues, replies)
        repetition = [
            repeated_share(reply, [m["content"] for m in dialogue[:-1] if m["role"] == "assistant"])
            for dialogue, reply in zip(dialogues, replies)
        ]
        logs = self._log_likelihoods(prompts, completion_ids, dialogues, replies)
        lengths = [len(reply.split()) for reply in replies]
        rows = [_Row(*row) for row in zip(map(repr, prompts), lengths, repetition, raw, logs)]
        rewards, curves = self._guarded(rows, trainer_state, learns=not _evaluates(log_metric))

        name = self.__name__
        if log_metric is not None and replies:
            real = [value for value in raw if math.isfinite(value)]
            if real:
                log_metric(f"{name}/turn_reward_mean", sum(real) / len(real))
                log_metric(f"{name}/turn_reward_min", min(real))
                log_metric(f"{name}/turn_reward_max", max(real))
            log_metric(f"{name}/cut_share", sum(r != s.strip() for r, s in zip(replies, said)) / len(said))
            log_metric(f"{name}/empty_share", replies.count("") / len(replies))
            log_metric(f"{name}/nan_share", sum(not math.isfinite(v + log) for v, log in zip(raw, logs)) / len(raw))
            log_metric(f"{name}/repetition", sum(repetition) / len(repetition))
            for key, value in curves.items():
                log_metric(f"{name}/{key}", value)
        if log_extra is not None:
            shown = [dialogue for dialogue, reply in zip(dialogues, replies) if reply][:LOGGED_DIALOGUES]
            turns = iter(self.model.score_messages(shown, last_turn_only=False).tolist() if shown else ())
            log_extra(f"{name}/turn_reward", raw)
            log_extra(f"{name}/reply", replies)
            log_extra(
                f"{name}/turn_rewards",
                [[t for t in next(turns, ()) if t == t] or None if reply else None for reply in replies],
            )
        return rewards

    def turn_rewards(
        self, prompts: Sequence[Sequence[Message]], completions: Sequence[Sequence[Message]]
    ) -> list[float]:
        """What the model says of each completion, cut and with the floor, without guards and scale; NaN stays NaN."""
        replies = [cut_reply(self._said(prompt, completion)) for prompt, completion in zip(prompts, completions)]
        return self._turn_rewards([self._dialogue(p, reply) for p, reply in zip(prompts, replies)], replies)

    def _turn_rewards(self, dialogues: list[list[Message]], replies: list[str]) -> list[float]:
        spoken = [index for index, reply in enumerate(replies) if reply]
        rewards = [self.floor] * len(replies)
        if spoken:
            self.model.eval()  # a trainer that was handed the module too may have put it into train mode
            scores = self.model.score_messages([dialogues[i] for i in spoken], last_turn_only=True)
            for index, score in zip(spoken, scores.tolist()):
                rewards[index] = score
        self._name_lost("reward model", rewards, dialogues, replies)
        return rewards

    def _log_likelihoods(
        self,
        prompts: Sequence[Sequence[Message]],
        completion_ids: Sequence[Sequence[int]] | None,
        dialogues: list[list[Message]],
        replies: list[str],
    ) -> list[float]:
        if self.likelihood is None:
            return [0.0] * len(replies)
        if completion_ids is None:
            raise ValueError(
                "completion_ids: a reward with a likelihood reads the tokens that were sampled, found none; "
                "TRL's trainers pass them"
            )
        logs = self.likelihood(prompts, completion_ids)
        self._name_lost("reference of the likelihood", logs, dialogues, replies)
        return logs

    def _name_lost(self, model: str, values: list[float], dialogues: list[list[Message]], replies: list[str]) -> None:
        lost = [index for index, value in enumerate(values) if not math.isfinite(value)]
        if lost:
            index = lost[0]
            logger.warning(
                f"{self.__name__}: the {model} gave {values[index]} to the completion {replies[index]!r:.300} "
                f"after {dialogues[index][-2:-1]!r:.300} ({len(lost)} of {len(values)} in this batch got no number); "
                f"training goes on without. If there are many, load the {model.partition(' of ')[0]} in float32"
            )

    def _guarded(
        self, rows: list[_Row], trainer_state: TrainerState | None, *, learns: bool
    ) -> tuple[list[float | None], dict[str, float]]:
        """Rewards of this process's rows, and what to log of all rows."""
        # Every process sees all rows: a prompt's completions may be spread over them, and the moments are shared.
        by_process, own = [rows], 0
        if trainer_state is not None and PartialState().num_processes > 1:
            by_process, own = gather_object([rows]), PartialState().process_index
        everyone = [row for process in by_process for row in process]
        first = sum(map(len, by_process[:own]))
        words = np.array([row.words for row in everyone])
        rewards = np.array([row.reward for row in everyone], dtype=np.float64)
        curves = {}

        if self.likelihood is not None:
            logs = np.array([row.log_likelihood for row in everyone])
            if np.isfinite(logs).any():
                curves["log_likelihood"] = float(logs[np.isfinite(logs)].mean())
            heard = logs[(words > 0) & np.isfinite(logs)]
            logs[words == 0] = heard.min() if heard.size else 0.0
            rewards += self.likelihood.weight * logs
        finite = np.isfinite(rewards)
        spoken = np.flatnonzero((words > 0) & finite)
        if spoken.size:
            columns = [[everyone[i].prompt for i in spoken], words[spoken], rewards[spoken]]
            curves["length_slope"] = length_slope(*columns)
            if self.length_neutral:
                rewards[spoken] = without_length_slope(*columns)
        rewards -= self.repetition_penalty * np.array([row.repeated for row in everyone])
        if self.normalise:
            self._resume(trainer_state)
            if learns:
                self.moments.update(rewards[finite])
                self._keep(trainer_state)
            rewards = np.array(self.moments.normalise(rewards))
            curves |= {"running_mean": self.moments.mean, "running_std": self.moments.std}
        if self.clip is not None:
            clipped = np.clip(rewards, -self.clip, self.clip)
            curves["clipped_share"] = float(np.mean(clipped[finite] != rewards[finite])) if finite.any() else 0.0
            rewards = clipped
        mine = slice(first, first + len(rows))
        return [v if ok else None for v, ok in zip(rewards[mine].tolist(), finite[mine])], curves

    # The Trainer writes its state with every checkpoint and reads it again: the moments are kept there, and a training
    # that begins anew begins with new ones.
    def _resume(self, state: TrainerState | None) -> None:
        if state is not None:
            saved = state.stateful_callbacks.get(self._key, {"attributes": {}})
            self.moments = RunningMoments(**saved["attributes"])

    def _keep(self, state: TrainerState | None) -> None:
        if state is not None:
            state.stateful_callbacks[self._key] = {"args": {}, "attributes": dataclasses.asdict(self.moments)}

    @property
    def _key(self) -> str:
        return f"GeliReward {self.__name__}"

    def _place(self) -> None:
        """Once the trainer works: before, a process does not know its device."""
        device = self.device
        if device is None and self.model.device.type == "cpu":
            device = PartialState().device
        if device is not None and self.model.device != torch.device(device):
            self.model.to(device)
        if self.likelihood is not None:
            self.likelihood.place()

    @staticmethod
    def _dialogue(prompt: Sequence[Message], reply: str) -> list[Message]:
        return [*without_opening(prompt), {"role": "assistant", "content": reply}]

    @staticmethod
    def _said(prompt: Sequence[Message], completion: Sequence[Message]) -> str:
        if isinstance(prompt, str) or isinstance(completion, str):
            raise TypeError(
                "GeliReward scores dialogues: the dataset's column 'prompt' must hold lists of {role, content}, found "
                f"the text {prompt if isinstance(prompt, str) else completion!r:.60}; "
                "geli_hf.alignment.dialogue_prompts(sessions) makes such prompts"
            )
        if prompt and prompt[-1]["role"] == "assistant":
            raise ValueError(
                "a prompt ends with a message of the assistant, so its completion would be no turn of its own; "
                "end prompts with a message of the user, as geli_hf.alignment.dialogue_prompts(sessions) does"
            )
        if len(completion) != 1 or completion[0]["role"] != "assistant":
            raise ValueError(
                f"a completion must be one message of the assistant, found {completion!r:.200}; "
                "score whole dialogues with GeliRewardModel.score_sessions"
            )
        return completion[0]["content"] or ""


def _evaluates(log_metric: Callable | None) -> bool:
    # TRL does not tell a reward function. But what it is given to log with is a method of the trainer, which knows.
    model = getattr(getattr(log_metric, "__self__", None), "model", None)
    return model is not None and not model.training
