"""`geli learning-curve SESSIONS`: table, files and errors."""

import json

import pytest
from PIL import Image
from tiny import backbone
from toy import NAN, toy_sessions, with_column

from geli_hf import GeliRewardModel
from geli_hf.cli import main
from geli_hf.data.rows import write_jsonl
from geli_hf.evaluation.learning_curve import learning_curve

FILES = ["learning_curve.json", "learning_curve.png"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command with an empty cache, and get what it prints."""
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))

    def run(*argv: str) -> str:
        main(["learning-curve", *argv, "--backbone", backbone("bert")])
        return capsys.readouterr().out

    return run


def test_a_jsonl_file(run, tmp_path):
    sessions, path, output = toy_sessions(84), tmp_path / "sessions.jsonl", tmp_path / "out"
    write_jsonl(with_column(sessions, "score", [NAN, *sessions["score"][1:]]), path)
    printed = run(str(path), "--context-messages", "0", "--seed", "3", "-o", str(output))
    assert sorted(file.name for file in output.iterdir()) == FILES
    record = json.loads((output / "learning_curve.json").read_text(encoding="utf-8"))
    assert record["advice"] in printed
    assert [row["sessions"] for row in record["rows"]] == [31, 62]
    assert record["held_out_sessions"] == 21
    assert Image.open(output / "learning_curve.png").size[0] > 500
    model = GeliRewardModel.from_backbone(backbone("bert"), context_messages=0)
    assert str(learning_curve(model, sessions.select(range(1, 84)), seed=3)) == printed


def test_a_corpus_with_its_options(run):
    printed = run("sample", "--options", '{"conversations": 36, "seed": 1}')
    assert "| 54 " in printed
    assert "No intervals" in printed


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--output", ["-o", "SESSIONS"]),
        ("--backbone", ["--backbone", "./none"]),
        ("--backbone", ["--backbone", backbone("bert"), "--context-messages", "-1"]),
        ("sessions", ["--backbone", backbone("bert")]),
    ],
)
def test_errors_name_the_argument(argument, words, tmp_path, monkeypatch):
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    path = str(write_jsonl(toy_sessions(60), tmp_path / "sessions.jsonl"))
    with pytest.raises(SystemExit) as caught:
        main(["learning-curve", path, *(path if word == "SESSIONS" else word for word in words)])
    assert caught.value.code.startswith(f"geli learning-curve: {argument}: ")
