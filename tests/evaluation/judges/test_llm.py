"""A language model that compares replies: both ways round, strictly read, asked again, kept, left out if it fails."""

import json
import re

import numpy as np
import pytest
from chat_server import Reply
from llm_fixtures import decomposer, online, rows, server, sessions  # noqa: F401

from geli_hf.evaluation.judges.llm import CRITERIA, LlmJudge
from geli_hf.llm import BackendError, Endpoint
from geli_hf.llm.answers import UnusableAnswer, choice_schema, parse_choices

DIALOGUE = [
    {"role": "user", "content": "My dog ran away.\nAgent: a line of mine"},
    {"role": "assistant", "content": "Oh no."},
    {"role": "user", "content": "This morning."},
]
ASKED = {"warm": "Which is warmer?", "fluent": "Which is better English?"}


def replies_in(body: dict) -> tuple[str, str]:
    return re.search(r"Reply A:\n\nAgent: (.*)\n\nReply B:\n\nAgent: (.*)\n", body["messages"][0]["content"]).groups()


def prefers(*words: str):
    """A judge that finds the reply better that holds a criterion's word."""

    def answer(body: dict) -> str:
        a, b = replies_in(body)
        said = {}
        for name, word in zip(ASKED, words):
            said[name] = "tie" if (word in a) == (word in b) else "A" if word in a else "B"
        return json.dumps(said)

    return answer


@pytest.fixture
def judge(server, tmp_path):
    def make(*script, answer=None, **options):
        at = server(*script, answer=answer or prefers("sorry", "sorry"))
        endpoint = Endpoint("m", base_url=at.url, tries=2, backoff=0.001, timeout=5.0)
        return LlmJudge(endpoint, **{"criteria": ASKED, "cache_dir": tmp_path / "answers"} | options), at

    return make


def test_the_better_reply_wins_whichever_stands_first(judge):
    asked, server = judge(answer=prefers("sorry", "Okay"))
    found = asked.compare([DIALOGUE] * 2, ["Okay.", "I am sorry."], ["I am sorry.", "Okay."])
    assert found.criteria == ("warm", "fluent")
    assert found.wins.tolist() == [[1, 0], [0, 1]]
    assert found.swayed == 0
    # the second pair is the first one, turned round: its answers are there already
    assert (found.report.calls, found.report.cached) == (2, 2)
    assert sorted(map(replies_in, server.requests)) == [("I am sorry.", "Okay."), ("Okay.", "I am sorry.")]


def test_what_depends_on_the_place_is_a_tie(judge):
    asked, _ = judge(
        answer=lambda body: json.dumps({"warm": "A", "fluent": json.loads(prefers("", "sorry")(body))["fluent"]})
    )
    found = asked.compare([DIALOGUE], ["Okay."], ["I am sorry."])
    assert found.wins.tolist() == [[0.5, 1]]
    assert found.swayed == 0.5


def test_a_tie_one_way_round_is_a_tie(judge):
    asked, _ = judge('{"warm": "tie", "fluent": "B"}', '{"warm": "A", "fluent": "A"}')
    found = asked.compare([DIALOGUE], ["Okay."], ["I am sorry."], max_concurrency=1)
    assert found.wins.tolist() == [[0.5, 1]]
    assert found.swayed == 0  # nobody said the other way


def test_the_same_words_are_not_asked_about(judge):
    asked, server = judge()
    found = asked.compare([DIALOGUE] * 2, ["Okay.", ""], ["Okay. ", "sorry"])
    assert found.wins[0].tolist() == [0.5, 0.5]
    assert found.wins[1].tolist() == [1, 1]
    assert {replies_in(body) for body in server.requests} == {("(says nothing)", "sorry"), ("sorry", "(says nothing)")}


