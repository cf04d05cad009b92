"""The script that compares methods, from configuration files to what it leaves, with a tiny model on the sample."""

import json

import pytest
import yaml
from scripts import EXAMPLES, as_module
from shown import shown
from tiny import backbone
from toy import toy_sessions

from geli_hf import GeliRewardArguments, GeliRewardModel
from geli_hf.settings import SettingsError, build

CONFIGS = sorted((EXAMPLES / "configs").glob("compare_*.yaml"))
ROWS = ["log length", "RRD, all turns", "GELI (affect)", "LLM-GELI", "hindsight"]


@pytest.fixture(scope="module")
def script():
    return as_module(EXAMPLES / "compare_methods.py")


@pytest.fixture
def compare(script, tmp_path, monkeypatch, capsys):
    """Runs the script on ten conversations of the sample and gives what it printed."""
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    settings = {
        "output_dir": str(tmp_path / "run"),
        "seeds": [0],
        "folds": 2,
        "rows": ROWS,
        "data": {"corpus": "sample", "options": {"conversations": 10}},
        "model": {"backbone": backbone("bert"), "li_weights": {"affect": 0.3}},
        "training": {"num_train_epochs": 1},
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(settings))

    def compare(*options: str) -> str:
        script.main([*shown("compare_methods"), "--config", str(file), *options])
        return capsys.readouterr().out

    return compare


def test_a_comparison_is_written_and_resumed_by_row(compare, tmp_path):
    printed, run = compare(), tmp_path / "run"
    assert printed.count("not run: LLM-GELI: the sessions have no feedback 'llm'") == 1
    assert (run / "comparison.md").read_text() in printed
    assert "20 sessions of 10 conversations, 2 folds, out of fold" in printed
    assert "The sample is simulated" in printed
    records = json.loads((run / "comparison.json").read_text())
    assert [record["row"] for record in records] == ROWS
    assert [record["row"] for record in records if not record["run"]] == ["LLM-GELI"]
    assert (run / "comparison.png").exists()

    files = {file: file.stat().st_mtime_ns for file in run.glob("rows/**/*.npz")}
    assert len(files) == 4
    gone = run / "rows" / "seed-0" / "hindsight.npz"
    gone.unlink()
    compare("--resume", "--seeds", "[0, 1]", "--against", "log length")
    for file, written in files.items():
        assert (file.stat().st_mtime_ns == written) == (file != gone)
    records = json.loads((run / "comparison.json").read_text())
    assert records[0]["seeds"] == [0, 1]
    assert records[0]["missing"]["difference"] == "the row that the others are compared with"


def test_a_test_set_of_its_own(compare):
    options = json.dumps({"conversations": 3, "seed": 1})
    printed = compare("--data.test_options", options, "--rows", "[RUDDER]", "--against", "RUDDER")
    assert "6 sessions of 3 conversations, learned from 20 others" in printed
    assert "| RUDDER" in printed


def test_what_has_no_score_is_left_out_and_told(compare, tmp_path):
    def corpus(scores):
        sessions = toy_sessions(len(scores)).remove_columns(["feedback", "turn_rating"])
        rows = [row | {"score": score} for row, score in zip(sessions, scores)]
        (tmp_path / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return ["--data.corpus", str(tmp_path / "corpus.jsonl"), "--data.options", "{}"]

    options = ["--rows", "[hindsight]", "--against", "log length"]
    printed = compare(*corpus([1.0, None, 2.0, 3.0]), *options)
    assert "1  of them left out: no score" in printed
    assert "3 sessions of 3 conversations, 2 folds" in printed
    assert "– Within-session Spearman: no turn has a turn_rating." in printed
    with pytest.raises(SettingsError, match=r"^data: none of the 3 sessions"):
        compare(*corpus([None] * 3), *options, "--output_dir", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"^data: folds: "):
        compare(*corpus([4.0]), *options, "--output_dir", str(tmp_path / "one"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--rows", "[RRD]"], "rows: .*RRD"),
        (["--against", "GELI"], "against: .*GELI"),
        (["--folds", "11"], "data: folds: .*11"),
        (["--seeds", "[]"], "seeds: "),
        (["--seeds", "[1, 1]"], r"seeds: .*\[1, 1\]"),
        (["--data.options", "{split: x}"], "data: .*split"),
        (["--model.backbone", "/nowhere"], "model: "),
        (["--training.ge", "x"], "ge: "),
    ],
)
def test_settings_that_cannot_be_are_named(options, named, compare):
    with pytest.raises(SettingsError, match=named):
        compare(*options)


def test_rows_are_computed_anew_where_their_settings_changed(compare, tmp_path):
    rows = "[log length, hindsight, LI alone (affect)]"
    compare("--rows", rows)
    with pytest.raises(SettingsError, match="--resume goes on with it"):
        compare()
    files = {file: file.stat().st_mtime_ns for file in tmp_path.glob("run/rows/**/*.npz")}
    compare("--resume", "--rows", rows, "--model.li_weights", "{affect: 0.4}")
    assert {file.stem for file, written in files.items() if file.stat().st_mtime_ns != written} == {"GELI (affect)"}
    assert yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())["model"]["li_weights"] == {"affect": 0.4}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_configuration_has_known_settings_of_known_types(file, script):
    settings = script.parse_settings(["--config", str(file)], script.CompareSettings, script.SECTIONS)
    build(script.CompareSettings, settings[""])
    parts = {name: build(script.SECTIONS[name], settings[name]) for name in ("data", "model")}
    build(GeliRewardArguments, {"output_dir": "x", "use_cpu": True} | settings["training"])
    GeliRewardModel.from_backbone(backbone("bert"), **parts["model"].config)
    assert set(parts["model"].li_weights) == set(parts["model"].signals)
