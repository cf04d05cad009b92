"""The four steps of hindsight, on a tiny backbone and on words whose value is known."""

import logging
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from tiny import backbone, reward_model
from toy import NAN, toy_sessions, with_column
from transformers import AutoModelForSequenceClassification

from geli_hf import GeliRewardModel, SessionError
from geli_hf.decomposition import fit_ridge, fit_two_ridges
from geli_hf.metrics.metrics import within_session_spearman
from geli_hf.models.attribution import HindsightAttribution
from geli_hf.models.features import TurnFeatureCache, cached_turn_features
from geli_hf.sessions import session_features
from geli_hf.training import cached_reaction_features, fit_hindsight, hindsight


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def sessions() -> Dataset:
    return toy_sessions(120, seed=2)


@pytest.fixture(scope="module")
def held_out() -> Dataset:
    return toy_sessions(40, seed=3)


def new_model(**config) -> GeliRewardModel:
    return GeliRewardModel.from_backbone(backbone("bert"), **config)


@pytest.fixture(scope="module")
def fitted(sessions, held_out, cache):
    return fit_hindsight(new_model(), sessions, held_out, cache_dir=cache)


def rewards(rows: list[dict]) -> list[list[float]]:
    return [row["turn_rewards"] for row in rows]


# ------------------------------------------------------------------------------------------------ made-up features

HIDDEN, LATENT = 8, 3


@pytest.fixture
def simulated(monkeypatch):
    """Sessions whose features are drawn: r = w z + what only the reaction shows, and a signal of r. No backbone."""

    def make(count: int, *, seed: int, shuffled: bool = False, signal: float = 0.0) -> Dataset:
        draw = np.random.default_rng(seed)
        weight = np.r_[np.ones(LATENT), np.zeros(HIDDEN - LATENT)]
        rows, store = [], make.store
        for index in range(count):
            turns = int(draw.integers(3, 8))
            z, h = draw.normal(size=(turns, HIDDEN)), draw.normal(size=(turns, HIDDEN))
            worth = z @ weight + 2 * h[:, 0]
            messages = []
            for turn in range(turns):
                names = f"turn {seed} {index} {turn}", f"answer {seed} {index} {turn}"
                store[names[0]], store[names[1]] = z[turn], h[turn]
                messages += [{"role": "assistant", "content": names[0]}, {"role": "user", "content": names[1]}]
            rows.append(
                {
                    "session_id": f"{seed}-{index}",
                    "conversation_id": f"{seed}-{index}",
                    "messages": messages,
                    "score": float(worth.mean() + 0.3 * draw.normal()),
                    "feedback": {"felt": (signal * worth + draw.normal(size=turns)).tolist()},
                    "turn_rating": worth.tolist(),
                    "rater_id": "",
                }
            )
        if shuffled:
            for row, score in zip(rows, draw.permutation([row["score"] for row in rows])):
                row["score"] = float(score)
        return Dataset.from_list(rows, features=session_features(["felt"], turn_rating=True))

    def cache(model, sessions, **_):
        turns = [[m["content"] for m in messages if m["role"] == "assistant"] for messages in sessions["messages"]]
        vectors = np.array([make.store[text] for said in turns for text in said], np.float32)
        return TurnFeatureCache(vectors, np.cumsum([0, *map(len, turns)]))

    make.store = {}
    monkeypatch.setattr(hindsight, "cached_turn_features", cache)
    return make


def parts_of(fit, sessions: Dataset, store: dict) -> tuple[list, list]:
    """Rewards of student and teacher for simulated sessions, computed from the heads by hand."""
    student, teacher = [], []
    signal = fit.attribution.signals["felt"]
    for session in sessions:
        said = [message["content"] for message in session["messages"]]
        z, h = np.array([store[text] for text in said[::2]]), np.array([store[text] for text in said[1::2]])
        with torch.no_grad():
            own, turn = (m.score(torch.tensor(z).float()).numpy() for m in (fit.reward_model, fit.attribution.model))
        felt = signal.beta * (np.array(session["feedback"]["felt"]) - signal.mean) / signal.std
        reaction = (h - fit.attribution.reaction_mean) @ fit.attribution.reaction_weight
        student.append(own)
        teacher.append(turn + reaction + felt)
    return student, teacher


