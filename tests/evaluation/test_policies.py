"""Replies of a policy before and after alignment, compared on the same dialogues."""

import numpy as np
import pytest

from geli_hf.evaluation.policies import JudgedReply, PolicyComparison

ASKED = [{"role": "user", "content": "How was your day?"}]
BEFORE = [
    JudgedReply("Fine.", 0.1),
    JudgedReply("Fine.", 0.2),
    JudgedReply("What did you do?", 0.9),
    JudgedReply("", -1.0, recognised=False),
]
AFTER = [
    JudgedReply("Good, and yours?", 0.5),
    JudgedReply("What did you do?", 0.9),
    JudgedReply("What did you do?", 0.9),
    JudgedReply("I walked by the river.", 0.3),
]


def compare(before=BEFORE, after=AFTER, conversation_ids=("a", "a", "b", "c"), true=True) -> PolicyComparison:
    return PolicyComparison([ASKED] * len(before), before, after, conversation_ids, true)


def test_what_either_side_says_and_what_it_is_worth():
    figures = compare().figures()
    assert figures["before"]["value"].estimate == pytest.approx(0.05)  # (0.1 + 0.2 + 0.9 - 1) / 4
    assert figures["after"]["value"].estimate == pytest.approx(0.65)  # (0.5 + 0.9 + 0.9 + 0.3) / 4
    assert figures["difference"].estimate == pytest.approx(0.6)
    assert (figures["before"]["recognised"], figures["after"]["recognised"]) == (0.75, 1)
    assert figures["before"]["words"] == pytest.approx(6 / 4)  # 1, 1, 4 and 0
    assert figures["after"]["words"] == pytest.approx(16 / 4)  # 3, 4, 4 and 5
    assert figures["length_ratio"] == pytest.approx(16 / 6)
    assert (figures["before"]["distinct"], figures["after"]["distinct"]) == (0.75, 0.75)


def test_intervals_are_over_conversations_that_are_drawn_whole():
    """All draws of three conversations out of three, counted by brute force."""
    gains = {"a": [0.4, 0.7], "b": [0.0], "c": [1.3]}
    means = [np.mean(gains[x] + gains[y] + gains[z]) for x in gains for y in gains for z in gains]
    found = compare().figures()["difference"]
    # 27 equally likely draws: the lowest is b b b, the highest c c c; 2.5 % of the draws is less than one of them.
    assert found.low == pytest.approx(min(means), abs=1e-6)
    assert found.high == pytest.approx(max(means), abs=1e-6)


def test_the_difference_is_paired():
    """Dialogues differ much more than policies: side by side the values overlap, their difference is certain."""
    rng = np.random.default_rng(0)
    worth = rng.normal(0, 3, 60)
    before = [JudgedReply("Hm.", value) for value in worth]
    after = [JudgedReply("Hm?", value + 0.2 + noise) for value, noise in zip(worth, rng.normal(0, 0.05, 60))]
    figures = compare(before, after, [str(index) for index in range(60)]).figures()
    assert figures["before"]["value"].high > figures["after"]["value"].low
    assert 0.15 < figures["difference"].low < 0.2 < figures["difference"].high < 0.25


def test_who_judged_is_said():
    assert compare(true=True).figures()["judge"] == "true turn values"
    assert compare(true=False).figures()["judge"] == "its own reward model"


def test_a_policy_that_said_nothing_before():
    before = [JudgedReply("", -1.0, recognised=False)] * 4
    figures = compare(before).figures()
    assert figures["before"]["words"] == 0
    assert figures["before"]["distinct"] == 0.25
    assert figures["length_ratio"] > 1e6  # no division by zero
