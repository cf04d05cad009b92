"""The contrast set: its dialogues, its foils, and the figures of scorers made by hand."""

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geli_hf.evaluation.contrast import (
    BATCH_SIZE,
    DISMISSALS,
    FOILS,
    KINDS,
    MEAN,
    TEMPLATES,
    TOPICS,
    ContrastDialogue,
    contrast_figures,
    load_contrast,
    make_foils,
    salad,
)

FILE = Path(__file__).parents[2] / "results" / "contrast" / "dialogues.jsonl"
SHIPPED = load_contrast(FILE)


def dialogue(number: int = 0, kind: str = "grief", **changed) -> ContrastDialogue:
    messages = [
        {"role": "user", "content": f"The dog number {number} ran away"},
        {"role": "assistant", "content": f"Where did dog {number} go?"},
        {"role": "user", "content": f"Over hill {number}"},
    ]
    row = {"id": f"{kind}-{number}", "kind": kind, "messages": messages, "answer": f"I will search hill {number} too."}
    return ContrastDialogue(**row | changed)


FEW = [dialogue(number, kind) for number, kind in enumerate(["grief", "joy", "joy"])]


def texts_of(batch) -> list[str]:
    return [messages[-1]["content"] for messages in batch]


def count_words(batch) -> list[int]:
    return [len(text.split()) for text in texts_of(batch)]


def oracle(dialogues):
    answers = {each.answer for each in dialogues}
    known = {each.messages[0]["content"]: each.answer for each in dialogues}

    def score(batch):
        rewards = [float(known[messages[0]["content"]] == messages[-1]["content"]) for messages in batch]
        assert all(text in answers for text, reward in zip(texts_of(batch), rewards) if reward)
        return torch.tensor(rewards, dtype=torch.bfloat16)

    return score


# ---------------------------------------------------------------- the shipped set


def test_the_shipped_set_has_enough_of_every_kind():
    assert Counter(each.kind for each in SHIPPED) == dict.fromkeys(KINDS, 14)
    assert len(KINDS) == 12


def test_the_shipped_dialogues_have_the_form_that_they_claim():
    for each in SHIPPED:
        roles = [message["role"] for message in each.messages]
        assert 3 <= len(roles) <= 7
        assert roles == (["user", "assistant"] * 4)[-len(roles) - 1 : -1]  # alternating, and the user's at the end
        assert 4 <= len(each.answer.split()) <= 45
        assert each.id.rpartition("-")[0] == each.kind


def test_the_shipped_dialogues_vary():
    assert {len(each.messages) for each in SHIPPED} == {3, 4, 5, 6, 7}
    assert {each.messages[0]["role"] for each in SHIPPED} == {"user", "assistant"}
    questions = np.mean(["?" in each.answer for each in SHIPPED])
    assert 0.1 < questions < 0.5
    openings = Counter(tuple(each.answer.lower().split()[:3]) for each in SHIPPED)
    assert max(openings.values()) <= 3


def test_no_text_of_the_shipped_set_stands_there_twice():
    texts = [message["content"] for each in SHIPPED for message in each.messages] + [each.answer for each in SHIPPED]
    twice = {text for text, times in Counter(text.lower().strip(".!? ") for text in texts).items() if times > 1}
    assert not twice


@pytest.mark.parametrize("seed", range(5))
def test_every_foil_differs_from_the_answer_and_from_the_others(seed):
    foils = make_foils(SHIPPED, seed=seed)
    for place, each in enumerate(SHIPPED):
        texts = [each.answer, *(of_kind[place] for of_kind in foils.values())]
        assert len({text.lower().strip(".!? ") for text in texts}) == 7


# ---------------------------------------------------------------- foils


@pytest.mark.parametrize("seed", range(5))
def test_another_answer_is_of_another_kind(seed):
    kind = {each.answer: each.kind for each in SHIPPED}
    drawn = make_foils(SHIPPED, seed=seed)["other_answer"]
    assert all(kind[text] != each.kind for text, each in zip(drawn, SHIPPED))
    assert len(set(drawn)) > 80  # drawn from all over the set


def test_echo_and_repeat_are_the_last_messages():
    foils = make_foils(FEW)
    assert foils["echo"] == ["Over hill 0", "Over hill 1", "Over hill 2"]
    assert foils["repeat"] == ["Where did dog 0 go?", "Where did dog 1 go?", "Where did dog 2 go?"]


