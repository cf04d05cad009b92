"""USS on dialogues written here, and on the published file where it is."""

import math

import numpy as np
import pytest

from geli_hf.data import load_sessions, read_report

GOOD = [
    ("USER", "A cheap place to eat, please.", "Restaurant-Inform", "3,3,3"),
    ("SYSTEM", "The Missing Sock.", "Restaurant-Inform", ""),
    ("USER", "Hm.", "", "2,3,4,5"),
    ("USER", "Is it open?", "", "5,5,5"),
    ("SYSTEM", "Yes.", "", ""),
    ("SYSTEM", "Anything else?", "", ""),
    ("USER", "No, thank you, that is wonderful!", "", "4,x,0,"),
    ("SYSTEM", "Bye 👋", "", ""),
    ("USER", "OVERALL", "", "4,5"),
]


def load(tmp_path, *dialogues, **options):
    text = "\n".join("".join("\t".join(line) + "\n" for line in dialogue) for dialogue in dialogues)
    (tmp_path / "MWOZ.txt").write_text(f"\n{text}\n", encoding="utf-8")
    return load_sessions("uss", data_dir=tmp_path, cache_dir=tmp_path / "cache", **options)


def test_the_user_line_after_a_system_turn_rates_it(tmp_path):
    (session,) = load(tmp_path, GOOD)
    assert session["session_id"] == session["conversation_id"] == "MWOZ-0"
    assert session["score"] == 4.5
    assert [message["role"] for message in session["messages"]] == ["user", "assistant"] * 3
    assert session["messages"][2]["content"] == "Hm. Is it open?"
    assert session["messages"][3]["content"] == "Yes. Anything else?"
    # the first user line after it; scores that are none are left out; nobody answered the last turn
    np.testing.assert_array_equal(session["turn_rating"], [3.5, 4, math.nan])


def test_sentiment_of_the_next_user_turn(tmp_path):
    pytest.importorskip("vaderSentiment")
    (session,) = load(tmp_path, GOOD, sentiment=True)
    hm, thanks, nothing = session["feedback"]["sentiment"]
    assert hm == 0
    assert thanks > 0.5
    assert math.isnan(nothing)


def test_skipped_dialogues_are_counted_and_keep_their_numbers(tmp_path):
    sessions = load(
        tmp_path,
        GOOD[:-1],
        GOOD,
        [*GOOD[:-1], ("USER", "OVERALL", "", "")],
        [*GOOD[:-1], ("USER", "OVERALL", "", "nan,7")],
        [GOOD[0], GOOD[-1]],
        [("SYSTEM", "Hello?", "", ""), GOOD[-1]],
        [("USER", "Hello", "3")],
        [("BOT", "Hello", "", ""), GOOD[-1]],
    )
    assert sessions["session_id"][:] == ["MWOZ-1"]
    assert read_report(sessions).skipped == {
        "no OVERALL line (half-downloaded?)": 1,
        "no OVERALL score from 1 to 5": 2,
        "no turn of the user or of the system": 2,
        "a line is not ROLE, text, action, satisfaction between tabs": 2,
    }


def test_a_file_instead_of_a_folder_and_a_split_that_is_not_there(tmp_path):
    load(tmp_path, GOOD)
    (tmp_path / "MWOZ.txt").rename(tmp_path / "mine.txt")
    sessions = load_sessions("uss", data_dir=tmp_path / "mine.txt", cache_dir=tmp_path)
    assert sessions["session_id"][:] == ["mine-0"]
    with pytest.raises(FileNotFoundError, match=r"no MWOZ\.txt; found mine\.txt"):
        load_sessions("uss", data_dir=tmp_path, cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="elsewhere has no MWOZ"):
        load_sessions("uss", data_dir=tmp_path / "elsewhere", cache_dir=tmp_path)


@pytest.mark.parametrize(("split", "count"), [("MWOZ", 1000), ("CCPE", 500)])
def test_published_corpus(shared_data, tmp_path, split, count):
    sessions = load_sessions("uss", data_dir=shared_data / "uss", split=split, cache_dir=tmp_path)
    assert len(sessions) == count
    assert not read_report(sessions).skipped
    means = [np.nanmean(ratings) for ratings in sessions["turn_rating"]]
    assert np.corrcoef(sessions["score"][:], means)[0, 1] > 0.5
