"""Figures of all rows from their runs, and the tables where some of them are undefined."""

import json
import re

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets
from PIL import Image
from scipy.stats import spearmanr
from tiny import backbone
from toy import NAN, toy_sessions, with_column

from geli_hf import GeliRewardModel
from geli_hf.evaluation.methods.comparison import by_row, compare, markdown, write_comparison
from geli_hf.evaluation.methods.folds import Design, Encoded
from geli_hf.evaluation.methods.rows import (
    ATTRIBUTION,
    HINDSIGHT,
    SHUFFLED,
    SUPERVISED,
    NotRun,
    learned_rows,
    trivial_rows,
)
from geli_hf.evaluation.methods.runs import Run, run_rows
from geli_hf.metrics import metrics

SEEDS = (0, 3)


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "RESAMPLES", 300)
        yield


@pytest.fixture(scope="module")
def sessions():
    return toy_sessions(30, seed=0)


def noisy(sessions, noise: float, *, predicts: bool = True) -> list[Run]:
    """Runs of a row that rewards with the truth and noise."""
    runs = []
    for seed in SEEDS:
        rng = np.random.default_rng([seed, int(noise * 100)])
        rewards = [np.array(turns) + noise * rng.normal(size=len(turns)) for turns in sessions["turn_rating"]]
        predicted = np.array([5 + 2 * each.mean() if predicts else NAN for each in rewards])
        about = {
            "seed": seed,
            "settings": {},
            "folds": 4,
            "data": {"train": "t", "judged": "j"},
            "versions": {"python": "3"},
        }
        runs.append(Run(rewards, predicted, 10.0 + seed, about))
    return runs


@pytest.fixture(scope="module")
def runs(sessions):
    good, bad = noisy(sessions, 0.5), noisy(sessions, 4.0, predicts=False)
    return {"good": good, "bad": bad, "away": NotRun("no server")}


@pytest.fixture(scope="module")
def rows(sessions, runs):
    return compare(Design(sessions), runs, against="bad")


def test_figures_are_means_over_seeds_and_differences_are_paired(sessions, runs, rows):
    def by_hand(name):
        values = [
            [
                0.0 if np.ptp(x) == 0 else spearmanr(x, y).statistic if np.ptp(y) else NAN
                for x, y in zip(run.turn_rewards, sessions["turn_rating"])
            ]
            for run in runs[name]
        ]
        return np.mean(values, axis=0)

    good, bad = by_hand("good"), by_hand("bad")
    assert rows["good"]["within_session_spearman"].estimate == pytest.approx(np.nanmean(good))
    assert rows["good"]["difference"].estimate == pytest.approx(np.nanmean(good - bad))
    assert rows["good"]["seconds"] == 11.5
    assert rows["good"]["seeds"] == [0, 3]
    score = np.array(sessions["score"])
    floor = np.mean([(Design(sessions).train_means(seed) - score) ** 2 for seed in SEEDS])
    assert rows["good"]["global_loss_floor"] == pytest.approx(floor)
    assert rows["good"]["global_loss"].estimate < floor
    assert rows["bad"]["missing"]["global_loss"] == "predicts no session score"
    assert rows["away"] == {"not_run": "no server"}


def test_the_corrected_interval_is_wider_the_more_rows_there_are(sessions, runs):
    many = runs | {f"another {number}": runs["good"] for number in range(9)}
    row = compare(Design(sessions), many, against="bad")["good"]
    assert row["corrected"].low < row["difference"].low
    assert row["corrected"].estimate == row["difference"].estimate


def test_a_row_that_failed_with_one_seed_was_not_run(runs):
    good = runs["good"]
    found = [("a", 0, good[0]), ("b", 0, NotRun("x")), ("a", 3, NotRun("later")), ("b", 3, good[1])]
    rows = by_row(found)
    assert [str(rows[name]) for name in "ab"] == ["later", "x"]
    assert by_row([("a", 0, good[0]), ("a", 3, good[1])]) == {"a": good}


def test_an_unknown_row_to_compare_with_is_an_error(sessions, runs):
    with pytest.raises(ValueError, match=r"against: .*best"):
        compare(Design(sessions), runs, against="best")


def test_tables_and_notes(sessions, rows):
    text = markdown(Design(sessions), rows, against="bad", corpus="uss")
    turns = sum(map(len, sessions["turn_rating"]))
    assert text.startswith(
        f"30 sessions of 30 conversations, 4 folds, out of fold; {turns} of {turns} turns have a rating. "
        "Means over 2 seeds.\n"
    )
    first, second = text.split("\n\n")[1:4:2]
    assert f"| {rows['good']['difference']} |" in first
    assert "| away | *not run* |" in first.replace("  ", "")
    assert "*not run*: no server (away)." in text
    assert "away" not in second
    assert "– minus bad: the row that the others are compared with (bad)." in text
    assert "higher: good; lower: none." in text
    assert "*hindsight, seeing the reaction* read the reaction" in text
    assert "Circularity: the turn ratings of USS stand on the user's next line" in text
    assert "Circularity" not in markdown(Design(sessions), rows, against="bad", corpus="esconv")


