"""From sessions to a signal more: what is asked, kept, retried, merged and counted."""

import json
import math
import re
from pathlib import Path

import pytest
from asking import all_nan, dataset, session, signal
from chat_server import Reply, turns_asked_for, well

from geli_hf.llm import BackendError, Prompt, renormalise
from geli_hf.sessions import SessionError, validate_sessions

SECRET = "sk-very-secret-0123456789"
TOO_FEW = '{"1": 5}'


def test_every_turn_gets_what_the_model_said_moved_towards_the_score(server, decomposer, sessions):
    out, report = decomposer(server()).decompose(sessions)
    # good +1, bad -1: the first session's numbers are 6, 4 and 5, whose mean is the score already. The third was said
    # to be worth 9 and rated 8, so that half of the difference stays.
    assert signal(out) == [[6, 4, 5], [2, 4], [8.5]]
    assert (report.done, report.failures, report.calls, report.cached) == (3, 0, 3, 0)
    assert (report.prompt_tokens, report.answer_tokens) == (300, 30)
    assert out.remove_columns("feedback").to_list() == sessions.to_list()
    validate_sessions(out)


def test_other_signals_stay(server, decomposer, rows):
    rows = [row | {"feedback": {"smile": [0.5] * turns}} for row, turns in zip(rows, (3, 2, 1))]
    sessions = dataset(*rows, feedback=["smile"])
    out, _ = decomposer(server()).decompose(sessions, name="qwen")
    assert signal(out, "smile") == [[0.5] * 3, [0.5] * 2, [0.5]]
    assert signal(out, "qwen") == [[6, 4, 5], [2, 4], [8.5]]
    assert out.column_names == sessions.column_names
    with pytest.raises(SessionError, match="have a signal 'qwen' already"):
        decomposer(server()).decompose(out, name="qwen")


def test_weight_of_the_answers(server, decomposer, sessions):
    out, _ = decomposer(server(), li_weight=0).decompose(sessions)
    assert signal(out)[2] == [8.0]


def test_behaviour_is_read_if_it_is_asked_for(server, decomposer, rows):
    behaviour = [["laughs", "", "nods"], ["", ""], ["yawns"]]
    sessions = dataset(*[row | {"behaviour": words} for row, words in zip(rows, behaviour)])
    running = server()
    out, _ = decomposer(running, with_behaviour=True).decompose(sessions, max_concurrency=1)
    assert list(out.features["feedback"]) == ["llm_behaviour"]
    assert "laughs" in running.requests[0]["messages"][0]["content"]
    decomposer(running).decompose(sessions, max_concurrency=1)
    assert "laughs" not in running.requests[3]["messages"][0]["content"]


def test_behaviour_that_is_not_there(server, decomposer, sessions):
    with pytest.raises(SessionError, match="behaviour: the sessions have no such column"):
        decomposer(server(), with_behaviour=True).decompose(sessions)


# ------------------------------------------------------------------------------------------------ failures


def test_a_useless_answer_is_told_to_the_model_which_may_do_better(server, decomposer, sessions):
    running = server(TOO_FEW, Reply('{"1": 5, "2', finish="length"))
    out, report = decomposer(running).decompose(sessions, max_concurrency=1)
    assert signal(out)[0] == [6, 4, 5]
    assert report.failures == 0
    first, second, third = (body["messages"] for body in running.requests[:3])
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[0] == third[0] == first[0]
    assert second[1]["content"] == TOO_FEW
    assert "no number for turn 2, 3" in second[2]["content"]
    assert "cut off" in third[2]["content"]


def test_what_fails_is_counted_by_reason_and_has_no_number(server, decomposer, sessions):
    running = server(
        answer=lambda body: "I would rather not." if "b asks" in body["messages"][0]["content"] else well(body)
    )
    out, report = decomposer(running, attempts=2).decompose(sessions)
    assert signal(out)[0] == [6, 4, 5]
    assert all_nan(signal(out)[1])
    assert len(signal(out)[1]) == 2
    assert signal(out)[2] == [8.5]
    assert (report.done, report.failures) == (2, 1)
    assert list(report.failed) == ["the answer is not JSON"]
    assert report.failed["the answer is not JSON"]["b"].startswith("the answer is not JSON (Expecting value")
    assert str(report).splitlines()[:2] == [
        "2  sessions decomposed",
        "1  failed: the answer is not JSON: b (the first: "
        "the answer is not JSON (Expecting value: line 1 column 1 (char 0)))",
    ]
    assert len(running.requests) == 4


