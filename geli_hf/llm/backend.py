"""Interface of whatever runs a chat model: its answers and its errors."""

import threading
from dataclasses import dataclass
from typing import Protocol

from ..sessions import Message


@dataclass(frozen=True)
class Answer:
    """Text that a model wrote, unchanged.

    Args:
        text: the words of the model.
        cut: the model reached its limit of tokens before it ended.
        prompt_tokens, answer_tokens: as the backend counts them; None if it does not.
    """

    text: str
    cut: bool = False
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class CallError(RuntimeError):
    """One call failed for good.

    Args:
        reason: short text by which a report counts the failure.
        message: details.
    """

    def __init__(self, reason: str, message: str = ""):
        super().__init__(f"{reason}: {message}" if message else reason)
        self.reason = reason


class BackendError(OSError):
    """No call can succeed: nothing answers, or a key is refused. The run ends; earlier answers are kept."""


class Backend(Protocol):
    """Runner of a chat model. Several threads call it at once."""

    @property
    def identity(self) -> dict:
        """Model and kind of backend, as part of the name of a cached answer: no address, no key."""

    def parameters(self, turns: int) -> dict:
        """Return the parameters of a request for so many values, which are part of the key of its answer."""

    def ask(self, messages: list[Message], schema: dict, parameters: dict, stop: threading.Event) -> Answer:
        """Generate the next message of a chat.

        Args:
            messages: the chat so far.
            schema: JSON schema of the answer, for backends that can enforce one.
            parameters: from `parameters`.
            stop: set when the answer is no longer needed.

        Raises:
            CallError: this question can't be answered.
            BackendError: no question can.
        """


def default_max_tokens(values: int) -> int:
    """Return a limit of tokens for a JSON object with so many values, each of which takes about ten tokens."""
    return 64 + 16 * values