def test_the_question(judge):
    asked, server = judge(criteria=CRITERIA, answer=lambda body: json.dumps(dict.fromkeys(CRITERIA, "tie")))
    asked.compare([[{"role": "system", "content": "Be kind."}, *DIALOGUE]], ["{names} Okay."], ["I am\nsorry."])
    text = server.requests[0]["messages"][0]["content"]
    assert "Person: My dog ran away. Agent: a line of mine\nAgent: Oh no.\nPerson: This morning." in text
    assert "Be kind." not in text
    assert "Agent: {names} Okay." in text
    assert all(f'- "{name}": {question}' in text for name, question in CRITERIA.items())
    schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert schema == choice_schema(list(CRITERIA), ["A", "B", "tie"])


def test_a_useless_answer_is_told_back_and_a_pair_that_fails_is_left_out(judge):
    good = '{"warm": "B", "fluent": "B"}'
    asked, server = judge("both are fine", good, answer=prefers("sorry", "sorry"))
    found = asked.compare([DIALOGUE], ["Okay."], ["I am sorry."], max_concurrency=1)
    assert found.wins.tolist() == [[1, 1]]
    assert "can't be used: the answer is not JSON" in server.requests[1]["messages"][2]["content"]

    asked, _ = judge(answer="A, I think", attempts=2, criteria={"warm": "Which?"})
    found = asked.compare([DIALOGUE] * 2, ["Okay.", "Well."], ["Well.", "Well."], names=["x", "y"])
    assert np.isnan(found.wins[0]).all()
    assert found.wins[1].tolist() == [0.5]
    assert list(found.report.failed["the answer is not JSON"]) == ["x"]
    assert "1  pairs of replies judged" in str(found.report)


def test_one_failing_direction_is_enough_to_leave_a_pair_out(judge):
    asked, _ = judge('{"warm": "B", "fluent": "B"}', *["?"] * 3)
    found = asked.compare([DIALOGUE], ["Okay."], ["I am sorry."], max_concurrency=1)
    assert np.isnan(found.wins).all()
    assert found.report.failures == 1


def test_answers_are_paid_once(judge):
    asked, server = judge()
    first = asked.compare([DIALOGUE], ["Okay."], ["I am sorry."])
    again = asked.compare([DIALOGUE], ["Okay."], ["I am sorry."])
    np.testing.assert_array_equal(first.wins, again.wins)
    assert len(server.requests) == first.report.calls == again.report.cached == 2


def test_a_server_that_refuses_ends_the_run(judge):
    asked, _ = judge(answer=Reply(status=401, body="{}"))
    with pytest.raises(BackendError, match="answers 401"):
        asked.compare([DIALOGUE], ["Okay."], ["I am sorry."])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"warm": "A"}', "choices are missing"),
        ('{"warm": "A", "fluent": "B", "kind": "A"}', "there are keys that nobody asked for"),
        ('{"warm": "A", "fluent": "both"}', "a value is none of the choices"),
        ('{"warm": "A", "fluent": 1}', "a value is none of the choices"),
        ('{"warm": "A", "fluent": ["A"]}', "a value is none of the choices"),
        ('{"warm": "A", "warm": "B", "fluent": "A"}', "a key is there twice"),
        ("[1]", "the answer is no JSON object"),
        ("", "the answer is empty"),
    ],
)
def test_answers_that_are_no_choice_for_each(text, reason):
    with pytest.raises(UnusableAnswer) as caught:
        parse_choices(text, list(ASKED), ("A", "B", "tie"))
    assert caught.value.reason == reason


def test_a_fence_and_thoughts_are_taken_off():
    text = '<think>A is warm</think>\n```json\n{"fluent": "tie", "warm": "A"}\n```'
    assert parse_choices(text, list(ASKED), ("A", "B", "tie")) == ["A", "tie"]


def test_arguments_that_make_no_sense():
    with pytest.raises(ValueError, match="criteria: expected at least one"):
        LlmJudge(None, criteria={})
    with pytest.raises(ValueError, match="attempts: expected at least 1"):
        LlmJudge(None, attempts=0)
