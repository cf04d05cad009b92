"""Loading a corpus: names, options, the report of what was read, the cache, and the processes."""

import math
import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from datasets import Dataset

from geli_hf.data import load_sessions, read_report, reading
from geli_hf.data.reading import Corpus, ReadReport, Skipped, map_in_order, mean_known, read_corpus
from geli_hf.sessions import SessionError, session_features, validate_sessions


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """Record the files that a reader wrote; rows from the cache are not among them."""
    written = []
    write = reading._write
    monkeypatch.setattr(reading, "_write", lambda corpus, path: written.append(path) or write(corpus, path))
    return written


def test_the_second_load_comes_from_the_cache_with_its_count(candor, reads):
    home = candor.add("good")
    (candor.add("bad") / "survey.csv").unlink()
    first = candor.load()
    second = candor.load()
    assert len(reads) == 1
    assert second[:] == first[:] or str(second[:]) == str(first[:])
    assert second.features == first.features
    assert read_report(second) == read_report(first)
    reason = "survey.csv is missing (half-downloaded?)"
    assert read_report(second) == ReadReport(2, {reason: 2}, {reason: ["bad"]})
    assert second.cache_files  # memory-mapped, not in memory

    candor.load(score="good_for_advice")
    assert len(reads) == 2  # other options, other rows
    os.utime(home / "survey.csv", ns=(1, 1))
    candor.load()
    assert len(reads) == 3  # a file that was touched may say something else
    assert len(candor.load()) == 2
    assert len(reads) == 3


def test_a_new_conversation_and_a_file_that_came_late_are_read(candor, reads):
    candor.add("one")
    assert len(candor.load()) == 2
    survey = (candor.add("two") / "survey.csv").rename(candor.path.parent / "survey.csv")
    assert read_report(candor.load()).skipped == {"survey.csv is missing (half-downloaded?)": 2}
    survey.rename(candor.path / "two" / "survey.csv")
    assert len(candor.load()) == 4
    (candor.path / "three").mkdir()
    assert read_report(candor.load()).skipped == {"survey.csv is missing (half-downloaded?)": 2}
    assert len(reads) == 4


def test_an_interrupted_read_leaves_nothing(tmp_path):
    features = session_features()
    complete = [False]

    def rows():
        for number in range(3):
            if number == 2 and not complete[0]:
                raise KeyboardInterrupt
            yield {
                "session_id": str(number),
                "conversation_id": str(number),
                "rater_id": "",
                "messages": [{"role": "assistant", "content": "Hello"}],
                "score": 1.0,
            }

    corpus = Corpus([], features, rows, where="here")
    with pytest.raises(KeyboardInterrupt):
        read_corpus(corpus, {}, tmp_path)
    assert not list(tmp_path.iterdir())
    complete[0] = True
    assert len(read_corpus(corpus, {}, tmp_path)) == 3


def test_a_partial_file_of_another_process_is_not_read(candor, reads):
    candor.add()
    candor.load()
    (cached,) = (candor.path.parent / "cache").glob("*.arrow")
    cached.rename(cached.with_suffix(".1.partial"))
    assert len(candor.load()) == 2
    assert len(reads) == 2


def test_a_corpus_without_a_readable_session_is_an_error_with_the_table(tmp_path):
    corpus = Corpus(
        [], session_features(), lambda: iter([Skipped("too sad")] * 12 + [Skipped("too long")]), where="here"
    )
    with pytest.raises(
        SessionError,
        match="here: no session could be read\n 0  sessions read\n12  skipped: too sad\n 1  skipped: too long",
    ):
        read_corpus(corpus, {}, tmp_path)
    with pytest.raises(SessionError, match="it holds no session at all"):
        read_corpus(Corpus([], session_features(), lambda: iter([]), where="here"), {}, tmp_path)


def test_a_reader_that_breaks_the_schema_is_caught(tmp_path):
    corpus = Corpus([], session_features(), lambda: iter([{"session_id": "a"}]), where="here")
    with pytest.raises(SessionError, match=r"here, row 0 \('a'\), field 'conversation_id': missing"):
        read_corpus(corpus, {}, tmp_path)


def test_names_and_options_that_do_not_exist(tmp_path):
    with pytest.raises(TypeError, match="splits"):
        load_sessions("uss", data_dir=tmp_path, splits="MWOZ")
    with pytest.raises(ValueError, match=r"say where candor lies, as in load_sessions\('candor', data_dir=\.\.\.\)"):
        load_sessions("candor")
    with pytest.raises(FileNotFoundError, match="no corpus of that name; there are sample, candor"):
        load_sessions("candour", cache_dir=tmp_path)
    for name in ("candour", "sample"):
        with pytest.raises(ValueError, match=f"data_dir: '{name}' is read from no folder"):
            load_sessions(name, data_dir=tmp_path)


def test_the_sample_is_made_once_and_read_like_candor(tmp_path, reads):
    sessions = load_sessions("sample", conversations=4, seed=3, cache_dir=tmp_path)
    validate_sessions(sessions)
    assert len(sessions) == 8
    assert {"feedback", "turn_rating", "start", "stop"} <= set(sessions.features)
    again = load_sessions("sample", conversations=4, seed=3, cache_dir=tmp_path)
    assert again["session_id"][:] == sessions["session_id"][:]
    assert len(reads) == 1
    assert (
        load_sessions("sample", conversations=4, seed=4, cache_dir=tmp_path)["messages"][:] != sessions["messages"][:]
    )


def test_another_dataset_has_no_report():
    with pytest.raises(ValueError, match="expected a dataset of load_sessions"):
        read_report(Dataset.from_list([{"a": 1}]))


def test_mean_known():
    assert mean_known([1, float("nan"), 4]) == 2.5
    assert math.isnan(mean_known([float("nan")]))


def square(number: int) -> int:
    if number == 13:
        raise ValueError("13 is no number to square")
    return number * number


def test_processes_give_results_in_order_and_only_a_few_ahead():
    taken = []
    squares = map_in_order(square, (taken.append(number) or number for number in [*range(13), *range(14, 60)]), 2)
    for count, number in enumerate([*range(13), *range(14, 60)], 1):
        assert next(squares) == number**2
        assert len(taken) <= count + reading.TASKS_AHEAD * 2
    assert list(squares) == []


def test_an_error_in_a_process_is_an_error_here():
    squares = map_in_order(square, range(20), 2)
    assert [next(squares) for _ in range(13)] == [number**2 for number in range(13)]
    with pytest.raises(ValueError, match="13 is no number"):
        next(squares)


def test_a_process_that_is_killed_is_an_error_and_leaves_nothing(tmp_path):
    corpus = Corpus([], session_features(), lambda: map_in_order(os._exit, [1] * 4, 2), where="here")
    with pytest.raises(BrokenProcessPool):
        read_corpus(corpus, {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_report_names_a_few_files_and_holds_all():
    files = [f"{number}.zip" for number in range(7)]
    report = ReadReport(10, {"too sad": 14, "too long": 1}, {"too sad": files})
    assert str(report).splitlines() == [
        "10  sessions read",
        "14  skipped: too sad: 0.zip, 1.zip, 2.zip, 3.zip, 4.zip, ...",
        " 1  skipped: too long",
    ]
