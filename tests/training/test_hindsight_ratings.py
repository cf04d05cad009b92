"""Hindsight of several ratings side by side, of models with a guard, and of those whose head reads interactions."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import reward_model
from toy import NAN, toy_sessions

from geli_hf import GeliRewardModel, SessionError
from geli_hf.models.attribution import HindsightAttribution
from geli_hf.models.features import cached_turn_features
from geli_hf.sessions import session_features
from geli_hf.training import cached_reaction_features, fit_hindsight

RATINGS = ("witty", "kind")  # not in the order of their names
GUARD = {"fit_hidden_size": 6, "fit_weight": 1.5}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


def rated(count: int = 60, *, seed: int = 2, change=None) -> Dataset:
    """Toy sessions with a rating for good turns ("kind") and one for long sessions ("witty")."""
    rows = toy_sessions(count, seed=seed).to_list()
    draw = np.random.default_rng(seed)
    for index, row in enumerate(rows):
        kind, witty = 3 * float(np.mean(row["turn_rating"])) - 1, float(len(row["messages"]))
        row["scores"] = {"kind": kind + 0.1 * draw.normal(), "witty": witty + 0.1 * draw.normal()}
        if change:
            change(index, row)
    features = session_features(["affect", "noise"], scores=["kind", "witty"], turn_rating=True)
    return Dataset.from_list(rows, features=features)


def with_score(sessions: Dataset, rating: str) -> Dataset:
    scores = [scores[rating] for scores in sessions["scores"]]
    return sessions.remove_columns("score").add_column("score", scores, feature=sessions.features["score"])


@pytest.fixture(scope="module")
def sessions() -> Dataset:
    return rated()


def rewards_of(rows: list[dict], rating: str | None = None) -> np.ndarray:
    return np.concatenate([(row["ratings"][rating] if rating else row)["turn_rewards"] for row in rows])


# ------------------------------------------------------------------------------------------------ ratings


@pytest.fixture(scope="module")
def fitted(sessions, cache):
    return fit_hindsight(reward_model("bert"), sessions, ratings=RATINGS, cache_dir=cache)


@pytest.mark.parametrize("rating", RATINGS)
def test_a_rating_is_learned_as_if_it_were_the_score(rating, fitted, sessions, cache):
    alone = fit_hindsight(reward_model("bert"), with_score(sessions, rating), cache_dir=cache)
    scored = fitted.reward_model.score_sessions(sessions)
    expected = alone.reward_model.score_sessions(sessions)
    assert rewards_of(expected).std() > 0.05
    np.testing.assert_allclose(rewards_of(scored, rating), rewards_of(expected), atol=1e-4)
    for row, other in zip(scored, expected):
        assert row["ratings"][rating]["score"] == pytest.approx(other["score"], abs=1e-3)
    counted = fitted.report.ratings[rating]
    assert counted == (60, pytest.approx(alone.report.teacher), pytest.approx(alone.report.student))
    assert f"{rating}: 60 sessions" in str(fitted.report)


def test_ratings_change_nothing_of_the_score(fitted, sessions, cache):
    alone = fit_hindsight(reward_model("bert"), sessions, cache_dir=cache)
    assert alone.report.ratings == {}
    np.testing.assert_allclose(
        rewards_of(fitted.reward_model.score_sessions(sessions)),
        rewards_of(alone.reward_model.score_sessions(sessions)),
        atol=1e-5,
    )
    assert "ratings" not in alone.reward_model.score_sessions(sessions.select([0]))[0]
    found, expected = (fit.attribution.score_sessions(sessions.select(range(5))) for fit in (fitted, alone))
    for row, other in zip(found, expected):
        assert row["turn_rewards"] == pytest.approx(other["turn_rewards"], abs=1e-5)
    assert fitted.attribution.model.config.ratings == {}


def test_names_of_ratings_outlast_a_file(fitted, sessions, tmp_path):
    fitted.reward_model.save_pretrained(tmp_path)
    few = sessions.select(range(4))
    found = GeliRewardModel.from_pretrained(tmp_path).score_sessions(few)
    for rating in RATINGS:
        expected = rewards_of(fitted.reward_model.score_sessions(few), rating)
        np.testing.assert_allclose(rewards_of(found, rating), expected, atol=1e-5)


def test_a_rating_that_is_missing_here_and_there(sessions, cache):
    """It is learned from the sessions that have it; the others' turns still teach its student."""

    def change(index, row):
        row["scores"]["kind"] = NAN if index % 3 else row["scores"]["kind"]

    partly = rated(change=change)
    fit = fit_hindsight(reward_model("bert"), partly, ratings=["kind"], cache_dir=cache)
    known = np.array([row["kind"] for row in partly["scores"]])
    assert fit.report.ratings["kind"][0] == 20
    mean, std = fit.reward_model.config.ratings["kind"]
    assert (mean, std) == (pytest.approx(np.nanmean(known)), pytest.approx(np.nanstd(known)))
    learned = rewards_of(fit.reward_model.score_sessions(partly), "kind")
    assert np.corrcoef(learned, np.concatenate(partly["turn_rating"]))[0, 1] > 0.5


