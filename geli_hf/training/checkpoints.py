"""Resuming of a training from its last complete checkpoint, and files that the first process writes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import sort_checkpoints

from ..cache import atomic_path


def run_training(trainer: Trainer, resume: bool) -> None:
    """Train a trainer's model.

    Args:
        trainer: of transformers or TRL.
        resume: start from the last complete checkpoint in its output folder, if there is one.
    """
    checkpoint = last_checkpoint(trainer.args) if resume else None
    if checkpoint is not None:
        # A Trainer takes a step before it asks if it should stop, even from the last checkpoint of a training that
        # ends within an epoch. No callback comes in between, so it gets no batch for the step.
        draw = trainer.get_batch_samples
        trainer.get_batch_samples = lambda *args: ([], None) if trainer.control.should_training_stop else draw(*args)
        trainer.add_callback(_StopAtOnce())
    trainer.train(resume_from_checkpoint=checkpoint)


class _StopAtOnce(TrainerCallback):
    stopped = False

    def on_epoch_begin(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step >= state.max_steps  # or another callback has set it
        self.stopped = control.should_training_stop

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.stopped:  # the checkpoint has the log and the evaluation already
            control.should_log = control.should_evaluate = control.should_save = False


def last_checkpoint(args: TrainingArguments) -> str | None:
    """Return the newest complete checkpoint in a trainer's output folder; None if there is none.

    Incomplete ones are deleted, since a Trainer would count them among those that it keeps. With `save_only_model`
    there is nothing to resume from, and nothing is deleted. All processes call it.
    """
    if args.save_only_model:
        return None
    if PartialState().is_main_process:
        for checkpoint in map(Path, sort_checkpoints(args.output_dir)):
            if not _is_complete(checkpoint):
                shutil.rmtree(checkpoint)
    PartialState().wait_for_everyone()
    left = sort_checkpoints(args.output_dir)
    return left[-1] if left else None


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))  # the Trainer writes it last
        return True
    except (FileNotFoundError, ValueError):
        return False


def write_by_one(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file or folder atomically in the first process, while the others wait.

    Args:
        target: to be written.
        write: writes to the path that it is called with.
    """
    if PartialState().is_main_process:
        with atomic_path(target) as partial:
            write(partial)
    PartialState().wait_for_everyone()


def write_history(trainer: Trainer, file: Path) -> None:
    """Write a trainer's log as JSON, without the summary: its time is that of the last start alone."""
    history = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
    write_by_one(file, lambda partial: partial.write_text(json.dumps(history, indent=1), encoding="utf-8"))