def test_repeat_takes_the_previous_turn_of_several():
    longer = [{"role": "assistant", "content": "Hello, how is the dog?"}, *dialogue().messages]
    assert make_foils([dialogue(messages=longer), FEW[1]])["repeat"][0] == "Where did dog 0 go?"


def test_dismissals_and_templates_come_from_their_lists():
    assert len(set(DISMISSALS)) >= 20
    assert len(set(TEMPLATES)) >= 10
    topics = [topic for of_kind in TOPICS.values() for topic in of_kind]
    assert len(set(topics)) == len(topics) >= 25
    foils = make_foils(SHIPPED)
    assert set(foils["dismissal"]) <= set(DISMISSALS)
    for text, each in zip(foils["template"], SHIPPED):
        [kind] = {kind for kind, of_kind in TOPICS.items() for topic in of_kind if f"your {topic}" in text}
        assert kind != each.kind


def plain_words(text: str) -> list[str]:
    return "".join(letter for letter in text.lower() if letter not in '.,!?:;"').split()


@pytest.mark.parametrize("seed", range(5))
def test_a_salad_has_the_answers_words_and_none_of_its_order(seed):
    for each, mixed in zip(SHIPPED, make_foils(SHIPPED, seed=seed)["salad"]):
        words, shuffled = plain_words(each.answer), plain_words(mixed)
        assert sorted(words) == sorted(shuffled)
        assert not set(pairwise(words)) & set(pairwise(shuffled))


@pytest.mark.parametrize("answer", ["Yes.", "No, no, no, no, no!", "Well done!"])
def test_a_salad_of_few_words_takes_others(answer):
    short = dialogue(answer=answer)
    shuffled = plain_words(salad(short, [short, *FEW[1:]], random.Random(0)))
    assert len(set(shuffled)) == 4
    assert Counter(plain_words(answer)) <= Counter(shuffled)
    assert set(shuffled) - set(plain_words(answer)) <= {word for each in FEW for word in plain_words(each.answer)}


def test_a_salad_ends_where_there_are_no_other_words():
    short = [dialogue(0, answer="Yes."), dialogue(1, "joy", answer="No!")]
    assert sorted(plain_words(salad(short[0], short, random.Random(0)))) == ["no", "yes"]


def test_foils_follow_from_the_seed():
    assert list(FOILS) == ["other_answer", "dismissal", "echo", "repeat", "salad", "template"]
    first, again, other = (make_foils(SHIPPED, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert {name for name in FOILS if first[name] != other[name]} == set(FOILS) - {"echo", "repeat"}


# ---------------------------------------------------------------- figures


def test_an_oracle_prefers_every_answer():
    figures = contrast_figures(oracle(SHIPPED), SHIPPED)
    assert list(figures.shares) == [*FOILS, MEAN]
    for name in figures.shares:
        assert tuple(figures.shares[name]) == (1, 1, 1)
        assert tuple(figures.margins[name]) == (1, 1, 1)


def test_a_scorer_that_likes_length():
    """All figures counted again, one pair after the other."""
    figures = contrast_figures(count_words, SHIPPED, seed=1)
    every = []
    for name, foils in make_foils(SHIPPED, seed=1).items():
        margins = [len(each.answer.split()) - len(foil.split()) for each, foil in zip(SHIPPED, foils)]
        points = [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins]
        assert figures.shares[name].estimate == pytest.approx(sum(points) / len(points))
        assert figures.margins[name].estimate == pytest.approx(sum(margins) / len(margins))
        every += points
    assert figures.shares[MEAN].estimate == pytest.approx(sum(every) / len(every))
    assert figures.shares["dismissal"].low > 0.9  # that it passes there is why the docstring warns
    assert figures.shares["salad"] == (0.5, 0.5, 0.5)
    assert figures.shares["other_answer"].low < 0.5 < figures.shares["other_answer"].high


def test_chance_is_one_half():
    rng = np.random.default_rng(0)
    figures = contrast_figures(lambda batch: rng.normal(size=len(batch)), SHIPPED)
    deviation = 0.5 / np.sqrt(len(SHIPPED))  # of a share of fair coins
    for name in FOILS:
        share = figures.shares[name]
        assert abs(share.estimate - 0.5) < 4 * deviation
        assert share.high - share.low == pytest.approx(2 * 1.96 * deviation, rel=0.15)


def test_the_scorer_sees_whole_dialogues_in_batches():
    seen = []

    def score(batch):
        seen.append(batch)
        return [0.0] * len(batch)

    contrast_figures(score, SHIPPED)
    assert {len(batch) for batch in seen[:-1]} == {BATCH_SIZE}
    dialogues = [messages for batch in seen for messages in batch]
    assert len(dialogues) == 7 * len(SHIPPED)
    assert dialogues[0] == [*SHIPPED[0].messages, {"role": "assistant", "content": SHIPPED[0].answer}]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-1, 1), min_size=7 * len(FEW), max_size=7 * len(FEW)))