def test_another_choice_of_ratings_makes_another_head(sessions, cache):
    model = reward_model("bert", head_dropout=0.5)
    for ratings in (["kind"], RATINGS, []):
        fit_hindsight(model, sessions, ratings=ratings, cache_dir=cache)
        assert list(model.config.ratings) == sorted(ratings)
        assert model.score.out.weight.shape == (1 + len(ratings), 32)
        assert not model.score.training  # or dropout would be on
    fit_hindsight(model, sessions, ratings=["kind", "kind"], cache_dir=cache)
    assert list(model.config.ratings) == ["kind"]


@pytest.mark.parametrize(
    ("change", "ratings", "words"),
    [
        (lambda index, row: None, ["funny"], r"ratings.*'funny'.*kind.*witty"),
        (lambda index, row: row["scores"].update(kind=4.0), ["witty", "kind"], r"scores\.kind"),
        (lambda index, row: row["scores"].update(kind=NAN), ["kind"], r"scores\.kind"),
        (lambda index, row: row["scores"].update(kind=float("inf") if index == 3 else 1.0), ["kind"], r"scores\.kind"),
        (
            lambda index, row: row["scores"].update(kind=float(index) if index < 2 else NAN),
            ["kind"],
            r"scores\.kind.*2",
        ),
    ],
    ids=["unknown", "constant", "missing", "infinite", "too few"],
)
def test_ratings_that_teach_nothing_are_refused_before_anything_is_encoded(change, ratings, words, tmp_path):
    model = reward_model("bert")
    with pytest.raises(SessionError, match=words):
        fit_hindsight(model, rated(12, change=change), ratings=ratings, cache_dir=tmp_path)
    assert not any(tmp_path.iterdir())
    assert model.config.ratings == {}


def test_sessions_of_one_score_have_no_ratings(tmp_path):
    with pytest.raises(SessionError, match=r"ratings.*'kind'"):
        fit_hindsight(reward_model("bert"), toy_sessions(12), ratings=["kind"], cache_dir=tmp_path)


# ------------------------------------------------------------------------------------------------ guard


