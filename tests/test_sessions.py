"""The Session row: an error names row and field; a split keeps conversations together."""

import copy
import math
import re

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from geli_hf import SessionError, add_signal, session_features, split_sessions, validate_sessions
from geli_hf.sessions import OPTIONAL_COLUMNS, REQUIRED_COLUMNS, assistant_turns, feedback_names, merge_turns


def good_row(name: str = "c1-a") -> dict:
    """A row with every column: two assistant turns in four messages."""
    return {
        "session_id": name,
        "conversation_id": name.split("-")[0],
        "rater_id": "",
        "messages": [
            {"role": "user", "content": "I moved last week."},
            {"role": "assistant", "content": "Where to? 🏠"},
            {"role": "user", "content": "Ankara'ya."},
            {"role": "assistant", "content": "Lovely!"},
        ],
        "score": 4.0,
        "scores": {"liking": 4.0, "fun": math.nan},
        "feedback": {"affect": [1.0, math.nan], "sentiment": [0.5, 0.1]},
        "start": [0.0, 1.5, 3.0, math.nan],
        "stop": [1.0, 2.5, 4.0, math.nan],
        "behaviour": ["smiles", ""],
        "turn_rating": [3.0, math.nan],
    }


ALL_FEATURES = session_features(
    ["affect", "sentiment"], scores=["liking", "fun"], times=True, behaviour=True, turn_rating=True
)


def corpus(conversations: int, perspectives: int = 2) -> Dataset:
    names = [f"c{c}-{p}" for c in range(conversations) for p in "ab"[:perspectives]]
    return Dataset.from_list([good_row(name) for name in names], features=ALL_FEATURES)


def test_a_good_row_passes_as_dict_and_as_dataset():
    validate_sessions([good_row()])
    validate_sessions(corpus(3))
    validate_sessions(row for row in [good_row("c1-a"), good_row("c1-b")])
    validate_sessions([{column: good_row()[column] for column in REQUIRED_COLUMNS}])
    validate_sessions([])


def test_columns_of_the_features():
    assert set(session_features()) == {*REQUIRED_COLUMNS, "rater_id"}
    assert set(ALL_FEATURES) == {*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS}
    assert feedback_names(corpus(1)) == ["affect", "sentiment"]
    bare = Dataset.from_list([{name: good_row()[name] for name in session_features()}], features=session_features())
    assert feedback_names(bare) == []


def test_rows_survive_parquet_with_their_missing_numbers(tmp_path):
    corpus(2).to_parquet(tmp_path / "sessions.parquet")
    rows = Dataset.from_parquet(str(tmp_path / "sessions.parquet"), cache_dir=str(tmp_path))
    validate_sessions(rows)
    assert math.isnan(rows[0]["feedback"]["affect"][1])
    assert math.isnan(rows[3]["start"][3])
    assert rows[0]["scores"]["liking"] == 4
    assert math.isnan(rows[0]["scores"]["fun"])
    assert rows[1]["messages"] == good_row()["messages"]


def test_a_missing_score_is_nan():
    row = good_row()
    row["score"] = math.nan
    validate_sessions([row])


def put(*path, value):
    """A change of a row: `value` at `path`."""

    def change(row):
        place = row
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


