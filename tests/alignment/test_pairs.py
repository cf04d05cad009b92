"""Preference data against brute force, and as datasets of TRL's trainers."""

import logging
import math
from collections import Counter
from itertools import product
from statistics import fmean

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from policy_fixtures import make_sessions
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from geli_hf.alignment import (
    GeliReward,
    best_replies,
    cut_reply,
    dialogue_prompts,
    labelled_replies,
    load_policy,
    preference_pairs,
    reward_replies,
    sample_several,
)
from geli_hf.alignment.pairs import CLOSE, FEW, LENGTHS, NONE

PROMPT = [{"role": "user", "content": "What do you cook?"}]
# Texts of one to four words, some of them empty or the same as others but for white space.
TEXTS = st.sampled_from(["", " ", "Soup.", " Soup. ", "Okay.", "Not much.", "Soup, I think.", "I never know, really."])
NUMBERS = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 0.5, 1.0, math.nan, math.inf])
CANDIDATES = st.lists(st.lists(st.tuples(TEXTS, NUMBERS), max_size=5), max_size=4)


def said(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


def split(candidates) -> tuple[list, list, list]:
    prompts = [PROMPT] * len(candidates)
    return prompts, [[t for t, _ in row] for row in candidates], [[r for _, r in row] for row in candidates]


def usable(row) -> list[tuple[str, float]]:
    """The first of each text that has a word and a finite reward."""
    kept: list[tuple[str, float]] = []
    for text, reward in row:
        if text.split() and abs(reward) < math.inf and text.strip() not in [other for other, _ in kept]:
            kept.append((text.strip(), reward))
    return kept


@given(CANDIDATES, st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([1.0, 1.5, 2.0, 10.0]))
def test_a_pair_is_the_widest_of_those_of_similar_length(candidates, margin, ratio):
    found = preference_pairs(*split(candidates), margin=margin, length_ratio=ratio)
    rows, reasons = iter(found.rows), Counter()
    for row in map(usable, candidates):
        similar = [
            (r1 - r2, t1, t2)
            for (t1, r1), (t2, r2) in product(row, row)
            if t1 != t2 and 1 / ratio <= len(t1.split()) / len(t2.split()) <= ratio
        ]
        allowed = [gap for gap, _, _ in similar if gap > 0 and gap >= margin]
        if not allowed:
            reasons[FEW if len(row) < 2 else CLOSE if similar else LENGTHS] += 1
            continue
        pair = next(rows)
        gap, chosen, rejected = pair["margin"], pair["chosen"][0]["content"], pair["rejected"][0]["content"]
        assert gap == max(allowed)
        assert (gap, chosen, rejected) in similar
        assert (pair["reward_chosen"], pair["reward_rejected"]) == (dict(row)[chosen], dict(row)[rejected])
        assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (PROMPT, said(chosen), said(rejected))
    assert not list(rows)
    assert found.without == reasons


@given(CANDIDATES, st.sampled_from([0.0, 0.5, 1.0]))
def test_a_label_is_the_side_of_the_prompts_mean(candidates, margin):
    found, expected, without = labelled_replies(*split(candidates), margin=margin), [], 0
    for row in map(usable, candidates):
        mean = fmean([reward for _, reward in row]) if row else 0.0
        good = [text for text, reward in row if reward > mean and reward >= mean + margin / 2]
        bad = [text for text, reward in row if reward < mean and reward <= mean - margin / 2]
        expected += [(text, text in good) for text, _ in row if text in good + bad]
        without += not good + bad
    assert [(row["completion"][0]["content"], row["label"]) for row in found.rows] == expected
    assert sum(found.without.values()) == without
    assert all(row["prompt"] == PROMPT for row in found.rows)


@given(CANDIDATES)
def test_the_best_reply_is_no_worse_than_any(candidates):
    found = best_replies(*split(candidates))
    kept = [row for row in map(usable, candidates) if row]
    assert len(found.rows) == len(kept)
    for row, best in zip(kept, found.rows):
        assert (best["completion"][0]["content"], max(reward for _, reward in row)) in row
    assert found.without == ({NONE: len(candidates) - len(kept)} if len(kept) < len(candidates) else {})


def test_a_pair_by_hand():
    """The widest pair is of other lengths; of the others "No." and "Yes." differ most."""
    replies, rewards = ["A very long reply, which says a lot.", "Yes.", "No."], [2.0, 0.5, -0.5]
    [row] = preference_pairs([PROMPT], [replies], [rewards]).rows
    assert (row["chosen"], row["rejected"], row["margin"]) == (said("Yes."), said("No."), 1.0)
    [row] = preference_pairs([PROMPT], [replies], [rewards], length_ratio=8).rows
    assert (row["chosen"], row["rejected"], row["margin"]) == (said(replies[0]), said("No."), 2.5)
    assert preference_pairs([PROMPT], [replies], [rewards], margin=1.01).without == {CLOSE: 1}
    assert preference_pairs([PROMPT], [replies[:2]], [rewards[:2]]).without == {LENGTHS: 1}


@pytest.mark.parametrize("choose", [preference_pairs, labelled_replies, best_replies])
def test_lost_rewards_are_warned_of(choose, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("geli_hf"), "propagate", True)
    choose([PROMPT], [["Soup.", "Okay."]], [[math.nan, 1.0]])
    assert "1 replies" in caplog.text
    caplog.clear()
    choose([PROMPT], [["Soup.", "Okay."]], [[2.0, 1.0]])
    assert not caplog.text


@pytest.fixture(scope="module")
def candidates(policy_folder, reward_model):
    """Prompts, four replies of the policy to each, and their rewards."""
    prompts = dialogue_prompts(make_sessions(3), context_messages=3)["prompt"][:]
    sampled = sample_several(*load_policy(policy_folder), prompts, n=4, max_new_tokens=8)
    replies = [[reply.text for reply in several] for several in sampled]
    return prompts, replies, reward_replies(GeliReward(reward_model), prompts, replies, batch_size=5)


def test_each_reply_is_rewarded_after_its_own_prompt(candidates, reward_model):
    prompts, replies, rewards = candidates
    assert {len(texts) for texts in replies} == {4}
    assert len({text for texts in replies for text in texts}) > len(prompts)
    for prompt, texts, values in zip(prompts, replies, rewards, strict=True):
        for text, value in zip(texts, values, strict=True):
            expected = reward_model.score_messages([prompt + said(cut_reply(text))]).item() if text else -1.25
            assert value == pytest.approx(expected, abs=1e-5)


def test_prompts_of_different_numbers_of_replies(reward_model):
    reward = GeliReward(reward_model)
    assert [len(row) for row in reward_replies(reward, [PROMPT] * 3, [["Soup."], [], ["Okay.", "Soup."]])] == [1, 0, 2]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("choose", "config", "trainer", "columns"),
    [
        (preference_pairs, DPOConfig, DPOTrainer, {"prompt_ids", "chosen_ids", "rejected_ids"}),
        (labelled_replies, KTOConfig, KTOTrainer, {"label"}),
        (best_replies, SFTConfig, SFTTrainer, {"input_ids", "labels"}),
    ],
)
def test_trl_prepares_and_trains_on_the_rows(candidates, choose, config, trainer, columns, policy_folder, tmp_path):
    options = {"length_ratio": 10.0} if choose is preference_pairs else {}
    rows = choose(*candidates, **options).rows
    assert len(rows) >= 4
    policy, tokenizer = load_policy(policy_folder)
    quick = {"max_steps": 1, "per_device_train_batch_size": 4, "disable_tqdm": True, "report_to": "none"}
    args = config(str(tmp_path), bf16=False, activation_checkpointing=False, dataloader_pin_memory=False, **quick)
    trained = trainer(policy, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    assert columns <= set(trained.train_dataset.column_names)
    if choose is best_replies:  # the loss is on the reply alone
        learned = [token for token in trained.train_dataset[0]["labels"] if token != -100]
        assert tokenizer.decode(learned, skip_special_tokens=True).strip() == rows[0]["completion"][0]["content"]
    trained.train()
    assert math.isfinite(trained.state.log_history[-1]["train_loss"])
