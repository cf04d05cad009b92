"""From which checkpoint a training goes on that was interrupted, perhaps while it wrote or deleted one."""

import json
import shutil
from pathlib import Path

from accelerate import PartialState
from transformers.trainer_utils import sort_checkpoints

# What every checkpoint of a Trainer holds, as patterns of names: weights, optimizer, schedule, random state. DeepSpeed
# and FSDP have folders of their own for the first two.
PARTS = (
    ("*.safetensors", "pytorch_model*", "adapter_model*", "global_step*"),
    ("optimizer*", "global_step*"),
    ("scheduler.pt",),
    ("rng_state*.pth",),
)


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint in a Trainer's output folder that is whole; None if there is none.

    Checkpoints that are not whole are deleted, since a Trainer would count them among those that it keeps. To be
    called by all processes.
    """
    if PartialState().is_main_process:
        for checkpoint in map(Path, sort_checkpoints(str(folder))):
            if not _is_whole(checkpoint):
                shutil.rmtree(checkpoint)
    PartialState().wait_for_everyone()
    whole = sort_checkpoints(str(folder))
    return whole[-1] if whole else None


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())  # which the Trainer writes last
    except (FileNotFoundError, ValueError):
        return False
    return all(any(next(checkpoint.glob(name), None) for name in names) for names in PARTS)