def test_ties_count_half(rewards):
    """Few different rewards, so that most examples have ties; with the opposite rewards all shares turn round."""
    waiting, opposite = iter(rewards), iter(rewards)
    figures = contrast_figures(lambda batch: [next(waiting) for _ in batch], FEW)
    turned = contrast_figures(lambda batch: [-next(opposite) for _ in batch], FEW)
    count = len(FEW)
    for place, name in enumerate(FOILS, 1):
        pairs = list(zip(rewards[:count], rewards[place * count : (place + 1) * count]))
        points = sum(answer > foil for answer, foil in pairs) + sum(answer == foil for answer, foil in pairs) / 2
        assert figures.shares[name].estimate == pytest.approx(points / count)
        assert turned.shares[name].estimate == pytest.approx(1 - points / count)
        assert figures.margins[name].estimate == pytest.approx(-turned.margins[name].estimate)
    assert figures.shares[MEAN].low <= figures.shares[MEAN].estimate <= figures.shares[MEAN].high


def test_figures_as_text_and_as_json():
    figures = contrast_figures(oracle(FEW), FEW)
    lines = str(figures).splitlines()
    for name in [*FOILS, MEAN]:
        assert sum(line.startswith(f"| {name} ") and "1.000 [1.000, 1.000]" in line for line in lines) == 1
    written = json.loads(json.dumps(figures.to_dict()))
    assert written["dialogues"] == {"grief": 1, "joy": 2}
    assert written["shares"]["echo"] == {"estimate": 1, "low": 1, "high": 1}


# ---------------------------------------------------------------- errors


def fails(tmp_path, *lines: str) -> str:
    file = tmp_path / "set.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match=r"set\.jsonl") as caught:
        load_contrast(file)
    return str(caught.value)


def line(number: int = 0, **changed) -> str:
    return json.dumps(vars(dialogue(number)) | changed)


USER, ASSISTANT = ({"role": role, "content": f"Hello from the {role}"} for role in ("user", "assistant"))


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ("{", "JSON"),
        ("", "JSON"),
        ("[1]", "mapping"),
        (json.dumps({"id": "a"}), "answer"),
        (line(1, more=1), "more"),
        (line(1, id=""), "id"),
        (line(1, id=3), "id"),
        (line(1, kind="weather"), "weather"),
        (line(1, kind=None), "kind"),
        (line(1, kind=["grief"]), "kind"),
        (line(1, answer=" "), "answer"),
        (line(1, answer="over HILL 1!"), "answer"),
        (line(1, answer="Where did dog 1 go?"), "answer"),
        (line(1, messages=[]), "messages"),
        (line(1, messages=[USER]), "assistant"),
        (line(1, messages=[USER, ASSISTANT]), "user"),
        (line(1, messages=[ASSISTANT, USER, USER]), "1 and 2"),
        (line(1, messages=[ASSISTANT, {"role": "user", "content": " "}]), "message 1"),
        (line(1, id="grief-0"), "line 1"),
        (line(1, answer="i will search hill 0, too"), "line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path, bad, named):
    message = fails(tmp_path, line(0), bad, line(2))
    assert "line 2" in message
    assert named in message


def test_an_empty_file_and_none(tmp_path):
    assert "empty" in fails(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        load_contrast(tmp_path / "none.jsonl")


@pytest.mark.parametrize("dialogues", [[], FEW[1:]])
def test_one_kind_has_no_answer_of_another(dialogues):
    with pytest.raises(ValueError, match="two kinds"):
        contrast_figures(count_words, dialogues)


@pytest.mark.parametrize(
    "score",
    [lambda batch: [0.0], lambda batch: torch.zeros(len(batch), 1), lambda batch: 0.0],
    ids=["few", "2-d", "0-d"],
)
def test_a_scorer_of_another_shape(score):
    with pytest.raises(ValueError, match="score"):
        contrast_figures(score, FEW)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_reward_that_is_no_number_is_named(value):
    with pytest.raises(ValueError, match=r"joy-1 .*'echo'"):
        contrast_figures(lambda batch: [value if text == "Over hill 1" else 0.0 for text in texts_of(batch)], FEW)
