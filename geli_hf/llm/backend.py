"""What a decomposer needs of whatever runs a language model, and the answers that were paid for already."""

import hashlib
import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from ..cache import whole
from ..sessions import Message

# Part of every key: raise it when the same question should be asked anew.
CACHE_VERSION = 1


@dataclass(frozen=True)
class Answer:
    """What a model wrote, as it wrote it."""

    text: str
    cut: bool = False  # it had more to say than it was allowed to
    prompt_tokens: int = 0  # as the backend counts; 0 if it doesn't
    answer_tokens: int = 0


class CallError(RuntimeError):
    """One call failed for good. `reason` is what to count it as, the message may say more."""

    def __init__(self, reason: str, message: str = ""):
        super().__init__(f"{reason}: {message}" if message else reason)
        self.reason = reason


class BackendError(OSError):
    """No call can succeed: nobody is there, or a key is refused. The run ends, what was answered is kept."""


class Backend(Protocol):
    """Runs a chat model. Called by several threads at once."""

    @property
    def identity(self) -> dict:
        """What tells its answers from those of another one: no address, no key."""

    def parameters(self, turns: int) -> dict:
        """How to write an answer about so many turns; changes what is answered, so that it is a part of the key."""

    def ask(self, messages: list[Message], schema: dict, parameters: dict, stop: threading.Event) -> Answer:
        """
        Args:
            schema: JSON schema of the answer, for those who can hold a model to it.
            parameters: from `parameters`.
            stop: set when nobody waits for the answer any more.

        Raises:
            CallError, BackendError
        """


def answer_key(backend: Backend, messages: list[Message], parameters: dict) -> str:
    """Name of an answer: a hash of the model, the kind of backend, the messages and the parameters."""
    parts = json.dumps([CACHE_VERSION, backend.identity, messages, parameters], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(parts.encode(), digest_size=20).hexdigest()


class AnswerCache:
    """A folder with a file per answer, so that each is paid once; several threads and processes may share it.

    A file holds the answer and the name of its model: no question, address or key.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._locks: dict[str, threading.Lock] = {}

    def get(self, key: str) -> Answer | None:
        try:
            return Answer(**json.loads(self._path(key).read_text(encoding="utf-8"))["answer"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, answer: Answer, identity: dict) -> None:
        with whole(self._path(key)) as partial:
            record = {"answer": asdict(answer)} | identity
            partial.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")

    def lock(self, key: str) -> threading.Lock:
        """To be held while an answer is looked up, asked for and kept: sessions can be alike word for word."""
        return self._locks.setdefault(key, threading.Lock())

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
