"""JSON lines, Parquet and folders of them as sessions, and writing JSON lines."""

import json
import math
import os

import numpy as np
import pytest
from datasets import Dataset

from geli_hf.data import load_sessions
from geli_hf.data.rows import write_jsonl
from geli_hf.sessions import SessionError, validate_sessions

MESSAGES = [
    {"role": "user", "content": "Hallo, wie geht's? 👋"},
    {"role": "assistant", "content": "很好,你呢?"},
    {"role": "user", "content": "مرحبا"},
    {"role": "assistant", "content": "Tell me more."},
]
FULL = {
    "session_id": "a",
    "conversation_id": "a",
    "rater_id": "r",
    "messages": MESSAGES,
    "score": 4.5,
    "scores": {"liking": 4.5, "fun": None},
    "feedback": {"affect": [1, None]},
    "start": [0, 1.5, 3, None],
    "stop": [1, 2.5, 4, None],
    "behaviour": ["smiles", None],
    "turn_rating": [None, 2],
}
BARE = {"session_id": "b", "conversation_id": "b", "messages": MESSAGES, "score": None}


def jsonl(tmp_path, *rows, name="sessions.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def load(path, **options):
    return load_sessions(path, cache_dir=path.parent / "cache", **options)


def test_null_and_absent_values_are_nan(tmp_path):
    sessions = load(jsonl(tmp_path, FULL, "", BARE))
    validate_sessions(sessions)
    full, bare = sessions
    assert full["messages"] == MESSAGES
    assert (full["score"], full["rater_id"], full["behaviour"]) == (4.5, "r", ["smiles", ""])
    np.testing.assert_array_equal([full["scores"][name] for name in ("liking", "fun")], [4.5, math.nan])
    np.testing.assert_array_equal([bare["scores"][name] for name in ("liking", "fun")], [math.nan] * 2)
    np.testing.assert_array_equal(full["feedback"]["affect"], [1, math.nan])
    np.testing.assert_array_equal(full["start"], [0, 1.5, 3, math.nan])
    np.testing.assert_array_equal(full["turn_rating"], [math.nan, 2])
    assert math.isnan(bare["score"])
    assert (bare["rater_id"], bare["behaviour"]) == ("", ["", ""])
    for values in (bare["feedback"]["affect"], bare["turn_rating"]):
        np.testing.assert_array_equal(values, [math.nan] * 2)
    np.testing.assert_array_equal(bare["stop"], [math.nan] * 4)


def test_columns_that_no_row_has_are_absent(tmp_path):
    assert list(load(jsonl(tmp_path, BARE)).features) == [
        "session_id", "conversation_id", "rater_id", "messages", "score",
    ]  # fmt: skip


def test_jsonl_and_parquet_round_trip(tmp_path):
    sessions = load(jsonl(tmp_path, FULL, BARE))
    written = write_jsonl(sessions, tmp_path / "new" / "again.jsonl")
    assert "NaN" not in written.read_text()
    assert '"scores": {"fun": null, "liking": 4.5}' in written.read_text()
    assert os.listdir(written.parent) == ["again.jsonl"]
    sessions.to_parquet(tmp_path / "again.parquet")
    for path in (written, tmp_path / "again.parquet"):
        again = load(path)
        assert again.features == sessions.features
        assert again.data.table.equals(sessions.data.table) or str(again[:]) == str(sessions[:])


def test_writing_that_fails_leaves_the_old_file(tmp_path):
    path = write_jsonl([BARE], tmp_path / "sessions.jsonl")
    with pytest.raises(TypeError):
        write_jsonl([BARE, {"session_id": object()}], path)
    assert os.listdir(tmp_path) == ["sessions.jsonl"]
    assert len(path.read_text().splitlines()) == 1


def test_a_folder_is_read_by_split_or_whole(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    jsonl(folder, FULL, name="train-0.jsonl")
    jsonl(folder, {**BARE, "session_id": "c"}, name="train-1.jsonl")
    jsonl(folder, BARE, name="test.jsonl")
    assert load(folder)["session_id"][:] == ["a", "c"]
    assert load(folder, split="test")["session_id"][:] == ["b"]
    with pytest.raises(FileNotFoundError, match=r"no file that begins with 'valid'; there is test\.jsonl, train-0"):
        load(folder, split="valid")  # and not the training sessions under another name
    (folder / "train-0.jsonl").rename(folder / "one.jsonl")
    (folder / "train-1.jsonl").rename(folder / "two.jsonl")
    assert sorted(load(folder)["session_id"]) == ["a", "b", "c"]


@pytest.mark.parametrize("place", [".", "data"])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_folder_as_the_hub_lays_it_out_is_read(tmp_path, place, suffix):
    source = load(jsonl(tmp_path, FULL, BARE))
    folder = tmp_path / "owner" / "talks"
    (folder / place).mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    write = {".jsonl": lambda path: write_jsonl(source, path), ".parquet": source.to_parquet}[suffix]
    for split in ("train", "test"):
        write(folder / place / f"{split}-00000-of-00001{suffix}")
    assert load(folder)["session_id"][:] == load(folder, split="test")["session_id"][:] == ["a", "b"]


def test_text_parts_are_joined_and_broken_characters_replaced(tmp_path):
    parts = [{"type": "text", "text": "Hallo,"}, {"type": "text", "text": "du \ud83d"}]
    rows = [{**BARE, "messages": [{"role": "user", "content": parts}, *MESSAGES[1:]]}]
    rows.append({**BARE, "session_id": "\ud83d", "rater_id": "\ud83d\ude00"})
    sessions = load(jsonl(tmp_path, *rows))
    assert sessions[0]["messages"][0]["content"] == "Hallo,\ndu \ufffd"
    assert (sessions[1]["session_id"], sessions[1]["rater_id"]) == ("\ufffd", "\U0001f600")


def test_ids_that_are_whole_numbers_become_text(tmp_path):
    rows = [{**BARE, "session_id": 1, "rater_id": 7}, {**BARE, "rater_id": "b"}, {**BARE, "session_id": "c"}]
    sessions = load(jsonl(tmp_path, *rows))
    assert sessions["session_id"][:] == ["1", "b", "c"]
    assert sessions["rater_id"][:] == ["7", "b", ""]


def test_a_row_with_half_an_emoji_is_written(tmp_path):
    path = write_jsonl([BARE | {"session_id": "\ud83d"}], tmp_path / "rows.jsonl")
    assert json.loads(path.read_text(encoding="utf-8"))["session_id"] == "\ufffd"


def test_unknown_columns_are_left_out_and_mentioned(tmp_path, caplog):
    from transformers.utils import logging

    logging.enable_propagation()
    sessions = load(jsonl(tmp_path, {**BARE, "mood": "grey", "weather": 3}))
    logging.disable_propagation()
    assert "mood" not in sessions.features
    assert "left out mood, weather" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"session_id": "x", ', r"sessions\.jsonl, line 2: no JSON"),
        ("[1, 2]", r"sessions\.jsonl, line 2: expected a JSON object, found a list"),
        ({**BARE, "session_id": "a"}, r"line 2 \('a'\), field 'session_id': this is also the id of .*line 1"),
        ({**BARE, "messages": MESSAGES[:1]}, r"line 2 \('b'\), field 'messages': no message of the assistant"),
        ({**BARE, "messages": MESSAGES[::2]}, "line 2 .*field 'messages': messages 0 and 1 are both of the user"),
        ({**BARE, "messages": [{"role": "assistant", "content": " "}]}, "field 'messages': message 0 is empty"),
        ({**BARE, "messages": [{"role": "bot", "content": "hi"}]}, "field 'messages': message 0 needs a role"),
        ({**BARE, "messages": None}, "field 'messages': missing"),
        ({**BARE, "score": "high"}, "field 'score': expected a finite number .* found 'high'"),
        ({**BARE, "score": 1e999}, "field 'score': expected a finite number .* found inf"),
        ({"session_id": "b", "conversation_id": "b", "messages": MESSAGES}, "field 'score': missing"),
        ({**BARE, "scores": {"fun": "much"}}, "field 'scores.fun': expected a finite number .* found 'much'"),
        ({**BARE, "scores": [1, 0]}, "field 'scores': expected one named number per rating, found"),
        ({**BARE, "feedback": {"affect": [1]}}, "field 'feedback.affect': expected one value per assistant turn"),
        ({**BARE, "feedback": [1, 0]}, "field 'feedback': expected one named list"),
        ({**BARE, "turn_rating": [1, "x"]}, "field 'turn_rating': assistant turn 1: expected a finite number"),
        ({**BARE, "start": 3}, "field 'start': expected a list"),
        ({**BARE, "session_id": 7.5}, "field 'session_id': expected a non-empty string, found 7.5"),
        ({**BARE, "rater_id": 7.5}, "field 'rater_id': expected text"),
        ({**BARE, "score": 10**400}, "field 'score': expected a finite number"),
        ({**BARE, "feedback": {"smile": [1, 1e39]}}, "field 'feedback.smile': assistant turn 1: expected a finite"),
        ({**BARE, "start": [0, -1e39, 2, 3]}, "field 'start': message 1: expected a finite"),
    ],
)
def test_a_line_that_breaks_the_schema_is_named_with_file_line_and_field(tmp_path, line, message):
    with pytest.raises(SessionError, match=message):
        load(jsonl(tmp_path, FULL, line))
    assert not list((tmp_path / "cache").glob("*"))  # nothing half-read is kept


