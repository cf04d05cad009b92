"""Made turns, and the guard that learns to tell them."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import reward_model, sentence, talk

from geli_hf import SessionError
from geli_hf.sessions import session_features
from geli_hf.training import fit
from geli_hf.training.fit import CONTEXT, KINDS, FitReport, made_turns, train_fit


def rows_of(dialogues: list[list[dict]], conversations: list[str] | None = None) -> Dataset:
    names = conversations or [f"c{index}" for index in range(len(dialogues))]
    rows = [
        {"session_id": f"s{index}", "conversation_id": name, "rater_id": "", "messages": messages, "score": 0.0}
        for index, (messages, name) in enumerate(zip(dialogues, names))
    ]
    return Dataset.from_list(rows, features=session_features())


def talks(count: int, *, messages: int = 10, seed: int = 0) -> Dataset:
    """Conversations whose messages name them and their place, so that what a turn is made of can be told."""
    draw, dialogues = random.Random(seed), []
    for index in range(count):
        dialogue = talk(messages, seed=seed + index, words=draw.randint(3, 9))
        for place, message in enumerate(dialogue):
            message["content"] += f" {index}/{place}"
        dialogues.append(dialogue)
    return rows_of(dialogues)


@pytest.fixture(scope="module")
def made() -> tuple[Dataset, list]:
    sessions = talks(12, messages=30)
    return sessions, made_turns(sessions, 10_000)


def pairs(turns: list) -> list[tuple]:
    """Each made turn with the real one that it stands for."""
    return [(real, made) for real, made in pairwise(turns) if made.kind != "real"]


# -------------------------------------------------------------------- made turns


def test_every_turn_that_answers_is_drawn_once(made):
    sessions, turns = made
    real = [turn.messages[-1]["content"] for turn in turns if turn.kind == "real"]
    answers = [row["content"] for messages in sessions["messages"] for row in messages if row["role"] == "assistant"]
    assert sorted(real) == sorted(answers)
    assert len(made_turns(sessions, 7)) <= 14
    assert sum(turn.kind == "real" for turn in made_turns(sessions, 7)) == 7


def test_a_made_turn_stands_in_the_place_of_the_real_one(made):
    sessions, turns = made
    talked = sessions["messages"][:]
    assert len(pairs(turns)) == sum(turn.kind != "real" for turn in turns)
    for real, other in pairs(turns):
        assert real.kind == "real"
        assert other.messages[:-1] == real.messages[:-1]
        assert {message["role"] for message in (real.messages[-1], other.messages[-1])} == {"assistant"}
        assert other.messages[-1]["content"] != real.messages[-1]["content"]
        row, place = map(int, real.messages[-1]["content"].split()[-1].split("/"))
        assert real.messages == talked[row][max(0, place - CONTEXT) : place + 1]


def test_each_kind_is_what_it_is_called(made):
    sessions, turns = made
    spoken = {message["content"]: message["role"] for messages in sessions["messages"] for message in messages}
    anywhere = {word for content in spoken for word in content.split()}
    kinds = []
    for real, other in pairs(turns):
        text, own = other.messages[-1]["content"], real.messages[-1]["content"]
        kinds.append(other.kind)
        if other.kind == "other":
            assert spoken[text] == "assistant"
            assert text.split()[-1].split("/")[0] != own.split()[-1].split("/")[0]
        elif other.kind == "echo":
            assert text == real.messages[-2]["content"]
        elif other.kind == "repeat":
            said = [message["content"] for message in real.messages[:-1] if message["role"] == "assistant"]
            assert text in said[-4:]
        else:
            words = text.split()
            assert len(words) >= fit.SALAD_WORDS
            assert set(words) <= anywhere
            if sorted(words) == sorted(own.split()):
                assert 2 * sum(a != b for a, b in zip(words, own.split())) > len(words)
    shares = {kind: kinds.count(kind) / len(kinds) for kind in KINDS}
    for kind, weight in KINDS.items():
        assert shares[kind] == pytest.approx(weight / sum(KINDS.values()), abs=0.12), shares


def test_salads_are_of_the_turn_or_of_other_turns(made):
    _, turns = made
    own = [sorted(a.messages[-1]["content"].split()) for a, b in pairs(turns) if b.kind == "salad"]
    found = [sorted(b.messages[-1]["content"].split()) for _, b in pairs(turns) if b.kind == "salad"]
    same = [a == b for a, b in zip(own, found)]
    assert 0.2 < np.mean(same) < 0.8


def test_the_seed_decides_and_no_other_chance(made):
    sessions, turns = made
    random.seed(5)
    before = random.getstate()
    assert made_turns(sessions, 10_000) == turns
    assert made_turns(sessions, 10_000, seed=1) != turns
    assert random.getstate() == before


@settings(deadline=None, max_examples=40)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.integers(0, 2)), min_size=2, max_size=5),
    words=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_small_sessions_of_any_shape(shapes, words, seed):
    draw = random.Random(seed)
    dialogues = []
    for length, begins, _ in shapes:
        roles = ["assistant", "user"] if begins else ["user", "assistant"]
        dialogues.append([{"role": roles[at % 2], "content": sentence(draw, words)} for at in range(length)])
    names = [f"c{name}" for *_, name in shapes]
    speaking = {name for name, messages in zip(names, dialogues) if any(m["role"] == "assistant" for m in messages)}
    answers = sum(m["role"] == "assistant" for messages in dialogues for m in messages[1:])
    sessions = rows_of(dialogues, names)
    if len(speaking) < 2 or not answers:
        with pytest.raises(SessionError, match="conversations"):
            made_turns(sessions, 100, seed)
        return
    turns = made_turns(sessions, 100, seed)
    assert sum(turn.kind == "real" for turn in turns) == answers
    for real, other in pairs(turns):
        assert other.messages[-1]["content"] != real.messages[-1]["content"]
        assert other.messages[-1]["content"]


def test_another_conversation_is_not_another_session():
    """Two raters' rows of one conversation hold the same turns."""
    dialogues = [talk(6), talk(6, seed=1)]
    sessions = rows_of([dialogues[0], dialogues[0], dialogues[1]], ["a", "a", "b"])
    of = {m["content"]: name for messages, name in zip(dialogues, "ab") for m in messages if m["role"] == "assistant"}
    count = 0
    for seed in range(20):
        for real, other in pairs(made_turns(sessions, 100, seed)):
            if other.kind == "other":
                count += 1
                assert of[other.messages[-1]["content"]] != of[real.messages[-1]["content"]]
    assert count > 30


