"""Every method learns the value of turns in the toy corpus, each from its own input."""

import copy
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from tiny import backbone
from toy import toy_sessions, with_column

from geli_hf import GeliRewardModel
from geli_hf.evaluation.methods.folds import Design, Encoded
from geli_hf.evaluation.methods.rows import (
    ATTRIBUTION,
    HINDSIGHT,
    LLM_ROWS,
    SUPERVISED,
    NotRun,
    learned_rows,
    trivial_rows,
)
from geli_hf.evaluation.methods.runs import run_rows
from geli_hf.metrics.metrics import auc_per_session
from geli_hf.sessions import add_signal
from geli_hf.training import fit_hindsight

ARGUMENTS = {"num_train_epochs": 8, "learning_rate": 0.02, "use_cpu": True}
TRIVIAL = trivial_rows()


@pytest.fixture(scope="module")
def model():
    return GeliRewardModel.from_backbone(backbone("bert"), context_messages=0)


@pytest.fixture(scope="module")
def sessions():
    return toy_sessions(60, seed=0)


@pytest.fixture(scope="module")
def run(model, sessions, tmp_path_factory):
    """Rewards and scores by a row for the last 20 sessions, learned from the others."""
    cache_dir = tmp_path_factory.mktemp("features")

    def run(row, rows=sessions):
        parts = {"train": np.arange(len(rows) - 20), "test": np.arange(len(rows) - 20, len(rows))}
        encoded = Encoded(model, rows, cache_dir=cache_dir)
        train, test = (rows.select(part) for part in parts.values())
        rewards, scores = row.fit(train, test, {name: encoded.select(part) for name, part in parts.items()}, 0)
        assert [len(each) for each in rewards] == [len(each) for each in test["turn_rating"]]
        return rewards, scores, test

    return run


@pytest.fixture(scope="module")
def learned(model):
    return learned_rows(model, ["affect", "noise"], ARGUMENTS, {"noise": 0.5})


def test_the_names_of_the_rows(learned, model):
    assert list(learned) == [
        "LI alone (affect)",
        "LI alone (noise)",
        "IRCR",
        "RUDDER",
        "RRD, 8 turns",
        "RRD, 32 turns",
        "RRD, all turns",
        "GELI (affect)",
        "GELI (affect), scores shuffled",
        "GELI (noise)",
        *LLM_ROWS.values(),
        "hindsight",
        "hindsight, scores shuffled",
        "hindsight, seeing the reaction",
        "hindsight, seeing the reaction, scores shuffled",
        SUPERVISED,
    ]
    assert [row.permutations for row in learned.values() if row.permutations] == [2, 8, 8]
    without = learned_rows(model, [], ARGUMENTS, permutations=0, trained_permutations=0)
    assert not any(row.permutations for row in without.values())
    assert set(without) < set(learned)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("LI alone (affect)", 0.9),
        ("IRCR", 0.8),
        ("RUDDER", 0.6),
        ("RRD, all turns", 0.8),
        ("GELI (affect)", 0.8),
        (HINDSIGHT, 0.9),
        (ATTRIBUTION, 0.9),
        (SUPERVISED, 0.9),
    ],
)
def test_methods_find_the_value_of_words(name, least, learned, run):
    rewards, scores, test = run(learned[name])
    assert np.nanmean(auc_per_session(rewards, test["turn_rating"])) > least
    if name not in ("LI alone (affect)", SUPERVISED):  # which never saw a score
        assert np.corrcoef(scores, test["score"])[0, 1] > 0.5


def test_a_random_signal_teaches_nothing(learned, model, run):
    def auc(row):
        rewards, _, test = run(row)
        return np.nanmean(auc_per_session(rewards, test["turn_rating"]))

    assert abs(auc(learned["LI alone (noise)"]) - 0.5) < 0.25
    rows = learned_rows(model, ["noise"], ARGUMENTS, {"noise": 0.0})
    rrd, unweighted = run(rows["RRD, all turns"])[0], run(rows["GELI (noise)"])[0]
    np.testing.assert_array_equal(np.concatenate(rrd), np.concatenate(unweighted))


def test_fits_leave_the_shared_model_unchanged(model, learned, run, capsys):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in ("RUDDER", HINDSIGHT, ATTRIBUTION):
        run(learned[name])
    assert (model.config.head, model.config.aggregation) == ("linear", "mean")
    assert not model.config.reward_quantiles
    assert all((tensor == before[name]).all() for name, tensor in model.state_dict().items())
    assert not capsys.readouterr().out


def test_the_supervised_row_alone_reads_turn_ratings(learned, run, sessions):
    """With reversed ratings its rewards are reversed, and those of no other row."""
    turned = with_column(sessions, "turn_rating", [[-value for value in row] for row in sessions["turn_rating"]])
    for name in ("RRD, 8 turns", "GELI (affect)", HINDSIGHT, ATTRIBUTION):
        one, other = run(learned[name])[0], run(learned[name], turned)[0]
        np.testing.assert_array_equal(np.concatenate(one), np.concatenate(other))
    rewards, _, test = run(learned[SUPERVISED], turned)
    assert np.nanmean(auc_per_session(rewards, test["turn_rating"])) > 0.9


