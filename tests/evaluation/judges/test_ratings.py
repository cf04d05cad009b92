"""The regressor of people's ratings of turns: its fit, its report, and its command."""

import json
import math

import numpy as np
import pytest
from datasets import Dataset
from scipy.stats import spearmanr
from tiny import backbone, reward_model
from toy import toy_sessions, with_column

from geli_hf import GeliRewardModel
from geli_hf.cli import main
from geli_hf.data.rows import write_jsonl
from geli_hf.evaluation.judges.ratings import JudgeReport, fit_judge, measure_judge
from geli_hf.metrics.baselines import log_length
from geli_hf.models.features import TurnFeatureCache
from geli_hf.sessions import SessionError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))


def turns(sessions: Dataset) -> np.ndarray:
    return np.array([len(each) for each in sessions["turn_rating"]])


def rated(sessions: Dataset, rating: np.ndarray) -> Dataset:
    return with_column(sessions, "turn_rating", [each.tolist() for each in split(sessions, rating)])


def split(sessions: Dataset, values: np.ndarray) -> list[np.ndarray]:
    return np.split(values, np.cumsum(turns(sessions))[:-1])


def longer(message: dict, draw: np.random.Generator) -> dict:
    return message | {"content": message["content"] + " word" * draw.integers(20)}


@pytest.fixture
def known():
    """60 sessions with 32 features a turn, one weight for each, and the logarithm of the length of the turns."""
    draw = np.random.default_rng(0)
    sessions = toy_sessions(60).map(lambda row: {"messages": [longer(each, draw) for each in row["messages"]]})
    count = turns(sessions)
    features = draw.normal(size=(count.sum(), 32)).astype(np.float32) + 3
    weight = draw.normal(size=32)
    length = np.concatenate(log_length(sessions))
    features[:, 0] += 2 * length  # words that come with long turns
    level = np.repeat(draw.normal(0, 5, len(sessions)), count)
    return sessions, TurnFeatureCache(features, np.append(0, np.cumsum(count))), features @ weight, length, level


def rewards_of(sessions, features, rating) -> np.ndarray:
    """In units of the rating."""
    judge = reward_model("bert")
    fit_judge(judge, rated(sessions, rating), features=features)
    output = judge.score(judge.model.embeddings.word_embeddings.weight.new_tensor(features.all()))
    return output.detach().numpy() * judge.config.score_std


def test_the_fit_recovers_the_value_of_words(known):
    sessions, features, worth, length, level = known
    found = rewards_of(sessions, features, worth + 4 * length + level)
    assert np.ptp(length) > 1
    assert np.corrcoef(found, worth)[0, 1] > 0.999


def test_the_fit_ignores_the_level_of_a_rater_and_the_length(known):
    sessions, features, worth, length, level = known
    noise = np.random.default_rng(1).normal(0, 1, len(worth))
    plain = rewards_of(sessions, features, worth + noise)
    moved = rewards_of(sessions, features, worth + noise + level - 7 * length)
    np.testing.assert_allclose(moved, plain, atol=0.01)


def test_turns_without_a_rating_are_left_out(known):
    sessions, features, worth, _, _ = known
    kept = np.random.default_rng(0).random(len(worth)) < 0.8
    holes = np.where(kept, worth, np.nan)
    found = rewards_of(sessions, features, holes)
    assert np.isfinite(found).all()
    assert np.corrcoef(found, worth)[0, 1] > 0.99


def test_sessions_without_different_ratings_are_errors():
    sessions, judge = toy_sessions(4), reward_model("bert")
    for ratings, problem in ((np.nan, "no turn has a turn_rating"), (3.0, "no session has two turns of different")):
        with pytest.raises(SessionError, match=problem):
            fit_judge(judge, rated(sessions, np.full(turns(sessions).sum(), ratings)))
    with pytest.raises(SessionError, match="no turn has a turn_rating"):
        fit_judge(judge, toy_sessions(4, turn_rating=False))
    with pytest.raises(ValueError, match="head='linear'"):
        fit_judge(reward_model("bert", head="mlp"), sessions)