BREAKS = [
    *((column, put(column, value=None)) for column in REQUIRED_COLUMNS),
    *((column, lambda row, column=column: row.pop(column)) for column in REQUIRED_COLUMNS),
    *((column, put(column, value=value)) for column in ("session_id", "conversation_id") for value in ("", 7)),
    *(("messages", put("messages", value=value)) for value in ([], "hello", 3, {"role": "user", "content": "hello"})),
    *(("messages", put("messages", 1, "role", value=value)) for value in ("system", "", None, "user", 1)),
    *(("messages", put("messages", 2, "content", value=value)) for value in ("", "  \n", None, 3, ["text"])),
    *(("messages", put("messages", 1, value=value)) for value in (None, "hello", {})),
    ("messages", lambda row: row["messages"].pop(1)),
    ("messages", put("messages", value=[{"role": "user", "content": "hello"}])),
    *(("score", put("score", value=value)) for value in ("4", math.inf, -math.inf, True, [4.0])),
    *(("scores.fun", put("scores", "fun", value=value)) for value in ("4", math.inf, True, None, [4.0])),
    *(("scores", put("scores", value=value)) for value in ([4.0], 4.0, "4")),
    *(("feedback.affect", put("feedback", "affect", value=value)) for value in ([], [1.0], [1.0] * 3)),
    *(("feedback.sentiment", put("feedback", "sentiment", 0, value=value)) for value in (None, "good", True, [1.0])),
    *((column, put(column, value=[0.0])) for column in ("start", "stop", "turn_rating")),
    *((column, put(column, 1, value=None)) for column in ("start", "stop", "turn_rating", "behaviour")),
    ("behaviour", put("behaviour", 0, value=1.0)),
    ("behaviour", put("behaviour", value=["smiles"])),
    ("turn_rating", put("turn_rating", value=[1.0] * 4)),
    ("turn_rating", put("turn_rating", value=3.0)),
    ("behaviour", put("behaviour", value="ab")),
    ("feedback", put("feedback", value=[1.0, 0.0])),
    ("feedback.affect", put("feedback", "affect", value=math.nan)),
]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), rows=st.integers(1, 5))
def test_breaking_any_one_thing_is_caught_by_row_and_field(data, rows):
    sessions = [good_row(f"c{n}-a") for n in range(rows)]
    row = data.draw(st.integers(0, rows - 1))
    field, change = data.draw(st.sampled_from(BREAKS))
    check_caught(sessions, row, field, change)


@pytest.mark.parametrize("number", range(len(BREAKS)))
def test_each_break_is_caught(number):
    check_caught([good_row("c0-a"), good_row("c1-a")], 1, *BREAKS[number])


def check_caught(sessions, row, field, change):
    valid = copy.deepcopy(sessions)
    change(sessions[row])
    with pytest.raises(SessionError, match=rf"^row {row}\b.*field '{re.escape(field)}': ."):
        validate_sessions(sessions)
    validate_sessions(valid)


def test_an_id_may_be_used_once():
    with pytest.raises(SessionError, match=r"row 2 \('c0-a'\), field 'session_id': .* id of row 0"):
        validate_sessions([good_row("c0-a"), good_row("c0-b"), good_row("c0-a")])


def test_assistant_turns():
    assert assistant_turns(good_row()["messages"]) == [1, 3]
    assert assistant_turns([]) == []


@settings(max_examples=25, deadline=None)
@given(
    conversations=st.integers(1, 40),
    shares=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any),
    seed=st.integers(0, 2**31),
)
def test_a_split_keeps_conversations_together_and_loses_nothing(conversations, shares, seed):
    names = [f"c{n}" for n in range(conversations) for _ in range(1 + n % 3)]
    sessions = Dataset.from_dict({"conversation_id": names, "row": list(range(len(names)))})
    fractions = {f"part{n}": share / sum(shares) for n, share in enumerate(shares)}
    parts = split_sessions(sessions, fractions, seed=seed)
    again = split_sessions(sessions, fractions, seed=seed)
    assert list(parts) == list(fractions)
    rows = [row for part in parts.values() for row in part["row"]]
    assert sorted(rows) == list(range(len(names)))
    held = [set(part["conversation_id"]) for part in parts.values()]
    assert sum(map(len, held)) == conversations
    for name, part in parts.items():
        assert list(part["row"]) == sorted(part["row"])
        assert list(part["row"]) == list(again[name]["row"])
        assert len(set(part["conversation_id"])) == pytest.approx(fractions[name] * conversations, abs=1.0)


