"""Aligned policies beside the one that they were made of, judged by something other than the reward that they were
trained for: what `geli evaluate-policy` computes and shows.

Of several, such as the checkpoints of a run, the judge chooses one on some of the conversations, and that one alone is
reported on the others: the best of many on the same dialogues looks better than it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file, logging

from ..alignment.policy import check_policy, is_adapter, load_policy
from ..alignment.sampling import SampledReply, sample_replies
from ..alignment.trainers import dialogue_prompts
from ..metrics.metrics import bootstrap
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import Message, split_sessions
from .comparison import PolicyComparison
from .divergence import reply_divergence, why_not_comparable
from .judges.judge import Judge, rewarded

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Sampling:
    """How policies are asked: see `generate_replies`, and `context_window` for `context_messages`."""

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
        comparison: with the base, by the judge.
        divergence: (replies,), nats from the base; None where there is none, and `undiverged` says why.
        rewarded: the same comparison by the reward that the policy was trained for, if that is at hand.
        notes: what the judge has to say of itself.
    """

    name: str
    comparison: PolicyComparison
    divergence: np.ndarray | None
    undiverged: str | None
    rewarded: PolicyComparison | None
    notes: Sequence[str]

    def figures(self) -> dict[str, Any]:
        """Those of `PolicyComparison.figures`, `kl` (Interval, or None), and `reward`: `before`, `after`,
        `difference` and `win_rate` by the reward (Intervals), or None.
        """
        figures = self.comparison.figures()
        figures["kl"], figures["reward"] = None, None
        if self.divergence is not None:
            figures["kl"] = bootstrap(self.divergence, self.comparison.conversation_ids)
        if self.rewarded is not None:
            by_reward = self.rewarded.figures()
            figures["reward"] = {side: by_reward[side]["value"] for side in ("before", "after")}
            figures["reward"] |= {key: by_reward[key] for key in ("difference", "win_rate")}
        return figures


@dataclass(frozen=True)
class PolicyEvaluation:
    """What came out.

    Args:
        base: name of the policy that the others were made of.
        candidates: each aligned policy on the dialogues that were chosen on; empty where there was one alone.
        chosen: the one that the judge chose, or the only one, on dialogues of conversations that it was not chosen on.
    """

    base: str
    candidates: Sequence[EvaluatedPolicy]
    chosen: EvaluatedPolicy


def evaluate_policies(
    base: str,
    aligned: Sequence[str],
    sessions: Dataset,
    judge: Judge,
    *,
    reward: GeliRewardModel | None = None,
    sampling: Sampling = Sampling(),
    validation_share: float = 0.5,
    **model_kwargs,
) -> PolicyEvaluation:
    """Have policies answer the same held-out dialogues, and judge what they say.

    Args:
        base: folder or name of the policy that the others were made of.
        aligned: folders or names, adapters and checkpoints too. One without a tokenizer is read with the base's.
        sessions: that none of them has learned from.
        judge: of `geli_hf.evaluation.judges.judge`.
        reward: the reward model that the policies were trained for, to be shown beside the judge.
        validation_share: share of the conversations that one of several is chosen on, by its win rate.
        model_kwargs: see `load_policy`.

    Raises:
        PolicyError: something named is no policy.
        ValueError: the sessions hold no turn of the agent that answers something.
    """
    for name in (base, *aligned):
        check_policy(name)
    if len(aligned) > 1:
        shares = {"validation": validation_share, "test": 1 - validation_share}
        parts = split_sessions(sessions, shares, seed=sampling.seed)
    else:
        parts = {"test": sessions}
    asked = {part: _Asked(rows, sampling) for part, rows in parts.items()}
    model, tokenizer = _opened(base, None, model_kwargs)
    said = {part: each.replies(model, tokenizer) for part, each in asked.items()}

    def evaluated(name: str, part: str) -> EvaluatedPolicy:
        policy, its_tokenizer = _opened(name, tokenizer, model_kwargs)
        replies = asked[part].replies(policy, its_tokenizer)
        divergence, why = None, why_not_comparable(policy, its_tokenizer, model, tokenizer)
        if why is None:
            divergence = reply_divergence(policy, model, replies, temperature=sampling.temperature, progress=True)
        return asked[part].evaluated(name, said[part], replies, judge, reward, divergence, why)

    if len(aligned) == 1:
        return PolicyEvaluation(base, [], evaluated(aligned[0], "test"))
    candidates = [evaluated(name, "validation") for name in aligned]
    best = max(candidates, key=lambda each: each.comparison.mean_win)
    return PolicyEvaluation(base, candidates, evaluated(best.name, "test"))


class _Asked:
    """Held-out dialogues, and how policies are asked to go on with them."""

    def __init__(self, sessions: Dataset, sampling: Sampling):
        prompts = dialogue_prompts(sessions, context_messages=sampling.context_messages).shuffle(seed=sampling.seed)
        if not len(prompts):
            raise ValueError(
                f"no held-out dialogues: none of {len(sessions)} sessions has a turn of the assistant that answers "
                "something; give others, or a larger share of them"
            )
        self.prompts = prompts.select(range(min(sampling.replies, len(prompts))))
        messages = dict(zip(sessions["session_id"], sessions["messages"]))
        self.whole = [messages[row["session_id"]] for row in self.prompts]
        self.dialogues: list[list[Message]] = [each[: row["position"]] for each, row in zip(self.whole, self.prompts)]
        self.sampling = sampling

    def replies(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[SampledReply]:
        return sample_replies(
            model,
            tokenizer,
            self.prompts["prompt"],
            max_new_tokens=self.sampling.max_new_tokens,
            temperature=self.sampling.temperature,
            seed=self.sampling.seed,
            batch_size=self.sampling.batch_size,
            progress=True,
        )

    def evaluated(self, name, before, after, judge, reward, divergence, why) -> EvaluatedPolicy:
        texts = [[reply.text for reply in side] for side in (before, after)]
        conversations = self.prompts["conversation_id"][:]
        comparison = judge.compare(self.dialogues, *texts, conversations)
        by_reward = None
        if reward is not None:
            sides = [rewarded(reward, self.dialogues, each) for each in texts]
            by_reward = PolicyComparison(self.dialogues, *sides, conversations, true=False)
        notes = judge.notes(self.whole, comparison)
        return EvaluatedPolicy(name, comparison, divergence, why, by_reward, notes)


def _opened(
    name: str, tokenizer: PreTrainedTokenizerBase | None, model_kwargs: Mapping[str, Any]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The policy and its tokenizer; `tokenizer` is that of a checkpoint that has none."""
    device = PartialState().device
    missing = cached_file(name, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False) is None
    if tokenizer is not None and missing and not is_adapter(name):
        logger.warning(f"{name} holds no tokenizer; the base's is taken")
        return AutoModelForCausalLM.from_pretrained(name, **model_kwargs).to(device), tokenizer
    model, own = load_policy(name, **model_kwargs)
    return model.to(device), own
