"""Runs that are killed at random moments and resumed end as if nothing had happened.

`GELI_KILLS=200 python -m pytest tests/examples/test_interruption.py` kills that often instead of 20 times.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import backbone

KILLS = int(os.environ.get("GELI_KILLS", 20))
TIMES = ("_runtime", "_per_second", "_preparation_time")
# What shows an error in the random state: dropout, and turns that are drawn. And what is saved when: every epoch, only
# the best one, or steps in the middle of an epoch.
REWARD = {
    "num_train_epochs": 4,
    "per_device_train_batch_size": 4,
    "li_weight": 0.3,
    "rrd_turns": 2,
    "learning_rate": 0.02,
}
STEPS = {"eval_strategy": "steps", "save_strategy": "steps", "logging_strategy": "steps"}
SAVING = {
    "epoch": {},
    "best": {"save_strategy": "best"},
    "steps": STEPS | {"eval_steps": 2, "save_steps": 2, "logging_steps": 2, "max_steps": 10},  # of 3 an epoch
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    """Start a run, and kill it if asked; see `forks.py`."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("forks.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )

    def run(home: Path, config: Path, after: float | None = None, at: int | None = None) -> dict:
        home.mkdir(exist_ok=True)
        argv = ["--config", str(config), "--output_dir", str(home / "run"), "--stages", "[reward]", "--resume"]
        order = {"argv": argv, "caches": str(home / "caches"), "log": str(home.with_suffix(".log"))}
        process.stdin.write(json.dumps(order | {"watched": str(home), "after": after, "at": at}) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer["killed"] or answer["code"] == 0, home.with_suffix(".log").read_text()[-3000:]
        return answer

    yield run
    process.stdin.close()
    process.wait()


def configuration(folder: Path, saving: str) -> Path:
    settings = {
        "data": {"options": {"conversations": 12}, "eval_share": 0.25, "test_share": 0.25},
        "model": {
            "preset": "geli",
            "backbone": backbone("bert"),
            "config": {"head": "mlp", "head_dropout": 0.2, "context_messages": 1},
        },
        "reward": REWARD | SAVING[saving],
    }
    file = folder / f"{saving}.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def result(home: Path) -> dict:
    """Read the files that must not depend on interruptions, as bytes or numbers."""
    model, (features,) = home / "run" / "reward_model", {tuple(sorted((home / "caches").glob("features/*/*.npy")))}
    history = json.loads((home / "run" / "reward_history.json").read_text())
    sessions = [path for path in (home / "caches" / "sessions").glob("*") if "cache-" not in path.name]
    return {
        "weights": (model / "model.safetensors").read_bytes(),
        "config": (model / "config.json").read_text(),
        "history": [{key: value for key, value in row.items() if not key.endswith(TIMES)} for row in history],
        "features": [path.read_bytes() for path in features],
        "sessions": sorted(path.read_bytes() for path in sessions if path.suffix in (".arrow", ".json")),
        "settings": (home / "run" / "settings.yaml").read_text(),
    }


def finished(home: Path) -> dict[Path, int]:
    """Find the inodes of finished files and folders, which must not be made again."""
    patterns = ["caches/sample/v*", "caches/sessions/*.arrow", "caches/features/*", "run/reward_model"]
    return {path: path.stat().st_ino for pattern in patterns for path in home.glob(pattern) if path.name[0] != "."}


def test_killed_runs_end_as_undisturbed_ones(server, tmp_path):
    draw, kills, runs, cut_short = random.Random(0), 0, 0, set()
    undisturbed = {}
    for saving in SAVING:
        config, home = configuration(tmp_path, saving), tmp_path / f"undisturbed-{saving}"
        answer = server(home, config)
        assert answer["steps"] > 100
        undisturbed[saving] = config, answer, result(home)
    assert len({each["weights"] for _, _, each in undisturbed.values()}) > 1  # other checkpoints were the best

    def wanted() -> bool:
        """Go on until each stage was cut: moments are random, and encoding is short."""
        return kills < KILLS or (KILLS >= 20 and len(cut_short) < 3 and kills < 5 * KILLS)

    while wanted():
        config, whole, expected = undisturbed[list(SAVING)[runs % len(SAVING)]]
        home, made, killed = tmp_path / f"killed-{runs}", {}, True
        while killed:
            moment = {"at": draw.randint(1, whole["steps"])} if draw.random() < 0.5 else {}
            moment = moment or {"after": draw.uniform(0, whole["seconds"])}
            killed = server(home, config, **moment if wanted() else {})["killed"]
            kills += killed
            if killed:
                cut_short.add(stage_of(home))
            now = finished(home)
            assert made.items() <= now.items(), (moment, runs)
            made = now
        found = result(home)
        for name in expected:
            assert found[name] == expected[name], (name, runs)
        assert not list(home.rglob("*.partial"))
        runs += 1
    print(f"{kills} kills in {runs} runs, while {', '.join(sorted(cut_short))}")
    assert KILLS < 20 or len(cut_short) == 3


def stage_of(home: Path) -> str:
    if not list(home.glob("caches/sessions/*.arrow")):
        return "reading"
    return "training" if len(list(home.glob("caches/features/[!.]*"))) == 2 else "encoding"
