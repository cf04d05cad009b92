"""`geli evaluate SESSIONS --model MODEL ...`: models beside baselines, and missing figures."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets
from PIL import Image
from scipy.stats import spearmanr
from tiny import backbone, reward_model
from toy import NAN, toy_sessions, with_column

from geli_hf import GeliRewardModel
from geli_hf.cli import main
from geli_hf.data.rows import write_jsonl
from geli_hf.evaluation import rewards as judging
from geli_hf.evaluation.methods.comparison import compare_scored
from geli_hf.metrics import metrics
from geli_hf.models.attribution import HindsightAttribution, SignalTrust

MODELS = {"first": 5.0, "second": 4.0}  # and the mean of the scores that each learned from


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with two reward models and an attribution."""
    folder = tmp_path_factory.mktemp("models")
    for seed, (name, mean) in enumerate(MODELS.items()):
        reward_model("bert", seed=seed, context_messages=1, score_mean=mean, score_std=2.0).save_pretrained(
            folder / name
        )
    trust = SignalTrust(mean=0.5, std=0.5, slope=0.5, t=3.0, beta=2.0, observed=0.8)
    model = reward_model("bert", context_messages=1, score_mean=5.0, score_std=2.0)
    attribution = HindsightAttribution(model, np.zeros(32), np.zeros(32), {"affect": trust})
    attribution.save_pretrained(folder / "teacher")
    return folder


@pytest.fixture
def evaluate(folder, tmp_path, monkeypatch, capsys):
    """Run the command on such sessions: the records by row, and the Markdown."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(metrics, "RESAMPLES", 100)

    def evaluate(sessions: Dataset, *argv: str, models=("first",)) -> tuple[dict[str, dict], str]:
        path, output = tmp_path / "sessions.jsonl", tmp_path / "out"
        write_jsonl(sessions, path)
        main(["evaluate", str(path), "--model", *models, "-o", str(output), *argv])
        records = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
        printed = capsys.readouterr().out
        assert printed == (output / "evaluation.md").read_text(encoding="utf-8")
        return {record["row"]: record for record in records}, printed

    return evaluate


@pytest.fixture
def problem(folder, monkeypatch, capsys):
    """Run a command that can't succeed, in which no model may be loaded, and get its message."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(judging, "open_model", None)

    def problem(*argv: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["evaluate", *argv])
        return caught.value.code

    return problem


def spearman(rewards, ratings) -> np.ndarray:
    """(sessions,) by another way than the package's; 0 for a constant reward, NaN for a constant rating."""
    return np.array(
        [
            NAN if np.ptp(y) == 0 else 0.0 if np.ptp(x) == 0 else spearmanr(x, y).statistic
            for x, y in zip(rewards, ratings)
        ]
    )


def test_models_beside_baselines(evaluate, folder):
    sessions = toy_sessions(24)
    rows, text = evaluate(sessions, models=("first", "second/"))
    assert list(rows) == [
        *("first", "second", "predict the mean", "uniform, given the score", "log length", "position"),
        "next-turn sentiment",
    ]
    score, ratings = np.array(sessions["score"]), sessions["turn_rating"][:]
    each = {}
    for name, mean in MODELS.items():
        scored = GeliRewardModel.from_pretrained(folder / name).score_sessions(sessions)
        each[name] = spearman([row["turn_rewards"] for row in scored], ratings)
        figures = rows[name]
        assert figures["within_session_spearman"]["estimate"] == pytest.approx(np.nanmean(each[name]))
        predicted = np.array([row["score"] for row in scored])
        assert figures["global_loss"]["estimate"] == pytest.approx(np.mean((predicted - score) ** 2), rel=1e-4)
        assert figures["session_spearman"]["estimate"] == pytest.approx(spearmanr(predicted, score).statistic)
        assert figures["global_loss_floor"] == pytest.approx(np.mean((mean - score) ** 2), rel=1e-6)
        assert figures["model"]["name"] == name
        assert not figures["model"]["sees_reaction"]
    assert rows["second"]["difference"]["estimate"] == pytest.approx(np.nanmean(each["second"] - each["first"]))
    assert rows["first"]["missing"]["difference"] == "the row that the others are compared with"
    for key in ("global_loss", "global_loss_floor"):  # predicts 5, as the first model's training scores were
        value = rows["predict the mean"][key]
        assert (value if isinstance(value, float) else value["estimate"]) == pytest.approx(np.mean((5 - score) ** 2))
    assert rows["uniform, given the score"]["session_spearman"]["estimate"] == pytest.approx(1)

    turns = sum(map(len, ratings))
    assert text.startswith(
        f"24 sessions of 24 conversations, 24 of them with a score; {turns} of {turns} turns have a rating.\n"
    )
    for title in ("Within-session Spearman", "minus first", "Length held fixed", "Position held fixed"):
        assert f" {title} |" in text
    for title in (
        "Session Spearman",
        "Within-session AUC",
        "Kendall",
        "Floor of global loss",
        "Local difference (SD)",
    ):
        assert f"{title} |" in text
    assert "*predict the mean* says 5 of every session, the mean of the scores that *first* learned from" in text
    assert "feedback `affect`, positive above its mean here" in text
    assert "Circularity" not in text


