"""GRPO on whole sessions, with credit for each turn: a turn's tokens answer for what came of that turn.

With one reward per session, GRPO (arXiv 2402.03300) gives every token of a session the same advantage, a good turn of
a bad session like the bad ones. A reward model that knows each turn's reward allows for more: a turn's return is
compared with those of the group's other sessions at the same turn, as REINFORCE with a baseline per time step does
(Sutton & Barto, Reinforcement Learning, section 13.4). What was said before a turn is no part of its return.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer

from ..hub.policy_cards import write_own_cards
from .rewards import UNTRAINED_FLOOR
from .rollouts import PARTNERS_TOKEN, Rollout, SessionRollouts

if TYPE_CHECKING:
    from ..models.geli_reward.modeling_geli import GeliRewardModel

logger = logging.get_logger(__name__)

EPSILON = 1e-4  # that of GRPOTrainer, added to the deviation


def turn_returns(rewards: torch.Tensor, gamma: float) -> torch.Tensor:
    """Reward-to-go of each turn, G_t = r_t + gamma G_{t+1}.

    Args:
        rewards: (sessions, turns), NaN after a session's last turn.
        gamma: discount in [0, 1]. 0: a turn answers for itself alone; 1: for all that followed.

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
    """Advantage of every turn over the same turn of the other sessions that began alike.

    A_{i,t} = (G_{i,t} - mean_j G_{j,t}) / (std_j G_{j,t} + 1e-4), where j runs over the sessions of i's group that
    have a turn t, G is `turn_returns`, and std has Bessel's correction, as TRL's has. With `credit="session"` G_{i,t}
    is the sum of all rewards of session i, whatever t, and j runs over the whole group: that is GRPO.

    Args:
        rewards: (sessions, turns); sessions of a group follow one another. NaN after a session's last turn, and in
            all turns of one that does not count.
        group_size: sessions of a group.
        gamma: discount, see `turn_returns`; of no meaning with `credit="session"`.
        credit: what a turn answers for.
        scale: divide by the deviation over the group at that turn, or over all turns of the batch, or not at all
            (`scale_rewards` of GRPOConfig).

    Returns:
        (sessions, turns); 0 where `rewards` is NaN. The advantages of a group at a turn add up to 0.
    """
    spoken = ~rewards.isnan()
    if credit == "session":
        returns = torch.where(spoken.any(1), rewards.nansum(1), torch.nan)[:, None]
    else:
        returns = turn_returns(rewards, gamma)
    groups = returns.view(-1, group_size, returns.shape[1])  # (groups, sessions of one, turns)
    deviations = groups - groups.nanmean(1, keepdim=True)
    if scale == "group":
        deviations = deviations / (_deviation(deviations, dim=1) + EPSILON)
    elif scale == "batch":
        spread = returns - returns[~returns.isnan()].mean()
        deviations = deviations / (_deviation(spread.flatten(), dim=0) + EPSILON)
    elif scale != "none":
        raise ValueError(f"scale: expected 'group', 'batch' or 'none', found {scale!r}")
    return deviations.view_as(returns).nan_to_num(0.0).expand_as(rewards).masked_fill(~spoken, 0.0)


def _deviation(centred: torch.Tensor, dim: int) -> torch.Tensor:
    """Standard deviation of values that are centred already, with Bessel's correction; 0 of one value, or of none."""
    count = (~centred.isnan()).sum(dim, keepdim=True)
    return (centred.square().nansum(dim, keepdim=True) / (count - 1).clamp(min=1)).sqrt()


def over_tokens(advantages: torch.Tensor, token_turns: Sequence[Sequence[int]], tokens: int) -> torch.Tensor:
    """Each token's advantage is that of the turn that it belongs to.

    Args:
        advantages: (sessions, turns).
        token_turns: for each session the turn of each of its tokens, `Rollout.token_turns`.
        tokens: width of the result, at least that of the longest session.

    Returns:
        (sessions, tokens); 0 on the partner's tokens and on padding.
    """
    turns = torch.tensor(
        [[*row, *[PARTNERS_TOKEN] * (tokens - len(row))] for row in token_turns], device=advantages.device
    )
    return advantages.gather(1, turns.clamp(min=0)).masked_fill(turns == PARTNERS_TOKEN, 0.0)


class GeliSessionReward:
    """A reward for each turn of the policy, all turns of a session from one pass of the reward model.

    A turn in which nothing is said gets the lowest reward of the model's training turns, as in `GeliReward`.

    Args:
        model: in whatever mode; it is put into eval mode, and scores on the device where it is.
    """

    def __init__(self, model: GeliRewardModel):
        self.model = model.eval()
        self.floor = float(min(model.config.reward_quantiles, default=UNTRAINED_FLOOR))

    def __call__(self, rollouts: Sequence[Rollout]) -> list[list[float]]:
        self.model.eval()
        scores = self.model.score_messages([rollout.messages for rollout in rollouts], last_turn_only=False)
        rewards = []
        for rollout, row in zip(rollouts, scores):
            # Counted, not found by what is no number: a turn's reward may be none.
            turns = sum(message["role"] == "assistant" for message in rollout.messages)
            own = row[turns - rollout.turns : turns].tolist()
            rewards.append([value if reply else self.floor for value, reply in zip(own, rollout.replies)])
        return rewards


