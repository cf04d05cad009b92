"""Partners of a policy in the user's role, for many dialogues at once.

A partner has no state between turns. Its answer depends on the dialogue and on the session's seed, so that a session
can be repeated, alone or beside others.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..llm.backend import BackendError, CallError
from ..llm.endpoint import Endpoint
from ..models.geli_reward.text_geli import without_thoughts
from ..sessions import Message, assistant_turns
from ..simulator.corpus import Person, listener_affect, overall_affect, true_turn_value
from ..simulator.people import speak_next
from .dialogue import open_with_user
from .sampling import sample_replies

# Default system message of a model in the user's role.
PERSONA = (
    "You are having casual small talk with somebody you have just met. Answer what they say in one or two short "
    "sentences, tell about yourself, and don't be more polite than people are."
)


CUT = "the answer was cut before a word was said; allow it more tokens"


class Answer(NamedTuple):
    """Next answer of a partner.

    Args:
        text: the answer; "" ends the session.
        broken: error that prevented an answer, which leaves the session out of its group; "" without one.
    """

    text: str
    broken: str = ""


class Partner:
    """Base of the partners. A subclass implements `answer`, and may `observe` the value of turns."""

    def answer(self, dialogues: Sequence[Sequence[Message]], seeds: Sequence[int]) -> list[Answer]:
        """Answer the last turn of each dialogue.

        Args:
            dialogues: each ends with the assistant, and has no system message and no `OPENING`.
            seeds: one number per dialogue, the same in all turns of a session.

        Returns:
            An `Answer` per dialogue, in their order.
        """
        raise NotImplementedError

    def observe(self, dialogue: Sequence[Message], seed: int) -> dict[str, list[float]]:
        """Return signals of a finished session by name, each with one number per turn of the assistant.

        Args:
            dialogue: all messages.
            seed: of the session.

        Returns:
            Signals, each (turns,); NaN for an unknown value.
        """
        return {}


class ModelPartner(Partner):
    """A chat model of `transformers` in the user's role, which gets the dialogue with the roles swapped.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer, with a chat template.
        persona: system message; "" for none.
        max_new_tokens: longest answer, in tokens.
        temperature: of sampling.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        persona: str = PERSONA,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
    ):
        self.model, self.tokenizer, self.persona = model, tokenizer, persona
        self.max_new_tokens, self.temperature = max_new_tokens, temperature

    def answer(self, dialogues, seeds):
        prompts = [open_with_user(swap_roles(dialogue)) for dialogue in dialogues]
        if self.persona:
            prompts = [[{"role": "system", "content": self.persona}, *prompt] for prompt in prompts]
        # One seed for all, since a batch is sampled from one random state.
        seed = _digest([list(map(int, seeds)), [len(dialogue) for dialogue in dialogues]])
        replies = sample_replies(
            self.model,
            self.tokenizer,
            prompts,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=seed % 2**32,
        )
        return [Answer(reply.text, broken="" if reply.text or reply.ended else CUT) for reply in replies]


class EndpointPartner(Partner):
    """A chat model behind an OpenAI-compatible endpoint or an Inference Provider in the user's role.

    A failed request is repeated as `endpoint` says. If it fails for good, its session is broken and the others go on.

    Args:
        endpoint: of the model; its `parameters` may set a temperature (default 1), top-p and so on.
        persona: system message.
        max_tokens: longest answer, in tokens.
        max_concurrency: requests at once.
    """

    def __init__(self, endpoint: Endpoint, *, persona: str = PERSONA, max_tokens: int = 96, max_concurrency: int = 8):
        self.endpoint, self.persona = endpoint, persona
        self.max_tokens, self.max_concurrency = max_tokens, max_concurrency

    def answer(self, dialogues, seeds):
        stop = threading.Event()

        def ask(dialogue: Sequence[Message], seed: int) -> Answer:
            messages = [{"role": "system", "content": self.persona}, *open_with_user(swap_roles(dialogue))]
            # The turn goes into the seed: with the same one in all turns some servers repeat themselves.
            parameters = {"temperature": 1.0, "max_tokens": self.max_tokens, "seed": (seed + len(dialogue)) % 2**31}
            try:
                answer = self.endpoint.chat(messages, parameters, stop)
                text = without_thoughts(answer.text)
                return Answer(text, broken=CUT if answer.cut and not text else "")
            except (CallError, BackendError) as error:
                return Answer("", broken=str(error))

        pool = ThreadPoolExecutor(self.max_concurrency)
        try:
            return list(pool.map(ask, dialogues, seeds))
        finally:  # on an interrupt, do not wait for the answers
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


class SimulatedPeople(Partner):
    """The simulated people of the sample corpus, whose grammar gives the true value of a turn.

    Sessions with the same first message have the same person, so that those of a group differ in their turns alone.
    `observe` gives the `value` of each turn (`true_turn_value`), `recognised` (1 if the grammar parses it, else 0) and
    the listener's `affect` (1 if the face shows happiness, else 0; NaN if it is not seen).

    Args:
        seed: of the people.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed

    def answer(self, dialogues, seeds):
        return [
            Answer(
                speak_next(
                    [(int(message["role"] == "user"), message["content"]) for message in dialogue],
                    1,
                    self._person(dialogue).traits,
                    np.random.default_rng([self.seed, 1, seed, len(dialogue)]),
                ).text
            )
            for dialogue, seed in zip(dialogues, seeds)
        ]

    def observe(self, dialogue, seed):
        turns = assistant_turns(dialogue)
        values = {turn: true_turn_value(dialogue[: turn + 1]) for turn in turns}
        affect = listener_affect(
            self._person(dialogue),
            [len(message["content"].split()) for message in dialogue],
            [values[index].value if index in values else 0.0 for index in range(len(dialogue))],
            [index in values for index in range(len(dialogue))],
            np.random.default_rng([self.seed, 2, seed]),
        )
        return {
            "value": [values[turn].value for turn in turns],
            "recognised": [float(values[turn].recognised) for turn in turns],
            "affect": affect[turns].tolist(),
        }

    def rate(self, dialogue: Sequence[Message], seed: int) -> int:
        """Rate a session, 1 to 9, as the person in the user's role.

        Args:
            dialogue: all messages.
            seed: of the session.
        """
        values = [true_turn_value(dialogue[: turn + 1]).value for turn in assistant_turns(dialogue)]
        return overall_affect(self._person(dialogue), values, np.random.default_rng([self.seed, 3, seed]))

    def _person(self, dialogue: Sequence[Message]) -> Person:
        return Person(np.random.default_rng([self.seed, 0, _digest(dialogue[0]["content"])]))


def swap_roles(messages: Sequence[Mapping[str, str]]) -> list[Message]:
    """Swap the roles of user and assistant."""
    other = {"assistant": "user", "user": "assistant"}
    return [{"role": other[message["role"]], "content": message["content"]} for message in messages]


def _digest(value) -> int:
    return int.from_bytes(hashlib.blake2b(json.dumps(value).encode(), digest_size=8).digest())
