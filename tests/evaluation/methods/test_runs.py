"""An interrupted benchmark continues by row, and never with results of other data."""

import json

import numpy as np
import pytest
import torch
from tiny import reward_model
from toy import toy_sessions, with_column

from geli_hf.evaluation.methods.folds import Design, Encoded
from geli_hf.evaluation.methods.rows import NotRun, Row
from geli_hf.evaluation.methods.runs import Run, fingerprint, planned, run_rows, versions
from geli_hf.sessions import SessionError


@pytest.fixture
def sessions():
    return toy_sessions(12, seed=0)


@pytest.fixture
def encoded(sessions, tmp_path):
    return {name: Encoded(reward_model("bert"), sessions, cache_dir=tmp_path / name) for name in ("train", "judged")}


class Counted:
    """Fit that rewards a turn by the indices of session and turn, and predicts the number of training rows."""

    def __init__(self, fail=None):
        self.calls, self.fail = 0, fail

    def __call__(self, train, test, features, seed):
        self.calls += 1
        if self.fail:
            raise self.fail
        rewards = [
            100 * int(name[1:]) + np.arange(len(turns)) for name, turns in zip(test["session_id"], test["turn_rating"])
        ]
        return rewards, np.full(len(test), float(len(train) + seed))


def test_rewards_are_in_the_order_of_the_sessions(sessions, encoded, tmp_path):
    design = Design(sessions, folds=5)
    [(name, seed, run)] = run_rows({"a": Row(Counted())}, design, encoded, [3], tmp_path / "runs")
    assert (name, seed) == ("a", 3)
    for index, (rewards, turns) in enumerate(zip(run.turn_rewards, sessions["turn_rating"])):
        assert rewards.tolist() == [100 * index + turn for turn in range(len(turns))]
    assert sorted(set(run.predicted_scores)) == [9 + 3, 10 + 3]  # twelve in five folds
    assert run.seconds > 0
    assert run.about["versions"] == versions()
    assert run.about["versions"]["numpy"] == np.__version__


def test_kept_runs_are_read_and_missing_ones_computed(sessions, encoded, tmp_path):
    design, counted = Design(sessions, folds=2), {"a": Counted(), "RRD, 8/32 (x)": Counted()}
    rows = {name: Row(fit) for name, fit in counted.items()}
    first = list(run_rows(rows, design, encoded, [0], tmp_path / "runs"))
    again = list(run_rows(rows, design, encoded, [0, 1], tmp_path / "runs"))
    assert [fit.calls for fit in counted.values()] == [4, 4]  # two folds with each of two seeds
    for (_, _, one), (_, _, other) in zip(first, again):
        np.testing.assert_array_equal(np.concatenate(one.turn_rewards), np.concatenate(other.turn_rewards))
        np.testing.assert_array_equal(one.predicted_scores, other.predicted_scores)
        assert (one.seconds, one.about) == (other.seconds, other.about)
    assert len(list((tmp_path / "runs" / "seed-1").iterdir())) == 2


def test_a_control_is_fitted_to_several_permutations_of_the_scores(sessions, encoded, tmp_path):
    numbered = with_column(sessions, "score", [float(number) for number in range(12)])
    design, seen = Design(numbered, folds=2), []

    def fit(train, test, features, seed):
        seen.append((seed, train["session_id"][:], train["score"][:]))
        return [np.zeros(len(turns)) for turns in test["turn_rating"]], None

    def run(permutations, seeds):
        rows = {"a": Row(fit), "a, scores shuffled": Row(fit, permutations=permutations)}
        seen.clear()
        found = list(run_rows(rows, design, encoded, seeds, tmp_path / "runs"))
        assert len(found) == len(planned(rows, seeds))
        return [(name, seed, run.about["permutation"]) for name, seed, run in found]

    assert run(2, [0]) == [("a", 0, None), ("a, scores shuffled", 0, 1), ("a, scores shuffled", 0, 2)]
    true, shuffled = seen[:2], seen[2:]
    assert len(shuffled) == 4
    for (_, names, scores), (_, again, dealt) in zip(true * 2, shuffled):
        assert names == again
        assert [f"s{score:.0f}" for score in scores] == names
        assert sorted(dealt) == scores != dealt
    assert shuffled[0][2] != shuffled[2][2]
    # More of them, and more seeds: only these are computed, from other permutations.
    assert [each[1:] for each in run(3, [0, 1])[1:4]] == [(0, 1), (0, 2), (0, 3)]
    assert [seed for seed, *_ in seen] == [0] * 2 + [1] * 8
    assert len({tuple(dealt) for *_, dealt in [*shuffled, *seen[:2], *seen[4:]]}) == 12


