"""Start, resume and end of a script that trains in several stages."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from transformers.integrations import get_available_reporting_integrations

from ..sessions import SessionError
from ..settings import SettingsError, UserError, reserve_folder


def run_main(main: Callable[[list[str]], None]) -> None:
    """Run a script's `main` on the command line; an error of the user ends it in one line, without a traceback."""
    try:
        main(sys.argv[1:])
    except (UserError, SessionError, FileNotFoundError, MemoryError) as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")


@contextmanager
def setting_errors(setting: str) -> Iterator[None]:
    """Turn an error inside the block into one that names the setting.

    Raises:
        SettingsError: from an OSError, TypeError or ValueError.
    """
    try:
        yield
    except SettingsError:
        raise
    except (OSError, TypeError, ValueError) as error:
        raise SettingsError(f"{setting}: {error}") from error


def start_processes() -> PartialState:
    """Start the processes of a run. The first one may work alone for days while the others wait for it."""
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=7))


def start_run(output: Path, settings: dict[str, dict], resume: bool, lasting: Iterable[str]) -> PartialState:
    """Start the processes of a run, and write its settings into its folder.

    Args:
        output: folder of the run.
        settings: those of `parse_settings`.
        resume: allow that the folder holds this run already.
        lasting: settings at the top that a resumed run can't change; of the sections all are.

    Raises:
        SettingsError: the folder holds something else, or the tracker of the setting `report_to` is not installed.
    """
    tracker = settings.get("", {}).get("report_to", "none")
    if tracker not in ("none", *get_available_reporting_integrations()):  # a Trainer would say so after hours
        raise SettingsError(f"report_to: no tracker {tracker!r} is installed; pip install {tracker}, or leave it out")
    state = start_processes()
    if state.is_main_process:
        lasting = set(lasting)
        fixed = {name: {k: v for k, v in part.items() if name or k in lasting} for name, part in settings.items()}
        reserve_folder(output, fixed, resume)
    state.wait_for_everyone()
    return state


def native_bf16() -> bool:
    """Tell whether the CPU has instructions for bfloat16.

    With them it is twice as fast as float32, without them many times slower.
    """
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)


def fit_to_cpu(settings: dict[str, dict], trainers: Iterable[str]) -> None:
    """Change the settings of trainers, in sections of these names, to what a machine without a GPU can do.

    With a GPU nothing changes.
    """
    if torch.cuda.is_available():
        return
    # accelerate launch leaves one thread to each process unless it is told otherwise
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # not on macOS
    torch.set_num_threads(max(1, cores // PartialState().num_processes))
    # Trainers share their work out between processes on CPUs only if they are told that these are what they have.
    common = {"dataloader_pin_memory": False, "use_cpu": not torch.accelerator.is_available()}
    for name in trainers:
        settings[name] = common | settings[name]
        if settings[name].get("bf16"):
            settings[name] |= {"bf16": native_bf16(), "use_cpu": True}


def is_finished(target: Path) -> bool:
    """Return True, and print it, if a stage has its file or folder already."""
    if target.exists():
        PartialState().print(f"{target} is there already and is kept")
    return target.exists()