@pytest.mark.parametrize("interactions", [False, True])
def test_the_head_is_learned_beside_a_guard(interactions, sessions, cache, tmp_path):
    """The guard's loss comes off what the student says, and quantiles are those of the rewards."""
    plain = fit_hindsight(reward_model("bert", interactions=interactions), sessions, cache_dir=cache)
    model = reward_model("bert", interactions=interactions, **GUARD)
    assert (model.config.head_size < model.config.feature_size) == (not interactions)
    guard = {name: tensor.clone() for name, tensor in model.fit.state_dict().items()}
    held_out = rated(20, seed=3)
    fit = fit_hindsight(model, sessions, held_out, ratings=["kind"], cache_dir=cache)
    assert all(torch.equal(tensor, guard[name]) for name, tensor in model.fit.state_dict().items())

    encoded = cached_turn_features(model, sessions, cache_dir=cache).all()
    with torch.no_grad():
        loss = model.fit(torch.tensor(encoded)).numpy()
    assert loss.std() > 0.01
    scored = model.score_sessions(sessions)
    expected = rewards_of(plain.reward_model.score_sessions(sessions)) - loss
    np.testing.assert_allclose(rewards_of(scored), expected, atol=1e-3)
    quantiles = np.quantile(expected, np.linspace(0, 1, 101))
    np.testing.assert_allclose(model.config.reward_quantiles, quantiles, atol=1e-3)
    residual = np.array(held_out["score"]) - [row["score"] for row in model.score_sessions(held_out)]
    assert model.config.residual_std == pytest.approx(residual.std(), rel=1e-3)

    # The attribution explains what people said, of which a guard knows nothing.
    assert fit.attribution.model.fit is None
    assert fit.attribution.model.config.fit_hidden_size == 0
    assert model.config.fit_hidden_size == 6
    few = sessions.select(range(4))
    fit.attribution.save_pretrained(tmp_path)
    for attribution in (fit.attribution, HindsightAttribution.from_pretrained(tmp_path)):
        for row, other in zip(attribution.score_sessions(few), plain.attribution.score_sessions(few)):
            assert row["turn_rewards"] == pytest.approx(other["turn_rewards"], abs=1e-3)


@pytest.mark.parametrize("interactions", [False, True])
def test_cached_features_of_a_model_with_a_guard(interactions, sessions, cache):
    """They are wider than what the head and the attribution read."""
    model = reward_model("bert", interactions=interactions, **GUARD)
    features = {
        "turns": cached_turn_features(model, sessions, cache_dir=cache),
        "reactions": cached_reaction_features(model, sessions, cache_dir=cache),
    }
    assert features["turns"].features.shape[1] == 4 * 32 + 6
    fit = fit_hindsight(model, sessions, features=features)
    expected = fit_hindsight(reward_model("bert", interactions=interactions, **GUARD), sessions, cache_dir=cache)
    torch.testing.assert_close(fit.reward_model.score.out.weight, expected.reward_model.score.out.weight)
    explained = fit.attribution.score_sessions(sessions, features=features)
    for row, other in zip(explained, fit.attribution.score_sessions(sessions.select(range(4)))):
        assert row["turn_rewards"] == pytest.approx(other["turn_rewards"], abs=1e-4)


def test_a_head_that_reads_interactions_learns_from_them(cache):
    """A turn is good if it repeats the message before it; its words alone don't tell."""
    draw, rows = np.random.default_rng(0), []
    words = ["river", "kitchen", "train", "winter", "song", "teacher"]
    for index in range(150):
        good, messages = draw.random(4) < 0.5, []
        for value in good:
            asked, answered = draw.choice(words, 2, replace=False)
            messages += [
                {"role": "user", "content": " ".join([asked] * 4)},
                {"role": "assistant", "content": " ".join([asked if value else answered] * 4)},
            ]
        row = {"session_id": f"s{index}", "conversation_id": f"c{index}", "rater_id": "", "messages": messages}
        rows.append(row | {"score": float(good.mean()), "turn_rating": good.astype(float).tolist()})
    sessions = Dataset.from_list(rows, features=session_features(turn_rating=True))
    found = {}
    for interactions in (False, True):
        model = reward_model("bert", context_messages=0, interactions=interactions)
        fit_hindsight(model, sessions.select(range(110)), cache_dir=cache)
        assert model.score.out.weight.shape == (1, model.config.feature_size)
        test = sessions.select(range(110, 150))
        rewards = rewards_of(model.score_sessions(test))
        found[interactions] = np.corrcoef(rewards, np.concatenate(test["turn_rating"]))[0, 1] if rewards.std() else 0
    assert found[True] > 0.8
    assert abs(found[False]) < 0.3