@pytest.mark.parametrize("reason", [NotRun("no server"), SessionError("all scores are 3")])
def test_a_row_that_cannot_be_run_is_tried_again(reason, sessions, encoded, tmp_path):
    design, row = Design(sessions, folds=2), Counted(reason)
    [(_, _, found)] = run_rows({"a": Row(row)}, design, encoded, [0], tmp_path / "runs")
    assert isinstance(found, NotRun)
    assert str(found) == str(reason)
    row.fail = None
    [(_, _, found)] = run_rows({"a": Row(row)}, design, encoded, [0], tmp_path / "runs")
    assert isinstance(found, Run)


def test_other_data_or_folds_are_computed_anew(sessions, encoded, tmp_path, caplog):
    row = Counted()
    changed = with_column(sessions, "score", [score + 0.5 for score in sessions["score"]])
    for calls, design in (
        (2, Design(sessions, folds=2)),
        (4, Design(changed, folds=2)),
        (7, Design(changed, folds=3)),
    ):
        list(run_rows({"a": Row(row)}, design, encoded, [0], tmp_path / "runs"))
        assert row.calls == calls
    assert caplog.text.count("runs with other data are computed anew") == 1
    assert caplog.text.count("runs with other folds are computed anew") == 1


def test_a_row_with_other_settings_is_computed_anew_and_no_other(sessions, encoded, tmp_path, caplog):
    design, fits = Design(sessions, folds=2), {"a": Counted(), "b": Counted()}

    def run(**settings):
        rows = {name: Row(fit, settings.get(name, {}), permutations=2) for name, fit in fits.items()}
        list(run_rows(rows, design, encoded, [0], tmp_path / "runs"))
        return [fit.calls for fit in fits.values()]

    assert run(a={"weight": 0.1, "betas": (0.9, 0.99)}) == [4, 4]
    assert run(a={"betas": (0.9, 0.99), "weight": 0.1}) == [4, 4]
    assert run(a={"weight": 0.3, "betas": (0.9, 0.99)}) == [8, 4]
    assert caplog.text.count("runs with other settings are computed anew") == 1
    other = {name: Encoded(each.model, each.sessions, dtype=torch.bfloat16) for name, each in encoded.items()}
    encoded.update(other)
    assert run(a={"weight": 0.3, "betas": (0.9, 0.99)}) == [12, 8]
    assert "with other features are" in caplog.text


def test_an_interrupted_row_leaves_no_file(sessions, encoded, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        list(run_rows({"a": Row(Counted(KeyboardInterrupt()))}, Design(sessions), encoded, [0], tmp_path / "runs"))
    assert not list(tmp_path.glob("runs/**/*.npz"))


def test_encoding_is_not_counted(sessions, encoded, tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))

    def row(train, test, features, seed):
        assert set(features["test"]) == set(features["train"]) == {"turns", "reactions"}
        return [np.zeros(len(turns)) for turns in test["turn_rating"]], None

    [(_, _, run)] = run_rows({"a": Row(row)}, Design(sessions, folds=2), encoded, [0], tmp_path / "runs")
    assert run.seconds == 2  # the clock is asked at the ends of two fits, and by nothing between them
    assert np.isnan(run.predicted_scores).all()


def test_a_fingerprint_is_of_the_contents(sessions):
    assert fingerprint(sessions) == fingerprint(sessions.select(range(12))) == fingerprint(toy_sessions(12, seed=0))
    assert fingerprint(sessions) != fingerprint(sessions.select(range(11)))
    assert len(fingerprint(sessions)) == 32
    json.dumps(versions())