def small_model() -> GeliRewardModel:
    model = new_model()
    model.config.text_config.hidden_size = HIDDEN
    model.score = type(model.score)(model.config)
    return model


def test_it_recovers_the_truth_and_the_teacher_knows_more(simulated):
    train, test = simulated(600, seed=0, signal=0.5), simulated(200, seed=1, signal=0.5)
    fit = fit_hindsight(small_model(), train)
    student, teacher = parts_of(fit, test, simulated.store)
    truth = test["turn_rating"][:]
    forward, seeing = within_session_spearman(student, truth), within_session_spearman(teacher, truth)
    assert seeing > forward + 0.1  # 4 of 7 parts of the variance are the reaction's
    assert forward > 0.5
    weight = (fit.reward_model.score.out.weight[0] / fit.reward_model.score.standardise.std).detach().numpy()
    assert weight[:LATENT].min() > 5 * np.abs(weight[LATENT:]).max()
    assert fit.report.signals["felt"].t > 5


def test_shuffled_scores_teach_nothing(simulated):
    train, test = simulated(600, seed=0, shuffled=True, signal=0.5), simulated(200, seed=1, signal=0.5)
    fit = fit_hindsight(small_model(), train)
    assert abs(fit.report.signals["felt"].beta) < 0.1
    assert fit.report.teacher < 0.1
    values = np.concatenate(parts_of(fit, test, simulated.store)[0])
    assert values.std() < 0.1  # of a score's deviation


def test_a_useless_signal_is_not_trusted(simulated):
    fit = fit_hindsight(small_model(), simulated(600, seed=0, signal=0.0))
    assert abs(fit.report.signals["felt"].beta) < 0.06
    assert "t = " in str(fit.report)


def test_the_prediction_of_a_noisy_signal_is_trusted_more_than_the_signal(simulated):
    """Noise makes the slope of a signal small, and that of its prediction from words not."""
    train = simulated(400, seed=0, signal=0.3)
    trust = fit_hindsight(small_model(), train).report.signals["felt"]
    assert trust.foreseen_beta > 2 * trust.beta > 0


def test_targets_owe_nothing_to_the_scores_of_their_own_fold(simulated):
    """Other scores in one fold change the targets of the others and not its own, but by the choice of a ratio."""
    train = simulated(200, seed=0, signal=0.5)
    _, fold = hindsight._scores_and_folds(train, 4, 0)
    before = fit_hindsight(small_model(), train).targets
    score = np.array(train["score"])
    own = np.flatnonzero(fold == 2)
    score[own] = score[own][::-1]  # mean and deviation stay
    after = fit_hindsight(small_model(), with_column(train, "score", score.tolist())).targets
    for index in range(len(train)):
        assert np.allclose(before[index], after[index], atol=1e-6) == (fold[index] == 2)


# ------------------------------------------------------------------------------------------------ a real backbone


def test_it_recovers_the_good_turns(fitted, held_out):
    scored = fitted.reward_model.score_sessions(held_out)
    assert within_session_spearman(rewards(scored), held_out["turn_rating"]) > 0.7
    predicted = np.array([row["score"] for row in scored])
    scores = np.array(held_out["score"])
    assert np.mean((predicted - scores) ** 2) < 0.5 * scores.var()
    assert fitted.reward_model.config.residual_std == pytest.approx(np.std(scores - predicted), rel=1e-3)
    assert fitted.report.signals["affect"].t > 3
    assert fitted.report.signals["affect"].foreseen_t > 4  # the signal is noisy, its prediction from words is not
    assert fitted.report.signals["affect"].beta > 5 * abs(fitted.report.signals["noise"].beta)


