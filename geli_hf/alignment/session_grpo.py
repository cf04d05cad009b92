"""GRPO on whole sessions, with an advantage for each turn.

With one reward per session, GRPO (arXiv 2402.03300) gives all tokens of a session the same advantage. With a reward
for each turn, the return of a turn is compared with those of the group's other sessions at the same turn, as in
REINFORCE with a baseline per time step (Sutton & Barto, Reinforcement Learning, section 13.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import nanstd

from .rewards import reward_floor
from .rollouts import PARTNERS_TOKEN, Rollout, SessionRollouts

if TYPE_CHECKING:
    from ..models.geli_reward.modeling_geli import GeliRewardModel

logger = logging.get_logger(__name__)

EPSILON = 1e-4  # of GRPOTrainer, added to the standard deviation


def turn_returns(rewards: torch.Tensor, gamma: float) -> torch.Tensor:
    """Compute the reward-to-go of each turn, G_t = r_t + gamma G_{t+1}.

    Args:
        rewards: (sessions, turns), NaN after a session's last turn.
        gamma: discount in [0, 1]; 0 counts the turn alone, 1 all turns from it on.

    Returns:
        (sessions, turns), NaN where `rewards` is.
    """
    known = rewards.nan_to_num(0.0)
    returns = torch.zeros_like(known)
    following = known.new_zeros(len(known))
    for turn in reversed(range(known.shape[1])):
        following = known[:, turn] + gamma * following
        returns[:, turn] = following
    return returns.masked_fill(rewards.isnan(), torch.nan)


def turn_advantages(
    rewards: torch.Tensor,
    group_size: int,
    *,
    gamma: float = 1.0,
    credit: Literal["turn", "session"] = "turn",
    scale: Literal["group", "batch", "none"] = "group",
) -> torch.Tensor:
    """Compute the advantage of every turn over the same turn of the group's other sessions.

    A_{i,t} = (G_{i,t} - mean_j G_{j,t}) / (std_j G_{j,t} + 1e-4), where j runs over the sessions of i's group that
    have a turn t, G is `turn_returns`, and std has Bessel's correction, as TRL's has. With `credit="session"` G_{i,t}
    is the sum of all rewards of session i, whatever t, and j runs over the whole group: that is GRPO.

    Where the policy decides when to stop, `scale="none"` is unbiased: the expected gradient of the logits of turn t is
    the policy gradient times (n_t - 1) / n_t, where n_t sessions have that turn, since one baseline is subtracted from
    the whole return. Normalising the rewards of each turn over the group, and summing these from t on, is not: the
    number of baselines then depends on when session i stops, which rewards going on with minus the mean reward of the
    turns to come (verl issue 7244). Dividing by a deviation is another bias, GRPO's own: the deviation depends on the
    actions, and with small groups or skewed returns it can turn the sign of a gradient.

    Args:
        rewards: (sessions, turns), group after group. NaN after a session's last turn, and in all turns of a session
            that is left out.
        group_size: sessions of a group.
        gamma: discount, see `turn_returns`; not used with `credit="session"`.
        credit: "turn" for the return of each turn, "session" for the sum of the session.
        scale: divide by the standard deviation over the group at that turn, over all turns of the batch, or not at
            all (`scale_rewards` of GRPOConfig).

    Returns:
        (sessions, turns); 0 where `rewards` is NaN. The advantages of a group at a turn sum to 0.
    """
    spoken = ~rewards.isnan()
    if credit == "session":
        returns = torch.where(spoken.any(1), rewards.nansum(1), torch.nan)[:, None]
    else:
        returns = turn_returns(rewards, gamma)
    groups = returns.view(-1, group_size, returns.shape[1])  # (groups, sessions of one, turns)
    deviations = groups - groups.nanmean(1, keepdim=True)
    if scale == "group":
        deviations = deviations / (nanstd(groups, dim=1, keepdim=True) + EPSILON)
    elif scale == "batch":
        deviations = deviations / (nanstd(returns) + EPSILON)
    return deviations.view_as(returns).nan_to_num(0.0).expand_as(rewards).masked_fill(~spoken, 0.0)


def over_tokens(advantages: torch.Tensor, token_turns: Sequence[Sequence[int]], tokens: int) -> torch.Tensor:
    """Spread the advantages of turns over their tokens.

    Args:
        advantages: (sessions, turns).
        token_turns: `Rollout.token_turns` of each session.
        tokens: width of the result, at least the longest session's.

    Returns:
        (sessions, tokens); 0 on the partner's tokens and on padding.
    """
    turns = torch.tensor(
        [[*row, *[PARTNERS_TOKEN] * (tokens - len(row))] for row in token_turns], device=advantages.device
    )
    return advantages.gather(1, turns.clamp(min=0)).masked_fill(turns == PARTNERS_TOKEN, 0.0)


class GeliSessionReward:
    """Reward of each turn of the policy, from one pass of the reward model over a session.

    An empty turn gets the lowest reward of the model's training turns, as in `GeliReward`.

    Args:
        model: the reward model, which scores in eval mode on its own device.
    """

    def __init__(self, model: GeliRewardModel):
        self.model = model
        self.floor = reward_floor(model)

    def __call__(self, rollouts: Sequence[Rollout]) -> list[list[float]]:
        """Reward the policy's turns of sessions.

        Args:
            rollouts: sessions that are not broken.

        Returns:
            For each session a reward per turn of the policy, in units of the standardised session score.
        """
        self.model.eval()
        scores = self.model.score_messages([rollout.messages for rollout in rollouts], last_turn_only=False)
        rewards = []
        for rollout, row in zip(rollouts, scores):
            # Counted by messages: NaN may be padding or a turn's reward.
            turns = sum(message["role"] == "assistant" for message in rollout.messages)
            own = row[turns - rollout.turns : turns].tolist()
            rewards.append([value if reply else self.floor for value, reply in zip(own, rollout.replies)])
        return rewards


class SessionGRPOTrainer(GRPOTrainer):
    """GRPO on whole sessions, with an advantage for each turn.

    TRL's trainer with one change: the advantage of a completion becomes one per token (`turn_advantages`). Prompts
    are the beginnings of sessions, and `num_generations` sessions from one prompt are a group. A session that is
    broken, or has a reward that is not a number, is left out of its group and of training.

    Where turns have rewards below 0, a session that ends early can have a higher return than a longer one: watch
    `session/turns`.

    Args:
        model: the policy, or its name or path.
        session_reward: function from a list of `Rollout` to lists of rewards, one per turn of the policy; it gets no
            broken session. `GeliSessionReward`, or any other.
        rollouts: the partner and the length of the sessions.
        args: of TRL; `max_completion_length` holds all turns of both sides.
        gamma: discount of later turns, see `turn_returns`.
        credit: "session" for plain GRPO on the sum of the session's rewards, as a baseline.
        kwargs: of `GRPOTrainer`.

    Raises:
        ValueError: `credit` is unknown.

    Under `session/` it logs the means `turns` and `turn_reward`, the shares of `empty` and `cut` turns and of `broken`
    sessions, and the mean of each signal of the partner, such as `value`.
    """

    def __init__(
        self,
        model: Any,
        session_reward: Callable[[Sequence[Rollout]], Sequence[Sequence[float]]],
        rollouts: SessionRollouts,
        args: GRPOConfig | None = None,
        *,
        gamma: float = 1.0,
        credit: Literal["turn", "session"] = "turn",
        **kwargs,
    ):
        if credit not in ("turn", "session"):
            raise ValueError(f"credit: expected 'turn' or 'session', found {credit!r}")
        self.gamma, self.credit, self._score = gamma, credit, session_reward
        self._turn_rewards: torch.Tensor | None = None
        super().__init__(model=model, reward_funcs=self.session_reward, args=args, rollout_func=rollouts, **kwargs)

    def session_reward(self, rollout: Sequence[Rollout], log_metric, log_extra, **kwargs) -> list[float | None]:
        """Sum the rewards of each session, as TRL's reward function, and keep those of the turns.

        Args:
            rollout: sessions of the batch.
            log_metric, log_extra: of TRL.
            kwargs: other columns, not used.

        Returns:
            (sessions,); None for a session that is left out.

        Raises:
            ValueError: the numbers of sessions or turns do not fit.
        """
        whole = [each for each in rollout if not each.broken]
        scores = [list(map(float, row)) for row in self._score(whole)] if whole else []
        expected, found = [each.turns for each in whole], [len(row) for row in scores]
        if found != expected:
            raise ValueError(f"session_reward: expected {expected} rewards of sessions' turns, found {found}")
        scored = iter(scores)
        rewards = [[] if each.broken else next(scored) for each in rollout]
        for each, row in zip(rollout, rewards):
            if not all(map(math.isfinite, row)):
                logger.warning(f"left out, since its rewards are {row}: the session {each.messages!r:.500}")
                row.clear()
        longest = max(each.turns for each in rollout)  # also of sessions without rewards, which have tokens
        padded = [row + [math.nan] * (longest - len(row)) for row in rewards]
        self._turn_rewards = torch.tensor(padded, device=self.accelerator.device)

        turns = sum(each.turns for each in rollout)
        log_metric("session/turns", turns / len(rollout))
        log_metric("session/empty", sum(not reply for each in rollout for reply in each.replies) / turns)
        log_metric("session/cut", sum(each.cut for each in rollout) / turns)
        log_metric("session/broken", sum(bool(each.broken) for each in rollout) / len(rollout))
        signals = {"turn_reward": [value for row in rewards for value in row]}
        for each in whole:
            for name, values in each.observed.items():
                signals.setdefault(name, []).extend(value for value in values if not math.isnan(value))
        for name, values in signals.items():
            if values:
                log_metric(f"session/{name}", sum(values) / len(values))
        log_extra("turn_rewards", [[round(value, 3) for value in row] for row in rewards])
        return [sum(row) if row else None for row in rewards]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        mode = "train" if self.model.training else "eval"
        output = super()._generate_and_score_completions(inputs)
        # A group may be spread over processes, so all turn rewards are needed, as in TRL.
        rewards = self.accelerator.pad_across_processes(self._turn_rewards, dim=1, pad_index=math.nan)
        advantages = turn_advantages(
            self.accelerator.gather(rewards),
            self.num_generations if mode == "train" else self.num_generations_eval,
            gamma=self.gamma,
            credit=self.credit,
            scale=self.scale_rewards,
        )
        first = self.accelerator.process_index * len(inputs)
        own = advantages[first : first + len(inputs)].to(output["advantages"].dtype)
        token_turns = [row["rollout"].token_turns for row in inputs]
        output["advantages"] = over_tokens(own, token_turns, output["completion_ids"].shape[1])
        return output
