"""Fixtures of the benchmarks: offline, one thread, and pairs of runs, since other work slows both of a pair."""

import os
from statistics import median
from time import perf_counter

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

from geli_hf import load_sessions
from geli_hf.models.geli_reward.modeling_geli import default_backbone

_PAIRS: list[str] = []


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Use one thread: as many as there are cores would measure the other work of the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def word_pieces():
    """Find all-MiniLM-L6-v2, whose word pieces every backbone here reads, or skip."""
    try:
        return default_backbone()
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """Load the two perspectives of eight conversations of the sample corpus."""
    return load_sessions("sample", conversations=8, cache_dir=tmp_path_factory.mktemp("sample"))


@pytest.fixture
def pair(benchmark, request):
    """Run both in turn, by `pair(ours, reference, rounds=5, scale=1)`, and return the median of reference / ours.

    Ours is what pytest-benchmark reports; the ratio stands below its table and in `extra_info`. Where the reference is
    a part of the work only, `scale` says what part: its time is multiplied by it.
    """

    def run(ours, reference, *, rounds: int = 5, scale: float = 1.0) -> float:
        references = []

        def before_each():
            start = perf_counter()
            reference()
            references.append(scale * (perf_counter() - start))

        benchmark.pedantic(ours, setup=before_each, rounds=rounds, warmup_rounds=1)
        mine = benchmark.stats.stats.data
        ratio = median(theirs / ours for theirs, ours in zip(references[1:], mine, strict=True))
        benchmark.extra_info |= {"reference_median": median(references[1:]), "ratio": ratio}
        line = f"ours {median(mine):.4f} s, reference {median(references[1:]):.4f} s, reference / ours {ratio:.2f}"
        _PAIRS.append(f"{request.node.name}: {line}")
        return ratio

    return run


def pytest_terminal_summary(terminalreporter):
    if _PAIRS:
        terminalreporter.section("medians of pairs")
        for line in _PAIRS:
            terminalreporter.write_line(line)
