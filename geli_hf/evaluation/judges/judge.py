"""Judges of two policies' replies by a value per reply: the sample's truth, and a regressor of people's ratings.

A judge has a `name`; `compare(dialogues, before, after, conversation_ids)`, which judges two replies to each dialogue;
and `notes(sessions, comparison)`, which lists sentences on the judge for the reader of that comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...models.geli_reward.modeling_geli import GeliRewardModel
from ...models.loading import open_model
from ...simulator.oracle import true_turn_value
from ..comparison import TRUTH, Dialogues, JudgedReply, PolicyComparison, judge_by_reward
from .llm import LlmJudge
from .ratings import JudgeReport, conversation_digest, describe

RECOGNISED = 0.5  # share of the user's turns that the grammar of the sample must know; it knows nearly all of its own


class TruthJudge:
    """Judge by the true turn values of the sample corpus, whose grammar values any reply."""

    name = TRUTH

    def compare(self, dialogues, before, after, conversation_ids) -> PolicyComparison:
        sides = [judge_by_truth(dialogues, replies) for replies in (before, after)]
        return PolicyComparison(dialogues, *sides, conversation_ids, self.name)

    def notes(self, dialogues, comparison) -> list[str]:
        return []

    def check(self, dialogues: Dialogues) -> None:
        """Check that the dialogues are of the sample corpus.

        Raises:
            ValueError: they are other conversations, of which no truth is known.
        """
        user = [turn["content"] for dialogue in dialogues for turn in dialogue if turn["role"] == "user"]
        known = [true_turn_value([{"role": "assistant", "content": text}]).recognised for text in user[:200]]
        if not np.mean(known) > RECOGNISED:
            raise ValueError("--judge: truth knows the sample corpus alone, and these are other conversations")


class RatingJudge:
    """Judge from a folder or the Hub, as `geli train-judge` writes it. Values are in units of the rating.

    Any reward model can be used; without a `judge.json` its agreement with people is unknown.

    Args:
        name: the folder, or the name on the Hub.
        how: `device` and `dtype` of `open_model`.

    Raises:
        ValueError: the model is an attribution, which needs a reaction.
    """

    def __init__(self, name: str, **how):
        model = open_model(name, **how)
        if not isinstance(model, GeliRewardModel):
            raise ValueError(f"--judge: {name} is an attribution, which needs a reaction; give a judge")
        self.folder, self.model, self.report = name, model, JudgeReport.read(name)
        kind = "which learned from people's ratings of turns" if self.report else "a reward model"
        self.name = f"{name}, {kind}"

    def compare(self, dialogues, before, after, conversation_ids) -> PolicyComparison:
        sides = [judge_by_reward(self.model, dialogues, replies, rating=True) for replies in (before, after)]
        return PolicyComparison(dialogues, *sides, conversation_ids, self.name)

    def notes(self, dialogues, comparison) -> list[str]:
        if self.report is None:
            return [f"*{self.folder}* is no judge that `geli train-judge` made: its agreement with people is unknown."]
        notes = [f"*{self.folder}* is {describe(self.report, len(dialogues))}"]
        learned = set(self.report.conversations)
        if seen := sum(conversation_digest(dialogue) in learned for dialogue in dialogues):
            notes.append(f"The judge has learned from {seen} of these very dialogues.")
        return notes


Judge = TruthJudge | RatingJudge | LlmJudge


def judge_by_truth(dialogues: Dialogues, replies: Sequence[str]) -> list[JudgedReply]:
    """Judge a reply to each dialogue by the truth of the sample corpus."""
    judged = []
    for dialogue, reply in zip(dialogues, replies):
        truth = true_turn_value([*dialogue, {"role": "assistant", "content": reply}])
        judged.append(JudgedReply(reply, truth.value, truth.recognised))
    return judged


def same_model(first: GeliRewardModel, second: GeliRewardModel) -> bool:
    """Compare two reward models: true if they have the same weights."""
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name].cpu(), other[name].cpu()) for name in one)
