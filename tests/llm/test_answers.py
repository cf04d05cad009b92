"""Answers of a model: one number per turn or none at all, and their renormalisation towards the score."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geli_hf.decomposition import geli_loss, li_loss, rrd_loss
from geli_hf.llm import parse_contributions, renormalise
from geli_hf.llm.answers import UnusableAnswer, answer_schema

TURNS = range(2, 5)  # which the model knows as 3, 4 and 5


@pytest.mark.parametrize(
    "text",
    [
        '{"3": 1, "4": -0.5, "5": 7.25}',
        ' {"5": 7.25, "3": 1.0, "4": -5e-1}\n',
        '```json\n{"3": 1, "4": -0.5, "5": 7.25}\n```',
        '```\n{"3": 1,\n "4": -0.5, "5": 7.25}```',
        '```JSON {"3": 1, "4": -0.5, "5": 7.25} ```',
        '```json{"3": 1, "4": -0.5, "5": 7.25}```',
        'Perhaps {"3": 9}?\n</think>\n```json\n{"3": 1, "4": -0.5, "5": 7.25}\n```',
        '<think>Perhaps {"3": 9}?</think>\n\n{"3": 1, "4": -0.5, "5": 7.25}',
    ],
)
def test_valid_answers(text):
    assert parse_contributions(text, TURNS, 1, 9) == [1.0, -0.5, 7.25]


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        ("", "the answer is empty", "empty"),
        ("<think>I was cut off", "the answer is empty", "empty"),
        ("I was not asked to think aloud.</think>", "the answer is empty", "empty"),
        ("Turn 3 was good.", "the answer is not JSON", "line 1 column 1"),
        ('{"3": 1, "4": 2', "the answer is not JSON", "line 1 column 16"),
        ('Here: {"3": 1, "4": 2, "5": 3}', "the answer is not JSON", "column 1"),
        ('{"3": 1, "4": 2, "5": 3} {}', "the answer is not JSON", "Extra data"),
        ("[" * 100_000, "the answer is not JSON", "recursion"),
        ("[1, 2, 3]", "the answer is no JSON object", r"\[1.0, 2.0, 3.0\]"),
        ('{"3": 1, "5": 3}', "values are missing", "4"),
        ("{}", "values are missing", "3, 4, 5"),
        ('{"3": 1, "4": 2, "5": 3, "6": 4}', "there are keys that nobody asked for", "'6'"),
        ('{"3": 1, "4": 2, "5": 3, "why": "x"}', "there are keys that nobody asked for", "why"),
        ('{"3": 1, "4": 2, "5": 3, "4": 2}', "a key is there twice", "'4'"),
        ('{"3": 1, "4": "2", "5": 3}', "a value is no number", "turn 4: '2'"),
        ('{"3": 1, "4": null, "5": 3}', "a value is no number", "turn 4"),
        ('{"3": 1, "4": true, "5": 3}', "a value is no number", "turn 4"),
        ('{"3": 1, "4": [2], "5": 3}', "a value is no number", "turn 4"),
        ('{"3": 1, "4": NaN, "5": 3}', "a value is no number", "turn 4"),
        ('{"3": 1, "4": 1e999, "5": 3}', "a value is no number", "turn 4"),
        ('{"3": 1, "4": ' + "1" * 9999 + ', "5": 3}', "a value is no number", "turn 4"),
        ('{"3": 1, "4": 17.5, "5": 3}', "a number is far off the scale", "turn 4: 17.5, .* from 1 to 9"),
        ('{"3": -7.5, "4": 2, "5": 3}', "a number is far off the scale", "turn 3: -7.5"),
    ],
)
def test_invalid_answers(text, reason, message):
    with pytest.raises(UnusableAnswer, match=message) as caught:
        parse_contributions(text, TURNS, 1, 9)
    assert caught.value.reason == reason


@given(st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_an_answer_or_unusable(text):
    try:
        values = parse_contributions(text, TURNS, 1, 9)
    except UnusableAnswer:
        return
    assert len(values) == 3


def test_schema_of_an_answer():
    assert answer_schema(TURNS) == {
        "type": "object",
        "properties": {"3": {"type": "number"}, "4": {"type": "number"}, "5": {"type": "number"}},
        "required": ["3", "4", "5"],
        "additionalProperties": False,
    }


def test_renormalised_by_hand():
    # Their mean is 2 and the score 6: four too low, of which half is made up for, or all, or nothing.
    assert renormalise([1, 2, 3], 6) == [3, 4, 5]
    assert renormalise([1, 2, 3], 6, li_weight=0) == [5, 6, 7]
    assert renormalise([1, 2, 3], 6, li_weight=1) == [1, 2, 3]
    assert renormalise([4], 6, li_weight=0.25) == [5.5]


values = st.lists(st.floats(-10, 10), min_size=1, max_size=30)


@given(values, st.floats(-10, 10), st.floats(0, 1))
def test_renormalised_contributions_minimise_the_loss_of_geli(answers, score, weight):
    said = torch.tensor([answers], dtype=torch.float64)
    rewards = torch.tensor([renormalise(answers, score, weight)], dtype=torch.float64, requires_grad=True)
    mask, target = torch.ones_like(said, dtype=torch.bool), torch.tensor([score], dtype=torch.float64)
    geli_loss(rrd_loss(rewards, mask, target), li_loss(rewards, mask, said), weight).backward()
    assert rewards.grad.abs().max() < 1e-12


@given(values, st.floats(-10, 10), st.floats(0, 1))
def test_renormalising_keeps_differences_and_closes_a_share_of_the_gap(answers, score, weight):
    moved = np.array(renormalise(answers, score, weight))
    np.testing.assert_allclose(moved - moved[0], np.array(answers) - answers[0], atol=1e-12)
    np.testing.assert_allclose(score - moved.mean(), weight * (score - np.mean(answers)), atol=1e-9)


def test_a_weight_out_of_range():
    with pytest.raises(ValueError, match=r"li_weight: .* found 1.5"):
        renormalise([1], 1, li_weight=1.5)