def test_a_session_without_a_score_is_not_asked_about(server, decomposer, rows):
    running = server()
    out, report = decomposer(running).decompose(dataset(rows[0] | {"score": math.nan}, *rows[1:]))
    assert all_nan(signal(out)[0])
    assert report.failed == {"the session has no score": {"a": "the session has no score"}}
    assert len(running.requests) == 2


def test_one_bad_window_fails_the_session(server, decomposer):
    running = server(answer=lambda body: TOO_FEW if 6 in turns_asked_for(body) else well(body))
    out, report = decomposer(running, window=4, overlap=1, attempts=1).decompose(
        dataset(session("long", ["good"] * 7), session("short", ["bad"]))
    )
    assert all_nan(signal(out)[0])
    assert report.failed["turns are missing"] == {"long": "no number for turn 4, 5, 6, 7"}
    assert report.done == 1


def test_a_session_whose_server_breaks_fails_and_the_others_do_not(server, decomposer, sessions):
    def broken(body):
        return Reply(drop=True) if "a asks" in body["messages"][0]["content"] else well(body)

    out, report = decomposer(server(answer=broken), tries=2).decompose(sessions)
    assert all_nan(signal(out)[0])
    assert signal(out)[1:] == [[2, 4], [8.5]]
    assert list(report.failed) == ["the connection broke off"]


def test_a_refused_key_ends_the_run_and_what_was_answered_is_kept(server, decomposer, sessions):
    running = server(well, 401)
    with pytest.raises(BackendError, match="401"):
        decomposer(running).decompose(sessions, max_concurrency=1)
    done = len(running.requests)
    _, report = decomposer(running).decompose(sessions, max_concurrency=1)
    assert (done, report.cached) == (2, 1)
    assert len(running.requests) == done + 2


def test_the_error_that_ended_the_run_is_told_and_not_that_others_stopped(server, decomposer, sessions):
    """The first session waits to try again when the second one learns that the key is refused."""
    running = server(answer=lambda body: 500 if "a asks" in body["messages"][0]["content"] else 401)
    with pytest.raises(BackendError, match="401"):
        decomposer(running, backoff=60.0).decompose(sessions, max_concurrency=2)


# ------------------------------------------------------------------------------------------------ windows


def test_long_sessions_by_hand(server, decomposer):
    """Five turns in windows of three that share one: 1, 2, 3 and 3, 4, 5. Each window has a level of its own."""
    said = {1: {"1": 4, "2": 5, "3": 6}, 3: {"3": 2, "4": 3, "5": 1}}
    running = server(answer=lambda body: json.dumps(said[turns_asked_for(body)[0]]))
    out, report = decomposer(running, window=3, overlap=1).decompose(
        dataset(session("long", ["u", "v", "w", "x", "y"], 5.4))
    )
    # Turn 3 is the mean of 6 and 2. The mean of 4, 5, 4, 3, 1 is 3.4, two below the score: one of them is made up for.
    assert signal(out)[0] == pytest.approx([5, 6, 5, 4, 2], abs=1e-6)
    assert report.calls == 2
    first, second = sorted((body["messages"][0]["content"] for body in running.requests), key=len)
    assert {"turns 1 to 3, of 5", "turns 3 to 5, of 5"} == {
        re.search(r"turns \d to \d, of \d", text)[0] for text in (first, second)
    }


# ------------------------------------------------------------------------------------------------ paid once


def test_a_second_run_asks_nothing_even_for_what_failed(server, decomposer, sessions, tmp_path):
    running = server(answer=lambda body: TOO_FEW if "b asks" in body["messages"][0]["content"] else well(body))
    before, _ = decomposer(running).decompose(sessions)
    asked = len(running.requests)
    after, report = decomposer(running).decompose(sessions)
    assert len(running.requests) == asked
    assert (report.calls, report.done, report.failures) == (0, 2, 1)
    assert str(signal(after)) == str(signal(before))


def test_another_address_is_not_another_model_but_another_name_is(server, decomposer, sessions):
    decomposer(server()).decompose(sessions)
    elsewhere = server()
    decomposer(elsewhere).decompose(sessions)
    assert elsewhere.requests == []
    decomposer(elsewhere, model="n").decompose(sessions)
    assert len(elsewhere.requests) == 3
    decomposer(elsewhere, model="n", parameters={"temperature": 1.0}).decompose(sessions)
    assert len(elsewhere.requests) == 6
    decomposer(elsewhere, prompt=Prompt("once: {score}, {transcript}")).decompose(sessions)
    assert len(elsewhere.requests) == 9


