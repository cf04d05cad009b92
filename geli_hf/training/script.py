"""Set-up that scripts of several training stages share: processes, the run's folder, and settings for a CPU."""

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from ..settings import claim


def processes() -> PartialState:
    """Start the processes of a run, with a timeout that lets the first one work alone for days."""
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=7))


def begin(output: Path, settings: dict[str, dict], resume: bool, lasting: Iterable[str]) -> PartialState:
    """Start the processes of a run and reserve its folder, see `settings.claim`.

    Args:
        output: folder of the run.
        settings: of `parse_settings`.
        resume: accept a folder that holds this run.
        lasting: settings at the top that must not change when a run is resumed. Those of the sections never may.

    Raises:
        SettingsError: the folder holds something else.
    """
    state = processes()
    if state.is_main_process:
        lasting = set(lasting)
        fixed = {name: {k: v for k, v in part.items() if name or k in lasting} for name, part in settings.items()}
        claim(output, fixed, resume)
    state.wait_for_everyone()
    return state


def fit_to_cpu(settings: dict[str, dict], trainers: Iterable[str]) -> None:
    """Adapt the settings of trainers, in sections of these names, to a machine without a GPU."""
    # By default, accelerate launch leaves one thread to each process.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # not on macOS
    torch.set_num_threads(max(1, cores // PartialState().num_processes))
    # On a CPU without instructions for bf16, it is many times slower than float32 instead of two times faster.
    native = any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
    # Trainers share work between processes on CPUs only with `use_cpu`.
    common = {"dataloader_pin_memory": False, "use_cpu": not torch.accelerator.is_available()}
    for name in trainers:
        settings[name] = common | settings[name]
        if settings[name].get("bf16"):
            settings[name] |= {"bf16": native, "use_cpu": True}


def kept(target: Path) -> None:
    """Print that the result of a stage exists already and is kept."""
    PartialState().print(f"{target} is there already and is kept")
