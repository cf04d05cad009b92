"""`geli pairs SESSIONS --policy NAME`: rows of each format, the report, and errors before anything is loaded."""

import json
import math
import re
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset
from policy_fixtures import LINES, make_sessions, policy_folder, reward_model, sessions  # noqa: F401

from geli_hf import load_sessions
from geli_hf.alignment import GeliReward, dialogue_prompts, sample_replies
from geli_hf.alignment.sampling import SampledReply
from geli_hf.cli import main
from geli_hf.data.rows import write_jsonl

COLUMNS = {
    "dpo": {"prompt", "chosen", "rejected", "margin", "reward_chosen", "reward_rejected"},
    "kto": {"prompt", "completion", "label"},
    "best": {"prompt", "completion"},
}


@pytest.fixture(scope="module")
def folder(policy_folder, reward_model, tmp_path_factory) -> Path:
    """Sessions, a policy and a reward with guards."""
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "policy").symlink_to(policy_folder)
    GeliReward(reward_model, clip=1.0).save_pretrained(folder / "reward")
    write_jsonl(make_sessions(4), folder / "sessions.jsonl")
    return folder


@pytest.fixture
def pairs(folder, tmp_path, monkeypatch, capsys):
    """Run the command in that folder: the rows, and what it printed."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))

    def run(*argv: str, output: str = "pairs.jsonl") -> tuple[list[dict], str]:
        path = str(tmp_path / output)
        models = ["--policy", "policy/", "--reward", "reward", "--max-new-tokens", "8"]
        main(["pairs", "sessions.jsonl", *models, *argv, "-o", path])
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        return rows, capsys.readouterr().out

    return run


@pytest.fixture
def problem(pairs, tmp_path):
    """Run a command that can't succeed, and get its message; nothing is written."""

    def run(*argv: str) -> str:
        with pytest.raises(SystemExit) as caught:
            pairs(*argv)
        assert not (tmp_path / "pairs.jsonl").exists()
        return str(caught.value.code)

    return run


def sessions_of(folder: Path) -> Dataset:
    return load_sessions(folder / "sessions.jsonl")


@pytest.mark.parametrize("kind", COLUMNS)
def test_rows_of_each_format(kind, pairs, folder, reward_model, tmp_path):
    rows, printed = pairs("--format", kind, *(["--length-ratio", "3"] if kind == "dpo" else []))
    assert rows
    assert all(set(row) == COLUMNS[kind] for row in rows)
    prompts = dialogue_prompts(sessions_of(folder), context_messages=6)["prompt"][:]
    assert all(row["prompt"] in prompts for row in rows)
    dataset = load_dataset("json", data_files=str(tmp_path / "pairs.jsonl"), split="train", cache_dir=str(tmp_path))
    assert set(dataset.column_names) == COLUMNS[kind]
    said = [int(number) for number in re.findall(r"^  (\d+) prompts gave none", printed, re.MULTILINE)]
    if kind != "kto":
        assert len(rows) + sum(said) == len(prompts)
    assert f"{len(rows)} rows of {len(prompts)} prompts" in printed
    if kind == "dpo":
        for row in rows:
            turns = [[*row["prompt"], *row[side]] for side in ("chosen", "rejected")]
            chosen, rejected = reward_model.score_messages(turns).tolist()
            assert (row["reward_chosen"], row["reward_rejected"]) == pytest.approx((chosen, rejected), abs=1e-4)
            assert row["margin"] == pytest.approx(chosen - rejected, abs=1e-4)
            assert row["margin"] > 0


def test_the_same_seed_gives_the_same_rows(pairs):
    first, _ = pairs("--format", "best")
    assert pairs("--format", "best")[0] == first
    assert pairs("--format", "best", "--seed", "1")[0] != first


def test_the_recorded_reply_is_one_more(pairs, folder, monkeypatch):
    recorded = {json.dumps(row["prompt"]): row["reply"] for row in dialogue_prompts(sessions_of(folder))}
    monkeypatch.setattr(
        "geli_hf.alignment.pairs.sample_replies",
        lambda model, tokenizer, prompts, **options: [SampledReply("", [], [0], False) for _ in prompts],
    )
    rows, printed = pairs("--format", "best", "--recorded", "-n", "1", "--context-messages", "8")
    assert all(row["completion"][0]["content"] == recorded[json.dumps(row["prompt"])] for row in rows)
    assert f"{len(rows)} of {len(rows)} sampled replies" in printed


def test_the_first_sessions_only(pairs, folder):
    prompts = dialogue_prompts(sessions_of(folder).select([0, 1]), context_messages=6)
    _, printed = pairs("--limit", "2", "--format", "best")
    assert f"of {len(prompts)} prompts" in printed


def test_options_of_sampling(pairs, monkeypatch):
    seen = {}

    def spy(model, tokenizer, prompts, **options):
        seen.update(options, dtype=str(model.dtype), device=str(model.device))
        return sample_replies(model, tokenizer, prompts, **options)

    monkeypatch.setattr("geli_hf.alignment.pairs.sample_replies", spy)
    options = ["--temperature", "1.5", "--seed", "3", "--batch-size", "5", "--dtype", "bfloat16", "--device", "cpu"]
    pairs(*options, "--format", "best")
    assert seen | {"temperature": 1.5, "seed": 3, "batch_size": 5, "max_new_tokens": 8} == seen
    assert (seen["dtype"], seen["device"]) == ("torch.bfloat16", "cpu")


def test_a_margin_that_nothing_has_writes_nothing(problem):
    said = problem("--margin", "1000")
    assert "--output: " in said
    assert "margin" in said


def test_recorded_replies_without_a_reward_are_left_out(pairs, monkeypatch):
    counted = iter(range(10_000))

    def lossy(self, prompts, completions):
        return [math.nan if next(counted) % 2 else 1.0 for _ in completions]

    monkeypatch.setattr(GeliReward, "turn_rewards", lossy)
    rows, _ = pairs("--format", "best", "-n", "1", "--recorded")
    assert rows
    assert all(row["completion"][0]["content"] not in LINES for row in rows)
    with pytest.raises(SystemExit, match="fewer than two"):
        pairs("-n", "1", "--recorded", output="none.jsonl")


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["-n", "1"], "-n: "),
        (["-n", "1", "--format", "kto"], "-n: "),
        (["--format", "kto", "--length-ratio", "2"], "--length-ratio: "),
        (["--format", "best", "--margin", "1"], "--margin: "),
        (["--policy", "nowhere/at/all"], "--policy: nowhere/at/all"),
        (["--policy", "reward"], "--policy: reward"),
        (["--reward", "policy"], "--reward: "),
        (["--reward", "./nowhere"], "--reward: "),
    ],
)
def test_errors_name_the_option(problem, argv, named):
    assert problem(*argv).startswith(f"geli pairs: {named}")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--margin", "-1"), ("--margin", "nan"), ("--length-ratio", "0.5"), ("--temperature", "x"), ("-n", "0")],
)
def test_numbers_out_of_range(problem, option, value, capsys):
    assert problem(option, value) == "2"
    assert option in capsys.readouterr().err


def test_sessions_without_prompts(folder, problem):
    message = {"role": "assistant", "content": "Hello."}
    row = {"session_id": "a", "conversation_id": "a", "score": 1, "messages": [message]}
    (folder / "opened.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(SystemExit, match="prompts"):
        main(["pairs", str(folder / "opened.jsonl"), "--policy", "x", "-o", str(folder / "none.jsonl")])
    assert not (folder / "none.jsonl").exists()
