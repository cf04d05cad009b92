"""Learning curves on drawn features whose weights are known, compared with fits by hand."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr
from tiny import reward_model
from toy import NAN, with_column

from geli_hf import SessionError, fit_hindsight
from geli_hf.evaluation import learning_curve as module
from geli_hf.evaluation.learning_curve import draw_sessions, learning_curve
from geli_hf.evaluation.methods.folds import out_of_fold
from geli_hf.metrics import Interval
from geli_hf.models.features import TurnFeatureCache, score_cached
from geli_hf.sessions import session_features

HIDDEN = 32  # of the tiny backbone


def drawn(conversations: int, *, seed: int = 0, noise: float = 0.3) -> tuple[Dataset, dict[str, TurnFeatureCache]]:
    """Two sessions of each conversation, of 3 to 7 turns, and their features: a turn is worth their weighted sum."""
    draw = np.random.default_rng(seed)
    weight = draw.normal(size=HIDDEN)
    rows, turns, answers = [], [], []
    for index in range(2 * conversations):
        z = draw.normal(size=(int(draw.integers(3, 8)), HIDDEN)).astype(np.float32)
        worth = z @ weight
        turns.append(z)
        answers.append(draw.normal(size=z.shape).astype(np.float32))
        messages = [("assistant", "yes " * int(draw.integers(1, 9))), ("user", "no")] * len(z)
        rows.append(
            {
                "session_id": f"s{index}",
                "conversation_id": f"c{index // 2}",
                "rater_id": "",
                "messages": [{"role": role, "content": text} for role, text in messages],
                "score": float(worth.mean() + noise * draw.normal()),
            }
        )
    caches = {
        name: TurnFeatureCache(np.concatenate(parts), np.cumsum([0, *map(len, parts)]))
        for name, parts in {"turns": turns, "reactions": answers}.items()
    }
    return Dataset.from_list(rows, features=session_features()), caches


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geli_hf.evaluation.learning_curve.RESAMPLES", 200)
        yield


@pytest.fixture(scope="module")
def model():
    return reward_model("bert", context_messages=1)


@pytest.fixture(scope="module")
def corpus():
    return drawn(100)


@pytest.fixture(scope="module")
def curve(model, corpus):
    return learning_curve(model, corpus[0], features=corpus[1])


# ------------------------------------------------------------------------------------------------ training sets


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=60),
    st.lists(st.integers(1, 60), min_size=2, max_size=4),
    st.integers(0, 9),
)
def test_training_sets_are_nested_and_of_whole_conversations(conversations, sizes, seed):
    ids = np.array([f"c{number}" for number in conversations])
    sets = [draw_sessions(ids, min(size, len(ids)), [seed, 0]) for size in sorted(sizes)]
    for rows, size in zip(sets, sorted(sizes)):
        assert (np.diff(rows) > 0).all()
        assert len(rows) >= min(size, len(ids))
        assert not set(ids[rows]) & set(np.delete(ids, rows))
        largest = max(np.unique(ids[rows], return_counts=True)[1])
        assert len(rows) < min(size, len(ids)) + largest  # no conversation too many
    for smaller, larger in itertools.pairwise(sets):
        assert set(smaller) <= set(larger)


def test_other_seeds_draw_other_sessions():
    ids = [f"c{number}" for number in range(50)]
    assert len({tuple(draw_sessions(ids, 10, [0, number])) for number in range(5)}) == 5


# ------------------------------------------------------------------------------------------------ figures


def fitted(model, sessions, features, train, test, seed) -> float:
    """Session Spearman of hindsight by scipy."""
    parts = {name: cache.select(train) for name, cache in features.items()}
    student = fit_hindsight(model, sessions.select(train), seed=seed, features=parts).reward_model
    rows = score_cached(student, sessions.select(test), features=features["turns"].select(test))
    return spearmanr([row["score"] for row in rows], sessions.select(test)["score"]).statistic


def test_rows_are_means_over_draws_of_fits_by_hand(curve, corpus):
    sessions, features = corpus
    train, test = out_of_fold(sessions, 4, 0)[0]
    assert [row.sessions for row in curve.rows] == [38, 76, 150]  # conversations of two sessions each
    assert [row.conversations for row in curve.rows] == [19, 38, 75]
    assert [row.draws for row in curve.rows] == [5, 5, 1]
    assert (curve.held_out_sessions, curve.held_out_conversations) == (50, 25)
    ids = np.array(sessions["conversation_id"])[train]
    learner = reward_model("bert", context_messages=1)
    figures = [
        [
            fitted(learner, sessions, features, train[draw_sessions(ids, size, [0, number])], test, number)
            for number in range(draws)
        ]
        for size, draws in ((37, 5), (75, 5), (150, 1))
    ]
    for row, each in zip(curve.rows, figures):
        assert row.agreement.estimate == pytest.approx(np.mean(each), abs=1e-6)
        assert row.agreement.low < np.mean(each) < row.agreement.high
        if len(each) > 1:
            assert row.deviation == pytest.approx(np.std(each, ddof=1), abs=1e-6)
    assert np.isnan(curve.rows[-1].deviation)
    assert curve.gain.estimate == pytest.approx(np.mean(figures[2]) - np.mean(figures[1]), abs=1e-6)


def test_baselines_by_hand(curve, corpus):
    sessions, _ = corpus
    held_out = sessions.select(out_of_fold(sessions, 4, 0)[0].test)
    messages = [len(each) for each in held_out["messages"]]
    words = [np.mean([np.log(len(m["content"].split())) for m in each[::2]]) for each in held_out["messages"]]
    expected = {"number of messages": messages, "log length of the turn": words}
    assert curve.baselines.keys() == expected.keys()
    for name, values in expected.items():
        assert curve.baselines[name].estimate == pytest.approx(spearmanr(values, held_out["score"]).statistic)


def test_more_sessions_help_where_there_is_something_to_learn(curve):
    estimates = [row.agreement.estimate for row in curve.rows]
    assert estimates == sorted(estimates)
    assert curve.gain.estimate > 0
    assert "150 sessions instead of 76" in curve.advice


def test_scores_of_chance_give_no_gain(model, corpus):
    sessions, features = corpus
    chance = with_column(sessions, "score", np.random.default_rng(3).normal(size=len(sessions)).tolist())
    curve = learning_curve(model, chance, features=features)
    assert curve.gain.low <= 0
    assert "no measurable gain" in curve.advice


def test_sessions_without_a_score_are_left_out(model, corpus, curve):
    sessions, features = corpus
    silent, more = drawn(5, seed=9)
    silent = with_column(silent, "score", [NAN] * len(silent))
    silent = with_column(silent, "conversation_id", [f"silent{index}" for index in range(len(silent))])
    both = concatenate_datasets([silent, sessions])
    joined = {
        name: TurnFeatureCache(
            np.concatenate([more[name].all(), features[name].all()]),
            np.cumsum([0, *more[name].lengths, *features[name].lengths]),
        )
        for name in features
    }
    again = learning_curve(model, both, features=joined)
    for row, same in zip(again.rows, curve.rows, strict=True):
        np.testing.assert_allclose(row.agreement, same.agreement, atol=1e-6)


def test_the_model_stays_as_it_is(corpus):
    model = reward_model("bert", context_messages=1, score_mean=3.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learning_curve(model, corpus[0], features=corpus[1])
    assert all((tensor == before[name]).all() for name, tensor in model.state_dict().items())
    assert model.config.score_mean == 3.0


def test_a_seed_changes_the_split(model, corpus, curve):
    options = {"features": corpus[1]}
    assert learning_curve(model, corpus[0], **options).rows[0] == curve.rows[0]
    assert learning_curve(model, corpus[0], seed=1, **options).rows[0].agreement != curve.rows[0].agreement


def draws_with(sessions: Dataset, conversation: str, size: int) -> int:
    """Number of the training sets of this size that hold a conversation."""
    ids = np.array(sessions["conversation_id"])[out_of_fold(sessions, 4, 0)[0].train]
    return sum(conversation in ids[draw_sessions(ids, size, [0, number])] for number in range(5))


def one_other(sessions: Dataset, conversation: str) -> Dataset:
    """The sessions with the score 5, but for one conversation."""
    scores = [1.0 if each == conversation else 5.0 for each in sessions["conversation_id"]]
    return with_column(sessions, "score", scores)


def test_a_small_set_of_equal_scores_is_left_out(model, corpus):
    sessions, features = corpus
    trained = dict.fromkeys(sessions.select(out_of_fold(sessions, 4, 0)[0].train)["conversation_id"])
    rare = next(each for each in trained if 0 < draws_with(sessions, each, 37) < draws_with(sessions, each, 75) < 5)
    curve = learning_curve(model, one_other(sessions, rare), features=features)
    assert [row.draws for row in curve.rows] == [draws_with(sessions, rare, size) for size in (37, 75)] + [1]
    assert np.isnan(curve.gain.estimate)  # the held-out scores are all the same
    rarest = next(each for each in trained if not draws_with(sessions, each, 75))
    with pytest.raises(SessionError, match="fewer than all 150"):
        learning_curve(model, one_other(sessions, rarest), features=features)


# ------------------------------------------------------------------------------------------------ too little data


def test_few_held_out_conversations_give_no_intervals(model):
    sessions, features = drawn(40)
    curve = learning_curve(model, sessions, features=features)
    assert all(np.isnan(row.agreement.low) for row in curve.rows)
    assert "[" not in str(curve)
    assert "10 conversations held out" in curve.advice


@pytest.mark.parametrize("conversations", [1, 3, 33])
def test_too_few_conversations_are_an_error(model, conversations):
    sessions, features = drawn(conversations)
    if conversations == 33:  # 24 of them to learn from, which are one session too few
        sessions = sessions.select(range(len(sessions) - 1))
    with pytest.raises(SessionError, match=rf"found {len(sessions)} .* {conversations} conversations.*50"):
        learning_curve(model, sessions, features=features)


def test_scores_that_are_all_the_same_or_absent_are_an_error(model, corpus):
    sessions, features = corpus
    with pytest.raises(SessionError, match=r"all 150 scores are 5"):
        learning_curve(model, with_column(sessions, "score", [5.0] * len(sessions)), features=features)
    with pytest.raises(SessionError, match=r"found 0 .* 0 conversations"):
        learning_curve(model, with_column(sessions, "score", [NAN] * len(sessions)), features=features)


def test_another_aggregation_is_an_error(corpus):
    with pytest.raises(ValueError, match="aggregation"):
        learning_curve(reward_model("bert", aggregation="sum"), corpus[0], features=corpus[1])


# ------------------------------------------------------------------------------------------------ text and files


def test_advice_follows_the_interval(curve):
    def advice(*bounds: float, deviation: float = 0.01) -> str:
        before = replace(curve.rows[-2], deviation=deviation)
        return replace(curve, rows=[before, curve.rows[-1]], gain=Interval(*bounds)).advice

    assert "150 sessions instead of 76 added 0.040 [0.010, 0.070], so more" in advice(0.04, 0.01, 0.07)
    assert "may help" in advice(0.04, 0.01, 0.07, deviation=0.021)
    assert "may help" in advice(0.04, 0.01, 0.07, deviation=NAN)
    assert "no measurable gain" in advice(0.04, -0.01, 0.09)
    assert "no measurable gain" in advice(-0.04, -0.09, -0.01)
    assert "25 conversations" in advice(0.04, NAN, NAN)


def test_advice_names_a_baseline_that_is_as_good(curve):
    def advice(estimate: float) -> str:
        return replace(curve, baselines={"number of messages": Interval(estimate, NAN, NAN)}).advice

    reached = curve.rows[-1].agreement.estimate
    assert "number of messages alone" in advice(reached)
    assert "number of messages alone -0.999" in advice(-0.999)  # its sign is free to choose
    assert "number of messages" not in advice(reached - 0.01) + advice(NAN)


def test_text_json_and_picture(curve, tmp_path):
    text = str(curve)
    for words in ("| 38 ", "| 150 ", "| number of messages ", "Session Spearman", curve.advice):
        assert words in text
    curve.write(tmp_path / "new")
    record = json.loads((tmp_path / "new" / "learning_curve.json").read_text(encoding="utf-8"))
    assert [row["sessions"] for row in record["rows"]] == [38, 76, 150]
    assert record["rows"][-1]["deviation"] is None
    assert record["gain"]["estimate"] == curve.gain.estimate
    assert record["advice"] == curve.advice
    assert Image.open(tmp_path / "new" / "learning_curve.png").size[0] > 500


def test_features_are_encoded_once_and_cached(monkeypatch, tmp_path, model):
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path))
    sessions, _ = drawn(40)
    first = learning_curve(model, sessions)
    monkeypatch.setattr(type(model), "encode_turns", None)
    monkeypatch.setattr(module, "DRAWS", 1)
    assert str(learning_curve(model, sessions).rows[-1]) == str(first.rows[-1])  # NaN is not equal to itself
