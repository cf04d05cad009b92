"""SODA on rows written here."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geli_hf.data import load_sessions, read_report

ROW = {
    "head": "PersonX lends PersonY an umbrella",
    "relation": "xWant",
    "tail": "to stay dry together",
    "literal": "Ann lends Bo an umbrella. Ann wants to stay dry.",
    "narrative": "Ann lends Bo an umbrella on a wet day.",
    "dialogue": ["It is pouring.", "Take mine!", "That is wonderful, thank you.", "Come,", "let us go."],
    "speakers": ["Bo", "Ann", "Bo", "Ann", "Ann"],
    "PersonX": "Ann",
    "PersonY": "Bo",
    "PersonZ": "",
    "original_index": 7,
    "split": "test",
    "head_answer": "yes",
    "pmi_head_answer": "yes",
    "relation_tail_answer": "yes",
    "pmi_relation_tail_answer": "yes",
}


def write(folder, suffix, *rows):
    file = folder / f"test{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_dialogue_is_two_unrated_sessions(tmp_path, suffix):
    write(tmp_path, suffix, ROW)
    sessions = load_sessions("soda", data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert sessions["session_id"][:] == ["test-0/0", "test-0/1"]
    assert sessions["conversation_id"][:] == ["test-0"] * 2
    assert all(map(math.isnan, sessions["score"]))
    bo, ann = sessions["messages"]
    texts = ["It is pouring.", "Take mine!", "That is wonderful, thank you.", "Come, let us go."]
    assert [message["content"] for message in bo] == [message["content"] for message in ann] == texts
    assert [message["role"] for message in bo] == ["assistant", "user"] * 2
    assert [message["role"] for message in ann] == ["user", "assistant"] * 2


def test_sentiment_of_the_answer(tmp_path):
    pytest.importorskip("vaderSentiment")
    write(tmp_path, ".jsonl", ROW)
    _, ann = load_sessions("soda", data_dir=tmp_path, cache_dir=tmp_path / "cache", sentiment=True)
    thanks, nothing = ann["feedback"]["sentiment"]
    assert thanks > 0.5
    assert math.isnan(nothing)


def test_skipped_sessions_are_counted(tmp_path):
    broken = [{**ROW, "speakers": ["Bo"]}, {**ROW, "dialogue": "Hi"}, {**ROW, "speakers": ["Bo"] * 5}]
    write(tmp_path, ".jsonl", *broken, ROW, {**ROW, "speakers": ["A", "B", "C", "A", "B"]})
    sessions = load_sessions("soda", data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert sessions["session_id"][:] == ["test-3/0", "test-3/1"]
    assert read_report(sessions).skipped == {
        "no dialogue with a speaker for each utterance": 4,
        "speakers: 1, not 2": 2,
        "speakers: 3, not 2": 2,
    }


def test_a_split_that_is_not_there(tmp_path):
    write(tmp_path, ".jsonl", ROW)
    with pytest.raises(FileNotFoundError, match="begins with 'train'"):
        load_sessions("soda", data_dir=tmp_path, split="train")
