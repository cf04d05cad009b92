"""Chit-Chat on conversations written here, and on the published file where its package is."""

import hashlib
import importlib.util
import itertools
import json
import math

import numpy as np
import pytest

from geli_hf.data import load_sessions, read_report
from geli_hf.sessions import SessionError

ANN, BO = "720840be", "549cc1d1"
FORM = "messages not in the published form (lists of text, sender and timestamp with its zone)"
RATINGS = {"witty": 10, "upbeat": 7, "interesting": 4}


def line(sender: str, text: str, second: int | None = None) -> dict:
    return {"text": text, "sender": sender, "timestamp": None if second is None else f"2018-05-02T19:38:{second:02}Z"}


# Published messages are lists of one speaker's lines; a speaker may have two lists in a row.
MESSAGES = [
    [line(ANN, "Hello", 15), line(ANN, "How are you doing? ", 20)],
    [line(BO, "whats up", 29)],
    [line(BO, "im doing good 👋", 33)],
    [line(ANN, "Alright.", 41), line(ANN, "  ", 50)],
    [line(BO, "oh wow", 55)],
    [line(ANN, "Yeah", 56)],
    [line(BO, "bye", 57)],
]
GOOD = {"messages": MESSAGES, "ratings": RATINGS, "start": "2018-05-02T19:38:01Z", "prompt": "Are you well?"}


def load(tmp_path, *conversations, **options):
    named = {f"c{index}": conversation for index, conversation in enumerate(conversations)}
    (tmp_path / "dataset.json").write_text(json.dumps(named), encoding="utf-8")
    return load_sessions("chitchat", data_dir=tmp_path, cache_dir=tmp_path / "cache", **options)


def rated(ratings) -> dict:
    return {**GOOD, "ratings": ratings}


def said(*messages) -> dict:
    return {**GOOD, "messages": list(messages)}


def changed(**fields) -> dict:
    """The good conversation with another second line."""
    first, second, *others = MESSAGES
    return said(first, [{**second[0], **fields}], *others)


def test_each_speaker_has_a_session_with_merged_lines_and_times(tmp_path):
    first, second = load(tmp_path, GOOD)
    assert [first["session_id"], second["session_id"]] == ["c0/first", "c0/second"]
    assert first["conversation_id"] == second["conversation_id"] == "c0"
    assert first["rater_id"] == ""
    texts = ["Hello How are you doing?", "whats up im doing good 👋", "Alright.", "oh wow", "Yeah", "bye"]
    for session, roles in ((first, ["assistant", "user"] * 3), (second, ["user", "assistant"] * 3)):
        assert [message["role"] for message in session["messages"]] == roles
        assert [message["content"] for message in session["messages"]] == texts
        # the line of spaces is no line
        assert session["start"] == [0, 14, 26, 40, 41, 42]
        assert session["stop"] == [5, 18, 26, 40, 41, 42]
        assert session["score"] == 7
        assert session["scores"] == RATINGS


@pytest.mark.parametrize(("side", "ids"), [("first", ["c0/first"]), ("second", ["c0/second"])])
def test_a_side_alone(tmp_path, side, ids):
    assert load(tmp_path, GOOD, side=side)["session_id"][:] == ids


@pytest.mark.parametrize(("score", "value"), [("mean", 7), *RATINGS.items()])
def test_the_mean_or_one_rating_is_the_score(tmp_path, score, value):
    assert load(tmp_path, GOOD, score=score)["score"][:] == [value] * 2


def test_untouched_forms_are_left_out_unless_asked_for(tmp_path):
    untouched = rated(dict.fromkeys(RATINGS, 5))
    almost = rated(dict.fromkeys(RATINGS, 5) | {"witty": 6})
    sessions = load(tmp_path, untouched, almost, side="first")
    assert sessions["conversation_id"][:] == ["c1"]
    assert read_report(sessions).skipped == {"rated 5, 5, 5, as an untouched form is": 1}
    assert load(tmp_path, untouched, almost, side="first", untouched=True)["score"][:] == pytest.approx([5, 16 / 3])


