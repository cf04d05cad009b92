"""Replies of a policy before and after alignment, compared on the same dialogues."""

import numpy as np
import pytest

from geli_hf.evaluation.comparison import JudgedReply, PolicyComparison

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


def compare(before=BEFORE, after=AFTER, conversation_ids=("a", "a", "b", "c"), **options) -> PolicyComparison:
    return PolicyComparison([ASKED] * len(before), before, after, conversation_ids, **options)


def test_figures_of_both_sides():
    figures = compare().figures()
    assert figures["before"]["value"].estimate == pytest.approx(0.05)  # (0.1 + 0.2 + 0.9 - 1) / 4
    assert figures["after"]["value"].estimate == pytest.approx(0.65)  # (0.5 + 0.9 + 0.9 + 0.3) / 4
    assert figures["difference"].estimate == pytest.approx(0.6)
    assert (figures["before"]["recognised"], figures["after"]["recognised"]) == (0.75, 1)
    assert figures["before"]["words"] == pytest.approx(6 / 4)  # 1, 1, 4 and 0
    assert figures["after"]["words"] == pytest.approx(16 / 4)  # 3, 4, 4 and 5
    assert figures["length_ratio"] == pytest.approx(16 / 6)
    assert (figures["before"]["distinct"], figures["after"]["distinct"]) == (0.75, 0.75)


def test_intervals_resample_conversations():
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


def test_wins_by_value():
    assert compare().wins.tolist() == [1, 1, 0.5, 1]
    assert compare(AFTER, BEFORE).wins.tolist() == [0, 0, 0.5, 0]
    figures = compare().figures()
    assert figures["win_rate"].estimate == pytest.approx(3.5 / 4)


def test_the_judge_is_named():
    assert compare().figures()["judge"] == "its own reward model"
    assert compare(judge="Ann").figures()["judge"] == "Ann"


def test_equal_texts_are_a_tie():
    after = [JudgedReply(reply.text, reply.value + 1e-6) for reply in BEFORE]
    assert compare(BEFORE, after).wins.tolist() == [0.5] * 4


def test_a_judge_that_only_compares():
    silent = [JudgedReply(reply.text, np.nan, None) for reply in BEFORE]
    verdicts = {"warm": [1, 1, np.nan, 0.5], "fluent": [1, 0.5, np.nan, 0.5]}
    figures = compare(silent, silent, verdicts=verdicts).figures()
    assert figures["win_rate"].estimate == pytest.approx(0.75)  # 1, .75 and .5, the three that were judged
    assert figures["verdicts"]["warm"].estimate == pytest.approx(2.5 / 3)
    assert np.isnan(figures["difference"].estimate)
    assert compare().figures()["verdicts"] is None


def test_a_policy_with_empty_replies_before():
    before = [JudgedReply("", -1.0, recognised=False)] * 4
    figures = compare(before).figures()
    assert figures["before"]["words"] == 0
    assert figures["before"]["distinct"] == 0.25
    assert figures["before"]["empty"] == 1
    assert np.isnan(figures["before"]["repetition"])
    assert figures["length_ratio"] > 1e6  # no division by zero