def test_another_seed_splits_otherwise_and_the_order_of_rows_does_not_matter():
    sessions = corpus(30)
    fractions = {"train": 0.7, "eval": 0.3}
    split = [set(split_sessions(sessions, fractions, seed=seed)["eval"]["conversation_id"]) for seed in range(4)]
    assert len({frozenset(part) for part in split}) > 1
    shuffled = sessions.select(np.random.default_rng(0).permutation(len(sessions)))
    assert set(split_sessions(shuffled, fractions, seed=0)["eval"]["conversation_id"]) == split[0]


@pytest.mark.parametrize(
    "fractions", [{"train": 0.5, "eval": 0.6}, {"train": 1.5, "eval": -0.5}, {"train": math.nan}, {}]
)
def test_shares_that_do_not_sum_to_one_are_refused(fractions):
    with pytest.raises(ValueError, match=r"^fractions: "):
        split_sessions(corpus(4), fractions)


def test_successive_rows_of_a_speaker_are_one_turn():
    rows = [("a", " Hi ", 1), ("a", "there", 2), ("b", "", 3), ("b", None, 4), ("a", "again", 5), ("b", "你好", 6)]
    assert merge_turns(rows) == [("a", "Hi there again", [1, 2, 5]), ("b", "你好", [6])]


def words_of_turns(messages):
    return [len(messages[turn]["content"].split()) for turn in assistant_turns(messages)]


def plain_sessions() -> Dataset:
    """Two assistant turns and one, and no signal."""
    rows = [{column: good_row(name)[column] for column in REQUIRED_COLUMNS} for name in ("c1-a", "c2-a")]
    rows[1]["messages"] = rows[1]["messages"][:2]
    return Dataset.from_list(rows)


def test_any_number_per_turn_is_a_signal():
    plain = plain_sessions()
    once = add_signal(plain, "words", words_of_turns)
    assert feedback_names(once) == ["words"]
    assert [row["words"] for row in once["feedback"]] == [[3, 1], [3]]
    twice = add_signal(once, "mine", [[0.5, None], np.array([math.nan], np.float32)])
    validate_sessions(twice)
    assert feedback_names(twice) == ["words", "mine"]
    assert [row["words"] for row in twice["feedback"]] == [[3, 1], [3]]
    np.testing.assert_array_equal(twice[0]["feedback"]["mine"], [0.5, math.nan])
    np.testing.assert_array_equal(twice[1]["feedback"]["mine"], [math.nan])
    assert feedback_names(plain) == []
    assert twice.remove_columns("feedback")[:] == plain[:]
    # The same function of the same sessions is the same dataset, so that what is kept of it is found.
    assert add_signal(plain, "words", words_of_turns)._fingerprint == once._fingerprint
    assert add_signal(plain, "letters", words_of_turns)._fingerprint != once._fingerprint


@pytest.mark.parametrize(
    ("name", "signal", "message"),
    [
        ("words", words_of_turns, "name: the sessions have a signal 'words' already"),
        ("mine", [[1, 2]], "signal: expected one list per row, that is 2, found 1"),
        ("mine", [[1, 2], [1, 2]], r"row 1 \('c2-a'\), field 'feedback.mine': .* that is 1, found 2"),
        (
            "mine",
            [[1, math.inf], [1]],
            r"row 0 \('c1-a'\), .* turn 1: expected a finite number .*, found inf",
        ),
        ("mine", [[1, True], [1]], "assistant turn 1: expected a finite number .*, found True"),
        ("mine", [[1, "good"], [1]], "turn 1: expected a finite number .*, found 'good'"),
        ("mine", lambda messages: 1.0, "row 0 .*: expected a list with one value per assistant turn, found 1.0"),
    ],
)
def test_a_signal_that_does_not_fit_is_refused(name, signal, message):
    with pytest.raises(SessionError, match=message):
        add_signal(add_signal(plain_sessions(), "words", words_of_turns), name, signal)