def test_skipped_conversations_are_counted_for_each_side(tmp_path):
    alone = [line(ANN, "Hello", 1)], [line(ANN, "Anyone?", 2)]
    sessions = load(
        tmp_path,
        GOOD,
        said(*alone),
        said(*MESSAGES, [line("a third", "Hi", 58)]),
        said(),
        said(*MESSAGES[:6]),
        {key: value for key, value in GOOD.items() if key != "ratings"},
        rated(None),
        rated([10, 7, 4]),
        rated({"witty": 10}),
        rated(RATINGS | {"witty": 11}),
        rated(RATINGS | {"witty": 0}),
        rated(RATINGS | {"witty": "10"}),
        rated(RATINGS | {"witty": True}),
        rated(RATINGS | {"witty": math.nan}),
        rated(RATINGS | {"witty": math.inf}),
        changed(timestamp="2018-05-02T19:38:19Z"),
        GOOD,
    )
    assert sessions["conversation_id"][:] == ["c0", "c0", "c16", "c16"]
    assert read_report(sessions).skipped == {
        "speakers: 1, not 2": 2,
        "speakers: 3, not 2": 2,
        "speakers: 0, not 2": 2,
        "fewer than 6 messages": 2,
        "no ratings": 4,
        "ratings other than witty, upbeat, interesting from 1 to 10": 16,
        "times run backwards": 2,
    }


def test_the_least_number_of_messages(tmp_path):
    sessions = load(tmp_path, said(*MESSAGES[:6]), said(*MESSAGES))  # two in a row are of one speaker
    assert len(sessions) == 2
    assert read_report(sessions).skipped == {"fewer than 6 messages": 2}


def test_unknown_times_are_missing_and_the_session_stays(tmp_path):
    session = load(tmp_path, changed(timestamp=None), side="first")[0]
    np.testing.assert_array_equal(session["start"], [0, math.nan, 26, 40, 41, 42])
    np.testing.assert_array_equal(session["stop"], [5, 18, 26, 40, 41, 42])
    late = said([line(ANN, "Hello")], *MESSAGES[1:])
    session = load(tmp_path, late, side="first")[0]
    np.testing.assert_array_equal(session["start"], [math.nan, 0, 12, 26, 27, 28])
    never = said(*([{key: each[key] for key in ("text", "sender")} for each in block] for block in MESSAGES))
    session = load(tmp_path, never, side="first")[0]
    assert np.isnan(session["start"] + session["stop"]).all()
    assert len(session["start"]) == len(session["messages"])


def test_times_that_run_backwards_around_an_unknown_one(tmp_path):
    backwards = said(MESSAGES[0], [line(BO, "whats up")], [line(BO, "im good", 19)], *MESSAGES[3:])
    assert read_report(load(tmp_path, GOOD, backwards)).skipped == {"times run backwards": 2}


def test_times_of_other_zones(tmp_path):
    session = load(tmp_path, changed(timestamp="2018-05-02T21:38:29.5+02:00"), side="first")[0]
    assert session["start"][1] == 14.5


@pytest.mark.parametrize(
    "broken",
    [
        changed(timestamp="yesterday"),
        changed(timestamp="2018-05-02T19:38:29"),  # without a zone
        changed(timestamp="0001-01-01T00:00:00"),
        changed(timestamp="9999-12-31"),
        changed(timestamp=1525289909),
        changed(text=None),
        changed(text=3),
        changed(text=["Hi"]),
        changed(sender=None),
        changed(sender=7),
        changed(sender=[BO]),
        said(MESSAGES[0][0]),  # lines, not lists of lines
        said(["Hello", "Hi"]),
        said([{"text": "Hello"}]),
        said(None),
        said([None]),
        {**GOOD, "messages": None},
        {**GOOD, "messages": 3},
        {**GOOD, "messages": {"a": MESSAGES[0]}},
        {**GOOD, "messages": "Hello"},
        {"ratings": RATINGS},
        MESSAGES,
        "Hello",
        None,
    ],
    ids=str,
)
def test_another_form_is_counted_and_no_other_conversation_is_lost(tmp_path, broken):
    sessions = load(tmp_path, GOOD, broken, GOOD)
    assert sessions["conversation_id"][:] == ["c0", "c0", "c2", "c2"]
    assert read_report(sessions).skipped == {FORM: 2}


