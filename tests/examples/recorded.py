"""Run `train_geli.py`, and let each process write the number of processes into the folder of the first argument.

The other arguments are those of the script, whose `if __name__ == "__main__":` this replaces.
"""

import sys
from pathlib import Path

from accelerate import PartialState
from forks import load_script

if __name__ == "__main__":
    load_script().main(sys.argv[2:])
    state = PartialState()
    (Path(sys.argv[1]) / f"process-{state.process_index}.txt").write_text(str(state.num_processes))