@pytest.mark.parametrize(
    "sessions",
    [
        rows_of([talk(6), talk(6, seed=1)], ["a", "a"]),
        rows_of([talk(6), talk(1)]),  # nobody else's assistant speaks
        rows_of([talk(1, first="assistant"), talk(1, seed=1, first="assistant")]),  # no turn answers
    ],
    ids=["one conversation", "one that speaks", "openings"],
)
def test_sessions_that_teach_nothing_are_refused(sessions):
    with pytest.raises(SessionError, match=r"sessions.*conversations"):
        made_turns(sessions, 10)


# -------------------------------------------------------------------- the guard


VERBS = ("walked", "talked", "found", "lost", "made", "saw", "heard", "think")


def asked_and_answered(count: int, *, seed: int) -> Dataset:
    """Each conversation is about one word, which all its messages say again and again."""
    draw, subjects, dialogues = random.Random(seed), ("river", "kitchen", "train", "winter", "song", "teacher"), []
    for index in range(count):
        subject, messages = subjects[index % len(subjects)], []
        for place in range(8):
            said = [*draw.sample(VERBS, 2), *[subject] * 4]
            messages.append({"role": ("user", "assistant")[place % 2], "content": " ".join(said)})
        dialogues.append(messages)
    return rows_of(dialogues)


