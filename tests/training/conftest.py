"""A trainer on a toy corpus that is quick and quiet."""

from pathlib import Path

import pytest
from datasets import Dataset
from tiny import reward_model
from toy import toy_sessions

from geli_hf.training import GeliRewardArguments, GeliRewardTrainer


@pytest.fixture(scope="session")
def train_sessions() -> Dataset:
    return toy_sessions(24, seed=0)


@pytest.fixture(scope="session")
def eval_sessions() -> Dataset:
    return toy_sessions(10, seed=1)


@pytest.fixture
def arguments(tmp_path):
    """`GeliRewardArguments` that write to a temporary folder."""

    def make(**changes) -> GeliRewardArguments:
        quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True}
        folders = {"output_dir": str(tmp_path / "out"), "features_dir": str(tmp_path / "features")}
        return GeliRewardArguments(**folders | quiet | changes)

    return make


@pytest.fixture
def trainer(arguments, train_sessions, eval_sessions):
    """A trainer of a tiny model on the toy corpus; arguments by name."""

    def make(model=None, *, train=train_sessions, held_out=eval_sessions, peft_config=None, **changes):
        model = reward_model("bert") if model is None else model
        return GeliRewardTrainer(model, arguments(**changes), train, held_out, peft_config=peft_config)

    return make


@pytest.fixture
def features_dir(tmp_path) -> Path:
    return tmp_path / "features"