def test_sessions_that_are_alike_are_asked_about_once(server, decomposer, rows):
    running = server()
    alike = [rows[0] | {"session_id": f"a{index}"} for index in range(12)]
    _, report = decomposer(running).decompose(dataset(*alike))
    assert (len(running.requests), report.calls, report.cached) == (1, 1, 11)


def test_a_file_that_is_broken_is_asked_for_again(server, decomposer, sessions, tmp_path):
    running = server()
    decomposer(running).decompose(sessions)
    broken, *_ = files = sorted((tmp_path / "answers").rglob("*.json"))
    broken.write_text('{"answer"')
    decomposer(running).decompose(sessions)
    assert len(running.requests) == 4
    assert sorted((tmp_path / "answers").rglob("*.json")) == files


def test_no_file_holds_the_key_an_address_or_what_people_said(server, decomposer, sessions, monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", SECRET)
    running = server(f"Your key is {SECRET}")
    decomposer(running, token_variable="MY_KEY").decompose(sessions)
    texts = [path.read_text() for path in (tmp_path / "answers").rglob("*") if path.is_file()]
    assert len(texts) == 4
    for text in texts:
        assert SECRET not in text
        assert running.url not in text
        assert "asks" not in text
    assert not list((tmp_path / "answers").rglob("*.partial"))


def test_the_cache_lies_in_that_of_the_package(server, decomposer, sessions, tmp_path):
    decomposer(server(), cache_dir=None).decompose(sessions)
    assert len(list((tmp_path / "cache" / "llm").rglob("*.json"))) == 3


# ------------------------------------------------------------------------------------------------ many at once


def test_many_are_asked_about_at_once_and_come_back_in_order(server, decomposer):
    rows = [session(f"s{index}", [["good", "bad"][index % 2], "x"], 3 + index % 4) for index in range(24)]

    def slower_if_earlier(body):
        index = int(re.search(r"s(\d+) asks", body["messages"][0]["content"])[1])
        return Reply(well(body), late=0.04 if index % 4 == 0 else 0.0)

    running = server(answer=slower_if_earlier)
    out, _ = decomposer(running).decompose(dataset(*rows), max_concurrency=4)
    assert out["session_id"][:] == [f"s{index}" for index in range(24)]
    for row, values in zip(rows, signal(out)):
        better = 1 if "good" in row["messages"][1]["content"] else -1
        assert values == renormalise([row["score"] + better, row["score"]], row["score"])
    assert 1 < running.most_at_once <= 4


# ------------------------------------------------------------------------------------------------ before the run


def test_an_estimate_sends_nothing_and_counts_what_is_to_be_paid(server, decomposer, sessions, rows):
    running = server()
    estimate = decomposer(running).estimate(sessions)
    assert running.requests == []
    assert (estimate.sessions, estimate.calls, estimate.cached) == (3, 3, 0)
    decomposer(running).decompose(sessions)
    asked = [len(body["messages"][0]["content"].encode()) for body in running.requests]
    assert estimate.prompt_tokens == sum(math.ceil(size / 4) for size in asked)
    assert estimate.answer_tokens == 10 * 6
    longer = dataset(*rows, session("d", ["x"] * 7), session("e", ["x"], math.nan))
    after = decomposer(running, window=4, overlap=1).estimate(longer)
    assert (after.sessions, after.unscored, after.calls, after.cached) == (4, 1, 2, 3)
    assert len(running.requests) == 3
    assert "4 sessions (1 more have no score): 2 calls, 3 answers from the cache" in str(after)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"window": 8, "overlap": 8}, "window, overlap: "),
        ({"li_weight": -1}, "li_weight: "),
        ({"attempts": 0}, "attempts: expected at least 1"),
        ({"scale": (5, 1)}, "scale: expected the lowest and the highest"),
    ],
)
def test_options_that_make_no_sense(server, decomposer, options, problem):
    with pytest.raises(ValueError, match=problem):
        decomposer(server(), **options)


def test_a_score_beyond_the_scale_is_told_before_anything_is_sent(server, decomposer, sessions):
    running = server()
    with pytest.raises(SessionError, match="scale: row 2 has the score 8, beyond 1 to 5"):
        decomposer(running, scale=(1, 5)).decompose(sessions)
    assert running.requests == []


def test_the_prompts_travel_with_the_package():
    setup = (Path(__file__).parents[2] / "setup.cfg").read_text(encoding="utf-8")
    assert "geli_hf.llm = prompts/*.txt" in setup
