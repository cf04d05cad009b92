"""A language model that compares replies: asked in both orders, parsed strictly, asked again, cached."""

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
    """Answer of a judge that prefers the reply with a criterion's word."""

    def answer(body: dict) -> str:
        a, b = replies_in(body)
        choices = {}
        for name, word in zip(ASKED, words):
            choices[name] = "tie" if (word in a) == (word in b) else "A" if word in a else "B"
        return json.dumps(choices)

    return answer


@pytest.fixture
def judge(server, monkeypatch):
    monkeypatch.setattr("geli_hf.evaluation.judges.llm.CONCURRENCY", 1)  # answers in the order of a script

    def make(*script, answer=None, **options):
        at = server(*script, answer=answer or prefers("sorry", "sorry"))
        endpoint = Endpoint("m", base_url=at.url, tries=2, backoff=0.001, timeout=5.0)
        return LlmJudge(endpoint, criteria=options.get("criteria", ASKED)), at

    return make


def wins(judge: LlmJudge, first: list[str], second: list[str]) -> list[list[float]]:
    """(pairs, criteria): verdicts on replies to `DIALOGUE`."""
    ids = [str(index) for index in range(len(first))]
    comparison = judge.compare([DIALOGUE] * len(first), first, second, ids)
    assert list(comparison.verdicts) == list(judge.criteria)
    return np.stack(list(comparison.verdicts.values()), 1).tolist()


def test_the_better_reply_wins_in_either_order(judge):
    asked, server = judge(answer=prefers("sorry", "Okay"))
    assert wins(asked, ["Okay.", "I am sorry."], ["I am sorry.", "Okay."]) == [[1, 0], [0, 1]]
    # the second pair is the first one in the other order: its answers are cached
    assert (asked.report.calls, asked.report.cached) == (2, 2)
    assert sorted(map(replies_in, server.requests)) == [("I am sorry.", "Okay."), ("Okay.", "I am sorry.")]


@pytest.mark.parametrize(
    "answers",
    [
        ('{"warm": "A", "fluent": "B"}', '{"warm": "A", "fluent": "A"}'),  # the first reply in either order
        ('{"warm": "tie", "fluent": "B"}', '{"warm": "A", "fluent": "A"}'),
    ],
)
def test_answers_that_depend_on_the_order_are_a_tie(judge, answers):
    asked, _ = judge(*answers)
    assert wins(asked, ["Okay."], ["I am sorry."]) == [[0.5, 1]]


def test_equal_texts_are_not_asked_about(judge):
    asked, server = judge()
    assert wins(asked, ["Okay.", ""], ["Okay. ", "sorry"]) == [[0.5, 0.5], [1, 1]]
    assert {replies_in(body) for body in server.requests} == {("(says nothing)", "sorry"), ("sorry", "(says nothing)")}


def test_the_question(judge):
    asked, server = judge(criteria=CRITERIA, answer=lambda body: json.dumps(dict.fromkeys(CRITERIA, "tie")))
    asked.compare([[{"role": "system", "content": "Be kind."}, *DIALOGUE]], ["{names} Okay."], ["I am\nsorry."], ["a"])
    text = server.requests[0]["messages"][0]["content"]
    assert "Person: My dog ran away. Agent: a line of mine\nAgent: Oh no.\nPerson: This morning." in text
    assert "Be kind." not in text
    assert "Agent: {names} Okay." in text
    assert all(f'- "{name}": {question}' in text for name, question in CRITERIA.items())
    schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert schema == choice_schema(list(CRITERIA), ["A", "B", "tie"])


def test_an_unusable_answer_is_asked_again(judge):
    asked, server = judge("both are fine", '{"warm": "B", "fluent": "B"}', answer=prefers("sorry", "sorry"))
    assert wins(asked, ["Okay."], ["I am sorry."]) == [[1, 1]]
    assert "can't be used" in server.requests[1]["messages"][2]["content"]


def test_a_pair_that_fails_is_left_out(judge):
    asked, _ = judge(answer="A, I think", criteria={"warm": "Which?"})
    assert str(wins(asked, ["Okay.", "Well."], ["Well.", "Well."])) == "[[nan], [0.5]]"
    [failed] = asked.report.failed.values()
    assert list(failed) == ["0"]
    assert "1 pairs could not be judged" in asked.notes([], None)[1]

    asked, _ = judge('{"warm": "B", "fluent": "B"}', *["?"] * 3)  # in the other order alone
    assert np.isnan(wins(asked, ["Okay."], ["I am sorry."])).all()
    assert asked.report.failures == 1


def test_answers_are_cached(judge):
    asked, server = judge()
    first = wins(asked, ["Okay."], ["I am sorry."])
    assert asked.report.calls == 2
    assert wins(asked, ["Okay."], ["I am sorry."]) == first
    assert len(server.requests) == asked.report.cached == 2


def test_a_server_that_refuses_ends_the_run(judge):
    asked, _ = judge(answer=Reply(status=401, body="{}"))
    with pytest.raises(BackendError, match="401"):
        wins(asked, ["Okay."], ["I am sorry."])


@pytest.mark.parametrize(
    "text",
    [
        '{"warm": "A"}',
        '{"warm": "A", "fluent": "B", "kind": "A"}',
        '{"warm": "A", "fluent": "both"}',
        '{"warm": "A", "fluent": ["A"]}',
        '{"warm": "A", "warm": "B", "fluent": "A"}',
        "[1]",
        "",
    ],
)
def test_answers_without_one_choice_per_criterion(text):
    with pytest.raises(UnusableAnswer):
        parse_choices(text, list(ASKED), ("A", "B", "tie"))


def test_fences_and_thoughts_are_removed():
    text = '<think>A is warm</think>\n```json\n{"fluent": "tie", "warm": "A"}\n```'
    assert parse_choices(text, list(ASKED), ("A", "B", "tie")) == ["A", "tie"]
