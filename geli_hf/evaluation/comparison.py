"""Comparison of two policies by their replies to the same held-out dialogues, before and after alignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

from ..metrics.intervals import mean_of_known
from ..metrics.metrics import bootstrap, paired_bootstrap
from ..metrics.table import aligned_table, format_figure
from ..metrics.texts import distinct_ngrams, self_repetition, words
from ..metrics.win_rates import length_controlled_win_rate
from ..sessions import Message

if TYPE_CHECKING:
    from ..models.geli_reward.modeling_geli import GeliRewardModel
    from .policies import Sampling

OWN_REWARD = "its own reward model"
TRUTH = "true turn values"
Dialogues = Sequence[Sequence[Message]]
# Figures of each side -> title.
SIDES = {
    "value": "value of a reply",
    "recognised": "recognised",
    "words": "words",
    "empty": "empty",
    "distinct": "different replies",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "repetition": "self-repetition",
}


@dataclass(frozen=True)
class JudgedReply:
    """A reply with its value by a judge.

    Args:
        text: the reply.
        value: of the reply as a turn of its dialogue, in the judge's units. NaN of a judge that only compares two.
        recognised: whether the judge understood the reply; one that it did not is worth the least. None of a judge
            that can't tell.
    """

    text: str
    value: float
    recognised: bool | None = True


@dataclass(frozen=True)
class PolicyComparison:
    """Replies to the same dialogues, in the same order, before and after alignment.

    Args:
        dialogues: messages before each reply.
        before, after: the replies.
        conversation_ids: of the dialogues.
        judge: name of the judge. Default: the reward model that the policy was trained with, whose judgement of that
            policy proves nothing.
        verdicts: of a judge that compares the two replies, by question: 1 where the one after is better, 0 where it
            is worse, .5 for a tie; NaN where the judge gave no answer. Default: by the values.
    """

    dialogues: Dialogues
    before: Sequence[JudgedReply]
    after: Sequence[JudgedReply]
    conversation_ids: Sequence[str]
    judge: str = OWN_REWARD
    verdicts: Mapping[str, Sequence[float]] | None = None

    @property
    def wins(self) -> np.ndarray:
        """(dialogues,): 1 where the reply after alignment is better, .5 for a tie, 0 where it is worse.

        Equal texts are a tie, whatever the last digits of their values are. Several verdicts are averaged.
        """
        if self.verdicts is not None:
            return np.mean([np.asarray(verdict, float) for verdict in self.verdicts.values()], axis=0)
        after, before = (np.array([reply.value for reply in side], float) for side in (self.after, self.before))
        same = np.array([a.text == b.text for a, b in zip(self.after, self.before)])
        wins = np.where(same, 0.5, (1 + np.sign(after - before)) / 2)
        return np.where(np.isnan(after - before), np.nan, wins)

    def figures(self) -> dict[str, Any]:
        """Compute the figures of both sides and their differences, with 95 % intervals over conversations.

        Returns:
            `before` and `after`, each with `value` (Interval), `recognised` (share), `words` (mean length), `empty`
            (share of replies without a word), `distinct` (share of different replies), `distinct_1`, `distinct_2`,
            `repetition` (see `metrics.texts`); `win_rate` and `length_controlled_win_rate` of the side after
            (Intervals); `difference` of the values (paired Interval); `length_ratio`, mean length after over before;
            `verdicts`, the win rate by each question (Intervals) of a judge that compares; and `judge`.
        """
        ids = self.conversation_ids
        before, after = self._figures_of(self.before), self._figures_of(self.after)
        lengths = [np.array([words(reply.text) for reply in side]) for side in (self.before, self.after)]
        log_ratio = np.log(lengths[1] + 1) - np.log(lengths[0] + 1)
        values = [[reply.value for reply in side] for side in (self.after, self.before)]
        verdicts = {question: bootstrap(verdict, ids) for question, verdict in (self.verdicts or {}).items()}
        return {
            "judge": self.judge,
            "before": before,
            "after": after,
            "win_rate": bootstrap(self.wins, ids),
            "length_controlled_win_rate": length_controlled_win_rate(self.wins, log_ratio, ids),
            "difference": paired_bootstrap(*values, ids),
            "verdicts": verdicts or None,
            "length_ratio": after["words"] / max(before["words"], 1e-9),
        }

    def _figures_of(self, replies: Sequence[JudgedReply]) -> dict[str, Any]:
        texts, recognised = [reply.text for reply in replies], [reply.recognised for reply in replies]
        repetition = [self_repetition(text, dialogue) for text, dialogue in zip(texts, self.dialogues)]
        return {
            "value": bootstrap([reply.value for reply in replies], self.conversation_ids),
            "recognised": None if None in recognised else float(np.mean(recognised)),
            "words": float(np.mean([words(text) for text in texts])),
            "empty": float(np.mean([not text.strip() for text in texts])),
            "distinct": len(set(texts)) / len(texts),
            "distinct_1": distinct_ngrams(texts, 1),
            "distinct_2": distinct_ngrams(texts, 2),
            "repetition": mean_of_known(repetition),
        }


def compare_policies(
    before: str | Path,
    after: str | Path,
    sessions: Dataset,
    judge: Callable[[Dialogues, list[str]], list[JudgedReply]],
    *,
    true: bool = False,
    sampling: Sampling,
    **model_kwargs,
) -> PolicyComparison:
    """Sample replies of two policies to the same held-out dialogues and judge them.

    Args:
        before, after: folders or names of the policies.
        sessions: that neither has learned from.
        judge: maps dialogues, of full length, and a reply to each to the judged replies.
        true: whether the judge knows the truth; it is else the reward that a policy was trained with.
        sampling: number of dialogues, and how replies are sampled.
        model_kwargs: see `load_policy`.
    """
    from .policies import HeldOutDialogues, open_policy  # loads TRL, which the table of a card does not need

    asked = HeldOutDialogues(sessions, sampling)
    sampled = [asked.sample(*open_policy(policy, **model_kwargs)) for policy in (before, after)]
    sides = [judge(asked.dialogues, [reply.text for reply in side]) for side in sampled]
    return PolicyComparison(asked.dialogues, *sides, asked.conversation_ids, TRUTH if true else OWN_REWARD)


def judge_by_reward(
    model: GeliRewardModel, dialogues: Dialogues, replies: Sequence[str], *, rating: bool = False
) -> list[JudgedReply]:
    """Judge replies by a reward model, which is no judge of a policy that was trained with it.

    Args:
        model: the reward model.
        dialogues: messages before each reply.
        replies: (dialogues,).
        rating: give values in units of the score that the model predicts. Default: of the standardised score.
    """
    from ..alignment.rewards import GeliReward  # loads PEFT, which the table of a card does not need

    completions = [[{"role": "assistant", "content": reply}] for reply in replies]
    mean, std = (model.config.score_mean, model.config.score_std) if rating else (0.0, 1.0)
    values = GeliReward(model).turn_rewards(dialogues, completions)
    return [JudgedReply(reply, mean + std * value, recognised=None) for reply, value in zip(replies, values)]


def policy_table(figures: Mapping[str, Any]) -> str:
    """Format the figures of a `PolicyComparison`, or an `EvaluatedPolicy`, as a Markdown table and a sentence."""
    before, after = figures["before"], figures["after"]
    rows = [[title, before[key], after[key], ""] for key, title in SIDES.items()]
    rows[0][-1] = figures["difference"]  # of the values
    if reward := figures.get("reward"):
        rows.insert(1, ["reward that was trained for", *(reward[key] for key in ("before", "after", "difference"))])
    rows.append(["length after / before", "", "", figures["length_ratio"]])
    table = aligned_table(["", "before", "after", "difference"], [list(map(format_figure, row)) for row in rows])
    return (
        f"{table}\n\nThe reply after is the better one in **{figures['win_rate']}** of the dialogues (a tie counts "
        f"half), at equal length, by logistic regression on the log length ratio, in "
        f"{figures['length_controlled_win_rate']}."
    )
