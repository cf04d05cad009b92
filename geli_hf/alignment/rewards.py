"""The reward model as a reward function of TRL's GRPOTrainer and RLOOTrainer.

TRL can load a reward model by itself, but then nobody cuts what a policy says on behalf of the user, and a policy that
says nothing is rewarded like one that speaks. A callable sees to both, and logs what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..sessions import Message
from .dialogue import cut_reply, without_opening

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..modeling_geli import GeliRewardModel

# Reward of saying nothing where the model knows no quantiles of its training turns. Rewards are in units of the
# standardised session score, so this is a turn of a session far worse than nearly all.
UNTRAINED_FLOOR = -3.0


def without_length_slope(groups: Sequence[str], words: Sequence[int], rewards: Sequence[float]) -> list[float]:
    """Rewards less their regression on the logarithm of the length, within the completions of each prompt.

    r'_i = r_i - b (x_i - mean of x over the group of i), x = log(words), and b the slope of r on x, both taken as
    deviations from their group's means, over the whole batch. Then no group's mean changes, and within the groups r'
    is uncorrelated with x: at first order a policy gains nothing by talking more or less.

    Args:
        groups: of which prompt each completion is.
        words: length of each completion, at least 1.
        rewards: of each completion.
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    size = np.bincount(group)

    def within(values: np.ndarray) -> np.ndarray:
        return values - (np.bincount(group, weights=values) / size)[group]

    rewards = np.asarray(rewards, dtype=np.float64)
    length, reward = within(np.log(np.asarray(words, dtype=np.float64))), within(rewards)
    spread = length @ length
    slope = length @ reward / spread if spread > 1e-9 else 0.0
    return (rewards - slope * length).tolist()


class GeliReward:
    """Rewards each completion as a turn of the dialogue that its prompt is.

    A completion counts up to where it starts to speak for the user (`geli_hf.alignment.dialogue.cut_reply`). One of
    which nothing is left gets `floor`: the lowest reward of the model's training turns, or -3 where the model's
    configuration has no quantiles. System messages and `OPENING` are not shown to the reward model.

    Args:
        model: in whatever mode; it is put into eval mode, and scores on the device where it is.
        tokenizer: only if it is not the model's own.
        length_neutral: take out of the returned rewards what length alone explains, see `without_length_slope`. A
            policy that gets better turns by talking more, or less, has learned nothing about turns.
        name: heads the logged names, and tells rewards apart when a trainer has several.

    Example:

    ```python
    reward = GeliReward(GeliRewardModel.from_pretrained("reward_model"))
    trainer = GRPOTrainer(model="policy", reward_funcs=reward, args=args, train_dataset=prompts)
    ```
    """

    def __init__(
        self,
        model: GeliRewardModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        length_neutral: bool = False,
        name: str = "geli",
    ):
        if tokenizer is not None:
            model.tokenizer = tokenizer
        self.model = model.eval()
        self.length_neutral = length_neutral
        self.__name__ = name  # TRL logs `rewards/<name>/mean`
        self.floor = float(min(model.config.reward_quantiles, default=UNTRAINED_FLOOR))

    def __call__(
        self,
        prompts: Sequence[Sequence[Message]],
        completions: Sequence[Sequence[Message]],
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list], None] | None = None,
        **kwargs,
    ) -> list[float]:
        """Reward completions; the names of the arguments are TRL's.

        Args:
            prompts: for each completion the dialogue before it, a list of {role, content} that ends with the user.
            completions: for each a list that holds one message of the assistant.
            log_metric: logs the `mean`, `min` and `max` of the turn rewards, and the shares of completions that were
                `cut` and that were `empty`.
            log_extra: logs the reward of each completion's turn, and the reply that it was given for.
            kwargs: TRL passes the other columns of the dataset; they are not needed here.

        Returns:
            One reward per completion, in units of the standardised session score.
        """
        said = [self._reply(prompt, completion) for prompt, completion in zip(prompts, completions)]
        replies = [cut_reply(text) for text in said]
        spoken = [index for index, reply in enumerate(replies) if reply]
        rewards = [self.floor] * len(replies)
        if spoken:
            self.model.eval()  # a trainer that was handed the module too may have put it into train mode
            scores = self.model.score_messages(
                [[*without_opening(prompts[i]), {"role": "assistant", "content": replies[i]}] for i in spoken],
                last_turn_only=True,
            )
            for index, score in zip(spoken, scores.tolist()):
                rewards[index] = score

        name = self.__name__
        if log_metric is not None and rewards:
            log_metric(f"{name}/turn_reward_mean", sum(rewards) / len(rewards))
            log_metric(f"{name}/turn_reward_min", min(rewards))
            log_metric(f"{name}/turn_reward_max", max(rewards))
            log_metric(f"{name}/cut_share", sum(r != s.strip() for r, s in zip(replies, said)) / len(said))
            log_metric(f"{name}/empty_share", 1 - len(spoken) / len(replies))
        if log_extra is not None:
            log_extra(f"{name}/turn_reward", rewards)
            log_extra(f"{name}/reply", replies)
        if self.length_neutral and spoken:
            neutral = without_length_slope(
                [repr(prompts[i]) for i in spoken],
                [len(replies[i].split()) for i in spoken],
                [rewards[i] for i in spoken],
            )
            rewards = rewards.copy()
            for index, value in zip(spoken, neutral):
                rewards[index] = value
        return rewards

    @staticmethod
    def _reply(prompt: Sequence[Message], completion: Sequence[Message]) -> str:
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
