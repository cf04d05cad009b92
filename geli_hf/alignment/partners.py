"""Who a policy talks with: somebody in the user's role, in many dialogues at once.

A partner keeps no state between turns. What it says depends on the dialogue and on a number that stays with a session,
so that a session can be played again, and its company changes nothing.
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
from ..sessions import Message, assistant_turns
from ..simulator.corpus import Person, listener_affect, overall_affect, true_turn_value
from ..simulator.people import speak_next
from .dialogue import open_with_user
from .sampling import generate_replies

# Of whoever plays a user, unless told otherwise.
PERSONA = (
    "You are having casual small talk with somebody you have just met. Answer what they say in one or two short "
    "sentences, tell about yourself, and don't be more polite than people are."
)


class Answer(NamedTuple):
    """What a partner does next.

    Args:
        text: what they say; "" if they have left.
        broken: why nobody can know what they would have said; "" if all is well. Such a session counts for nothing.
    """

    text: str
    broken: str = ""


class Partner:
    """Somebody in the user's role. A subclass has to `answer`, and may know what a turn was worth to them."""

    def answer(self, dialogues: Sequence[Sequence[Message]], seeds: Sequence[int]) -> list[Answer]:
        """What the user says next in each of the dialogues.

        Args:
            dialogues: so far, each ending with the assistant, as people have them (no system message, no `OPENING`).
            seeds: one number per dialogue, the same in all turns of a session.

        Returns:
            An `Answer` for each dialogue, in their order; one without text ends the session.
        """
        raise NotImplementedError

    def observe(self, dialogue: Sequence[Message], seed: int) -> dict[str, list[float]]:
        """What is known of a session when it is over: lists with one number per turn of the assistant; NaN if unknown.

        Args:
            dialogue: the whole of it.
            seed: that of the session.
        """
        return {}


class ModelPartner(Partner):
    """A chat model of `transformers` in the user's role: it is shown the dialogue with the roles swapped.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer, with a chat template.
        persona: system message that tells the model whom to play; "" for none, as for a model that knows no such.
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
        # One draw for all, since sampling in a batch has one random state.
        seed = _digest([list(map(int, seeds)), [len(dialogue) for dialogue in dialogues]])
        replies = generate_replies(
            self.model,
            self.tokenizer,
            prompts,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=seed % 2**32,
        )
        return list(map(Answer, replies))


class EndpointPartner(Partner):
    """A chat model behind an OpenAI-compatible endpoint or an Inference Provider in the user's role.

    A request that fails is tried again as `endpoint` says. If it fails for good, or the endpoint is gone, the session
    is broken; the others go on.

    Args:
        endpoint: asks the model; its `parameters` may set temperature (1 unless they do), top-p and so on.
        persona: system message that tells the model whom to play.
        max_tokens: longest answer, in tokens.
        max_concurrency: dialogues that are asked about at once.
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
                return Answer(self.endpoint.chat(messages, parameters, stop).text.strip())
            except (CallError, BackendError) as error:
                return Answer("", broken=str(error))

        pool = ThreadPoolExecutor(self.max_concurrency)
        try:
            return list(pool.map(ask, dialogues, seeds))
        finally:  # on an interrupt too: nobody waits for the answers any more
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


class SimulatedPeople(Partner):
    """The people of the sample corpus, whose grammar tells what a turn is truly worth.

    Sessions with the same first message are talks with the same person, so that those of a group differ in nothing
    but what is said. `observe` gives the `value` of each turn (`true_turn_value`), whether the grammar `recognised` it
    (1 or 0), and the listener's `affect`: 1 where their face showed happiness, else 0, NaN where it wasn't seen.

    Args:
        seed: another seed, other people.
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
        judged = {turn: true_turn_value(dialogue[: turn + 1]) for turn in turns}
        affect = listener_affect(
            self._person(dialogue),
            [len(message["content"].split()) for message in dialogue],
            [judged[index].value if index in judged else 0.0 for index in range(len(dialogue))],
            [index in judged for index in range(len(dialogue))],
            np.random.default_rng([self.seed, 2, seed]),
        )
        return {
            "value": [judged[turn].value for turn in turns],
            "recognised": [float(judged[turn].recognised) for turn in turns],
            "affect": affect[turns].tolist(),
        }

    def rate(self, dialogue: Sequence[Message], seed: int) -> int:
        """How the person who talked with the assistant rates the whole session, 1 to 9."""
        values = [true_turn_value(dialogue[: turn + 1]).value for turn in assistant_turns(dialogue)]
        return overall_affect(self._person(dialogue), values, np.random.default_rng([self.seed, 3, seed]))

    def _person(self, dialogue: Sequence[Message]) -> Person:
        return Person(np.random.default_rng([self.seed, 0, _digest(dialogue[0]["content"])]))


def swap_roles(messages: Sequence[Mapping[str, str]]) -> list[Message]:
    """The dialogue as the other one has it: what the assistant said is the user's, and the reverse."""
    other = {"assistant": "user", "user": "assistant"}
    return [{"role": other[message["role"]], "content": message["content"]} for message in messages]


def _digest(value) -> int:
    return int.from_bytes(hashlib.blake2b(json.dumps(value).encode(), digest_size=8).digest())
