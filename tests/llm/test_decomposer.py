"""Decomposition of sessions: questions, cached answers, retries, windows and counts."""

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


def test_contributions_are_moved_towards_the_score(server, decomposer, sessions):
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


def test_behaviour_is_shown_on_request(server, decomposer, rows):
    behaviour = [["laughs", "", "nods"], ["", ""], ["yawns"]]
    sessions = dataset(*[row | {"behaviour": words} for row, words in zip(rows, behaviour)])
    running = server()
    out, _ = decomposer(running, with_behaviour=True).decompose(sessions, max_concurrency=1)
    assert list(out.features["feedback"]) == ["llm_behaviour"]
    assert "laughs" in running.requests[0]["messages"][0]["content"]
    decomposer(running).decompose(sessions, max_concurrency=1)
    assert "laughs" not in running.requests[3]["messages"][0]["content"]


# ------------------------------------------------------------------------------------------------ failures


def test_an_invalid_answer_is_asked_for_again_with_its_error(server, decomposer, sessions):
    running = server(TOO_FEW, Reply('{"1": 5, "2', finish="length"))
    out, report = decomposer(running).decompose(sessions, max_concurrency=1)
    assert signal(out)[0] == [6, 4, 5]
    assert report.failures == 0
    first, second, third = (body["messages"] for body in running.requests[:3])
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[0] == third[0] == first[0]
    assert second[1]["content"] == TOO_FEW
    assert "values are missing: 2, 3" in second[2]["content"]
    assert "cut off" in third[2]["content"]
    assert 'from "1" to "3"' in third[2]["content"]


def test_a_long_or_empty_answer_is_shown_shortened(server, decomposer, rows):
    running = server("x" * 5000, " \n")
    decomposer(running).decompose(dataset(rows[2]))
    shown = [body["messages"][1]["content"] for body in running.requests[1:]]
    assert len(shown[0]) < 2100
    assert shown[1] == "(no answer)"  # which a chat template may refuse to be empty


def test_failed_sessions_are_counted_by_reason_and_are_nan(server, decomposer, sessions):
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
    done, failed, *_ = str(report).splitlines()
    assert done == "2  sessions decomposed"
    assert failed.startswith("1  failed: the answer is not JSON: b ")
    assert len(running.requests) == 4


def test_a_session_without_a_score_is_not_asked_about(server, decomposer, rows):
    running = server()
    out, report = decomposer(running).decompose(dataset(rows[0] | {"score": math.nan}, *rows[1:]))
    assert all_nan(signal(out)[0])
    assert report.failed == {"the session has no score": {"a": "the session has no score"}}
    assert len(running.requests) == 2


def test_an_invalid_window_fails_the_session(server, decomposer):
    running = server(answer=lambda body: TOO_FEW if 6 in turns_asked_for(body) else well(body))
    out, report = decomposer(running, window=4, overlap=1, attempts=1).decompose(
        dataset(session("long", ["good"] * 7), session("short", ["bad"]))
    )
    assert all_nan(signal(out)[0])
    assert report.failed["values are missing"] == {"long": "values are missing: 4, 5, 6, 7"}
    assert report.done == 1


def test_a_broken_connection_fails_one_session(server, decomposer, sessions):
    def broken(body):
        return Reply(drop=True) if "a asks" in body["messages"][0]["content"] else well(body)

    out, report = decomposer(server(answer=broken), tries=2).decompose(sessions)
    assert all_nan(signal(out)[0])
    assert signal(out)[1:] == [[2, 4], [8.5]]
    assert list(report.failed) == ["the connection broke off"]


def test_a_refused_key_ends_the_run_and_answers_are_kept(server, decomposer, sessions):
    running = server(well, 401)
    with pytest.raises(BackendError, match="401"):
        decomposer(running).decompose(sessions, max_concurrency=1)
    done = len(running.requests)
    _, report = decomposer(running).decompose(sessions, max_concurrency=1)
    assert (done, report.cached) == (2, 1)
    assert len(running.requests) == done + 2


def test_the_error_that_ended_the_run_is_raised(server, decomposer, sessions):
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


def test_a_second_run_sends_nothing(server, decomposer, sessions, tmp_path):
    running = server(answer=lambda body: TOO_FEW if "b asks" in body["messages"][0]["content"] else well(body))
    before, _ = decomposer(running).decompose(sessions)
    asked = len(running.requests)
    after, report = decomposer(running).decompose(sessions)
    assert len(running.requests) == asked
    assert (report.calls, report.done, report.failures) == (0, 2, 1)
    assert str(signal(after)) == str(signal(before))


def test_the_key_of_an_answer_has_the_model_and_no_address(server, decomposer, sessions):
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


def test_equal_sessions_are_paid_once(server, decomposer, rows):
    running = server()
    alike = [rows[0] | {"session_id": f"a{index}"} for index in range(12)]
    _, report = decomposer(running).decompose(dataset(*alike))
    assert (len(running.requests), report.calls, report.cached) == (1, 1, 11)


def test_a_broken_file_is_replaced(server, decomposer, sessions, tmp_path):
    running = server()
    decomposer(running).decompose(sessions)
    broken, *_ = files = sorted((tmp_path / "answers").rglob("*.json"))
    broken.write_text('{"answer"')
    decomposer(running).decompose(sessions)
    assert len(running.requests) == 4
    assert sorted((tmp_path / "answers").rglob("*.json")) == files


def test_cached_files_hold_no_secret_address_or_question(server, decomposer, sessions, monkeypatch, tmp_path):
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


def test_concurrent_sessions_keep_their_order(server, decomposer):
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
    assert (estimate.done, estimate.calls, estimate.cached) == (3, 3, 0)
    decomposer(running).decompose(sessions)
    sizes = [len(body["messages"][0]["content"].encode()) for body in running.requests]
    assert estimate.prompt_tokens == sum(math.ceil(size / 4) for size in sizes)
    assert estimate.answer_tokens == 10 * 6
    longer = dataset(*rows, session("d", ["x"] * 7), session("e", ["x"], math.nan))
    after = decomposer(running, window=4, overlap=1).estimate(longer)
    assert (after.done, after.failures, after.calls, after.cached) == (4, 1, 2, 3)
    assert len(running.requests) == 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"window": 8, "overlap": 8}, "window, overlap: "),
        ({"scale": (5, 1)}, "scale: "),
        ({"attempts": 0}, "attempts: "),
        ({"scale": (1, 5)}, "scale: row 2 has the score 8"),
        ({"with_behaviour": True}, "behaviour: "),
    ],
)
def test_invalid_options_send_nothing(server, decomposer, sessions, options, problem):
    running = server()
    with pytest.raises(ValueError, match=problem):
        decomposer(running, **options).decompose(sessions)
    assert running.requests == []


@pytest.mark.parametrize("score", [5.0, math.nan])
def test_a_scale_needs_two_scores(server, decomposer, rows, score):
    with pytest.raises(SessionError, match="scale: "):
        decomposer(server(), scale=None).decompose(dataset(*[row | {"score": score} for row in rows]))


def test_prompts_are_package_data():
    setup = (Path(__file__).parents[2] / "setup.cfg").read_text(encoding="utf-8")
    assert "geli_hf.llm = prompts/*.txt" in setup
