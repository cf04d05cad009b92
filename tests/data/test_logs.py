"""Chat logs in the forms in which they are published, written here, and the sessions that come of them."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geli_hf import SessionError, load_sessions, read_report
from geli_hf.data.logs import files as log_files
from geli_hf.data.logs import open_corpus
from geli_hf.data.logs.formats import FORMATS, seconds

HELLO = [
    {"role": "user", "content": "My dog ran away."},
    {"role": "assistant", "content": "Oh no. When?"},
    {"role": "user", "content": "Today."},
    {"role": "assistant", "content": "Let us look for her."},
]
TEXTS = [message["content"] for message in HELLO]


def write(path: Path, rows: list, *, text: str | None = None) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


@pytest.fixture
def load(tmp_path):
    """Load rows that are written to a file first; its suffix says how."""

    def load(suffix: str, rows: list, **options):
        options.setdefault("format", "auto")
        return load_sessions(write(tmp_path / f"log{suffix}", rows), cache_dir=tmp_path / "cache", **options)

    return load


def texts(session) -> list[str]:
    assert [message["role"] for message in session["messages"]] == ["user", "assistant"] * (
        len(session["messages"]) // 2
    )
    return [message["content"] for message in session["messages"]]


def test_openai_messages_with_a_rating_and_what_is_no_text(load):
    weather = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    row = {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {}}]},
            {"role": "assistant", "content": None, "tool_calls": [weather, weather]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            {"role": "assistant", "content": "It rains.", "weight": 1},
            {"role": "assistant", "content": " "},
            {"role": "assistant", "content": "Take a coat."},
        ],
        "tools": [],
        "metadata": {"stars": "4"},
    }
    sessions = load(".jsonl", [row, {"messages": HELLO, "id": "b"}], score="stars")
    assert sessions["session_id"][:] == ["log-1", "b"] == sessions["conversation_id"][:]
    assert texts(sessions[0]) == ["Look:", "It rains. Take a coat."]
    assert texts(sessions[1]) == TEXTS
    np.testing.assert_equal(sessions["score"][:], [4.0, math.nan])
    assert read_report(sessions).left_out == {
        "system prompts": 1,
        "parts that are no text, such as images": 1,
        "tool calls and results": 3,
        "empty messages": 1,
    }
    assert "empty messages" in str(read_report(sessions))


def test_signals_of_openai_messages_are_fields_of_them(load):
    rated = [*HELLO[:3], HELLO[3] | {"thumbs": -1}]
    sessions = load(".jsonl", [{"messages": rated}], signals=["thumbs"], score="thumbs")
    np.testing.assert_equal(sessions[0]["feedback"], {"thumbs": [math.nan, -1.0]})
    assert sessions["score"][:] == [-1.0]


def test_sharegpt(load):
    turns = [("system", "Be kind."), ("human", "Hi"), ("function_call", "{}"), ("observation", "1"), ("gpt", "Hello")]
    rows = [{"id": "x_0", "conversations": [{"from": role, "value": value} for role, value in turns], "score": 3}]
    sessions = load(".json", rows)
    assert (sessions["session_id"][:], sessions["score"][:], texts(sessions[0])) == (["x_0"], [3.0], ["Hi", "Hello"])
    assert read_report(sessions).left_out == {"system prompts": 1, "tool calls and results": 2}


@pytest.mark.parametrize("name", ["conversation_hash", "conversation_id"])
def test_wildchat_and_lmsys_in_parquet(load, name):
    extra = {"language": "English", "redacted": False, "toxic": False, "turn_identifier": 7}
    rows = [
        {name: "c1", "model": "m", "conversation": [message | extra for message in HELLO], "turn": 2},
        {name: "c1", "model": "m", "conversation": [message | extra for message in HELLO], "turn": 2},
    ]
    if name == "conversation_hash":
        rows = [row | {"hashed_ip": "9f"} for row in rows]
    sessions = load(".parquet", rows)
    assert (sessions["session_id"][:], texts(sessions[0])) == (["c1"], TEXTS)
    assert sessions["rater_id"][:] == (["9f"] if name == "conversation_hash" else [""])
    assert list(read_report(sessions).skipped.values()) == [1]  # the id came before


# -- Open WebUI


def chat(**annotations) -> dict:
    """A chat of which the second answer was generated twice, and the first question written twice."""
    parents = {"u0": None, "u1": None, "a1": "u1", "u2": "a1", "a2": "u2", "a3": "u2"}
    contents = {"u0": "My cat", "u1": TEXTS[0], "a1": TEXTS[1], "u2": TEXTS[2], "a2": "No idea.", "a3": TEXTS[3]}
    messages = {}
    for key, parent in parents.items():
        message = {"id": key, "parentId": parent, "childrenIds": [child for child, of in parents.items() if of == key]}
        message |= {
            "role": "user" if key[0] == "u" else "assistant",
            "content": contents[key],
            "timestamp": 1700000000,
        }
        messages[key] = message | ({"model": "llama"} if key[0] == "a" else {}) | annotations.get(key, {})
    history = {"currentId": "a3", "messages": messages}
    return {"id": "chat-1", "user_id": "ann", "chat": {"title": "Dog", "history": history}, "updated_at": 1700000005}


def test_an_open_webui_chat_with_thumbs_regenerated_and_edited_turns(load):
    rated = {"annotation": {"rating": 1, "reason": "other", "details": {"rating": 9}}, "originalContent": "Oh."}
    sessions = load(".json", [chat(a1=rated)])
    [session] = sessions
    assert texts(session) == TEXTS
    assert session["feedback"] == {"thumbs": [1, 0], "regenerated": [0, -1], "edited": [-1, 0]}
    np.testing.assert_equal(session["turn_rating"], [9, math.nan])
    assert (session["session_id"], session["rater_id"]) == ("chat-1", "ann")
    assert math.isnan(session["score"])
    assert read_report(sessions).left_out == {"branches beside the active one": 2}
    assert load(".json", [chat(a1=rated)], score="turn_rating")["score"][:] == [9.0]


def test_another_model_beside_a_turn_is_no_regeneration(load):
    [session] = load(".json", [chat(a2={"model": "qwen"})])
    assert session["feedback"]["regenerated"] == [0, 0]


def test_open_webui_feedback_joins_its_chat_whichever_came_last(load):
    def feedback(number: int, message: str, rating: int) -> dict:
        data = {"rating": rating, "model_id": "llama", "details": {"rating": 5 + rating}}
        about = {"user_id": "bob", "type": "rating", "data": data, "updated_at": 1700000000 + number}
        return {"id": f"f{number}", "meta": {"chat_id": "chat-1", "message_id": message}, "snapshot": None} | about

    first = feedback(1, "a1", -1)
    snapshot = feedback(9, "a3", 1) | {"snapshot": {"chat": chat()}}
    [session] = load(".json", [snapshot, first])
    assert texts(session) == TEXTS
    assert session["feedback"]["thumbs"] == [-1, 1]
    assert session["turn_rating"] == [4, 6]
    [with_chat] = load(".json", [first, chat()])
    assert with_chat["feedback"]["thumbs"] == [-1, 0]


def test_a_legacy_open_webui_chat_without_an_id(load):
    [session] = load(".json", [chat(a1={"rating": -1})["chat"]])
    assert (session["session_id"], session["feedback"]["thumbs"]) == ("log-1", [-1, 0])


# -- Langfuse

TRACES = [
    {
        "id": "t2",
        "timestamp": "2024-05-29T13:46:29.000Z",
        "sessionId": "s1",
        "userId": "ann",
        "input": HELLO[:3],
        "output": {"role": "assistant", "content": TEXTS[3]},
        "latency": 2.5,
        "helpful": [0, 1],
    },
    {
        "id": "t1",
        "timestamp": "2024-05-29T13:46:19.000Z",
        "sessionId": "s1",
        "userId": "ann",
        "input": json.dumps({"messages": [{"role": "system", "content": "Be kind."}, HELLO[0]]}),
        "output": TEXTS[1],
        "latency": 1.5,
        "helpful": None,
    },
    {
        "id": "t3",
        "timestamp": "2024-05-29T13:00:00Z",
        "sessionId": None,
        "input": "Hi",
        "output": "Hello",
        "latency": 1,
    },
]
SCORES = [
    {"id": "1", "traceId": None, "sessionId": "s1", "name": "csat", "value": 4, "dataType": "NUMERIC"},
    {"id": "2", "traceId": "t1", "sessionId": "s1", "name": "helpful", "value": 1, "dataType": "BOOLEAN"},
    {"id": "3", "traceId": "t3", "sessionId": None, "name": "helpful", "value": 0, "dataType": "BOOLEAN"},
]


def test_langfuse_traces_make_a_session_with_scores_and_times(load, tmp_path):
    write(tmp_path / "scores.jsonl", SCORES)
    write(tmp_path / "traces.json", TRACES)
    (tmp_path / "export").mkdir()
    for name in ("scores.jsonl", "traces.json"):
        (tmp_path / name).rename(tmp_path / "export" / name)
    sessions = load_sessions(tmp_path / "export", format="auto", signals=["helpful"], cache_dir=tmp_path / "cache")
    rows = {row["session_id"]: row for row in sessions}
    assert set(rows) == {"s1", "t3"}
    assert texts(rows["s1"]) == TEXTS
    assert rows["s1"]["feedback"] == {"helpful": [1.0, 0.5]}
    assert (rows["s1"]["start"], rows["s1"]["stop"]) == ([0, 0, 10, 10], [0, 1.5, 10, 12.5])
    assert (rows["s1"]["score"], rows["s1"]["rater_id"]) == (4.0, "ann")
    assert (texts(rows["t3"]), rows["t3"]["feedback"]) == (["Hi", "Hello"], {"helpful": [0.0]})
    assert math.isnan(rows["t3"]["score"])


def test_langfuse_observations_of_a_bucket_stand_for_their_traces(load):
    root = {"parent_observation_id": "", "trace_id": "t1", "session_id": "s1", "type": "SPAN"}
    root |= {"start_time": "2024-05-29 13:46:19.963000", "end_time": "2024-05-29 13:46:20.963000"}
    rows = [
        root
        | {"id": "o1", "input": "Hi", "output": '{"choices": [{"message": {"role": "assistant", "content": "Ho"}}]}'},
        root | {"id": "o2", "parent_observation_id": "o1", "input": "x", "output": "y"},
        {"id": "1", "trace_id": "t1", "session_id": None, "name": "helpful", "value": 1},
    ]
    sessions = load(".jsonl", rows, score="helpful")
    assert (texts(sessions[0]), sessions[0]["stop"]) == (["Hi", "Ho"], [0, 1])
    assert sessions["score"][:] == [1.0]  # the mean over the turns
    assert read_report(sessions).left_out == {"observations inside others": 1}
    report = read_report(load(".jsonl", rows))
    assert any("helpful" in what for what in report.left_out)


# -- CSV

COLUMNS = {"session": "chat", "role": "who", "text": "words", "score": "stars", "time": "sent", "turn_rating": "grade"}


def table(*rows: tuple) -> list[dict]:
    return [dict(zip(("chat", "who", "words", "stars", "sent", "grade", "copied"), row)) for row in rows]


def test_a_csv_with_the_messages_of_two_sessions_mixed(load):
    rows = table(
        ("a", "customer", "Hi, there", "", "2024-05-29T10:00:00", "", ""),
        ("b", "customer", "Help", "2", "1716976800", "", ""),
        ("a", "agent", "Hello\nyou", "5", "2024-05-29T10:00:05Z", "4", "1"),
        ("b", "agent", "No.", "2", "1716976810.5", "", "0"),
    )
    sessions = load(
        ".csv", rows, columns=COLUMNS, roles={"Customer": "user", "agent": "assistant"}, signals=["copied"]
    )
    assert sessions["session_id"][:] == ["a", "b"]
    assert [texts(session) for session in sessions] == [["Hi, there", "Hello\nyou"], ["Help", "No."]]
    assert sessions["score"][:] == [5.0, 2.0]
    assert sessions["start"][:] == [[0, 5], [0, 10.5]] == sessions["stop"][:]
    np.testing.assert_equal(sessions["turn_rating"][:], [[4.0], [math.nan]])
    assert [session["feedback"] for session in sessions] == [{"copied": [1.0]}, {"copied": [0.0]}]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (5, 5),
        ("1716976800", 1716976800),
        ("2024-05-29T10:00:00+00:00", 1716976800),
        ("soon", math.nan),
        (None, math.nan),
    ],
)
def test_seconds(time, expected):
    np.testing.assert_equal(seconds(time), float(expected))


# -- what is wrong with a log


def test_a_broken_line_is_skipped_and_the_first_one_named(load, tmp_path):
    good = json.dumps({"messages": HELLO})
    lines = [
        good,
        '{"messages": [',
        good,
        b"\xff\xfe",
        "[1]",
        json.dumps({"messages": 3}),
        '{"messages": [{"role": "x',
    ]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    sessions = load_sessions(path, format="openai", cache_dir=tmp_path)
    report = read_report(sessions)
    assert sessions["session_id"][:] == ["bad-1", "bad-3"]
    assert (report.read, sum(report.skipped.values())) == (2, 5)
    assert [file for [file] in report.files.values()] == [f"{path}, line {number}" for number in (2, 5, 6)]


def test_a_json_file_that_breaks_off_is_read_up_to_there(tmp_path):
    path = write(tmp_path / "log.json", [{"id": str(number), "messages": HELLO} for number in range(5)])
    path.write_text(path.read_text(encoding="utf-8")[:-100], encoding="utf-8")
    sessions = load_sessions(path, format="auto", cache_dir=tmp_path)
    assert len(sessions) == 4
    assert [file for [file] in read_report(sessions).files.values()] == [f"{path}, conversation 5"]


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([*HELLO[:1], {"role": "narrator", "content": "So."}], "narrator"),
        (HELLO[:1], "assistant"),
        (HELLO[1:2], "user"),
        ([HELLO[0] | {"name": "ann"}, HELLO[1], HELLO[2] | {"name": "bob"}, HELLO[3]], "user"),
        ([HELLO[0], HELLO[1] | {"name": "r2"}, HELLO[2], HELLO[3] | {"name": "c3"}], "assistant"),
        ([], "user"),
        ([{"content": "x"}], "form"),
        ([HELLO[0] | {"content": 5}], "form"),
        ("Hello", "form"),
    ],
)
def test_a_conversation_of_another_kind_is_skipped(load, messages, named):
    report = read_report(load(".jsonl", [{"messages": HELLO}, {"messages": messages}], format="openai"))
    [(reason, count)] = report.skipped.items()
    assert (count, report.read) == (1, 1)
    assert named in reason


def test_a_circle_of_open_webui_messages_is_skipped(load):
    broken = chat()
    broken["chat"]["history"]["messages"]["u1"]["parentId"] = "a3"
    assert read_report(load(".json", [chat() | {"id": "c"}, broken])).skipped


def test_formats_are_not_mixed(tmp_path):
    write(tmp_path / "a.jsonl", [{"messages": HELLO}])
    write(tmp_path / "b.json", [{"conversations": []}])
    with pytest.raises(SessionError, match=r"a\.jsonl.*b\.json"):
        open_corpus(tmp_path)


@pytest.mark.parametrize("rows", [[{"prompt": "a", "reply": "b"}], []])
def test_an_unknown_log_is_named_with_its_fields(tmp_path, rows):
    with pytest.raises(SessionError, match=r"x\.jsonl.*" + ("prompt, reply" if rows else "none")):
        open_corpus(write(tmp_path / "x.jsonl", rows))


def test_wrong_arguments(tmp_path):
    path = write(tmp_path / "x.csv", table(("a", "user", "Hi", "", "", "", "")))
    with pytest.raises(ValueError, match="format"):
        open_corpus(path, format="whatsapp")
    with pytest.raises(ValueError, match=r"columns.*session"):
        open_corpus(path)
    with pytest.raises(ValueError, match=r"columns.*kind"):
        open_corpus(path, columns=COLUMNS | {"kind": "x"})
    with pytest.raises(SessionError, match="speech"):
        load_sessions(path, format="csv", columns=COLUMNS | {"text": "speech"}, cache_dir=tmp_path)
    with pytest.raises(ValueError, match=r"x\.zip"):
        open_corpus(path.rename(tmp_path / "x.zip"))
    with pytest.raises(FileNotFoundError, match="absent"):
        open_corpus(tmp_path / "absent.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty"):
        open_corpus(tmp_path / "empty")


def test_a_parquet_that_is_none(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SessionError, match=r"x\.parquet"):
        open_corpus(tmp_path / "x.parquet")


def rated(*scores) -> list[dict]:
    return [{"messages": HELLO, "score": score} for score in scores]


@pytest.mark.parametrize("scores", [[1, 3, 5, 80, 95], [0.25, 0.8, 4, 5]])
def test_two_scales_in_one_file_are_refused_until_one_is_chosen(load, scores):
    with pytest.raises(SessionError, match="--scale"):
        load(".jsonl", rated(*scores))
    sessions = load(".jsonl", rated(*scores), scale=(1, 5))
    kept = [score if 1 <= score <= 5 else math.nan for score in scores]
    np.testing.assert_equal(sessions["score"][:], kept)
    assert sum(read_report(sessions).left_out.values()) == sum(map(math.isnan, kept))


@pytest.mark.parametrize(
    "scores", [[1, 2, 3, 4, 5], [1, 5, 8, 10], [0, 3, 7, 60, 100], [0, 1], [-1, 1], [0.5, 0.9], [90, 95, 99] * 7 + [2]]
)
def test_one_scale_is_no_problem(load, scores):
    assert load(".jsonl", rated(*scores))["score"][:] == pytest.approx(scores)


def test_ratings_that_are_no_number_are_missing_and_counted(load):
    sessions = load(".jsonl", rated("good", "4", True, 1e300, float("nan")))
    np.testing.assert_equal(sessions["score"][:], [math.nan, 4, 1, math.nan, math.nan])
    assert sum(read_report(sessions).left_out.values()) == 3


def test_several_ratings_have_to_be_chosen_from(load):
    rows = [*TRACES, SCORES[0], SCORES[0] | {"name": "effort", "value": 1}]
    with pytest.raises(SessionError, match=r"csat, effort"):
        load(".jsonl", rows)
    scores = {row["session_id"]: row["score"] for row in load(".jsonl", rows, score="effort")}
    assert scores["s1"] == 1.0
    with pytest.raises(SessionError, match="stars"):
        load(".jsonl", rows, score="stars")


def test_several_scores_of_one_csv_session(load):
    rows = table(
        ("a", "user", "Hi", "4", "", "", ""), ("a", "bot", "Ho", "5", "", "", ""), ("b", "user", "Hi", "4", "", "", "")
    )
    with pytest.raises(SessionError, match="several scores"):
        load(".csv", rows, columns=COLUMNS)


# -- streaming, and redaction


@given(
    rows=st.lists(st.fixed_dictionaries({"id": st.text(), "deep": st.recursive(st.none(), st.lists, max_leaves=5)})),
    indent=st.sampled_from([None, 2]),
    chunk=st.integers(1, 40),
    listed=st.booleans(),
)
def test_a_json_file_is_read_in_pieces_of_any_size(rows, indent, chunk, listed, tmp_path_factory):
    path = tmp_path_factory.mktemp("json") / "x.json"
    each = [json.dumps(row, indent=indent) for row in rows]
    path.write_text(f"[{', '.join(each)}]\n" if listed else "\n".join(each), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_files, "CHUNK", chunk)
        assert [row for _, row in log_files.read_objects(path)] == rows


def test_memory_does_not_grow_with_the_file(tmp_path):
    import tracemalloc

    def peak(conversations: int) -> int:
        path = tmp_path / f"{conversations}.json"
        with path.open("w", encoding="utf-8") as file:
            file.write("[")
            for number in range(conversations):
                row = {"id": f"{number}", "messages": [HELLO[0] | {"content": "word " * 2000}, HELLO[1]]}
                file.write(("," if number else "") + json.dumps(row))
            file.write("]")
        tracemalloc.start()
        assert sum(1 for _ in open_corpus(path).rows()) == conversations
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    assert peak(3000) < peak(600) + 2**20  # 30 MB and 6 MB


def test_redaction_masks_words_and_ids_and_counts(load):
    private = "Write to ann@example.com or call 808-555-0157, card 4111 1111 1111 1111, see https://example.com/x. Ann"
    row = {"conversation_hash": "ann@example.com", "hashed_ip": "9f", "conversation": [*HELLO[:3], HELLO[3]]}
    row["conversation"][0] = HELLO[0] | {"content": private}
    sessions = load(".jsonl", [row], redact=True)
    assert sessions[0]["messages"][0]["content"] == "Write to [mail] or call [phone], card [card], see [link] Ann"
    assert "ann@example.com" not in json.dumps(sessions[0])
    assert sessions[0]["rater_id"] not in ("9f", "")
    assert sum(read_report(sessions).left_out.values()) == 4


def test_every_format_is_tested_here():
    assert set(FORMATS) == {"openwebui", "sharegpt", "wildchat", "lmsys", "openai", "langfuse", "csv"}
