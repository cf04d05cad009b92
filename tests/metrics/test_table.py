"""Figures of one method, and the Markdown table of several."""

import json

import numpy as np
import pytest
from datasets import Dataset
from scipy.stats import spearmanr

from geli_hf.metrics import baselines, metrics
from geli_hf.metrics.table import COLUMNS, as_json, evaluate_rewards, evaluate_runs, markdown_table
from geli_hf.sessions import session_features

NAN = np.nan


@pytest.fixture
def sessions():
    """Thirty conversations of six turns whose ratings, feedback and scores are correlated."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(30):
        ratings = rng.normal(size=6)
        messages = [
            {"role": role, "content": " ".join(["word"] * rng.integers(1, 9))}
            for _ in range(6)
            for role in ("user", "assistant")
        ]
        rows.append(
            {
                "session_id": f"s{index}",
                "conversation_id": f"c{index // 2}",
                "rater_id": "",
                "messages": messages,
                "score": 3 + ratings.mean(),
                "feedback": {"affect": (ratings > 0.5).astype(float)},
                "turn_rating": ratings,
            }
        )
    return Dataset.from_list(rows, features=session_features(["affect"], turn_rating=True))


def test_figures_of_a_method(sessions):
    rng = np.random.default_rng(1)
    rewards = [np.array(ratings) + rng.normal(size=6) for ratings in sessions["turn_rating"]]
    predicted = [3 + values.mean() for values in rewards]
    row = evaluate_rewards(sessions, rewards, predicted, train_mean=3.1, resamples=200)

    ratings, scores, ids = (sessions[name][:] for name in ("turn_rating", "score", "conversation_id"))
    per_session = [spearmanr(x, y).statistic for x, y in zip(rewards, ratings)]
    assert row["within_session_spearman"].estimate == pytest.approx(np.mean(per_session))
    assert row["within_session_spearman"] == pytest.approx(metrics.bootstrap(per_session, ids, resamples=200))
    assert row["session_spearman"].estimate == pytest.approx(spearmanr(predicted, scores).statistic)
    assert row["global_loss"].estimate == pytest.approx(np.mean(np.subtract(predicted, scores) ** 2))
    assert row["global_loss_floor"] == pytest.approx(np.mean(np.subtract(scores, 3.1) ** 2))
    assert row["local_difference_sd"].low > 0
    pooled = np.concatenate(rewards).std()
    difference = metrics.local_difference(rewards, [feedback["affect"] for feedback in sessions["feedback"]])
    assert row["local_difference_sd"].estimate == pytest.approx(difference / pooled)
    assert row["sessions"] == 30
    assert row["missing"] == {}


def test_missing_columns_give_missing_figures_with_a_reason(sessions):
    bare = sessions.remove_columns(["turn_rating", "feedback"]).map(lambda row: {"score": NAN})
    row = evaluate_rewards(bare, baselines.position(bare), [3.0] * 30, 3.0, resamples=50)
    figures = set(row) - {"sessions", "missing"}
    assert set(row["missing"]) == figures
    assert "turn_rating" in row["missing"]["within_session_spearman"]
    assert row["missing"]["local_difference_sd"] == "no feedback"


def test_predict_the_mean_stands_at_the_floor(sessions):
    train_mean = 3.25
    row = evaluate_rewards(sessions, [np.zeros(6)] * 30, [train_mean] * 30, train_mean, resamples=50)
    assert row["global_loss"].estimate == pytest.approx(row["global_loss_floor"])
    assert row["within_session_spearman"].estimate == row["session_spearman"].estimate == 0
    assert row["within_session_auc"].estimate == 0.5
    assert list(row["missing"]) == ["local_difference_sd"]


def test_a_row_that_predicts_no_score_is_ranked_by_its_mean_reward(sessions):
    row = evaluate_rewards(sessions, baselines.uniform(sessions), None, 3.0, resamples=50)
    assert row["session_spearman"].estimate == pytest.approx(1)
    assert row["missing"]["global_loss"] == "predicts no session score"


def test_rewards_of_other_sessions_and_unknown_feedback_are_errors(sessions):
    rewards = baselines.position(sessions)
    rewards[3] = rewards[3][:-1]
    with pytest.raises(ValueError, match="session 3"):
        evaluate_rewards(sessions, rewards, None, 3.0)
    with pytest.raises(ValueError, match="rewards, ratings"):
        evaluate_rewards(sessions, rewards[1:], None, 3.0)
    with pytest.raises(ValueError, match=r"feedback: .*affect"):
        evaluate_rewards(sessions, baselines.position(sessions), None, 3.0, feedback="smile")


def test_the_table_is_aligned_and_explains_its_dashes(sessions):
    rows = {
        name: evaluate_rewards(sessions, rewards(sessions), None, 3.0, resamples=50)
        for name, rewards in baselines.TURN_BASELINES.items()
        if name != "next-turn sentiment"
    }
    rows["model | raw"] = evaluate_rewards(sessions, baselines.position(sessions), [3.0] * 30, 3.0, resamples=50)
    text = markdown_table(rows)
    table, notes = text.split("\n\n")
    lines = table.splitlines()
    assert len(lines) == 2 + 4
    assert len({len(line) for line in lines}) == 1
    assert len({line.replace("\\|", "  ").count("|") for line in lines}) == 1
    assert str(rows["log length"]["within_session_spearman"]) in lines[3]
    assert "–" in lines[2]
    assert "– Global loss: predicts no session score (uniform, given the score; log length; position)." in notes


def test_figures_are_plain_json(sessions):
    row = evaluate_rewards(sessions, baselines.position(sessions), None, 3.0, resamples=50)
    parsed = json.loads(json.dumps(as_json({"position": row}), allow_nan=False))["position"]
    assert parsed["global_loss"] == {"estimate": None, "low": None, "high": None}
    assert parsed["within_session_auc"]["low"] == row["within_session_auc"].low
    assert as_json([np.float32(0.5), np.nan, "text", 3]) == [0.5, None, "text", 3]


def test_reasons_without_within_session_figures(sessions):
    def why(change):
        changed = sessions.map(lambda row, index: {"turn_rating": change(index)}, with_indices=True)
        row = evaluate_rewards(changed, baselines.log_length(changed), None, 3.0, resamples=50)
        within = {key: reason for key, reason in row["missing"].items() if "ithin" in key or "given" in key}
        assert len(within) == 5
        return set(within.values())

    assert why(lambda index: [NAN] * 6) == {"no turn has a turn_rating"}
    assert why(lambda index: [3.0] * 5 + [NAN]) == {"no session with two turns of different turn_rating"}
    assert why(lambda index: [float(index)] * 6) == {"no session with two turns of different turn_rating"}


def test_length_as_a_reward_is_worth_nothing_with_length_held_fixed(sessions):
    row = evaluate_rewards(sessions, baselines.log_length(sessions), None, 3.0, resamples=50)
    assert row["spearman_given_length"] == (0, 0, 0)
    assert row["spearman_given_position"].estimate != 0


def test_several_runs_are_averaged_session_by_session(sessions):
    rng = np.random.default_rng(2)
    runs = [[np.array(ratings) + rng.normal(size=6) for ratings in sessions["turn_rating"]] for _ in range(3)]
    predicted = rng.normal(3, 1, (3, len(sessions)))
    means = [3.0, 3.5, np.linspace(2, 4, len(sessions))]  # the last run was out of fold
    row = evaluate_runs(sessions, runs, predicted, means, resamples=200)
    alone = [evaluate_rewards(sessions, *run, resamples=200) for run in zip(runs, predicted, means)]
    for key in set(COLUMNS) - {"global_loss_floor"}:
        assert row[key].estimate == pytest.approx(np.mean([each[key].estimate for each in alone]))
    assert row["global_loss_floor"] == pytest.approx(np.mean([each["global_loss_floor"] for each in alone]))
    # The mean over runs is known better than one run.
    widths = [each["within_session_spearman"].high - each["within_session_spearman"].low for each in alone]
    assert row["within_session_spearman"].high - row["within_session_spearman"].low < max(widths)
