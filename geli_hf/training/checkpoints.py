"""What a training leaves, and from which checkpoint it goes on if it was killed, perhaps while it wrote that one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import sort_checkpoints

from ..cache import whole

# What every checkpoint of a Trainer holds, as patterns of names: weights, optimizer, schedule, random state. DeepSpeed
# and FSDP have folders of their own for the first two.
PARTS = (
    ("*.safetensors", "pytorch_model*", "adapter_model*", "global_step*"),
    ("optimizer*", "global_step*"),
    ("scheduler.pt", "global_step*"),
    ("rng_state*.pth",),
)


def run_training(trainer: Trainer, resume: bool) -> None:
    """Train from the beginning or, to resume, from the last whole checkpoint if there is one."""
    checkpoint = last_checkpoint(trainer.args) if resume else None
    if checkpoint is not None:
        # The Trainer always takes a step first, even from the last checkpoint of a training that ends within an epoch.
        draw = trainer.get_batch_samples
        trainer.get_batch_samples = lambda *args: ([], None) if trainer.control.should_training_stop else draw(*args)
        trainer.add_callback(_StopWhereNothingIsLeft())
    trainer.train(resume_from_checkpoint=checkpoint)


class _StopWhereNothingIsLeft(TrainerCallback):
    nothing_left = False

    def on_epoch_begin(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step >= state.max_steps  # or another callback has said so
        self.nothing_left = control.should_training_stop

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.nothing_left:  # nor to be said: it was before the checkpoint was written
            control.should_log = control.should_evaluate = control.should_save = False


def last_checkpoint(args: TrainingArguments) -> str | None:
    """The newest checkpoint in a trainer's output folder that is whole; None if there is none.

    Checkpoints that are not whole are deleted, since a Trainer would count them among those that it keeps. With
    `save_only_model` there is nothing to go on from, and nothing is deleted. To be called by all processes.
    """
    if args.save_only_model:
        return None
    if PartialState().is_main_process:
        for checkpoint in map(Path, sort_checkpoints(args.output_dir)):
            if not _is_whole(checkpoint):
                shutil.rmtree(checkpoint)
    PartialState().wait_for_everyone()
    left = sort_checkpoints(args.output_dir)
    return left[-1] if left else None


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())  # which the Trainer writes last
    except (FileNotFoundError, ValueError):
        return False
    return all(any(next(checkpoint.glob(name), None) for name in names) for names in PARTS)


def write_by_one(target: Path, write: Callable[[Path], object]) -> None:
    """Let the first process write a file or folder, which is there when it is whole, and the others wait for it."""
    if PartialState().is_main_process:
        with whole(target) as partial:
            write(partial)
    PartialState().wait_for_everyone()


def write_history(trainer: Trainer, file: Path) -> None:
    """Write what the trainer has logged, without the summary, which says how long the last of its starts took."""
    history = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
    write_by_one(file, lambda partial: partial.write_text(json.dumps(history, indent=1)))
