"""Runs `train_geli.py` and lets each process say how many it was among: the first argument is the folder to say it in.

The others are those of the script, whose `if __name__ == "__main__":` this stands for.
"""

import sys
from pathlib import Path

from accelerate import PartialState
from forks import load_script

if __name__ == "__main__":
    load_script().main(sys.argv[2:])
    state = PartialState()
    (Path(sys.argv[1]) / f"process-{state.process_index}.txt").write_text(str(state.num_processes))
