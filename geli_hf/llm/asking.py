"""Many questions to a model: several at once, each answer paid once, useless ones told back, failures counted."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from ..sessions import Message
from .answers import UnusableAnswer
from .backend import Answer, AnswerCache, Backend, BackendError, CallError, answer_key

ITEMS_NAMED = 5  # of each reason, in the text of a report
ITEMS_AHEAD = 4  # for each thread: as many results at most wait for those before them

Item, Result = TypeVar("Item"), TypeVar("Result")


@dataclass
class LlmReport:
    """How many sessions were decomposed (or `what` else was asked about), which were not, by reason, and what was
    asked for.

    As text it names a few of the sessions, and `failed` holds all: the session's id with what went wrong last.
    """

    done: int = 0
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    calls: int = 0
    cached: int = 0  # answers that were there from before
    prompt_tokens: int = 0  # of the calls, as the backend counts them
    answer_tokens: int = 0
    what: str = "sessions decomposed"

    @property
    def failures(self) -> int:
        return sum(map(len, self.failed.values()))

    def __str__(self) -> str:
        rows = [(self.done, self.what)]
        for reason, sessions in sorted(self.failed.items(), key=lambda entry: -len(entry[1])):
            names = list(sessions)
            more = f" and {len(names) - ITEMS_NAMED} more" if len(names) > ITEMS_NAMED else ""
            said = sessions[names[0]]
            example = f" (the first: {said})" if said != reason else ""
            rows.append((len(names), f"failed: {reason}: {', '.join(names[:ITEMS_NAMED])}{more}{example}"))
        tokens = f", {self.prompt_tokens} tokens of questions and {self.answer_tokens} of answers"
        rows.append((self.calls, f"calls{tokens if self.prompt_tokens else ''}"))
        rows.append((self.cached, "answers from the cache"))
        width = max(len(str(count)) for count, _ in rows)
        return "\n".join(f"{count:>{width}}  {what}" for count, what in rows)


class Asking:
    """A run of questions, shared by its threads.

    Args:
        answers: where they are kept.
        attempts: how often to ask, with what was wrong with the last answer, before a question counts as failed.
        report: what is counted.
    """

    def __init__(self, backend: Backend, answers: AnswerCache, attempts: int, report: LlmReport):
        self.backend, self.answers, self.attempts, self.report = backend, answers, attempts, report
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._error: BackendError | None = None  # that which ended it; the other threads only stop

    def each(
        self,
        items: Iterable[Item],
        name: Callable[[Item], str],
        ask: Callable[[Item], Result],
        max_concurrency: int,
    ) -> Iterator[Result | None]:
        """What `ask` made of every item, in order; many are asked about at once. None of one that failed.

        Raises:
            BackendError: no call can succeed. What was answered is kept, so that the next run goes on from there.
        """
        pool, waiting = ThreadPoolExecutor(max_concurrency), deque()
        try:
            for item in items:
                waiting.append((name(item), pool.submit(ask, item)))
                if len(waiting) >= ITEMS_AHEAD * max_concurrency:
                    yield self._result(*waiting.popleft())
            while waiting:
                yield self._result(*waiting.popleft())
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def useful(
        self,
        question: Message,
        schema: dict,
        numbers: int,
        parse: Callable[[str], Result],
        retry: Callable[[Message, str, str], list[Message]],
    ) -> Result:
        """What `parse` reads in the answer to a question, which is asked anew where it raises UnusableAnswer.

        Args:
            schema: JSON schema of the answer.
            numbers: how many values it holds.
            retry: the messages of another try, from the question, the useless answer, and what is wrong with it.
        """
        messages = [question]
        for attempt in range(self.attempts):
            answer = self._answer(messages, schema, numbers)
            try:
                if answer.cut:
                    raise UnusableAnswer("the answer was cut off", "it was longer than allowed and cut off")
                return parse(answer.text)
            except UnusableAnswer as error:
                if attempt + 1 == self.attempts:
                    raise
                messages = retry(question, answer.text, str(error))

    def _answer(self, messages: list[Message], schema: dict, numbers: int) -> Answer:
        parameters = self.backend.parameters(numbers)
        key = answer_key(self.backend, messages, parameters)
        with self.answers.lock(key):
            answer = self.answers.get(key)
            if answer is not None:
                self._count(None)
                return answer
            try:
                answer = self.backend.ask(messages, schema, parameters, self._stop)
            except BackendError as error:
                with self._lock:
                    self._error = self._error or error
                self._stop.set()
                raise
            self.answers.put(key, answer, self.backend.identity)
        self._count(answer)
        return answer

    def _count(self, answer: Answer | None) -> None:
        """An answer that was paid, or one of the cache."""
        with self._lock:
            if answer is None:
                self.report.cached += 1
                return
            self.report.calls += 1
            self.report.prompt_tokens += answer.prompt_tokens
            self.report.answer_tokens += answer.answer_tokens

    def _result(self, name: str, result: Future) -> Result | None:
        try:
            found = result.result()
        except BackendError:
            raise self._error from None
        except (UnusableAnswer, CallError) as error:
            self.report.failed.setdefault(error.reason, {})[name] = str(error)
            return None
        self.report.done += 1
        return found
