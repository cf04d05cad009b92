"""Time and peak memory of `geli score` in a process of its own.

Run as a script, it is that process: it scores a file, and writes seconds and memory to another.
"""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import perf_counter


def score_in_fresh_process(model: str, sessions: Path) -> tuple[float, float]:
    """Return the seconds of `geli score` after the imports, and its peak memory in MiB, imports included."""
    measured = sessions.with_suffix(".measured")
    subprocess.run(
        [sys.executable, __file__, model, str(sessions), str(measured)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        check=True,
    )
    seconds, peak = measured.read_text().split()
    return float(seconds), float(peak)


def peak_memory() -> float:
    """Return the peak memory of this process in MiB. On Linux `ru_maxrss` would count the parent's too."""
    try:
        [kib] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(kib) / 1024
    except OSError:
        most = getrusage(RUSAGE_SELF).ru_maxrss
        return most / (2**20 if sys.platform == "darwin" else 1024)


def write_sessions(path: Path, dialogues, copies: int = 1) -> Path:
    """Write the dialogues as JSON lines, all of them `copies` times."""
    lines = [
        json.dumps({"session_id": str(number), "messages": messages}) for number, messages in enumerate(dialogues)
    ]
    with open(path, "w") as file:
        for _ in range(copies):
            file.write("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    import torch

    from geli_hf.cli import main

    model, sessions, measured = sys.argv[1:]
    torch.set_num_threads(1)
    import_module("geli_hf.models.geli_reward.modeling_geli")  # not a part of the scoring
    start = perf_counter()
    main(["score", sessions, "--model", model])
    Path(measured).write_text(f"{perf_counter() - start} {peak_memory()}")
