"""What the scripts that train in several stages share: their processes, their folder, and what of it is kept."""

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from ..settings import claim


def processes() -> PartialState:
    """The processes of a run. The first one may work alone for days while the others wait for it."""
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=7))


def begin(output: Path, settings: dict[str, dict], resume: bool, lasting: Iterable[str]) -> PartialState:
    """The processes of a run, when its folder is claimed by its settings.

    Args:
        output: folder of the run.
        settings: as of `parse_settings`.
        resume: whether the run may be there already.
        lasting: settings at the top that a run can't change when it is resumed; of the sections all are.

    Raises:
        SettingsError: the folder holds something else.
    """
    state = processes()
    if state.is_main_process:
        lasting = set(lasting)
        kept = {name: {k: v for k, v in part.items() if name or k in lasting} for name, part in settings.items()}
        claim(output, kept, resume)
    state.wait_for_everyone()
    return state


def fit_to_cpu(settings: dict[str, dict], trainers: Iterable[str]) -> None:
    """Change the settings of trainers, in sections of these names, to what a machine without a GPU can do."""
    # accelerate launch leaves one thread to each process unless it is told otherwise
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # not on macOS
    torch.set_num_threads(max(1, cores // PartialState().num_processes))
    # Where a CPU has no instructions for bf16, it is many times slower than float32 instead of two times faster.
    native = any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
    # Trainers share their work out between processes on CPUs only if they are told that these are what they have.
    common = {"dataloader_pin_memory": False, "use_cpu": not torch.accelerator.is_available()}
    for name in trainers:
        settings[name] = common | settings[name]
        if settings[name].get("bf16"):
            settings[name] |= {"bf16": native, "use_cpu": True}


def kept(target: Path) -> None:
    """Say that what a stage would make is there already."""
    PartialState().print(f"{target} is there already and is kept")
