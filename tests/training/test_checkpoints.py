"""A training resumes from its newest complete checkpoint, whatever else a killed process has left."""

import shutil

import pytest
import torch
from tiny import reward_model

from geli_hf.training.checkpoints import last_checkpoint


@pytest.fixture
def checkpoints(trainer, tmp_path):
    """The output folder of a training that saved checkpoint-1, -2 and -3."""
    options = {"num_train_epochs": 3, "per_device_train_batch_size": 24, "save_total_limit": None}
    trainer(load_best_model_at_end=False, **options).train()
    return tmp_path / "out"


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_by_number_is_taken(checkpoints, arguments):
    shutil.copytree(checkpoints / "checkpoint-3", checkpoints / "checkpoint-10")
    assert last_checkpoint(arguments()) == str(checkpoints / "checkpoint-10")
    assert len(names(checkpoints)) == 4


def test_an_incomplete_checkpoint_is_skipped_and_removed(checkpoints, arguments):
    (checkpoints / "checkpoint-3" / "trainer_state.json").unlink()
    assert last_checkpoint(arguments()) == str(checkpoints / "checkpoint-2")
    assert names(checkpoints) == ["checkpoint-1", "checkpoint-2"]


def test_a_checkpoint_with_a_truncated_state_is_incomplete(checkpoints, arguments):
    state = checkpoints / "checkpoint-3" / "trainer_state.json"
    state.write_text(state.read_text()[:-20])
    (checkpoints / "checkpoint-2" / "trainer_state.json").write_text("")
    assert last_checkpoint(arguments()) == str(checkpoints / "checkpoint-1")
    assert names(checkpoints) == ["checkpoint-1"]


def test_without_a_complete_checkpoint_there_is_none(arguments, tmp_path):
    assert last_checkpoint(arguments()) is None
    (tmp_path / "out" / "checkpoint-1").mkdir(parents=True)
    assert last_checkpoint(arguments()) is None


def test_checkpoints_without_an_optimizer_are_kept_where_none_is_saved(checkpoints, arguments):
    (checkpoints / "checkpoint-3" / "optimizer.pt").unlink()
    assert last_checkpoint(arguments(save_only_model=True)) is None
    assert len(names(checkpoints)) == 3


@pytest.mark.parametrize("saving", ["epoch", "best", "steps"])
def test_a_training_resumed_from_any_checkpoint_ends_bit_for_bit_the_same(trainer, tmp_path, saving):
    """With dropout, turns that are drawn and a slope that is learned, and with its history whole."""
    steps = {"eval_strategy": "steps", "logging_strategy": "steps", "eval_steps": 2, "logging_steps": 2}
    options = {
        "epoch": {"save_strategy": "epoch"},
        "best": {"save_strategy": "best"},
        "steps": steps | {"save_strategy": "steps", "save_steps": 2},
    }[saving]
    options |= {"num_train_epochs": 3, "per_device_train_batch_size": 5, "rrd_turns": 2, "learning_rate": 3e-3}
    options |= {"save_total_limit": None, "li_slope": True, "li_weight": 0.5}

    def trained(checkpoint=None):
        torch.manual_seed(0 if checkpoint is None else 5)
        resumable = trainer(reward_model("bert", head="mlp", head_dropout=0.2), **options)
        resumable.train(resume_from_checkpoint=checkpoint)
        history = [
            {key: value for key, value in row.items() if not key.endswith(("_runtime", "_per_second", "_time"))}
            for row in resumable.state.log_history
            if "train_runtime" not in row
        ]
        config = resumable.reward_model.config
        return resumable.reward_model.state_dict(), (config.reward_quantiles, config.residual_std), history

    whole = trained()
    saved = sorted((tmp_path / "out").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert len(saved) > 1
    for checkpoint in saved:
        weights, calibration, history = trained(str(checkpoint))
        assert all(torch.equal(weights[name], whole[0][name]) for name in weights)
        assert (calibration, history) == whole[1:]
