"""`GeliReward`: the reward model as a reward function of TRL's GRPOTrainer and RLOOTrainer.

TRL can load a reward model by itself, by name, folder or module. Its rewards are those of `GeliReward.turn_rewards`,
except that `GeliReward` cuts words spoken for the user, gives an empty reply the lowest reward, and leaves out a
completion whose reward is not a number. It also applies the guards and the scale, and logs them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from peft import PeftModel
from transformers.utils import cached_file, logging

from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..models.geli_reward.text_geli import message_text, plain_messages, without_thoughts
from ..models.loading import is_attribution
from ..sessions import Message
from ..settings import build
from .dialogue import cut_reply, speaks_for_user, without_opening
from .guards import RunningMoments, repeated_share, without_length_slope
from .likelihood import ReferenceLikelihood
from .policy import hub_kwargs
from .remote import RemoteRewardModel

if TYPE_CHECKING:
    from transformers import TrainerState

logger = logging.get_logger(__name__)

# Reward of an empty reply for a model without quantiles of its training turns. Rewards are in units of the
# standardised session score, so this turn would be worse than nearly every session.
UNTRAINED_FLOOR = -3.0

SETTINGS_FILE = "geli_reward.json"  # beside the reward model's own files


@dataclasses.dataclass
class SavedSettings:
    """Settings in `geli_reward.json`; see `GeliReward`."""

    length_neutral: bool = True
    repetition_penalty: float = 1.0
    normalise: bool = False
    clip: float | None = None
    name: str = "geli"


class GeliReward:
    """Reward of each completion as the next turn of the dialogue in its prompt.

    A completion counts without its thoughts, and up to where it begins to speak for the user
    (`geli_hf.alignment.dialogue.cut_reply`). An empty one gets `floor`: the lowest reward of the model's training
    turns, or -3 where the model's configuration has no quantiles. The reward model sees no system message and no
    `OPENING`. A completion whose reward is not a number gets None, which leaves it out of its group, and a warning.

    Guards and scale are applied to this turn reward in this order, over the completions of all processes:

    1. `likelihood` is added, times its weight; an empty reply gets the lowest of the batch,
    2. `length_neutral` subtracts the regression on length,
    3. `repetition_penalty` is subtracted, times the share of repeated n-grams,
    4. `normalise` and `clip` give the scale of the published run.

    With `length_neutral=False, repetition_penalty=0` the rewards are those of TRL's own loading.

    Args:
        model: the reward model, a PEFT adapter on one, or its name or folder. It is put into eval mode.
        server: URL of `geli serve`, in place of a model; see `RemoteRewardModel`.
        api_key: of the server, if it has one.
        likelihood: reward of replies that the policy finds likely before training; see `ReferenceLikelihood`.
        length_neutral: see `without_length_slope`. Better rewards for longer or shorter replies alone teach nothing.
        repetition_penalty: loss of a reply that only repeats itself or earlier turns of the agent, in units of the
            standardised session score; partial repetition loses its share. See `repeated_share`.
        normalise: subtract the running mean of all training rewards so far and divide by their running standard
            deviation. Both are saved in the trainer's checkpoints. Evaluation does not change them.
        clip: bound of the returned rewards, -clip to clip.
        name: prefix of the logged names; it distinguishes several rewards of one trainer.

    Example:

    ```python
    reward = GeliReward("reward_model")
    trainer = GRPOTrainer(model="policy", reward_funcs=reward, args=args, train_dataset=prompts)
    ```
    """

    def __init__(
        self,
        model: GeliRewardModel | PeftModel | str | Path | None = None,
        *,
        server: str | None = None,
        api_key: str | None = None,
        likelihood: ReferenceLikelihood | None = None,
        length_neutral: bool = True,
        repetition_penalty: float = 1.0,
        normalise: bool = False,
        clip: float | None = None,
        name: str = "geli",
    ):
        if (model is None) == (server is None):
            raise ValueError("model, server: give one of them, to say where the reward comes from")
        if server is not None:
            self.model = RemoteRewardModel(server, api_key=api_key)
            self.floor = self.model.floor
        else:
            if isinstance(model, str | Path):
                model = GeliRewardModel.from_pretrained(model)
            # The layers of an adapter are inside the model that it was put on.
            self.model = (model.get_base_model() if isinstance(model, PeftModel) else model).eval()
            self.model.check_tokenizer()  # here, and not after the first generation
            self.floor = reward_floor(self.model)
        self.likelihood = likelihood
        self.length_neutral, self.repetition_penalty = length_neutral, repetition_penalty
        self.normalise, self.clip = normalise, clip
        self.moments, self._states = RunningMoments(), {}
        self.__name__ = name  # TRL logs `rewards/<name>/mean`

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the reward model, and beside it `geli_reward.json` with the guards, the scale and the name.

        The likelihood is not saved: it is a model of its own, to be given to `from_pretrained`. Nor are the running
        moments, which the trainer's checkpoints hold.

        Args:
            folder: to write to; `from_pretrained` and `geli push model` read it.
        """
        self.model.save_pretrained(folder)
        guards = self.length_neutral, self.repetition_penalty, self.normalise, self.clip
        settings = dataclasses.asdict(SavedSettings(*guards, name=self.__name__))
        (Path(folder) / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **overrides) -> GeliReward:
        """Load a reward model with the guards, the scale and the name that were saved beside it.

        Args:
            name_or_path: on the Hub or on disk. Without a `geli_reward.json` the settings are the defaults.
            overrides: arguments of `GeliReward` in place of the saved ones; and `revision`, `token`, `cache_dir` and
                `dtype` of the model.

        Raises:
            OSError: there is no such model.
            ValueError: it is another model, or an attribution, or `geli_reward.json` has unknown settings or values.
            TypeError: an argument that `GeliReward` does not have.
        """
        where, name = hub_kwargs(overrides), str(name_or_path)
        if is_attribution(name, "model", **where):
            raise ValueError(
                f"model: {name} is an attribution, which has seen the listener's reaction to a turn; there is none to "
                "what a policy says. Give the reward model that was fitted with it"
            )
        loading = {key: overrides.pop(key) for key in (*where, "dtype") if key in overrides}
        file, saved = cached_file(name, SETTINGS_FILE, _raise_exceptions_for_missing_entries=False, **where), {}
        if file is not None:
            try:
                saved = vars(build(SavedSettings, json.loads(Path(file).read_text(encoding="utf-8"))))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{file}: {error}") from error
        return cls(GeliRewardModel.from_pretrained(name, **loading), **saved | overrides)

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
            prompts: dialogue before each completion, a list of {role, content} that ends with the user.
            completions: one message of the assistant each, in a list.
            completion_ids: their tokens, which a `likelihood` needs.
            log_metric: logs, under `name/`: `turn_reward_mean`, before guards and scale (TRL logs the returned
                rewards as `rewards/name/mean`); `cut_share`, `empty_share` and `nan_share` of the completions; of the
                guards `log_likelihood` (mean in nats per reply, before the weight), `length_slope` (reward per unit
                of log(words)) and `repetition` (mean share of repeated n-grams).
            log_extra: logs each completion's `turn_reward` and the `reply` that it is for.
            trainer_state: of the calling trainer, which saves the running moments. Without it nothing is shared
                between processes.
            kwargs: other columns of the dataset, not used.

        Returns:
            (completions,), in units of the standardised session score, or if `normalise` of the running standard
            deviation; None where the model's reward is not a number.

        Raises:
            ValueError: a prompt or completion is not a dialogue or its next turn; `completion_ids` are missing.
        """
        if trainer_state is not None:
            self._place()
        dialogues, texts = _read(prompts, completions)
        replies = [cut_reply(text) for text in texts]
        raw = self._turn_rewards(dialogues, replies)
        repetition = [
            repeated_share(reply, [message["content"] for message in dialogue if message["role"] == "assistant"])
            for dialogue, reply in zip(dialogues, replies)
        ]
        logs = [0.0] * len(replies)
        if self.likelihood is not None:
            if completion_ids is None:
                raise ValueError("completion_ids: a likelihood needs the sampled tokens, found none")
            logs = self.likelihood(prompts, completion_ids)
        lost = [reply for reply, *values in zip(replies, raw, logs) if not math.isfinite(sum(values))]
        if lost:
            logger.warning(
                f"{self.__name__}: the reward or likelihood of the completion {lost[0]!r:.300} is not a number; "
                f"{len(lost)} of {len(replies)} completions are left out. Load the models in float32 if there are many"
            )
        rows = list(zip(map(repr, prompts), [len(reply.split()) for reply in replies], repetition, raw, logs))
        rewards, curves = self._guard(rows, trainer_state, training=not _evaluates(log_metric))

        name = self.__name__
        if log_metric is not None and replies:
            if finite := [value for value in raw if math.isfinite(value)]:
                curves["turn_reward_mean"] = sum(finite) / len(finite)
            curves["cut_share"] = sum(map(speaks_for_user, texts)) / len(texts)
            curves["empty_share"] = replies.count("") / len(replies)
            curves["nan_share"] = len(lost) / len(replies)
            curves["repetition"] = sum(repetition) / len(repetition)
            for key, value in curves.items():
                log_metric(f"{name}/{key}", value)
        if log_extra is not None:
            log_extra(f"{name}/turn_reward", raw)
            log_extra(f"{name}/reply", replies)
        return rewards

    def turn_rewards(
        self, prompts: Sequence[Sequence[Message]], completions: Sequence[Sequence[Message]]
    ) -> list[float]:
        """Reward completions, cut and with the floor, but without guards and scale.

        Args:
            prompts: dialogue before each completion.
            completions: one message of the assistant each, in a list.

        Returns:
            (completions,), in units of the standardised session score; NaN stays NaN.
        """
        dialogues, texts = _read(prompts, completions)
        return self._turn_rewards(dialogues, [cut_reply(text) for text in texts])

    def _turn_rewards(self, dialogues: list[list[Message]], replies: list[str]) -> list[float]:
        spoken = [index for index, reply in enumerate(replies) if reply]
        rewards = [self.floor] * len(replies)
        if spoken:
            if isinstance(self.model, GeliRewardModel):
                self.model.eval()  # a trainer that has the module too may have put it into train mode
            answered = [
                [*without_opening(dialogues[index]), {"role": "assistant", "content": replies[index]}]
                for index in spoken
            ]
            scores = self.model.score_messages(answered)
            for index, score in zip(spoken, scores.tolist()):
                rewards[index] = score
        return rewards

    def _guard(
        self, rows: list[tuple], trainer_state: TrainerState | None, *, training: bool
    ) -> tuple[list[float | None], dict[str, float]]:
        """Apply guards and scale.

        Args:
            rows: prompt, length in words, share of repetition, turn reward and log-likelihood of each completion.
            trainer_state: as of a call.
            training: True if the rewards count for the running moments.

        Returns:
            The rewards of this process's rows, and the curves of all rows.
        """
        # Every process gets all rows: the completions of a prompt may be in several, and the moments are shared.
        by_process, own = [rows], 0
        if trainer_state is not None and PartialState().num_processes > 1:
            by_process, own = gather_object([rows]), PartialState().process_index
        first = sum(map(len, by_process[:own]))
        everything = [row for process in by_process for row in process]
        prompts = np.array([row[0] for row in everything])
        words, repeated, rewards, logs = np.array([row[1:] for row in everything], float).reshape(-1, 4).T
        finite = np.isfinite(rewards + logs)
        spoken = (words > 0) & finite
        curves = {}

        if self.likelihood is not None:
            if finite.any():
                curves["log_likelihood"] = float(logs[finite].mean())
            logs[words == 0] = logs[spoken].min(initial=0.0)
            rewards = rewards + self.likelihood.weight * logs
        if spoken.any():
            neutral, slope = without_length_slope(prompts[spoken], words[spoken], rewards[spoken])
            curves["length_slope"] = slope
            if self.length_neutral:
                rewards[spoken] = neutral
        rewards -= self.repetition_penalty * repeated
        if self.normalise:
            # Checkpoints hold the trainer's state; a new training begins with new moments.
            states = self._states if trainer_state is None else trainer_state.stateful_callbacks
            key = f"GeliReward {self.__name__}"
            self.moments = RunningMoments(**states.get(key, {"attributes": {}})["attributes"])
            if training:
                self.moments.update(rewards[finite])
                states[key] = {"args": {}, "attributes": dataclasses.asdict(self.moments)}
            rewards = np.array(self.moments.normalise(rewards))
        if self.clip is not None:
            rewards = np.clip(rewards, -self.clip, self.clip)
        mine = slice(first, first + len(rows))
        return [value if ok else None for value, ok in zip(rewards[mine].tolist(), finite[mine])], curves

    def _place(self) -> None:
        """Move the models to the trainer's device, which a process does not know before."""
        models = [self.model] if self.likelihood is None else [self.model, self.likelihood.policy]
        for model in models:
            local = not isinstance(model, RemoteRewardModel)
            if local and model.device.type == "cpu" and PartialState().device != model.device:
                model.to(PartialState().device)