def test_the_attribution_alone_reads_the_reaction(learned, run, sessions):
    """Other feedback and answers in the test sessions change its rewards alone."""

    def changed(row, index):
        if index < len(sessions) - 20:
            return row
        answered = [turn if turn["role"] == "assistant" else turn | {"content": "happy"} for turn in row["messages"]]
        felt = {name: [-value for value in values] for name, values in row["feedback"].items()}
        return row | {"messages": answered, "feedback": felt}

    other = sessions.map(changed, with_indices=True, features=sessions.features)
    for name in ("GELI (affect)", HINDSIGHT):
        np.testing.assert_array_equal(*(np.concatenate(run(learned[name], rows)[0]) for rows in (sessions, other)))
    one, two = (np.concatenate(run(learned[ATTRIBUTION], rows)[0]) for rows in (sessions, other))
    assert np.abs(one - two).max() > 0.1


@pytest.mark.parametrize("name", [HINDSIGHT, ATTRIBUTION])
def test_shuffled_scores_teach_nothing(name, learned, model, sessions, tmp_path):
    """All turns of the toy lie on one line, good ones on one side: chance decides which side is rewarded."""
    encoded = Encoded(model, sessions, cache_dir=tmp_path)
    rows = {name: learned[name], "control": replace(learned[name], permutations=4)}
    design, features = Design(sessions, folds=2), {"train": encoded, "judged": encoded}
    found = [run for *_, run in run_rows(rows, design, features, [0], tmp_path / "rows")]
    true, *shuffled = (np.nanmean(auc_per_session(run.turn_rewards, sessions["turn_rating"])) for run in found)
    assert true > 0.9
    assert len({np.concatenate(run.turn_rewards).tobytes() for run in found[1:]}) > 2  # some may find nothing at all
    assert min(shuffled) < 0.5


def test_the_attribution_from_given_features(learned, run, sessions, model, tmp_path):
    """Given features and features that it computes itself give the same rewards."""
    train, test = sessions.select(range(40)), sessions.select(range(40, 60))
    fit = fit_hindsight(copy.deepcopy(model), train, signals=["affect", "noise"], cache_dir=tmp_path)
    read = fit.attribution.score_sessions(test)
    rewards, scores, _ = run(learned[ATTRIBUTION])
    np.testing.assert_allclose(
        np.concatenate(rewards), np.concatenate([row["turn_rewards"] for row in read]), atol=1e-4
    )
    np.testing.assert_allclose(scores, [row["score"] for row in read], atol=1e-4)
    encoded = Encoded(model, test, cache_dir=tmp_path)
    for row, expected in zip(fit.attribution.score_sessions(test, batch_size=3, features=encoded.features), read):
        for name, part in expected["parts"].items():
            assert row["parts"][name] == pytest.approx(part, abs=1e-4)


def test_settings_of_the_rows(model, learned):
    json.dumps({name: row.settings for name, row in learned.items()})
    assert learned["GELI (noise)"].settings["training"]["li_weight"] == 0.5
    assert learned["GELI (affect)"].settings["training"]["num_train_epochs"] == 8

    def changed(*arguments, base=model):
        rows = learned_rows(base, *arguments)
        return {name for name, row in learned.items() if name not in rows or rows[name].settings != row.settings}

    signals = ["affect", "noise"]
    assert changed(signals, ARGUMENTS, {"noise": 0.5}) == set()
    assert changed(signals, ARGUMENTS, {"noise": 0.4}) == {"GELI (noise)"}
    closed = {name for name in learned if name.startswith("hindsight")}
    assert changed(signals, ARGUMENTS | {"learning_rate": 1.0}, {"noise": 0.5}) == set(learned) - closed
    assert closed <= changed(["noise"], ARGUMENTS, {"noise": 0.5})
    wider = copy.deepcopy(model)
    wider.config.aggregation = "sum"
    assert changed(signals, ARGUMENTS, {"noise": 0.5}, base=wider) == set(learned)


def test_a_row_that_lacks_something_names_it(learned, run, sessions, model):
    with pytest.raises(NotRun, match="no feedback 'llm'"):
        run(learned["LLM-GELI"])
    smile = learned_rows(model, ["smile"], ARGUMENTS)
    with pytest.raises(NotRun, match="no feedback 'smile'"):
        run(smile["LI alone (smile)"])
    unrated = sessions.remove_columns("turn_rating")
    with pytest.raises(NotRun, match="no turn of the training sessions has a turn_rating"):
        learned[SUPERVISED].fit(unrated, unrated, None, 0)


def test_a_signal_of_a_language_model_has_its_own_row(run, sessions, model):
    said = add_signal(sessions, "llm", sessions["turn_rating"][:])
    rows = learned_rows(model, ["affect", "llm"], ARGUMENTS)
    assert "LI alone (llm)" not in rows
    rewards, _, test = run(rows["LLM-GELI"], said)
    assert np.nanmean(auc_per_session(rewards, test["turn_rating"])) > 0.9


def test_trivial_rows_need_no_backbone(sessions):
    train, test = sessions.select(range(40)), sessions.select(range(40, 60))
    rewards, scores = TRIVIAL["predict the mean"].fit(train, test, None, 0)
    assert scores == pytest.approx([np.mean(train["score"])] * 20)
    assert not np.concatenate(rewards).any()
    _, scores = TRIVIAL["predict the mode"].fit(train, test, None, 0)
    assert set(scores) == {max(set(train["score"]), key=list(train["score"]).count)}
    rewards, scores = TRIVIAL["uniform, given the score"].fit(train, test, None, 0)
    assert scores is None
    assert [each[0] for each in rewards] == test["score"][:]


def test_a_missing_package_stops_one_row(monkeypatch, sessions):
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(NotRun, match=r"pip install 'geli-hf\[text\]'"):
        TRIVIAL["next-turn sentiment"].fit(sessions, sessions, None, 0)
