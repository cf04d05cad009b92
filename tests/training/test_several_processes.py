"""Two processes learn what one does that has the batches of both in one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import sessions_of
from safetensors.torch import load_file
from tiny import backbone

from geli_hf import GeliRewardModel
from geli_hf.training.data import SessionSampler

COMMON = {"num_train_epochs": 4, "learning_rate": 1e-2, "li_weight": 0.4, "seed": 3}
SAMPLED = {"rrd_turns": 2, "rrd_replacement": True}
# 32 sessions are four batches of 8; 27 are three and a rest of 3, of which one process gets all.
CASES = {
    "divides": {"sessions": 32, "held_out": 12, "model": {}, "training": COMMON},
    "does not divide": {"sessions": 27, "held_out": 11, "model": {}, "training": COMMON | SAMPLED},
    "accumulates": {
        "sessions": 27,
        "held_out": 7,
        "model": {"head": "mlp", "aggregation": "sum"},
        "training": COMMON | SAMPLED | {"gradient_accumulation_steps": 3, "rrd_replacement": False},
    },
    "saves between epochs": {
        "sessions": 27,
        "held_out": 7,
        "model": {},
        "training": COMMON
        | SAMPLED
        | {"save_strategy": "steps", "eval_strategy": "steps", "logging_strategy": "steps"}
        | {"save_steps": 3, "eval_steps": 3, "logging_steps": 3}
        | {"li_slope": True, "li_weight": 0.5},
        "resume_at": 6,  # of 4 steps an epoch
    },
    "trains the backbone": {
        "sessions": 19,
        "held_out": 5,
        "model": {"head": "rudder", "head_hidden_size": 16, "aggregation": "sum"},
        "training": COMMON | {"ge": "rudder", "freeze_backbone": False, "optim": "sgd", "num_train_epochs": 2},
    },
}
pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Results of one process and of two, a folder for each case."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    (two / "cases.json").write_text(json.dumps(CASES))
    worker = [str(Path(__file__).with_name("processes.py")), backbone("bert"), str(two / "cases.json")]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    # The one has a process of its own too, in which no other test has left anything (accelerate shares its state).
    for command in ([*launcher, *worker, str(two)], [*worker, str(one)]):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
    return one, two


def left_by(folder: Path, rank: int = 0) -> dict:
    return json.loads((folder / f"process-{rank}.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_the_model_of_one(folders, name):
    one, two = (folder / name for folder in folders)
    assert (left_by(one)["world"], left_by(two, 0)["world"], left_by(two, 1)["world"]) == (1, 2, 2)
    assert left_by(one)["steps"] == left_by(two, 0)["steps"] == left_by(two, 1)["steps"]
    assert left_by(one)["best"] == left_by(two, 0)["best"] == left_by(two, 1)["best"]
    expected, found = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    difference = max((expected[key] - found[key]).abs().max().item() for key in expected)
    models = [GeliRewardModel.from_pretrained(folder / "model") for folder in (one, two)]
    scored = [model.score_sessions(sessions_of(20, seed=7)) for model in models]
    rewards = [np.concatenate([row["turn_rewards"] for row in rows]) for rows in scored]
    print(f"{name}: weights {difference:.1e}, rewards {np.abs(rewards[0] - rewards[1]).max():.1e}")
    assert difference < 1e-6
    assert rewards[0] == pytest.approx(rewards[1], abs=1e-5)
    assert np.std(rewards[0]) > 0.05
    calibration = [(*model.config.reward_quantiles, model.config.residual_std) for model in models]
    assert calibration[0] == pytest.approx(calibration[1], abs=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_their_history_is_that_of_one(folders, name):
    """Losses, gradients and the metrics of every evaluation; duplicates that even out batches are in none of them."""
    one, two = (left_by(folder / name)["history"] for folder in folders)
    assert len(one) == len(two)
    for expected, found in zip(one, two):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    losses = [entry["loss"] for entry in one if "loss" in entry]
    assert len(set(losses)) == len(losses) > 1


def test_two_processes_that_resume_end_bit_for_bit_as_if_they_had_not_stopped(folders):
    for folder, ranks in zip(folders, ([0], [0, 1])):
        assert [left_by(folder / "saves between epochs", rank)["resumed alike"] for rank in ranks] == [True] * len(
            ranks
        )


def test_one_process_encodes_and_the_other_reads(folders):
    for name, case in CASES.items():
        calls = [left_by(folders[1] / name, rank)["calls"] for rank in (0, 1)]
        frozen = case["training"].get("freeze_backbone", True)
        assert calls == ([2, 0] if frozen else [0, 0]), name  # training and held-out sessions, a batch each


@pytest.mark.parametrize(("count", "multiple"), [(10, 1), (10, 5), (10, 4), (3, 8)])
def test_sessions_are_dealt_once_and_what_fills_up_counts_nothing(count, multiple):
    epoch = [0]
    sampler = SessionSampler(count, multiple, seed=5, epoch=lambda: epoch[0])
    first = list(sampler)
    assert len(first) == len(sampler) == -(-count // multiple) * multiple
    assert sorted(first[:count]) == list(range(count))
    assert first[count:] == [~first[count - 1]] * (len(first) - count)
    assert list(sampler) == first
    epoch[0] = 1
    assert list(sampler) != first
    torch.manual_seed(0)
    assert list(SessionSampler(count, multiple, seed=6, epoch=lambda: 0)) == list(sampler)  # seed and epoch add up
