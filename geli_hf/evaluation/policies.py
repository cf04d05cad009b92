"""Evaluation of aligned policies against their base: sample replies, judge them, measure KL divergence and win rate.

The judge is not the reward that the policies were trained for. Of several policies, such as the checkpoints of a run,
the judge chooses one on some of the conversations, and that one alone is reported on the others: the best of many on
the same dialogues looks better than it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..alignment.policy import check_policy, load_policy
from ..alignment.sampling import SampledReply, sample_replies
from ..alignment.trainers import dialogue_prompts
from ..metrics.metrics import bootstrap
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import Message, split_sessions
from .comparison import PolicyComparison, judge_by_reward
from .divergence import reply_divergence, same_tokens
from .judges.judge import Judge


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling: see `sample_replies`, and `context_window` for `context_messages`."""

    replies: int = 400
    context_messages: int = 6
    max_new_tokens: int = 64
    temperature: float = 0.8
    seed: int = 0
    batch_size: int = 64


@dataclass(frozen=True)
class EvaluatedPolicy:
    """An aligned policy on some dialogues.

    Args:
        name: folder or name of the policy.
        comparison: with the base, by the judge.
        figures: those of `PolicyComparison.figures`; `kl`, nats from the base (Interval), None where the two choose
            between different tokens; and `reward`: `before`, `after`, `difference` and `win_rate` by the reward that
            the policy was trained for (Intervals), None without that reward.
        notes: on the judge.
        replies: as they were sampled, with their tokens.
    """

    name: str
    comparison: PolicyComparison
    figures: Mapping[str, Any]
    notes: Sequence[str]
    replies: Sequence[SampledReply]


@dataclass(frozen=True)
class PolicyEvaluation:
    """Result of `evaluate_policies`.

    Args:
        base: name of the policy that the others were made from.
        candidates: each aligned policy on the validation dialogues; empty where there is one alone.
        chosen: the one that the validation dialogues chose, or the only one, on the test dialogues.
        dialogues: the test dialogues.
        base_replies: of the base to these, as they were sampled.
        max_kl: bound of the choice, in nats per reply.
    """

    base: str
    candidates: Sequence[EvaluatedPolicy]
    chosen: EvaluatedPolicy
    dialogues: HeldOutDialogues
    base_replies: Sequence[SampledReply]
    max_kl: float = math.inf


class HeldOutDialogues:
    """Held-out dialogues that policies continue.

    Args:
        sessions: Session rows that no policy has learned from.
        sampling: number of dialogues, drawn by its seed, and how replies are sampled.

    Raises:
        ValueError: the sessions hold no turn of the agent that answers something.
    """

    def __init__(self, sessions: Dataset, sampling: Sampling):
        prompts = dialogue_prompts(sessions, context_messages=sampling.context_messages).shuffle(seed=sampling.seed)
        if not len(prompts):
            raise ValueError("sessions: no held-out dialogues, since no turn of the assistant answers something")
        prompts = prompts.select(range(min(sampling.replies, len(prompts))))
        messages = dict(zip(sessions["session_id"], sessions["messages"]))
        self.sampling, self.prompts = sampling, prompts["prompt"][:]
        self.conversation_ids: list[str] = prompts["conversation_id"][:]
        self.sessions: list[list[Message]] = [messages[row["session_id"]] for row in prompts]
        self.dialogues = [session[: row["position"]] for session, row in zip(self.sessions, prompts)]

    def sample(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[SampledReply]:
        """Sample one reply of the policy to each dialogue."""
        options = asdict(self.sampling)
        del options["replies"], options["context_messages"]
        return sample_replies(model, tokenizer, self.prompts, **options, progress=True)


def evaluate_policies(
    base: str,
    aligned: Sequence[str],
    sessions: Dataset,
    judge: Judge,
    *,
    reward: GeliRewardModel | None = None,
    sampling: Sampling = Sampling(),
    max_kl: float = math.inf,
    **model_kwargs,
) -> PolicyEvaluation:
    """Sample replies of policies to the same held-out dialogues, and compare each with the base.

    One of several is chosen on half of the conversations: of those within `max_kl` the one with the highest win rate,
    or the nearest to the base if none is. A policy of other tokens, whose divergence is unknown, is farther than any.

    Args:
        base: folder or name of the policy that the others were made from.
        aligned: folders or names, adapters and checkpoints too.
        sessions: that none of them has learned from.
        judge: see `geli_hf.evaluation.judges`.
        reward: the reward model that the policies were trained for, shown beside the judge.
        sampling: how replies are sampled.
        max_kl: largest KL divergence from the base, in nats per reply.
        model_kwargs: see `open_policy`.

    Raises:
        PolicyError: something named is no policy.
        ValueError: the sessions hold no turn of the agent that answers something.
    """
    for name in (base, *aligned):
        check_policy(name)
    several = len(aligned) > 1
    halves = {"validation": 0.5, "test": 0.5}
    parts = split_sessions(sessions, halves, seed=sampling.seed) if several else {"test": sessions}
    asked = {part: HeldOutDialogues(rows, sampling) for part, rows in parts.items()}
    base_model, base_tokenizer = open_policy(base, **model_kwargs)
    base_replies = {part: dialogues.sample(base_model, base_tokenizer) for part, dialogues in asked.items()}

    def evaluate(name: str, part: str) -> EvaluatedPolicy:
        dialogues = asked[part]
        model, tokenizer = open_policy(name, **model_kwargs)
        replies = dialogues.sample(model, tokenizer)
        kl, by_reward = None, None
        if same_tokens(model, tokenizer, base_model, base_tokenizer):
            divergence = reply_divergence(model, base_model, replies, temperature=sampling.temperature, progress=True)
            kl = bootstrap(divergence, dialogues.conversation_ids)
        texts = [[reply.text for reply in side] for side in (base_replies[part], replies)]
        comparison = judge.compare(dialogues.dialogues, *texts, dialogues.conversation_ids)
        if reward is not None:
            sides = [judge_by_reward(reward, dialogues.dialogues, side) for side in texts]
            judged = PolicyComparison(dialogues.dialogues, *sides, dialogues.conversation_ids).figures()
            by_reward = {side: judged[side]["value"] for side in ("before", "after")}
            by_reward |= {key: judged[key] for key in ("difference", "win_rate")}
        figures = comparison.figures() | {"kl": kl, "reward": by_reward}
        return EvaluatedPolicy(name, comparison, figures, judge.notes(dialogues.sessions, comparison), replies)

    candidates = [evaluate(name, "validation") for name in aligned] if several else []

    def rank(candidate: EvaluatedPolicy) -> tuple[float, float]:
        kl = candidate.figures["kl"]
        excess = 0.0 if math.isinf(max_kl) else math.inf if kl is None else max(0.0, kl.estimate - max_kl)
        # Where nothing was judged, the rate is NaN, which is worse than any.
        return -excess, np.nan_to_num(candidate.figures["win_rate"].estimate, nan=-1)

    best = max(candidates, key=rank, default=None)
    chosen = evaluate(best.name if best else aligned[0], "test")
    return PolicyEvaluation(base, candidates, chosen, asked["test"], base_replies["test"], max_kl)


def open_policy(
    name: str | Path, *, device: torch.device | str | None = None, **model_kwargs
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a policy with its tokenizer onto a device.

    Args:
        name: folder or name of the policy.
        device: default: that of this process.
        model_kwargs: see `load_policy`.
    """
    model, tokenizer = load_policy(name, **model_kwargs)
    return model.to(device or PartialState().device), tokenizer
