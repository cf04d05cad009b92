"""Partners in the user's role: a chat model, a server that may die, and the people of the sample."""

import json
import math
import statistics

import huggingface_hub.constants
import pytest
from chat_server import ChatServer, Reply

from geli_hf.alignment import EndpointPartner, ModelPartner, SessionRollouts, SimulatedPeople, load_policy
from geli_hf.alignment.partners import PERSONA, swap_roles
from geli_hf.llm import Endpoint
from geli_hf.simulator.corpus import true_turn_value
from geli_hf.simulator.grammar import parse

DIALOGUE = [
    {"role": "user", "content": "I went hiking with my sister."},
    {"role": "assistant", "content": "That sounds wet!"},
]
STORY = [
    {"role": "user", "content": "Well, my dog got very ill and could hardly stand yesterday."},
    {"role": "assistant", "content": "I see."},
]


@pytest.fixture
def policy(policy_folder):
    return load_policy(policy_folder)


def test_to_the_other_one_the_roles_are_swapped():
    assert [message["role"] for message in swap_roles(DIALOGUE)] == ["assistant", "user"]
    assert swap_roles(swap_roles(DIALOGUE)) == DIALOGUE


class TestChatModel:
    def test_it_is_shown_the_dialogue_from_its_own_side(self, policy, monkeypatch):
        model, tokenizer = policy
        seen = []
        real = model.generate

        def generate(**kwargs):
            seen.extend(tokenizer.batch_decode(kwargs["input_ids"]))
            return real(**kwargs)

        monkeypatch.setattr(model, "generate", generate)
        [answer] = ModelPartner(model, tokenizer, max_new_tokens=4).answer([DIALOGUE], [0])
        assert seen == [
            "<|user|>(The conversation begins.)<|end|><|assistant|>I went hiking with my sister.<|end|>"
            "<|user|>That sounds wet!<|end|><|assistant|>"
        ]
        assert not answer.broken

    def test_a_session_whose_answer_is_all_thoughts_is_broken(self, policy, monkeypatch):
        model, tokenizer = policy
        said = iter(["<think>What", "<think>Well</think> Hi"])
        monkeypatch.setattr(tokenizer, "decode", lambda *_, **__: next(said))
        answers = ModelPartner(model, tokenizer, max_new_tokens=2).answer([DIALOGUE, DIALOGUE], [0, 1])
        assert [(answer.text, bool(answer.broken)) for answer in answers] == [("", True), ("Hi", False)]

    def test_answers_depend_on_the_seeds(self, policy):
        partner = ModelPartner(*policy, max_new_tokens=8)
        first, second, other = (partner.answer([DIALOGUE] * 3, seeds) for seeds in ([1, 2, 3], [1, 2, 3], [4, 5, 6]))
        assert first == second != other


