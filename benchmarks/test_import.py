"""Time that `import geli_hf` adds to `import transformers`, in fresh interpreters."""

import subprocess
import sys
from statistics import median
from time import perf_counter

ROUNDS = 9
MOST = 0.3  # seconds


def test_import(benchmark):
    def seconds(code: str) -> float:
        start = perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return perf_counter() - start

    def difference() -> float:
        alone = seconds("import transformers")
        return seconds("import transformers, geli_hf") - alone

    difference()  # compiles what is not compiled yet
    added = []
    benchmark.pedantic(lambda: added.append(difference()), rounds=ROUNDS)
    benchmark.extra_info["added_median"] = median(added)
    print(f"\nimport geli_hf adds {median(added):+.3f} s (median of {ROUNDS} pairs)")
    assert median(added) <= MOST
