"""Questions to a model: several at once, each answer paid once, invalid ones sent back, failures counted."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from ..cache import cache_root, write_text
from ..sessions import Message
from .answers import UnusableAnswer
from .backend import Answer, Backend, BackendError, CallError

CACHE_VERSION = 1  # part of every key: raise it when the same question should be asked anew
ITEMS_NAMED = 5  # of each reason, in the text of a report
SHOWN_AGAIN = 2000  # characters of an invalid answer that the model sees again

Item, Result = TypeVar("Item"), TypeVar("Result")


@dataclass
class LlmReport:
    """Counts of a run: items done and failed, calls, and tokens. Its text names a few of the failed items.

    Args:
        done: items without a failure.
        failed: for each reason the failed items, with the last error of each.
        calls: answers that were paid.
        cached: answers that the cache held.
        prompt_tokens, answer_tokens: of the calls, as the backend counts them.
        uncounted: calls whose tokens it did not count.
        what: the items, for the text.
    """

    done: int = 0
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    uncounted: int = 0
    what: str = "sessions decomposed"

    @property
    def failures(self) -> int:
        return sum(map(len, self.failed.values()))

    def count_call(self, answer: Answer) -> None:
        self.calls += 1
        self.prompt_tokens += answer.prompt_tokens or 0
        self.answer_tokens += answer.answer_tokens or 0
        self.uncounted += answer.prompt_tokens is None or answer.answer_tokens is None

    def fail(self, item: str, error: CallError) -> None:
        self.failed.setdefault(error.reason, {})[item] = str(error)

    def __str__(self) -> str:
        lines = [f"{self.done}  {self.what}"]
        for reason, errors in self.failed.items():
            names = list(errors)
            shown = f"{', '.join(names[:ITEMS_NAMED])} (the first: {errors[names[0]]})"
            lines.append(f"{len(names)}  failed: {reason}: {shown}")
        tokens = f"{self.prompt_tokens} tokens of questions and {self.answer_tokens} of answers"
        tokens += f" ({self.uncounted} without a count)" if self.uncounted else ""
        lines.append(f"{self.calls}  calls, {tokens}")
        lines.append(f"{self.cached}  answers from the cache")
        return "\n".join(lines)


class AnswerCache:
    """Folder with a file per answer, so that each is paid once. Several threads and processes may share it.

    A file holds the answer and the name of its model: no question, address or key.

    Args:
        folder: default: `llm` under `geli_hf.cache.cache_root()`.
    """

    def __init__(self, folder: str | Path | None = None):
        self.folder = Path(folder or cache_root() / "llm")
        self._locks: dict[str, threading.Lock] = {}

    def get(self, key: str) -> Answer | None:
        try:
            return Answer(**json.loads(self._path(key).read_text(encoding="utf-8"))["answer"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, answer: Answer, identity: dict) -> None:
        write_text(self._path(key), json.dumps({"answer": asdict(answer)} | identity, ensure_ascii=False))

    def lock(self, key: str) -> threading.Lock:
        """Return the lock of an answer, to hold from look-up to storage: sessions can have the same words."""
        return self._locks.setdefault(key, threading.Lock())

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def answer_key(backend: Backend, messages: list[Message], parameters: dict) -> str:
    """Name an answer: a hash of the model, the kind of backend, the messages and the parameters."""
    parts = json.dumps([CACHE_VERSION, backend.identity, messages, parameters], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(parts.encode(), digest_size=20).hexdigest()


class Questioner:
    """One run of questions, shared by its threads.

    Args:
        backend: runner of the model.
        answers: cache of the answers.
        attempts: tries of a question, each with the error of the last answer, before it counts as failed.
        report: counts of the run, which are updated.

    Raises:
        ValueError: `attempts` is less than 1.
    """

    def __init__(self, backend: Backend, answers: AnswerCache, attempts: int, report: LlmReport):
        if attempts < 1:
            raise ValueError(f"attempts: expected at least 1, found {attempts}")
        self.backend, self.answers, self.attempts, self.report = backend, answers, attempts, report
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._error: BackendError | None = None  # the one that ended the run; other threads only stop

    def ask_all(
        self,
        items: Iterable[Item],
        name: Callable[[Item], str],
        ask: Callable[[Item], Result],
        max_concurrency: int,
    ) -> Iterator[Result | None]:
        """Yield `ask(item)` for every item, in order; None for one that failed.

        Args:
            items: what to ask about.
            name: of an item, for the report.
            ask: calls `ask_until_valid`.
            max_concurrency: threads.

        Raises:
            BackendError: no call can succeed. Earlier answers are kept, and the next run continues from there.
        """
        pool = ThreadPoolExecutor(max_concurrency)
        try:
            for item, future in [(name(item), pool.submit(ask, item)) for item in items]:
                try:
                    result = future.result()
                except BackendError:
                    raise self._error from None
                except CallError as error:
                    self.report.fail(item, error)
                    yield None
                else:
                    self.report.done += 1
                    yield result
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def ask_until_valid(
        self, question: str, schema: dict, values: int, parse: Callable[[str], Result], reminder: str
    ) -> Result:
        """Ask a question, again with the error where `parse` raises UnusableAnswer.

        Args:
            question: text of the first message.
            schema: JSON schema of the answer.
            values: number of values in the answer.
            parse: reads the text of an answer.
            reminder: what the JSON object holds, to repeat after an invalid answer.

        Returns:
            The result of `parse`.

        Raises:
            UnusableAnswer: the last attempt has no valid answer.
        """
        first = {"role": "user", "content": question}
        messages = [first]
        for attempt in range(1, self.attempts + 1):
            answer = self._answer(messages, schema, values)
            try:
                if answer.cut:
                    raise UnusableAnswer("the answer was cut off")
                return parse(answer.text)
            except UnusableAnswer as error:
                if attempt == self.attempts:
                    raise
                request = f"That answer can't be used: {error}. Answer with the JSON object alone: {reminder}"
                shown = answer.text[:SHOWN_AGAIN].strip() or "(no answer)"
                messages = [first, {"role": "assistant", "content": shown}, {"role": "user", "content": request}]

    def _answer(self, messages: list[Message], schema: dict, values: int) -> Answer:
        parameters = self.backend.parameters(values)
        key = answer_key(self.backend, messages, parameters)
        with self.answers.lock(key):
            answer = self.answers.get(key)
            if answer is not None:
                with self._lock:
                    self.report.cached += 1
                return answer
            try:
                answer = self.backend.ask(messages, schema, parameters, self._stop)
            except BackendError as error:
                with self._lock:
                    self._error = self._error or error
                self._stop.set()
                raise
            self.answers.put(key, answer, self.backend.identity)
        with self._lock:
            self.report.count_call(answer)
        return answer
