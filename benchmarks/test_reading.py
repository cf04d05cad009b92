"""Time of `load_sessions` for the sample corpus on disk: at first, and from the cache."""

from itertools import count

import pyarrow as pa
import pytest

from geli_hf import load_sessions
from geli_hf.simulator.corpus import write_sample


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("corpus"), conversations=300)


def test_cached(pair, corpus, tmp_path):
    """Against reading the same folders for the first time."""
    number, found = count(), {}

    def cold():
        found["cold"] = load_sessions("candor", data_dir=corpus, cache_dir=tmp_path / str(next(number)))

    def cached():
        before = pa.total_allocated_bytes()
        found["cached"] = load_sessions("candor", data_dir=corpus, cache_dir=tmp_path / "0")
        found["allocated"] = pa.total_allocated_bytes() - before

    pair(cached, cold, rounds=3)
    for column in ("session_id", "messages", "score"):
        assert found["cached"][column][:] == found["cold"][column][:]
    assert found["allocated"] < 1_000_000, "the rows were read into memory rather than mapped"


def test_cached_takes_less_than_a_second(benchmark, corpus, tmp_path):
    load_sessions("candor", data_dir=corpus, cache_dir=tmp_path)
    benchmark.pedantic(lambda: load_sessions("candor", data_dir=corpus, cache_dir=tmp_path), rounds=5)
    assert benchmark.stats.stats.median < 1