def test_an_attribution_is_marked(evaluate):
    sessions = toy_sessions(24, unseen=0.0)
    rows, text = evaluate(sessions, "--against", "log length", models=("first", "teacher"))
    teacher = rows["teacher (sees the reaction)"]
    assert teacher["model"]["sees_reaction"]
    # The toy listener's smile is the rating, and this attribution trusts it more than anything else.
    assert teacher["within_session_spearman"]["estimate"] > rows["first"]["within_session_spearman"]["estimate"]
    assert teacher["local_difference_sd"]["estimate"] > 1
    assert teacher["difference"]["low"] > 0
    assert "is seen by *teacher (sees the reaction)* and *next-turn sentiment*." in text
    assert " minus log length |" in text
    rows, _ = evaluate(sessions, "--against", "teacher", models=("first", "teacher"))
    assert rows["first"]["difference"]["high"] < 0


def test_files_and_progress_bar(evaluate, tmp_path, capsys):
    evaluate(toy_sessions(20))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"evaluation.{kind}" for kind in ("json", "md", "png")
    ]
    assert Image.open(tmp_path / "out" / "evaluation.png").size[0] > 500
    main(["evaluate", str(tmp_path / "sessions.jsonl"), "--model", "first"])
    printed = capsys.readouterr()
    assert "Scoring by first: 100%" in printed.err
    assert printed.out == (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")


def test_a_corpus_with_its_options(folder, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    main(["evaluate", "sample", "--options", '{"conversations": 3, "seed": 1}', "--model", "first"])
    text = capsys.readouterr().out
    assert text.startswith("6 sessions of 3 conversations")
    assert "No intervals: 3 conversations were judged" in text
    assert "The sample is simulated" in text


# ------------------------------------------------------------------------------------------------ missing data


def test_no_turn_ratings(evaluate):
    rows, text = evaluate(toy_sessions(24, turn_rating=False))
    assert "; 0 of " in text
    for title in ("Within-session Spearman", "Length held fixed", "Within-session AUC", "Within-session Kendall"):
        assert f"– {title}: no turn has a turn_rating." in text
    assert rows["position"]["missing"]["difference"] == "no turn has a turn_rating"
    assert rows["first"]["session_spearman"]["low"] > -1
    assert rows["first"]["global_loss"]["estimate"] > 0


def test_one_constant_rating(evaluate):
    sessions = toy_sessions(24)
    _, text = evaluate(with_column(sessions, "turn_rating", [[3.0] * len(row) for row in sessions["turn_rating"]]))
    assert "– Within-session Spearman: no session with two turns of different turn_rating." in text


def test_ratings_of_some_turns_only(evaluate, folder):
    sessions = toy_sessions(24)
    some = [[value if index != 1 else NAN for index, value in enumerate(row)] for row in sessions["turn_rating"]]
    rows, text = evaluate(with_column(sessions, "turn_rating", some))
    turns = sum(map(len, some))
    assert f"; {turns - 24} of {turns} turns have a rating." in text
    scored = GeliRewardModel.from_pretrained(folder / "first").score_sessions(sessions)
    left = [np.delete(row["turn_rewards"], 1) for row in scored], [np.delete(row, 1) for row in some]
    assert rows["first"]["within_session_spearman"]["estimate"] == pytest.approx(np.nanmean(spearman(*left)))


def test_fewer_than_twenty_conversations(evaluate):
    nineteen = toy_sessions(19)
    twice = with_column(nineteen, "session_id", [f"t{index}" for index in range(19)])
    rows, text = evaluate(concatenate_datasets([nineteen, twice]))
    assert "No intervals: 19 conversations were judged" in text
    assert "[" not in text.split("No intervals")[0]
    assert rows["first"]["within_session_spearman"]["low"] is None


def test_all_scores_equal(evaluate):
    sessions = toy_sessions(24)
    rows, text = evaluate(with_column(sessions, "score", [5.0] * 24))
    assert "– Session Spearman: no two sessions with different scores." in text
    assert rows["first"]["within_session_spearman"]["low"] > -1
    assert rows["first"]["global_loss_floor"] == 0


def test_sessions_without_a_score(evaluate):
    sessions = toy_sessions(24)
    whole, _ = evaluate(sessions)
    rows, text = evaluate(with_column(sessions, "score", [NAN] * 24))
    assert "24 conversations, 0 of them with a score;" in text
    assert rows["first"]["within_session_spearman"] == whole["first"]["within_session_spearman"]
    assert "*not run*: the sessions have nothing that it reads (uniform, given the score" in text
    assert "– Global loss: no session with a score and a prediction (first; predict the mean)." in text
    assert "– Floor of global loss: no session with a score" in text
    some = [score if index % 2 else NAN for index, score in enumerate(sessions["score"])]
    rows, text = evaluate(with_column(sessions, "score", some))
    assert "24 conversations, 12 of them with a score;" in text
    assert rows["first"]["within_session_spearman"] == whole["first"]["within_session_spearman"]
    assert rows["first"]["global_loss_floor"] == pytest.approx(np.mean((5 - np.array(some[1::2])) ** 2), rel=1e-6)
    # The difference is over sessions that both have a value of: those with a score.
    assert rows["uniform, given the score"]["difference"]["estimate"] is not None


def test_a_listener_who_never_answers(evaluate):
    sessions = toy_sessions(24)
    silent = [messages[:2] for messages in sessions["messages"]]
    one = sessions.remove_columns(["messages", "feedback", "turn_rating"]).add_column("messages", silent)
    rows, text = evaluate(one, models=("first", "teacher"))
    assert rows["next-turn sentiment"]["not_run"] == "the sessions have nothing that it reads"
    assert "– Local difference (SD): no feedback" in text


def test_the_circularity_of_uss_is_noted(folder):
    sessions = toy_sessions(4)
    runs = judging.run_models(sessions, {"mine": str(folder / "first")})
    rows = compare_scored(sessions, sessions, runs, against="mine")
    text = judging.markdown(sessions, rows, against="mine", corpus="uss")
    assert "Circularity: the turn ratings of USS stand on the user's next line" in text


# ------------------------------------------------------------------------------------------------ errors


def test_errors_come_before_a_model_is_loaded(problem, tmp_path):
    sessions = str(write_jsonl(toy_sessions(3), tmp_path / "sessions.jsonl"))
    for argument, words in (
        ("--against", ["--model", "first", "--against", "best"]),
        ("--model", ["--model", "./none"]),
        ("--model", ["--model", "first", backbone("bert")]),
        ("--model", ["--model", "first", "first/"]),
        ("--output", ["--model", "first", "-o", sessions]),
        ("--options", ["--model", "first", "--options", '{"speed": 1}']),
    ):
        assert problem(sessions, *words).startswith(f"geli evaluate: {argument}: ")
    assert "data_dir: " in problem("uss", "--model", "first")