def test_the_latest_and_the_earliest_time(tmp_path):
    ends = said([line(ANN, "Hello")], [{**MESSAGES[1][0], "timestamp": "0001-01-01T00:00:00+23:59"}], *MESSAGES[2:-1])
    ends["messages"].append([{**MESSAGES[-1][0], "timestamp": "9999-12-31T23:59:59-23:59"}])
    session = load(tmp_path, ends, side="first")[0]
    assert 3e11 < session["stop"][-1] < 4e11


def test_a_conversation_without_an_id(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"": GOOD, "one": GOOD}))
    sessions = load_sessions("chitchat", data_dir=tmp_path, cache_dir=tmp_path / "cache", side="first")
    assert sessions["session_id"][:] == ["one/first"]
    assert read_report(sessions).skipped == {"no id": 1}


@pytest.mark.parametrize(("option", "value"), [("score", "charming"), ("side", "third"), ("side", 0)])
def test_an_option_of_another_value_is_named(tmp_path, option, value):
    with pytest.raises(ValueError, match=f"^{option}: .*{value}"):
        load(tmp_path, GOOD, **{option: value})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps([GOOD]).encode(), "expected a dict of conversations, found a list"),
        (b'{"c0": {"messages": [', r"dataset\.json, line 1: no JSON .* downloaded whole"),
        (b"", r"dataset\.json, line 1: no JSON"),
        ('{"c0": "caf\u00e9"}'.encode("latin-1"), r"dataset\.json, line 1: no UTF-8"),
        (b"{}", "no session at all"),
        (json.dumps({"c0": rated(None)}).encode(), "no ratings"),
    ],
    ids=["list", "broken off", "empty", "latin-1", "no conversation", "none rated"],
)
def test_another_file_is_a_clear_error(tmp_path, content, message):
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(SessionError, match=message):
        load_sessions("chitchat", data_dir=tmp_path, cache_dir=tmp_path / "cache")


def test_a_folder_or_package_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no dataset\.json"):
        load_sessions("chitchat", data_dir=tmp_path, cache_dir=tmp_path)
    monkeypatch.setattr("geli_hf.data.chitchat.PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match=r"chitchat-dataset.*data_dir"):
        load_sessions("chitchat", cache_dir=tmp_path)
    (tmp_path / "no_such_package").mkdir()  # such a folder is a package without a file
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(FileNotFoundError, match="chitchat-dataset"):
        load_sessions("chitchat", cache_dir=tmp_path)


def test_published_corpus(tmp_path):
    if importlib.util.find_spec("chitchat_dataset") is None:
        pytest.skip("the package chitchat-dataset is not installed")
    sessions = load_sessions("chitchat", cache_dir=tmp_path)
    assert len(sessions) == 3920
    assert len(set(sessions["conversation_id"])) == 1960
    assert read_report(sessions).skipped == {
        "rated 5, 5, 5, as an untouched form is": 5840,
        "no ratings": 2360,
        "speakers: 1, not 2": 1382,
        "fewer than 6 messages": 834,
    }
    scores = np.array(sessions["score"])
    assert 1 <= scores.min() < scores.mean() < scores.max() <= 10
    assert not np.isnan(np.concatenate([np.array(row) for row in sessions["start"]])).any()


class TestHalves:
    """Speakers in two halves by a hash of their ids: worked out here by another way to write it."""

    @staticmethod
    def half(sender: str) -> str:
        return "ab"[int(hashlib.sha256(sender.encode()).hexdigest()[:2], 16) & 1]

    @pytest.mark.parametrize("half", ["a", "b", "mixed"])
    def test_a_half_has_the_conversations_within_it(self, half, tmp_path):
        names = [f"speaker-{number}" for number in range(12)]
        talks, expected = [], []
        for index, (one, other) in enumerate(itertools.combinations(names, 2)):
            lines = [[line(one if turn % 2 else other, f"words {turn}", turn)] for turn in range(6)]
            talks.append(said(*lines))
            found = self.half(one) if self.half(one) == self.half(other) else "mixed"
            expected += [f"c{index}"] if found == half else []
        rows = load(tmp_path, *talks, half=half, side="first")
        assert rows["conversation_id"][:] == expected
        assert 0 < len(expected) < len(talks)

    def test_an_unknown_half_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"half.*'c'"):
            load(tmp_path, GOOD, half="c")