def test_the_head_is_the_closed_form(sessions, cache, monkeypatch):
    """Standardisation, weights and bias in float32 give what the ridges say in float64."""
    fits = []

    def recorded(fit, *args):
        fits.append(fit(*args))
        return fits[-1]

    for fit in (fit_ridge, fit_two_ridges):
        monkeypatch.setattr(hindsight, fit.__name__, partial(recorded, fit))
    fit = fit_hindsight(new_model(), sessions, cache_dir=cache)
    features = cached_turn_features(fit.reward_model, sessions, cache_dir=cache)
    expected = fits[-1](features.features)
    found = np.concatenate(rewards(fit.reward_model.score_sessions(sessions)))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    quantiles = fit.reward_model.config.reward_quantiles
    assert (quantiles[0], quantiles[-1]) == pytest.approx((expected.min(), expected.max()), abs=1e-4)
    assert fit.reward_model.config.score_mean == pytest.approx(np.mean(sessions["score"]))
    assert fit.reward_model.config.score_std == pytest.approx(np.std(sessions["score"]))
    # The teacher predicts the mean over a session; what the signals say comes on top.
    rows = fit.attribution.score_sessions(sessions.select(range(3)))
    for row in rows:
        np.testing.assert_allclose(np.sum(list(row["parts"].values()), 0), row["turn_rewards"], atol=1e-9)
        mean = fit.reward_model.config.score_mean + fit.reward_model.config.score_std * np.mean(row["turn_rewards"])
        assert row["score"] == pytest.approx(mean)
    texts = [[{"role": "assistant", "content": sessions[0]["messages"][2]["content"]}]]
    with torch.no_grad():
        answer = fit.reward_model.encode_turns(**fit.reward_model.tokenize(texts)).features[0, 0].numpy()
    teacher, _ = next(each for each in fits if isinstance(each, tuple))
    by_ridge = teacher.weight @ np.r_[features[0][0], answer] + teacher.intercept
    # Of each signal four ridges that are blind to a fold, and one of all that is kept.
    for ridge, signal in zip(fits[4::5], fit.report.signals.values()):
        by_ridge += signal.foreseen_beta * ridge(features[0][:1]).item()
    assert rows[0]["parts"]["turn"][0] + rows[0]["parts"]["reaction"][0] == pytest.approx(by_ridge, abs=1e-4)
    assert rows[0]["parts"]["reaction"][-1] == 0  # nobody answered the last turn


def test_the_student_is_the_ridge_of_its_targets(sessions, cache, fitted):
    """The student's ridge, solved anew from the targets."""
    turns = [row["content"] for messages in sessions["messages"] for row in messages if row["role"] == "assistant"]
    assert [len(values) for values in fitted.targets] == [len(ratings) for ratings in sessions["turn_rating"]]
    features = cached_turn_features(fitted.reward_model, sessions, cache_dir=cache).all()
    ridge = fit_ridge(features, np.concatenate(fitted.targets), features.std(0))
    found = np.concatenate(rewards(fitted.reward_model.score_sessions(sessions)))
    assert len(turns) == len(found)
    np.testing.assert_allclose(ridge(features), found, atol=1e-3)
    assert within_session_spearman(fitted.targets, sessions["turn_rating"]) > 0.6


