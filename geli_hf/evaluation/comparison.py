"""What a policy gained by alignment, judged on replies to the same held-out dialogues before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..affect.sentiment import vader
from ..metrics.metrics import bootstrap, paired_bootstrap
from ..metrics.table import MISSING
from ..metrics.texts import distinct_ngrams, self_repetition, words
from ..metrics.win_rates import length_controlled_win_rate
from ..sessions import Message

OWN_REWARD = "its own reward model"
TRUTH = "true turn values"
SAME_LENGTH = (0.9, 1.1)  # mean length after over before, within which lengths agree


@dataclass(frozen=True)
class JudgedReply:
    """A reply and what a judge says of it.

    Args:
        text: the reply.
        value: its worth as a turn of its dialogue, in the judge's units. NaN of a judge that only compares two.
        recognised: whether the judge understood it at all; one that it did not is worth the least. None of a judge
            that can't tell.
    """

    text: str
    value: float
    recognised: bool | None = True


@dataclass(frozen=True)
class PolicyComparison:
    """Replies to the same dialogues, in the same order, before and after alignment.

    Args:
        dialogues: what was said before each reply.
        before, after: the replies.
        conversation_ids: of the dialogues.
        true: whether the judge knows the truth.
        judge: who judged, as a reader should know it. Default, where the truth did not: the reward model that the
            policy was trained to please, whose praise proves nothing.
        verdicts: of a judge that compares the two replies, under each question that it was asked: 1 where the one
            after is better, 0 where it is worse, .5 for a tie; NaN where it said nothing. Default: by the values.
    """

    dialogues: Sequence[Sequence[Message]]
    before: Sequence[JudgedReply]
    after: Sequence[JudgedReply]
    conversation_ids: Sequence[str]
    true: bool
    judge: str = ""
    verdicts: Mapping[str, Sequence[float]] | None = None

    @property
    def wins(self) -> np.ndarray:
        """(dialogues,): 1 where the reply after alignment is the better one, .5 for a tie, 0 where it is the worse.

        The same words are a tie, whatever the last digits of their values are. Of several verdicts it is the mean.
        """
        if self.verdicts is not None:
            return np.mean([np.asarray(each, float) for each in self.verdicts.values()], axis=0)
        after, before = (np.array([reply.value for reply in side], float) for side in (self.after, self.before))
        same = np.array([a.text == b.text for a, b in zip(self.after, self.before)])
        wins = np.where(same, 0.5, (1 + np.sign(after - before)) / 2)
        return np.where(np.isnan(after - before), np.nan, wins)

    @property
    def mean_win(self) -> float:
        """The win rate alone; -1 where nothing was judged, which is worse than any."""
        known = self.wins[~np.isnan(self.wins)]
        return float(known.mean()) if len(known) else -1.0

    def figures(self) -> dict[str, Any]:
        """What either side says and is worth, and what lies between them, with 95 % intervals over conversations.

        Returns:
            `before` and `after`, each with `value` (Interval), `recognised` (share), `words` (mean length), `empty`
            (share of replies without a word), `distinct` (share of different replies), `distinct_1`, `distinct_2`,
            `repetition` (see `texts`) and `sentiment` (VADER's, None where that is not installed); `win_rate` and
            `length_controlled_win_rate` of the side after (Intervals); `difference` of the values, and `sentiment`,
            that of the sentiments (Intervals, paired); `length_ratio`, mean length after over before, and
            `same_length`, whether that is within a tenth of 1; `verdicts`, the win rate by each question (Intervals),
            of a judge that was asked; and `judge`.
        """
        result: dict[str, Any] = {"judge": self.judge or (TRUTH if self.true else OWN_REWARD)}
        sentiment = {name: _sentiment([reply.text for reply in getattr(self, name)]) for name in ("before", "after")}
        for name, felt in sentiment.items():
            side = getattr(self, name)
            texts, recognised = [reply.text for reply in side], [reply.recognised for reply in side]
            repetition = [self_repetition(text, dialogue) for text, dialogue in zip(texts, self.dialogues)]
            result[name] = {
                "value": bootstrap([reply.value for reply in side], self.conversation_ids),
                "recognised": None if None in recognised else float(np.mean(recognised)),
                "words": float(np.mean([words(text) for text in texts])),
                "empty": float(np.mean([not text.strip() for text in texts])),
                "distinct": len(set(texts)) / len(texts),
                "distinct_1": distinct_ngrams(texts, 1),
                "distinct_2": distinct_ngrams(texts, 2),
                "repetition": float(np.nanmean(repetition)) if not np.isnan(repetition).all() else np.nan,
                "sentiment": None if felt is None else bootstrap(felt, self.conversation_ids),
            }
        length = [np.log([words(reply.text) + 1 for reply in side]) for side in (self.after, self.before)]
        result["win_rate"] = bootstrap(self.wins, self.conversation_ids)
        result["length_controlled_win_rate"] = length_controlled_win_rate(
            self.wins, length[0] - length[1], self.conversation_ids
        )
        after, before = ([reply.value for reply in side] for side in (self.after, self.before))
        result["difference"] = paired_bootstrap(after, before, self.conversation_ids)
        result["sentiment"] = None
        if None not in sentiment.values():
            result["sentiment"] = paired_bootstrap(sentiment["after"], sentiment["before"], self.conversation_ids)
        result["verdicts"] = None
        if self.verdicts is not None:
            result["verdicts"] = {key: bootstrap(each, self.conversation_ids) for key, each in self.verdicts.items()}
        ratio = result["after"]["words"] / max(result["before"]["words"], 1e-9)
        return result | {"length_ratio": ratio, "same_length": SAME_LENGTH[0] <= ratio <= SAME_LENGTH[1]}


def policy_table(figures: Mapping[str, Any]) -> str:
    """The figures of a `PolicyComparison` in Markdown."""
    table = ["| | value of a reply | recognised | words | distinct |", "| --- | ---: | ---: | ---: | ---: |"]
    for title, side in (("before alignment", figures["before"]), ("after alignment", figures["after"])):
        known = share(side["recognised"])
        table.append(f"| {title} | {side['value']} | {known} | {side['words']:.1f} | {side['distinct']:.1%} |")
    difference = f"Difference: **{figures['difference']}**; length after / before: {figures['length_ratio']:.2f}."
    wins = (
        f"The reply after is the better one in **{figures['win_rate']}** of the dialogues (a tie is half), at equal "
        f"length in {figures['length_controlled_win_rate']}."
    )
    return "\n".join([*table, "", difference, wins])


def share(value: float | None) -> str:
    """A share in percent, or that it is missing."""
    return MISSING if value is None else f"{value:.1%}"


def _sentiment(texts: Sequence[str]) -> list[float] | None:
    """VADER's sentiment of each text, NaN of an empty one; None without the package."""
    try:
        sentiment = vader()
    except ImportError:
        return None
    return [value if text.strip() else np.nan for text, value in zip(texts, sentiment(list(texts)))]