def test_records_are_json(sessions, rows, runs, tmp_path):
    write_comparison(tmp_path, Design(sessions), runs, against="bad")
    good, bad, away = json.loads((tmp_path / "comparison.json").read_text())
    assert (good["row"], good["run"], good["seeds"]) == ("good", True, [0, 3])
    assert good["data"] == {"train": "t", "judged": "j"}
    assert good["versions"] == [{"python": "3"}]  # each that was there, once
    assert good["within_session_spearman"]["estimate"] == rows["good"]["within_session_spearman"].estimate
    assert bad["global_loss"]["estimate"] is None
    assert (away["run"], away["not_run"]) == (False, "no server")


def test_a_row_among_fits_to_shuffled_scores(sessions, runs):
    controls = [*noisy(sessions, 20.0), *noisy(sessions, 0.1)[:1]]  # one is better than the row
    with_control = {"good": runs["good"], "good, scores shuffled": controls, "bad": runs["bad"]}
    rows = compare(Design(sessions), with_control, against="bad")
    found = rows["good, scores shuffled"]["shuffled"]
    each = [
        np.nanmean(
            [
                spearmanr(x, y).statistic if np.ptp(y) else NAN
                for x, y in zip(run.turn_rewards, sessions["turn_rating"])
            ]
        )
        for run in controls
    ]
    assert found["each"] == pytest.approx(each)
    assert (found["mean"], found["deviation"]) == pytest.approx((np.mean(each), np.std(each) * np.sqrt(3 / 2)))
    assert found["true"] == rows["good"]["within_session_spearman"].estimate
    assert found["p"] == (1 + 1) / (1 + 3)
    assert rows["good, scores shuffled"]["within_session_spearman"].estimate == pytest.approx(np.mean(each))
    assert rows["good, scores shuffled"]["seeds"] == [0, 3]
    assert rows["good, scores shuffled"]["seconds"] == (10 + 13 + 10) / 2
    # A control claims nothing, so that it is no reason to correct for.
    assert np.isnan(rows["good, scores shuffled"]["corrected"].estimate)
    alone = compare(Design(sessions), {"good": runs["good"], "bad": runs["bad"]}, against="bad")
    assert rows["good"]["corrected"] == alone["good"]["corrected"]
    text = markdown(Design(sessions), rows, against="bad")
    cells = [" ".join(line.split()) for line in text.split("With shuffled scores, mean")[1].splitlines()]
    figures = (f"{found[key]:.3f}" for key in ("true", "mean", "deviation"))
    assert f"| good | {' | '.join(figures)} | 3 | 0.500 |" in cells
    assert "for 1 of them" in text
    assert "p is the share" in text


def test_a_control_without_its_row_and_one_of_a_single_fit(sessions, runs):
    control = {
        "gone, scores shuffled": runs["bad"][:1],
        "bad": runs["bad"],
        "away, scores shuffled": NotRun("no server"),
    }
    text = markdown(Design(sessions), compare(Design(sessions), control, against="bad"), against="bad")
    mean = f"{np.nanmean(metrics.spearman_per_session(runs['bad'][0].turn_rewards, sessions['turn_rating'])):.3f}"
    assert f"| gone | – | {mean} | – | 1 | – |" in re.sub(" +", " ", text)
    assert "*not run*: no server (away, scores shuffled)." in text


def test_written_files(sessions, runs, tmp_path):
    text = write_comparison(tmp_path, Design(sessions), runs, against="good", corpus="sample")
    assert (tmp_path / "comparison.md").read_text() == text
    assert "The sample is simulated" in text
    assert len(json.loads((tmp_path / "comparison.json").read_text())) == 3
    assert Image.open(tmp_path / "comparison.png").size[0] > 500
    assert len(list(tmp_path.iterdir())) == 3


# ------------------------------------------------------------------------------------------------ bad input