def test_the_judge_is_measured_on_held_out_sessions():
    train, test = toy_sessions(40), toy_sessions(20, seed=1)
    judge = reward_model("bert", context_messages=0)
    report = fit_judge(judge, train)
    assert (report.sessions, report.turns, report.held_out) == (40, turns(train).sum(), 0)
    measure_judge(judge, test, report)
    rewards = [row["turn_rewards"] for row in judge.score_sessions(test)]
    each = [spearmanr(x, y).statistic for x, y in zip(rewards, test["turn_rating"]) if np.ptp(y)]
    assert report.spearman.estimate == pytest.approx(np.mean(each), abs=1e-6)
    assert report.spearman.estimate > 0.6  # words decide what a turn of the toy corpus is worth
    assert report.held_out == 20
    with pytest.raises(SessionError, match="40 of 40"):
        measure_judge(judge, train, report)
    with pytest.raises(SessionError, match="turn_rating"):
        measure_judge(judge, toy_sessions(4, seed=2, turn_rating=False), report)


def test_the_predicted_score_is_the_mean_rating():
    train = toy_sessions(40)
    ratings = 3 + 1.5 * np.concatenate(train["turn_rating"])
    judge = reward_model("bert", context_messages=0)
    fit_judge(judge, rated(train, ratings))
    assert judge.config.score_mean == pytest.approx(ratings.mean(), rel=1e-5)
    predicted = np.array([row["score"] for row in judge.score_sessions(train)])
    means = [each.mean() for each in split(train, ratings)]
    assert np.mean(predicted) == pytest.approx(np.mean(means), abs=0.3)
    assert np.corrcoef(predicted, means)[0, 1] > 0.7


def test_a_report_is_saved_and_read(tmp_path):
    report = JudgeReport(3, 9, 0.25, conversations=["ab", "cd"])
    report.save(tmp_path)
    again = JudgeReport.read(str(tmp_path))
    assert math.isnan(again.spearman.estimate)
    assert (again.turns, again.explained, again.conversations) == (9, 0.25, ["ab", "cd"])
    assert "NaN" not in (tmp_path / "judge.json").read_text()
    assert JudgeReport.read(backbone("bert")) is None


def test_the_command_makes_a_folder_that_loads_as_any_reward_model(tmp_path, capsys):
    sessions, folder = toy_sessions(60), tmp_path / "judge"
    write_jsonl(sessions, tmp_path / "rated.jsonl")
    main(["train-judge", str(tmp_path / "rated.jsonl"), "--backbone", backbone("bert"), "-o", str(folder)])
    printed = capsys.readouterr().out
    report = JudgeReport.read(str(folder))
    assert report.sessions == 48
    assert report.held_out == 12
    assert f"Within-session Spearman with the ratings of 12 held-out sessions: {report.spearman};" in printed
    assert "that takes a win rate of about" in printed
    assert GeliRewardModel.from_pretrained(folder).score_sessions(sessions.select([0]))[0]["turn_rewards"]
    with pytest.raises(SystemExit) as caught:
        main(["train-judge", str(tmp_path / "rated.jsonl"), "-o", str(folder)])
    assert "holds something" in caught.value.code
    assert json.loads((folder / "config.json").read_text())["context_messages"] == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--options", '{"seed": 1}'], "--options: "),
        (["--backbone", "/nowhere"], "--backbone: "),
    ],
)
def test_errors_name_the_argument(tmp_path, arguments, problem):
    write_jsonl(toy_sessions(8), tmp_path / "rated.jsonl")
    with pytest.raises(SystemExit) as caught:
        main(["train-judge", str(tmp_path / "rated.jsonl"), "-o", str(tmp_path / "judge"), *arguments])
    assert problem in caught.value.code
    assert not (tmp_path / "judge").exists()