def moody(sessions: Dataset, *, known: bool) -> Dataset:
    """Listeners who smile much or little whatever they hear; each is in four sessions."""
    draw = np.random.default_rng(0)
    habits = draw.normal(scale=0.3, size=len(sessions))
    feedback = [
        row | {"affect": (np.array(row["affect"], float) + habits[index // 4]).tolist()}
        for index, row in enumerate(sessions["feedback"])
    ]
    sessions = with_column(sessions, "feedback", feedback)
    return with_column(sessions, "rater_id", [str(index // 4) if known else "" for index in range(len(sessions))])


def test_the_habit_of_a_listener_who_comes_back_is_taken_off(sessions, held_out, cache):
    told, untold = (
        fit_hindsight(new_model(), moody(sessions, known=known), cache_dir=cache) for known in (True, False)
    )
    assert told.report.signals["affect"].habit > 0.1
    assert untold.report.signals["affect"].habit == 0
    assert f"{told.report.signals['affect'].habit:.0%} of a session's mean" in str(told.report)
    seen = moody(held_out, known=True).select(range(4))
    signal = told.report.signals["affect"]
    explained = told.attribution.score_sessions(seen)
    for row, session in zip(explained, seen):
        standard = (np.array(session["feedback"]["affect"], float) - signal.mean) / signal.std
        usual = np.nanmean(standard) if np.isfinite(standard).any() else 0
        expected = np.where(np.isnan(standard), 0, signal.beta * (standard - signal.habit * usual))
        np.testing.assert_allclose(row["parts"]["feedback.affect"], expected, atol=1e-6)
    assert any(any(row["parts"]["feedback.affect"]) for row in explained)


def test_both_checkpoints_make_the_round_trip(fitted, held_out, tmp_path):
    fitted.reward_model.save_pretrained(tmp_path / "reward")
    fitted.attribution.save_pretrained(tmp_path / "attribution")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    for row, expected in zip(again.score_sessions(held_out), fitted.reward_model.score_sessions(held_out)):
        assert row["turn_rewards"] == pytest.approx(expected["turn_rewards"], abs=1e-5)
    back = HindsightAttribution.from_pretrained(tmp_path / "attribution")
    for row, expected in zip(back.score_sessions(held_out), fitted.attribution.score_sessions(held_out)):
        assert row["turn_rewards"] == pytest.approx(expected["turn_rewards"], abs=1e-5)
    with pytest.raises(OSError, match=r"hindsight\.safetensors"):
        HindsightAttribution.from_pretrained(tmp_path / "reward")


def test_the_seed_decides(sessions, cache, fitted):
    again, other = (fit_hindsight(new_model(), sessions, seed=seed, cache_dir=cache).reward_model for seed in (0, 1))
    assert torch.equal(again.score.out.weight, fitted.reward_model.score.out.weight)
    assert not torch.equal(other.score.out.weight, fitted.reward_model.score.out.weight)


def test_the_attribution_does_not_share_the_head(fitted):
    assert fitted.attribution.model.model is fitted.reward_model.model
    assert not torch.equal(fitted.attribution.model.score.out.weight, fitted.reward_model.score.out.weight)


def test_sessions_without_a_score_teach_the_student_alone(sessions, cache):
    few = sessions.select(range(60))
    unrated = with_column(few, "score", [*few["score"][:40], *[NAN] * 20])
    fit = fit_hindsight(new_model(), unrated, cache_dir=cache)
    assert (fit.report.sessions, fit.report.scored) == (60, 40)
    rated = fit_hindsight(new_model(), few.select(range(40)), cache_dir=cache)
    assert fit.attribution.model.score.out.weight.shape == rated.attribution.model.score.out.weight.shape
    assert fit.report.signals["affect"].t == pytest.approx(rated.report.signals["affect"].t, rel=0.2)
    assert fit.report.turns > rated.report.turns


def test_no_signal_no_answer_and_one_turn_are_no_reason_to_fail(cache):
    rows = [
        {
            "session_id": str(index),
            "conversation_id": str(index),
            "rater_id": "",
            "messages": [{"role": "assistant", "content": "happy" if index % 2 else "tired"}],
            "score": float(index % 2),
        }
        for index in range(12)
    ]
    sessions = Dataset.from_list(rows, features=session_features())
    fit = fit_hindsight(new_model(), sessions, cache_dir=cache)
    bad, good = rewards(fit.reward_model.score_sessions(sessions.select(range(2))))
    assert good[0] > bad[0] + 1
    assert "0% of them answered" in str(fit.report)
    [row] = fit.attribution.score_sessions(sessions.select([0]))
    assert row["parts"]["reaction"] == [0]


def test_a_signal_that_was_never_observed_is_reported(sessions, cache):
    blind = [row | {"noise": [NAN] * len(row["noise"])} for row in sessions["feedback"]]
    fit = fit_hindsight(new_model(), with_column(sessions, "feedback", blind), cache_dir=cache)
    assert fit.report.signals["noise"].beta == 0
    assert "noise: t = 0.0, beta = +0.000, observed at 0%" in str(fit.report)
    assert "affect: t = " in str(fit.report)


@pytest.mark.parametrize("value", [0.1, 1e-9 / 3, -1e6 / 3])
def test_a_signal_that_never_changes_is_not_trusted_for_where_it_was_seen(sessions, cache, value):
    """Rounding must not make a signal of a constant, and of where it is missing."""
    draw = np.random.default_rng(0)
    seen = [{"noise": [value if draw.random() < 0.5 else NAN for _ in row["noise"]]} for row in sessions["feedback"]]
    doubles = sessions.remove_columns("feedback").add_column("feedback", seen)  # in float64
    signal = fit_hindsight(new_model(), doubles, cache_dir=cache).report.signals["noise"]
    assert (signal.std, signal.t, signal.beta, signal.foreseen_beta) == (1, 0, 0, 0)


def test_fewer_conversations_than_folds_and_few_sessions_warn(cache, caplog):
    logging.getLogger("geli_hf").propagate = True
    with caplog.at_level("WARNING"):
        fit = fit_hindsight(new_model(), toy_sessions(3, seed=0), cache_dir=cache, folds=8)
    assert "3 sessions have a score" in caplog.text
    assert np.isfinite(fit.reward_model.score.out.weight.detach().numpy()).all()


def test_a_conversation_is_in_one_fold(sessions):
    both = concatenate_datasets([sessions, sessions])
    _, fold = hindsight._scores_and_folds(both, 4, 0)
    assert (fold[:120] == fold[120:]).all()
    assert np.bincount(fold).tolist() == [60] * 4


def test_an_attribution_without_its_signal_warns(fitted, held_out, caplog):
    logging.getLogger("geli_hf").propagate = True
    with caplog.at_level("WARNING"):
        [row] = fitted.attribution.score_sessions([{"messages": held_out[0]["messages"]}])
    assert "no session has feedback 'affect'" in caplog.text
    assert not any(row["parts"]["feedback.affect"])


def test_a_fit_that_is_impossible_is_refused(sessions, cache):
    with pytest.raises(ValueError, match=r"found \('mlp', 'mean'\)"):
        fit_hindsight(reward_model("bert", head="mlp"), sessions)
    with pytest.raises(SessionError, match=r"no feedback \['smile'\]; they carry \['affect', 'noise'\]"):
        fit_hindsight(new_model(), sessions, signals=["smile"])
    with pytest.raises(SessionError, match=r"all 120 scores are 5\.0"):
        fit_hindsight(new_model(), with_column(sessions, "score", [5.0] * 120))
    with pytest.raises(SessionError, match="found 1 conversations with a score"):
        fit_hindsight(new_model(), sessions.select([0]))
    with pytest.raises(SessionError, match=r"found 2 conversations with a score, expected at least 3, and about 200"):
        fit_hindsight(new_model(), sessions.select([0, 1]))
    assert len(fit_hindsight(new_model(), sessions.select([0, 1, 2]), cache_dir=cache).targets) == 3
    with pytest.raises(SessionError, match="row 1, field 'score': expected finite numbers, found inf"):
        fit_hindsight(new_model(), with_column(sessions, "score", [5.0, np.inf] + [4.0] * 118))
    with pytest.raises(ValueError, match="folds: expected at least 2"):
        fit_hindsight(new_model(), sessions, folds=1)


def test_cached_features_are_not_computed_again(sessions, fitted, cache):
    """Rows of a larger corpus, out of order, are learned from without encoding."""
    order = np.random.default_rng(0).permutation(len(sessions))
    corpus, back = sessions.select(order), np.argsort(order)
    model = new_model()
    of_corpus = {
        "turns": cached_turn_features(model, corpus, cache_dir=cache),
        "reactions": cached_reaction_features(model, corpus, cache_dir=cache),
    }
    features = {name: each.select(back) for name, each in of_corpus.items()}
    encoded = len(list(cache.iterdir()))
    fit = fit_hindsight(model, sessions, cache_dir=cache, features=features)
    assert len(list(cache.iterdir())) == encoded
    expected = [model.score.out.weight.detach().numpy() for model in (fitted.reward_model, fitted.attribution.model)]
    found = [model.score.out.weight.detach().numpy() for model in (fit.reward_model, fit.attribution.model)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
