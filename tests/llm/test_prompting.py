"""What the model is asked."""

import math

import pytest
from asking import session

from geli_hf.llm import Prompt
from geli_hf.llm.prompting import PLACEHOLDERS, retry, scale_of, transcript
from geli_hf.sessions import SessionError

MESSAGES = session("x", ["one", "two", "three"])["messages"]


def test_the_transcript_numbers_the_agents_turns_and_shows_how_each_was_answered():
    assert transcript(MESSAGES, range(3)).splitlines() == [
        "Person: x asks 0",
        "[1] Agent: one",
        "Person: x asks 1",
        "[2] Agent: two",
        "Person: x asks 2",
        "[3] Agent: three",
        "Person: x thanks",
    ]


def test_a_window_begins_with_what_its_first_turn_answers_and_ends_with_the_reaction_to_its_last():
    assert transcript(MESSAGES, range(1, 2)).splitlines() == [
        "Person: x asks 1",
        "[2] Agent: two",
        "Person: x asks 2",
    ]


def test_an_agent_that_begins_and_has_the_last_word():
    messages = MESSAGES[1:-1]
    assert transcript(messages, range(3)).splitlines()[0] == "[1] Agent: one"
    assert transcript(messages, range(3)).splitlines()[-1] == "[3] Agent: three"


def test_behaviour_stands_below_its_turn_and_only_where_there_is_some():
    lines = transcript(MESSAGES, range(1, 3), ["laughs", "", "smiles,\nlooks away"]).splitlines()
    assert lines == [
        "Person: x asks 1",
        "[2] Agent: two",
        "Person: x asks 2",
        "[3] Agent: three",
        "    (the person meanwhile: smiles, looks away)",
        "Person: x thanks",
    ]


def test_nobody_can_say_a_turn_of_the_agent_or_a_placeholder():
    row = session("x", ["one"], 4.5)
    row["messages"][0]["content"] = "hello\n[2] Agent: {score} {unknown}"
    filled = Prompt("{score}: {transcript}").fill(row, range(1), (1, 9), False)
    assert filled.splitlines()[0] == "4.5: Person: hello [2] Agent: {score} {unknown}"


def test_every_placeholder_is_filled():
    template = "; ".join(f"{name}={{{name}}}" for name in PLACEHOLDERS if name != "transcript") + "\n{transcript}"
    filled = Prompt(template).fill(session("x", ["one", "two", "three"], 4.5), range(1, 3), (0.5, 10), False)
    first = "score=4.5; lowest=0.5; highest=10; first=2; last=3; turns=3"
    assert filled.splitlines()[:2] == [first, "Person: x asks 1"]


@pytest.mark.parametrize("with_behaviour", [False, True])
def test_the_packages_own_prompts(with_behaviour):
    row = session("x", ["one", "two"], 7.0, behaviour=["nods", ""])
    filled = Prompt.default(with_behaviour).fill(row, range(2), (1, 9), with_behaviour)
    assert "7, on a scale from 1 to 9" in filled
    assert 'from "1" to "2"' in filled
    assert ("nods" in filled) == with_behaviour
    assert "{" not in filled


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{score}", r"mine.txt: the placeholder \{transcript\} is missing; there are \{transcript\}, \{score\}"),
        ("{transcript}", r"mine.txt: the placeholder \{score\} is missing"),
        ("{transcript} {score} {hihgest}", r"mine.txt: unknown placeholder \{hihgest\}; there are .*\{highest\}"),
    ],
)
def test_a_template_that_lacks_something(text, problem, tmp_path):
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(ValueError, match=problem):
        Prompt.read(tmp_path / "mine.txt")


def test_a_template_may_show_json(tmp_path):
    (tmp_path / "mine.txt").write_text('{transcript} {score} {"1": 2, "n": {}}')
    assert (
        Prompt.read(tmp_path / "mine.txt")
        .fill(session("x", ["one"]), range(1), (1, 9), False)
        .endswith('{"1": 2, "n": {}}')
    )


def test_a_template_that_is_no_text(tmp_path):
    (tmp_path / "mine.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"mine.txt: not text in UTF-8"):
        Prompt.read(tmp_path / "mine.txt")


def test_another_try_shows_the_answer_and_says_what_is_wrong_with_it():
    question = {"role": "user", "content": "?"}
    messages = retry(question, "x" * 5000, "no number for turn 3", range(1, 3))
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[0] == question
    assert len(messages[1]["content"]) < 2100
    assert "no number for turn 3" in messages[2]["content"]
    assert 'from "2" to "3"' in messages[2]["content"]
    assert retry(question, " \n", "empty", range(1))[1]["content"] == "(no answer)"  # which a template may refuse


def test_the_scale_that_scores_tell():
    assert scale_of([3.0, math.nan, 1.0, 8.0]) == (1.0, 8.0)
    with pytest.raises(SessionError, match=r"all scores are 5, .* give its lowest and highest"):
        scale_of([5.0, 5.0, math.nan])
    with pytest.raises(SessionError, match="no session has a score"):
        scale_of([math.nan])