def reward_floor(model: GeliRewardModel) -> float:
    """The reward of an empty turn: the lowest of the model's training turns, or -3 where they are unknown."""
    return float(min(model.config.reward_quantiles, default=UNTRAINED_FLOOR))


def _read(
    prompts: Sequence[Sequence[Message]], completions: Sequence[Sequence[Message]]
) -> tuple[list[list[Message]], list[str]]:
    """Return the dialogues before the completions, and their texts, after a check that each is the next turn."""
    dialogues, texts = [], []
    for number, (prompt, completion) in enumerate(zip(prompts, completions)):
        dialogue = plain_messages(prompt, f"prompt {number}")
        if dialogue and dialogue[-1]["role"] == "assistant":
            raise ValueError(
                f"prompt {number}: expected messages that end with the user, found {dialogue[-1:]!r:.200}"
            )
        if isinstance(completion, str) or len(completion) != 1 or completion[0]["role"] != "assistant":
            raise ValueError(f"completion {number}: expected one message of the assistant, found {completion!r:.200}")
        for message in dialogue:
            if message["role"] == "assistant":
                message["content"] = without_thoughts(message["content"])
        content = completion[0].get("content")
        dialogues.append(dialogue)
        texts.append("" if content is None else message_text(content, f"completion {number}"))
    return dialogues, texts


def _evaluates(log_metric: Callable | None) -> bool:
    # TRL does not tell a reward function, but `log_metric` is a method of the trainer, whose model has a mode.
    model = getattr(getattr(log_metric, "__self__", None), "model", None)
    return model is not None and not model.training