@pytest.mark.parametrize(
    ("field", "columns"),
    [
        ("feedback.affect", {"feedback": {"affect": [1, 0]}}),
        ("scores.fun", {"scores": {"fun": 1}}),
        ("start", {"start": [1, 2, 3, 4]}),
    ],
)
def test_a_column_that_the_first_rows_lack_is_refused_rather_than_dropped(tmp_path, field, columns):
    rows = [{**BARE, "session_id": str(number), "scores": {}} for number in range(100)]
    with pytest.raises(SessionError, match=f"line 101, field '{field}'"):
        load(jsonl(tmp_path, *rows, {**BARE, **columns}))


def test_bytes_that_are_no_utf_8(tmp_path):
    path = tmp_path / "sessions.jsonl"
    path.write_bytes(b'{"session_id": "\xff"}\n')
    with pytest.raises(SessionError, match=r"line 1: no JSON \('utf-8' codec"):
        load(path)


def test_parquet_row_that_breaks_the_schema(tmp_path):
    Dataset.from_list([BARE | {"score": 1.0}, BARE | {"score": 2.0}]).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(SessionError, match=r"rows\.parquet, row 1 \('b'\), field 'session_id'"):
        load(tmp_path / "rows.parquet")


def test_incomplete_parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    Dataset.from_list([BARE | {"score": 1.0}]).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SessionError, match=r"rows\.parquet: no Parquet .* downloaded whole"):
        load(path)