class TestEndpoint:
    @pytest.fixture(autouse=True)
    def online(self, monkeypatch):
        """The client of the Hub refuses even loopback when it is told to be offline, as the tests are."""
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def partner(self, server, **options):
        return EndpointPartner(
            Endpoint("m", base_url=server.url, tries=2, backoff=0.001, timeout=5.0), max_tokens=20, **options
        )

    def test_its_request(self):
        with ChatServer(answer=lambda body: " Rice. ") as server:
            [answer] = self.partner(server).answer([DIALOGUE], [7])
        [body] = server.requests
        assert answer == ("Rice.", "")
        assert body["messages"][0] == {"role": "system", "content": PERSONA}
        assert body["messages"][2:] == swap_roles(DIALOGUE)
        assert (body["temperature"], body["max_tokens"], body["seed"]) == (1.0, 20, 9)
        assert "response_format" not in body

    def test_parameters_of_the_endpoint_come_first(self):
        with ChatServer(answer=lambda body: "Rice.") as server:
            endpoint = Endpoint("m", base_url=server.url, parameters={"temperature": 0.2, "seed": None})
            EndpointPartner(endpoint).answer([DIALOGUE], [7])
        assert server.requests[0]["temperature"] == 0.2
        assert "seed" not in server.requests[0]

    def test_many_are_asked_at_once_and_answered_in_their_order(self):
        def slowly(body):
            return Reply(f"You said {body['messages'][-1]['content']}", late=0.05)

        dialogues = [[DIALOGUE[0], {"role": "assistant", "content": str(index)}] for index in range(8)]
        with ChatServer(answer=slowly) as server:
            answers = self.partner(server, max_concurrency=4).answer(dialogues, range(8))
        assert [answer.text for answer in answers] == [f"You said {index}" for index in range(8)]
        assert 1 < server.most_at_once <= 4

    def test_a_request_that_fails_once_is_asked_again(self):
        with ChatServer([503, "Rice.", Reply(drop=True)], answer=lambda body: "Rice.") as server:
            assert self.partner(server, max_concurrency=1).answer([DIALOGUE] * 2, [1, 2]) == [("Rice.", "")] * 2
        assert len(server.requests) == 4

    @pytest.mark.parametrize(
        ("reply", "text", "broken"),
        [
            (Reply("<think>So</think>\n\nHi."), "Hi.", False),
            (Reply("So.</think>Hi."), "Hi.", False),
            (Reply("<think>So", finish="length"), "", True),
            (Reply("", finish="length"), "", True),
            (Reply("Hi, I was", finish="length"), "Hi, I was", False),
            (Reply(""), "", False),
        ],
    )
    def test_an_answer_that_was_cut_is_not_taken_for_silence(self, reply, text, broken):
        with ChatServer(answer=reply) as server:
            [answer] = EndpointPartner(Endpoint("m", base_url=server.url)).answer([DIALOGUE], [0])
        assert (answer.text, bool(answer.broken)) == (text, broken)

    def test_one_that_dies_in_the_middle_breaks_the_sessions_that_wait_for_it(self, policy):
        """Session 0 is never answered again after its first turn; the other one goes on to its end."""

        def answer(body):
            messages = json.dumps(body["messages"])
            return 500 if "Mine" in messages and messages.count("Rice.") else "Rice."

        with ChatServer(answer=answer) as server:
            prompts = [[{"role": "user", "content": text}] for text in ("Mine too.", "Okay.")]
            rollouts = SessionRollouts(self.partner(server), turns=3, max_new_tokens=4)
            broken, whole = rollouts.play(*policy, prompts, [1, 2], generation_config=policy[0].generation_config)
        assert broken.turns == 2
        assert "(500)" in broken.broken
        assert (whole.turns, whole.broken) == (3, "")


class TestSimulatedPeople:
    def test_they_speak_the_samples_language_and_the_same_for_the_same_seed(self):
        people = SimulatedPeople(3)
        first, second = (people.answer([STORY] * 4, [1, 2, 3, 4]) for _ in range(2))
        assert first == second
        assert len(set(first)) > 1
        assert all(parse(answer.text) for answer in first)
        assert SimulatedPeople(4).answer([STORY] * 4, [1, 2, 3, 4]) != first
        assert people.answer([STORY] * 2, [3, 1]) == [first[2], first[0]]

    def test_they_observe_the_value_of_turns_and_their_affect(self):
        story = STORY
        for _ in range(5):
            [answer] = SimulatedPeople().answer([story], [1])
            story = [*story, {"role": "user", "content": answer.text}, {"role": "assistant", "content": "Blah blah."}]
        seen = SimulatedPeople().observe(story, 1)
        assert seen["value"] == [true_turn_value(story[: turn + 1]).value for turn in range(1, 12, 2)]
        assert seen["value"][1:] == [-1.0] * 5
        assert seen["recognised"] == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        assert len(seen["affect"]) == 6
        assert all(value in (0.0, 1.0) or math.isnan(value) for value in seen["affect"])
        assert seen["value"] == SimulatedPeople().observe(story, 2)["value"]

    def test_they_rate_a_session_by_the_values_of_its_turns(self):
        """The ratings follow the survey: 6.4 for a session worth .5, .66 more for each unit, deviation 1.06."""
        told = [STORY[0], {"role": "assistant", "content": "I am so sorry to hear that. How is your dog today?"}] * 2
        ill, well = [*STORY * 2], told
        worth = [sum(SimulatedPeople().observe(each, 0)["value"]) for each in (ill, well)]
        ratings = [[SimulatedPeople(person).rate(each, 7) for person in range(600)] for each in (ill, well)]
        assert ratings[0] == [SimulatedPeople(person).rate(ill, 7) for person in range(600)]
        assert {type(rating) for rating in ratings[0]} == {int}
        assert set(ratings[0] + ratings[1]) <= set(range(1, 10))
        for rated, value in zip(ratings, worth):
            expected = 6.4 + 1.06 / 1.6 * (value - 0.5)
            assert statistics.mean(rated) == pytest.approx(expected, abs=0.2)
            assert statistics.stdev(rated) == pytest.approx(1.1, abs=0.15)

    def test_the_first_message_tells_whom_one_talks_with(self):
        people = SimulatedPeople()
        other = [{"role": "user", "content": "How has your week been?"}, STORY[1]]
        assert people._person(STORY).traits == people._person(STORY * 3).traits != people._person(other).traits
