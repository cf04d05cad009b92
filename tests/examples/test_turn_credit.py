"""Summaries of the records of `turn_credit.py`, on made-up curves."""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig, get_peft_model
from policy_fixtures import make_sessions
from scripts import RECIPES, as_module
from shown import shown
from tiny import reward_model

from geli_hf.alignment import load_policy, small_policy
from geli_hf.training.script import run_main

ROOT = Path(__file__).parents[2]
turn_credit = as_module(RECIPES / "turn_credit.py")


def records(slopes: dict[str, float], *, steps: int = 60, seeds: int = 3) -> list[dict]:
    """Values that rise by `slope` a step; seeds differ by a constant."""
    return [
        {
            "arm": arm,
            "seed": seed,
            "sessions_per_step": 16,
            "value": [slope * step + 0.001 * seed for step in range(steps)],
        }
        for arm, slope in slopes.items()
        for seed in range(seeds)
    ]


def test_an_arm_that_rises_twice_as_fast_needs_half_of_the_samples():
    found = turn_credit.compare(records({"session": 0.01, "turn, gamma 0": 0.02}))
    assert found["turn, gamma 0"]["share"][0] == pytest.approx(0.5, abs=0.05)
    assert found["session"]["share"][0] == 1.0
    low, high = found["turn, gamma 0"]["share"][1:]
    assert low <= found["turn, gamma 0"]["share"][0] <= high
    assert found["turn, gamma 0"]["over_control"][0] == pytest.approx(0.01 * (59 - 4.5 - 3), abs=1e-6)


def test_an_arm_that_never_gets_there_needs_more_than_all():
    found = turn_credit.compare(records({"session": 0.01, "turn, gamma 1": 0.001}))
    assert found["turn, gamma 1"]["samples"][0] == math.inf


def test_a_moving_average_looks_back_only():
    [made] = records({"session": 1.0}, seeds=1)
    _, [curve] = turn_credit.curves([made], "session")
    values = np.array(made["value"])
    assert curve.tolist() == pytest.approx(
        [values[max(0, stop - turn_credit.SMOOTH) : stop].mean() for stop in range(1, 61)]
    )


# TRL asks transformers for a name that transformers is about to change.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_run_of_two_steps(tmp_path, monkeypatch):
    small = {"steps": "2", "turns": "1", "groups": "1", "learning-rates": "1e-3"}
    words = [word for name, value in small.items() for word in (f"--{name}", value)]
    words += ["--policy", str(turn_credit.POLICY), "--seeds", "0", "--arms", "session", "turn, gamma 0"]
    monkeypatch.setattr(sys, "argv", ["turn_credit.py", *shown("turn_credit"), *words])
    monkeypatch.setattr(turn_credit, "SMOOTH", 1)
    monkeypatch.setattr(turn_credit, "LAST", 1)
    monkeypatch.chdir(tmp_path)
    turn_credit.main()
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in Path("runs/turn_credit/runs").glob("*.json")]
    assert sorted(run["arm"] for run in runs) == ["session", "turn, gamma 0"]
    assert all(len(run["value"]) == 2 for run in runs)


def test_a_missing_stage_is_named_in_one_line(tmp_path, monkeypatch):
    run = ["--run", str(tmp_path), "--seeds", "0", "--arms", "session", "--output-dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["turn_credit.py", *run, "--learning-rates", "1e-3"])
    with pytest.raises(SystemExit, match="sft_adapter"):
        run_main(turn_credit.main)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_real_speakers_learn_from_one_reward_and_are_judged_by_another(tmp_path, monkeypatch):
    base = tmp_path / "base"
    sessions = make_sessions(8)
    for part in small_policy(sessions, hidden_size=32, layers=1, vocab_size=400):
        part.save_pretrained(base)
    model, tokenizer = load_policy(base)
    adapter = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    for part in (adapter, tokenizer):
        part.save_pretrained(tmp_path / "sft_adapter")
    models = {name: reward_model(backbone) for name, backbone in (("reward", "bert"), ("gold", "llama"))}
    for name, made in models.items():
        made.save_pretrained(tmp_path / name)
    monkeypatch.setattr(turn_credit, "load_sessions", lambda name, half: sessions)
    options = argparse.Namespace(
        run=tmp_path, output_dir=tmp_path / "out", steps=1, turns=2, groups=1, temperature=1.0
    )
    scored = []
    judge = turn_credit.GeliSessionReward(models["gold"].eval())
    real = turn_credit.SessionRollouts.__call__
    monkeypatch.setattr(
        turn_credit.SessionRollouts,
        "__call__",
        lambda self, prompts, trainer: scored.append(real(self, prompts, trainer)) or scored[-1],
    )
    record = turn_credit.train(options, "turn, gamma 0.5", 0, 1e-3)
    values = [value for row in judge(scored[0]["rollout"]) for value in row]
    assert record["value"] == [pytest.approx(np.mean(values), abs=1e-4)]
    assert record["turn_reward"] != record["value"]
    assert record["turns"] == [2.0]
    turn_credit.real_models.cache_clear()


def test_the_report_is_written_from_the_records(tmp_path):
    options = argparse.Namespace(output_dir=tmp_path, run=None, reward="true", steps=60, groups=2, turns=6)
    turn_credit.report(options, records({"session": 0.01, "turn, gamma 0": 0.02}))
    table = (tmp_path / "turn_credit.md").read_text(encoding="utf-8")
    assert "| turn, gamma 0 |" in table
    assert "3 seeds, 60 steps of 2 groups of 8 sessions" in table
    assert len(json.loads((tmp_path / "records.json").read_text(encoding="utf-8"))["runs"]) == 6
    assert (tmp_path / "turn_credit.png").stat().st_size > 5000