QUICK = {"turns": 600, "steps": 500, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def taught():
    model = reward_model("bert", context_messages=1, fit_hidden_size=16, fit_weight=2.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    sessions, held_out = asked_and_answered(150, seed=0), asked_and_answered(48, seed=1)
    report = train_fit(model, sessions, held_out, **QUICK)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(state[0], after[0])
    assert state[1:] == after[1:]
    return model, before, report, sessions


def test_it_learns_what_fits(taught):
    model, _, report, _ = taught
    assert report.turns == 600
    assert set(report.auc) == set(KINDS)
    assert report.auc["other"] > 0.8
    assert report.auc["echo"] > 0.7
    fitting = asked_and_answered(6, seed=2)["messages"][:]
    exchanged = [[*messages[:-1], other[-1]] for messages, other in zip(fitting, [*fitting[1:], fitting[0]])]
    assert (model.score_messages(fitting) > model.score_messages(exchanged)).float().mean() > 0.8


def test_the_level_is_the_mean_over_real_turns(taught):
    """So a guard takes nothing from the mean reward of the turns that it learned from."""
    model, _, _, sessions = taught
    real = [turn.messages for turn in made_turns(sessions, QUICK["turns"]) if turn.kind == "real"]
    with torch.no_grad():
        features = model.encode_turns(**model.tokenize(real), last_turn_only=True).features[:, 0]
        chance = 1 - model.fit.log_fit(features).double().exp()
        assert model.fit.level.item() == pytest.approx(chance.mean().item(), abs=1e-4)
        assert model.fit(features).mean().item() == pytest.approx(0, abs=1e-4)


def test_nothing_else_changes(taught):
    model, before, _, _ = taught
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("fit.")}
    assert not model.training
    assert not model.fit.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_seed_decides_and_what_was_taught_before_does_not():
    sessions, held_out = (asked_and_answered(24, seed=seed) for seed in (0, 1))
    quick = QUICK | {"steps": 20}
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(weights))
        again = reward_model("bert", seed=len(weights), context_messages=1, fit_hidden_size=16, fit_weight=2.0)
        again.train(len(weights) == 1)  # dropout is not for what is encoded
        train_fit(again, sessions, held_out, seed=seed, **quick)
        assert again.training == (len(weights) == 1)
        weights.append(torch.cat([tensor.flatten() for tensor in again.fit.state_dict().values()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(weights[0], weights[2], atol=1e-3)


@pytest.mark.parametrize("options", [{"interactions": True}, {"context_messages": None}])
def test_other_models_learn_too(options):
    model = reward_model("llama", fit_hidden_size=8, fit_weight=1.0, **options)
    model.requires_grad_(False)  # as after an adapter
    report = train_fit(model, asked_and_answered(12, seed=0), asked_and_answered(12, seed=1), turns=60, steps=5)
    assert "AUC" in str(report)
    assert all(np.isfinite(list(report.auc.values())))


def test_mixed_precision_is_for_the_backbone():
    model = reward_model("bert", fit_hidden_size=8, fit_weight=1.0)
    sessions = asked_and_answered(12, seed=0)
    report = train_fit(model, sessions, sessions, turns=60, steps=5, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in model.fit.state_dict().values()} == {torch.float32}
    assert report.turns == 48


def test_a_model_without_a_guard_is_refused():
    sessions = asked_and_answered(6, seed=0)
    with pytest.raises(ValueError, match=r"model.*fit_hidden_size"):
        train_fit(reward_model("bert", interactions=True), sessions, sessions)


@given(
    real=st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    made=st.lists(st.integers(-3, 3), min_size=1, max_size=12),
)
def test_the_auc_counts_pairs(real, made):
    pairs = [(a > b) + (a == b) / 2 for a in real for b in made]
    assert fit._auc(np.array(real, np.float32), np.array(made, np.float32)) == pytest.approx(np.mean(pairs))


def test_the_report_says_what_was_told():
    text = str(FitReport(12, {"other": 0.9, "echo": 1.0}))
    assert all(word in text for word in ("12 turns", "other 0.900", "echo 1.000"))