def test_an_absent_corpus_names_the_possible_ones(tmp_path):
    for name in ("candour", tmp_path / "no.jsonl", tmp_path / "folder"):
        with pytest.raises(FileNotFoundError, match=r"there are sample, candor, .*, esconv, chitchat"):
            load_sessions(name, cache_dir=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"hold no \.jsonl or \.parquet file"):
        load_sessions(tmp_path / "empty", cache_dir=tmp_path)
    with pytest.raises(ValueError, match=r"ends in \.jsonl or \.parquet"):
        load_sessions(__file__, cache_dir=tmp_path)


def test_an_id_that_the_hub_does_not_have(tmp_path, monkeypatch):
    def gone(name, split):
        raise ConnectionError(f"could not reach {name}")

    monkeypatch.setattr("geli_hf.data.rows.load_dataset", gone)
    with pytest.raises(FileNotFoundError, match=r"no file or folder 'someone/talks'.* The Hub says: could not reach"):
        load_sessions("someone/talks", cache_dir=tmp_path)


def test_a_dataset_on_the_hub(tmp_path, monkeypatch):
    dataset = load(jsonl(tmp_path, FULL, BARE))
    asked = []
    monkeypatch.setattr("geli_hf.data.rows.load_dataset", lambda name, split: asked.append((name, split)) or dataset)
    again = load_sessions("someone/talks", split="test", cache_dir=tmp_path / "other")
    assert asked == [("someone/talks", "test")]
    assert str(again[:]) == str(dataset[:])

    # The cache tells apart rows that come from no file.
    dataset = Dataset.from_list([BARE | {"score": 1.0}])
    assert load_sessions("someone/talks", split="test", cache_dir=tmp_path / "other")["score"][:] == [1]
    dataset = Dataset.from_list([BARE | {"score": 2.0}])
    assert load_sessions("someone/talks", split="test", cache_dir=tmp_path / "other")["score"][:] == [2]
