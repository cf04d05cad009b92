"""Who says which of two replies is better: the sample's truth, a regressor of people's ratings, a language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from ...alignment.dialogue import without_opening
from ...alignment.sampling import judge_by_reward
from ...cli.train_judge import describe
from ...evaluation.judges.llm import LlmJudge
from ...llm import Backend
from ...metrics.win_rates import detectable_win_rate, true_win_rate
from ...models.geli_reward.modeling_geli import GeliRewardModel
from ...models.loading import open_model
from ...sessions import Message
from ...simulator.oracle import true_turn_value
from ..comparison import TRUTH, JudgedReply, PolicyComparison
from .ratings import JudgeReport, conversation_digest

RECOGNISED = 0.5  # of what people of the sample say; it is nearly all of it
Dialogues = Sequence[Sequence[Message]]


class Judge(Protocol):
    """Judges replies of two policies to the same dialogues."""

    name: str

    def compare(
        self, dialogues: Dialogues, before: Sequence[str], after: Sequence[str], conversation_ids: Sequence[str]
    ) -> PolicyComparison:
        """Which of the two replies to each dialogue is better, and what they are worth."""

    def notes(self, dialogues: Dialogues, comparison: PolicyComparison) -> list[str]:
        """What a reader has to know of the judge, after that."""


class TruthJudge:
    """The true values of turns of the sample corpus, whose grammar tells what any reply is worth."""

    name = TRUTH

    def compare(self, dialogues, before, after, conversation_ids) -> PolicyComparison:
        sides = [judge_by_truth(dialogues, replies) for replies in (before, after)]
        return PolicyComparison(dialogues, *sides, conversation_ids, true=True)

    def notes(self, dialogues, comparison) -> list[str]:
        return []

    def check(self, dialogues: Dialogues) -> None:
        """
        Raises:
            ValueError: people talk about other things here, of which it knows no truth.
        """
        said = [turn["content"] for dialogue in dialogues for turn in dialogue if turn["role"] == "user"]
        known = [true_turn_value([{"role": "assistant", "content": text}]).recognised for text in said[:200]]
        if not np.mean(known) > RECOGNISED:
            raise ValueError(
                "--judge: truth knows the sample corpus alone, and these are other conversations; give a judge that "
                "learned from people's ratings (geli train-judge), or a language model (--judge llm)"
            )


class RatingJudge:
    """A judge in a folder or on the Hub, as `geli train-judge` leaves it. Values are in units of the rating.

    Any reward model will do; how far one may be believed that has no `judge.json` is not known.
    """

    def __init__(self, name: str):
        model = open_model(name)
        if not isinstance(model, GeliRewardModel):
            raise ValueError(
                f"--judge: {name} is an attribution, which needs a reaction; give a judge or reward model"
            )
        self.folder, self.model, self.report = name, model, JudgeReport.read(name)
        self.name = (
            f"{name}, which learned from people's ratings of turns" if self.report else f"{name}, a reward model"
        )

    def compare(self, dialogues, before, after, conversation_ids) -> PolicyComparison:
        sides = [rewarded(self.model, dialogues, replies, rating=True) for replies in (before, after)]
        return PolicyComparison(dialogues, *sides, conversation_ids, true=False, judge=self.name)

    def notes(self, dialogues, comparison) -> list[str]:
        if self.report is None:
            return [
                f"*{self.folder}* is no judge that `geli train-judge` made: whether it has seen what the policy's "
                "reward learned from, and how well it agrees with people, is not known here."
            ]
        notes = [f"*{self.folder}* is {describe(self.report)}"]
        rate, rho = comparison.figures()["win_rate"], self.report.spearman.estimate
        needed = true_win_rate(detectable_win_rate(len(dialogues)), rho)
        if not math.isnan(needed):
            notes.append(
                f"If replies differ as turns of people do, it takes a win rate of about {needed:.0%} by the raters "
                f"themselves for this judge to show it with these {len(dialogues)} pairs."
            )
            if rate.low > 0.5 or rate.high < 0.5:
                notes[-1] += f" What it found stands for one of about {true_win_rate(rate.estimate, rho):.0%}."
        learned = set(self.report.conversations)
        if seen := sum(conversation_digest(dialogue) in learned for dialogue in dialogues):
            notes.append(f"The judge has learned from {seen} of these very dialogues.")
        return notes


class AskedJudge:
    """A language model that is asked by the questions of GELI's human study."""

    def __init__(self, backend: Backend, model: str, **options):
        self.asked = LlmJudge(backend, **options)
        self.name = f"the language model {model}"
        self._said: list[str] = []

    def compare(self, dialogues, before, after, conversation_ids) -> PolicyComparison:
        shown = [without_opening(dialogue) for dialogue in dialogues]
        said = self.asked.compare(shown, before, after)
        sides = [[JudgedReply(text, math.nan, None) for text in replies] for replies in (before, after)]
        verdicts = dict(zip(said.criteria, said.wins.T))
        self._said = [
            f"Each pair was asked about twice, with the replies in either order; on {said.swayed:.0%} of the "
            "questions another one was better then, which is a tie.",
            *(
                f"{len(pairs)} pairs could not be judged and are left out ({reason})."
                for reason, pairs in said.report.failed.items()
            ),
        ]
        return PolicyComparison(dialogues, *sides, conversation_ids, true=False, judge=self.name, verdicts=verdicts)

    def notes(self, dialogues, comparison) -> list[str]:
        return self._said


def judge_by_truth(dialogues: Dialogues, replies: Sequence[str]) -> list[JudgedReply]:
    """Replies judged by the truth of the sample corpus."""
    judged = []
    for dialogue, reply in zip(dialogues, replies):
        truth = true_turn_value([*dialogue, {"role": "assistant", "content": reply}])
        judged.append(JudgedReply(reply, truth.value, truth.recognised))
    return judged


def rewarded(
    model: GeliRewardModel, dialogues: Dialogues, replies: Sequence[str], *, rating: bool = False
) -> list[JudgedReply]:
    """Replies judged by a reward model, see `judge_by_reward`.

    Args:
        rating: in units of the score that the model predicts, rather than of its deviation.
    """
    judged = judge_by_reward(model, dialogues, replies)
    if not rating:
        return judged
    mean, std = model.config.score_mean, model.config.score_std
    return [replace(reply, value=mean + std * reply.value) for reply in judged]


def same_model(first: GeliRewardModel, second: GeliRewardModel) -> bool:
    """Whether two reward models have the same weights."""
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(
        one[name].shape == other[name].shape and torch.equal(one[name].cpu(), other[name].cpu()) for name in one
    )