class SessionGRPOTrainer(GRPOTrainer):
    """GRPO on whole sessions, with credit for each turn.

    TRL's trainer but for one thing: the advantages of a completion, one number, become one per token
    (`turn_advantages`). Prompts are the beginnings of sessions, and `num_generations` sessions that begin alike are a
    group. A session that broke, or whose reward is not a number, is left out of its group and is not learned from.

    Where turns are worth less than 0, a session that ends early can be worth more than one that goes on: watch
    `session/turns`, and give the floor for a turn that nobody wanted to answer if it falls.

    Args:
        model: the policy, or its name or path.
        session_reward: gives a list of rewards, one per turn of the policy, for each `Rollout` of a list. It is handed
            no broken session. `GeliSessionReward`, or any other function.
        rollouts: who talks with the policy, and how long.
        args: of TRL; `max_completion_length` holds all turns of both sides.
        gamma: how much of what follows a turn it answers for, see `turn_returns`.
        credit: "session" for plain GRPO on the sum of the session's rewards, to compare with.
        kwargs: of `GRPOTrainer`.

    Beside TRL's, it logs under `session/`: `turns` and `turn_reward` (means), the shares of turns that were `empty` or
    `cut`, the share of sessions that were `broken`, and the mean of whatever the partner observed, as in `value`.
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
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma: expected a discount from 0 to 1, found {gamma}")
        if credit not in ("turn", "session"):
            raise ValueError(f"credit: expected 'turn' or 'session', found {credit!r}")
        for argument, expected in (("reward_weights", None), ("multi_objective_aggregation", "sum_then_normalize")):
            if args is not None and (found := getattr(args, argument)) != expected:
                raise ValueError(
                    f"{argument}: there is one reward, session_reward, to which it does nothing; expected {expected}, "
                    f"found {found}. Weigh several rewards within session_reward"
                )
        self.gamma, self.credit, self._score = gamma, credit, session_reward
        self._turn_rewards: torch.Tensor | None = None
        super().__init__(model=model, reward_funcs=self.session_reward, args=args, rollout_func=rollouts, **kwargs)
        write_own_cards(self)

    def session_reward(self, rollout: Sequence[Rollout], log_metric, log_extra, **kwargs) -> list[float | None]:
        """TRL's reward function: the sum of a session's rewards, None for one that does not count."""
        whole = [each for each in rollout if not each.broken]
        scores = list(self._score(whole)) if whole else []
        if len(scores) != len(whole):
            raise ValueError(f"session_reward: expected {len(whole)} lists, one per session, found {len(scores)}")
        scored = iter(scores)
        rewards = [[] if each.broken else list(map(float, next(scored))) for each in rollout]
        for each, row in zip(rollout, rewards):
            if each.broken:
                continue
            if len(row) != each.turns:
                raise ValueError(f"session_reward: expected {each.turns} rewards, one per turn, found {len(row)}")
            if not all(map(math.isfinite, row)):
                logger.warning(f"left out, since its rewards are {row}: the session {each.messages!r:.500}")
                row.clear()
        longest = max(each.turns for each in rollout)  # that of a session without rewards too: it has tokens
        padded = [row + [math.nan] * (longest - len(row)) for row in rewards]
        self._turn_rewards = torch.tensor(padded, device=self.accelerator.device)

        turns = sum(each.turns for each in rollout)
        log_metric("session/turns", turns / len(rollout))
        log_metric("session/empty", sum(not reply for each in rollout for reply in each.replies) / turns)
        log_metric("session/cut", sum(each.cut for each in rollout) / turns)
        log_metric("session/broken", sum(bool(each.broken) for each in rollout) / len(rollout))
        seen = {"turn_reward": [value for row in rewards for value in row]}
        for each in whole:
            for name, values in each.observed.items():
                seen.setdefault(name, []).extend(value for value in values if not math.isnan(value))
        for name, values in seen.items():
            if values:
                log_metric(f"session/{name}", sum(values) / len(values))
        log_extra("turn_rewards", [[round(value, 3) for value in row] for row in rewards])
        return [sum(row) if row else None for row in rewards]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        mode = "train" if self.model.training else "eval"
        output = super()._generate_and_score_completions(inputs)
        ids, plain = output["completion_ids"], output["advantages"]
        if plain.shape != (len(inputs),) or any("rollout" not in row for row in inputs):
            raise RuntimeError(
                "this version of TRL hands over advantages otherwise than the one that SessionGRPOTrainer was made "
                f"for (shape {tuple(plain.shape)} for {len(inputs)} sessions); install trl 1.16"
            )
        # Groups may lie across processes, so that all turn rewards are needed, as in TRL.
        rewards = self.accelerator.pad_across_processes(self._turn_rewards, dim=1, pad_index=math.nan)
        advantages = turn_advantages(
            self.accelerator.gather(rewards),
            self.num_generations if mode == "train" else self.num_generations_eval,
            gamma=self.gamma,
            credit=self.credit,
            scale=self.scale_rewards,
        )
        first = self.accelerator.process_index * len(inputs)
        own = advantages[first : first + len(inputs)].to(plain.dtype)
        output["advantages"] = over_tokens(own, [row["rollout"].token_turns for row in inputs], ids.shape[1])
        return output