AGAINST = "log length"
CLOSED = [name + suffix for name in (HINDSIGHT, ATTRIBUTION) for suffix in ("", SHUFFLED)]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Figures and Markdown of all kinds of rows, learned in two folds."""
    model = GeliRewardModel.from_backbone(backbone("bert"))
    caches = tmp_path_factory.mktemp("features")

    def table(sessions) -> tuple[dict, str]:
        learned = learned_rows(model, ["affect"], {"num_train_epochs": 1, "use_cpu": True}, permutations=2)
        rows = trivial_rows() | {name: learned[name] for name in ("RRD, all turns", *CLOSED, SUPERVISED)}
        design, encoded = Design(sessions, folds=2), Encoded(model, sessions, cache_dir=caches)
        found = by_row(
            run_rows(rows, design, {"train": encoded, "judged": encoded}, [0], tmp_path_factory.mktemp("runs"))
        )
        folder = tmp_path_factory.mktemp("table")
        text = write_comparison(folder, design, found, against=AGAINST)
        assert (folder / "comparison.png").exists()
        return compare(design, found, against=AGAINST), text

    return table


def test_no_turn_ratings(table):
    rows, text = table(toy_sessions(24, turn_rating=False))
    assert rows[SUPERVISED] == {"not_run": "no turn of the training sessions has a turn_rating"}
    assert rows["RRD, all turns"]["missing"]["difference"] == "no turn has a turn_rating"
    assert rows["RRD, all turns"]["session_spearman"].low > -1
    assert "; 0 of " in text
    for name in CLOSED:
        assert rows[name]["missing"]["difference"] == "no turn has a turn_rating"
        assert np.isfinite(rows[name]["global_loss"].estimate)
    assert np.isnan(rows[HINDSIGHT + SHUFFLED]["shuffled"]["p"])
    assert "With shuffled scores" not in text
    assert "Bonferroni" not in text
    for title in ("Within-session Spearman", "Length held fixed", "minus log length", "Within-session AUC"):
        assert f"– {title}: no turn has a turn_rating" in text


def test_ratings_of_some_turns_only(table):
    sessions = toy_sessions(24)
    some = [[value if index % 2 else NAN for value in row] for index, row in enumerate(sessions["turn_rating"])]
    rows, text = table(with_column(sessions, "turn_rating", some))
    rated, turns = (sum(map(len, values)) for values in (some[1::2], some))
    assert f"; {rated} of {turns} turns have a rating." in text
    for name in (SUPERVISED, *CLOSED):
        assert rows[name]["within_session_spearman"].low > -1
    assert 1 / 3 <= rows[HINDSIGHT + SHUFFLED]["shuffled"]["p"] <= 1
    assert text.count("| hindsight  ") == 3  # of three tables
    _, whole = table(sessions)
    assert whole != text


def test_fewer_than_twenty_conversations(table):
    nineteen = toy_sessions(19)
    twice = with_column(nineteen, "session_id", [f"t{index}" for index in range(19)])
    rows, text = table(concatenate_datasets([nineteen, twice]))
    assert "No intervals: 19 conversations were judged" in text
    assert "[" not in text.split("No intervals")[0]
    for name in ("position", *CLOSED):
        assert np.isfinite(rows[name]["within_session_spearman"].estimate)
        assert np.isnan(rows[name]["within_session_spearman"].low)
    assert np.isnan(rows["position"]["difference"].low)
    _, text = table(toy_sessions(20))
    assert "No intervals" not in text


def test_all_scores_equal(table):
    sessions = toy_sessions(24)
    rows, text = table(with_column(sessions, "score", [4.0] * 24))
    for name in ("RRD, all turns", *CLOSED):
        assert "all 12 scores are 4.0, so no turn can be told apart" in rows[name]["not_run"]
    assert "With shuffled scores" not in text
    assert "*hindsight* learned from" not in text
    assert "– Session Spearman: no two sessions with different scores" in text
    assert rows[SUPERVISED]["within_session_spearman"].low > -1
    assert rows["predict the mean"]["global_loss"].estimate == 0


def test_one_turn_each_and_nobody_answers(table):
    sessions = toy_sessions(24)
    rows, text = table(
        Dataset.from_list(
            [
                row
                | {"messages": row["messages"][1:2], "turn_rating": row["turn_rating"][:1]}
                | {"feedback": {name: values[:1] for name, values in row["feedback"].items()}}
                for row in sessions
            ],
            features=sessions.features,
        )
    )
    reason = "no session with two turns of different turn_rating"
    assert {rows[name]["missing"]["within_session_spearman"] for name in CLOSED} == {reason}
    assert rows[HINDSIGHT]["session_spearman"].estimate > 0.2
    assert "– Session Spearman: no session with a reward (next-turn sentiment)." in text


def test_a_signal_that_was_never_observed(table):
    sessions = toy_sessions(24)
    blind = [row | {"affect": [NAN] * len(row["affect"])} for row in sessions["feedback"]]
    rows, text = table(with_column(sessions, "feedback", blind))
    for name in CLOSED:
        assert np.isfinite(rows[name]["within_session_spearman"].estimate)
    assert "– Local difference (SD): no turns both with and without positive feedback 'affect'" in text
