"""Runs of `train_geli.py` that are killed, each forked from a process that has imported everything already.

    python tests/examples/forks.py

reads one JSON object per line, `{"argv", "caches", "log", "watched", "after", "at"}`, runs the script's `main(argv)`
in a child, and answers with `{"killed", "code", "seconds", "steps"}`. SIGKILL comes `after` so many seconds, or before
step number `at` of those that Python takes in the file system under the folder `watched` (opening for writing, making,
renaming, deleting). Either may be null. `steps` is how many such steps there were.
"""

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path

WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}


def load_script():
    spec = importlib.util.spec_from_file_location(
        "train_geli", Path(__file__).parents[2] / "examples" / "train_geli.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(script, order: dict, steps: Path) -> None:
    """Run the script as a child does, and count its steps."""
    os.environ["GELI_HF_CACHE"] = order["caches"]
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    watched, count, last = order["watched"], os.open(steps, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), [0]

    def step(event: str, args: tuple) -> None:
        if event == "open":
            if not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):  # its flags
                return
        elif event not in WRITES:
            return
        if not str(args[0]).startswith(watched):
            return
        last[0] += 1
        os.pwrite(count, b"%d" % last[0], 0)
        if last[0] == order["at"]:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    code = 1
    try:
        script.main(order["argv"])
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(code)


def main() -> None:
    script = load_script()
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        order = json.loads(line)
        steps = Path(f"{order['log']}.steps")
        begun = time.monotonic()
        child = os.fork()
        if not child:
            run(script, order, steps)
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            if order["after"] is not None and time.monotonic() - begun > order["after"]:
                os.kill(child, signal.SIGKILL)
                order["after"] = None
            time.sleep(0.002)
        answer = {
            "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
            "code": os.waitstatus_to_exitcode(status),
            "seconds": time.monotonic() - begun,
            "steps": int(steps.read_text() or 0),
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
