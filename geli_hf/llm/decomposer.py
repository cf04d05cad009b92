"""Sessions in, the same sessions with one more signal out: what a language model says each turn contributed."""

import math
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from tqdm.auto import tqdm

from ..cache import cache_root
from ..sessions import Message, Session, SessionError, add_signal, assistant_turns, feedback_names
from .answers import UnusableAnswer, answer_schema, parse_contributions, renormalise
from .backend import Answer, AnswerCache, Backend, BackendError, CallError, answer_key
from .prompting import Prompt, retry, scale_of
from .windows import merge_windows, split_windows

SESSIONS_NAMED = 5  # of each reason, in the text of a report
BYTES_PER_TOKEN = 4  # of a question: holds roughly for all scripts, whose letters take one to four bytes
ANSWER_TOKENS_PER_TURN = 10
SESSIONS_AHEAD = 4  # for each thread: as many results at most wait for those before them


@dataclass
class LlmReport:
    """How many sessions were decomposed, which were not, by reason, and what was asked for.

    As text it names a few of the sessions, and `failed` holds all: the session's id with what went wrong last.
    """

    done: int = 0
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    calls: int = 0
    cached: int = 0  # answers that were there from before
    prompt_tokens: int = 0  # of the calls, as the backend counts them
    answer_tokens: int = 0

    @property
    def failures(self) -> int:
        return sum(map(len, self.failed.values()))

    def __str__(self) -> str:
        rows = [(self.done, "sessions decomposed")]
        for reason, sessions in sorted(self.failed.items(), key=lambda entry: -len(entry[1])):
            names = list(sessions)
            more = f" and {len(names) - SESSIONS_NAMED} more" if len(names) > SESSIONS_NAMED else ""
            said = sessions[names[0]]
            example = f" (the first: {said})" if said != reason else ""
            rows.append((len(names), f"failed: {reason}: {', '.join(names[:SESSIONS_NAMED])}{more}{example}"))
        tokens = f", {self.prompt_tokens} tokens of questions and {self.answer_tokens} of answers"
        rows.append((self.calls, f"calls{tokens if self.prompt_tokens else ''}"))
        rows.append((self.cached, "answers from the cache"))
        width = max(len(str(count)) for count, _ in rows)
        return "\n".join(f"{count:>{width}}  {what}" for count, what in rows)


@dataclass
class Estimate:
    """What a run would ask for that is not in the cache, if the first answer to each question can be used.

    Tokens of questions are a quarter of their bytes in UTF-8, those of answers ten per turn: a rule of thumb, within a
    third or so of what a tokenizer would count. A question that has to be asked again costs about as much again.
    """

    sessions: int = 0
    unscored: int = 0
    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    def __str__(self) -> str:
        unscored = f" ({self.unscored} more have no score)" if self.unscored else ""
        return (
            f"{self.sessions} sessions{unscored}: {self.calls} calls, {self.cached} answers from the cache; about "
            f"{self.prompt_tokens} tokens of questions (a quarter of their bytes) and {self.answer_tokens} of answers "
            f"({ANSWER_TOKENS_PER_TURN} per turn), if no question has to be asked twice"
        )


class LlmDecomposer:
    """Asks a language model what each turn of a session contributed to its score (LLM-GELI).

    Args:
        backend: an [`Endpoint`] or a [`LocalModel`].
        with_behaviour: tell the model how the listener behaved, from the column `behaviour` (multimodal LLM-GELI).
        prompt: a template in place of the package's own. It has to ask for numbers on the scale of the score, which
            average to it.
        scale: the lowest and the highest possible score. Default: of those that the sessions have. As part of the
            question it is part of what an answer is kept under.
        window, overlap: turns of the agent that are asked about at once, and those that neighbours have in common;
            see [`split_windows`]. A turn in several windows gets the mean of their answers.
        attempts: how often to ask, with what was wrong with the last answer, before a session counts as failed.
        li_weight: of the answers against the score, see [`renormalise`].
        cache_dir: where answers are kept. Default: `llm` under `geli_hf.cache.cache_root()`.

    A session that fails has NaN for all of its turns: what was not answered is not made up.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        with_behaviour: bool = False,
        prompt: Prompt | None = None,
        scale: tuple[float, float] | None = None,
        window: int = 40,
        overlap: int = 8,
        attempts: int = 3,
        li_weight: float = 0.5,
        cache_dir: str | Path | None = None,
    ):
        split_windows(1, window, overlap)
        renormalise([0.0], 0.0, li_weight)
        if scale is not None and not scale[0] < scale[1]:
            raise ValueError(f"scale: expected the lowest and the highest possible score, found {scale}")
        if attempts < 1:
            raise ValueError(f"attempts: expected at least 1, found {attempts}")
        self.backend, self.with_behaviour = backend, with_behaviour
        self.prompt = prompt or Prompt.default(with_behaviour)
        self.scale, self.window, self.overlap = scale, window, overlap
        self.attempts, self.li_weight = attempts, li_weight
        self.answers = AnswerCache(cache_dir or cache_root() / "llm")

    @property
    def name(self) -> str:
        """What the signal is called unless another name is given."""
        return "llm_behaviour" if self.with_behaviour else "llm"

    def estimate(self, sessions: Dataset) -> Estimate:
        """How many calls and about how many tokens [`decompose`] would pay for. Nothing is sent."""
        scale, estimate, keys = self._scale(sessions), Estimate(), set()
        for session in sessions:
            if math.isnan(session["score"]):
                estimate.unscored += 1
                continue
            estimate.sessions += 1
            for turns in self._windows(session):
                question = self._question(session, turns, scale)
                key = answer_key(self.backend, [question], self.backend.parameters(len(turns)))
                if key in keys or self.answers.get(key) is not None:
                    estimate.cached += 1
                    continue
                keys.add(key)
                estimate.calls += 1
                estimate.prompt_tokens += -(-len(question["content"].encode()) // BYTES_PER_TOKEN)
                estimate.answer_tokens += ANSWER_TOKENS_PER_TURN * len(turns)
        return estimate

    def decompose(
        self, sessions: Dataset, *, name: str | None = None, max_concurrency: int = 8
    ) -> tuple[Dataset, LlmReport]:
        """The sessions, in their order, with a signal more in `feedback`.

        Args:
            name: of the signal.
            max_concurrency: sessions that are asked about at once.

        Raises:
            SessionError: the sessions have a signal of that name, lack the behaviour that the model should read, or
                have scores beyond the scale.
            BackendError: no call can succeed. What was answered is kept, so that the next run goes on from there.
        """
        name = name or self.name
        if name in feedback_names(sessions):
            raise SessionError(f"name: the sessions have a signal {name!r} already; choose another name for this one")
        run, values = _Run(self._scale(sessions)), []
        with tqdm(total=len(sessions), desc="Decomposing sessions", unit=" sessions") as bar:
            for each in self._each(sessions, run, max_concurrency):
                values.append(each)
                bar.set_postfix(failed=run.report.failures, refresh=False)
                bar.update()
        return add_signal(sessions, name, values), run.report

    def _each(self, sessions: Dataset, run: "_Run", max_concurrency: int) -> Iterator[list[float]]:
        """The contributions of every session, in order; many are asked about at once."""
        pool, waiting = ThreadPoolExecutor(max_concurrency), deque()
        try:
            for session in sessions:
                waiting.append((session, pool.submit(self._session, session, run)))
                if len(waiting) >= SESSIONS_AHEAD * max_concurrency:
                    yield run.result(*waiting.popleft())
            while waiting:
                yield run.result(*waiting.popleft())
        finally:
            run.stop.set()
            pool.shutdown(cancel_futures=True)

    def _session(self, session: Session, run: "_Run") -> list[float]:
        if math.isnan(session["score"]):
            raise CallError("the session has no score")
        windows = self._windows(session)
        said = [self._window(session, turns, run) for turns in windows]
        merged = merge_windows(windows[-1].stop, windows, said)
        return renormalise(merged, session["score"], self.li_weight)

    def _window(self, session: Session, turns: range, run: "_Run") -> list[float]:
        question = self._question(session, turns, run.scale)
        messages, schema = [question], answer_schema(turns)
        for attempt in range(self.attempts):
            answer = self._answer(messages, schema, len(turns), run)
            try:
                if answer.cut:
                    raise UnusableAnswer("the answer was cut off", "it was longer than allowed and cut off")
                return parse_contributions(answer.text, turns, *run.scale)
            except UnusableAnswer as error:
                if attempt + 1 == self.attempts:
                    raise
                messages = retry(question, answer.text, str(error), turns)

    def _answer(self, messages: list[Message], schema: dict, turns: int, run: "_Run") -> Answer:
        parameters = self.backend.parameters(turns)
        key = answer_key(self.backend, messages, parameters)
        with self.answers.lock(key):
            answer = self.answers.get(key)
            if answer is not None:
                run.count(None)
                return answer
            try:
                answer = self.backend.ask(messages, schema, parameters, run.stop)
            except BackendError as error:
                run.end(error)
                raise
            self.answers.put(key, answer, self.backend.identity)
        run.count(answer)
        return answer

    def _question(self, session: Session, turns: range, scale: tuple[float, float]) -> Message:
        text = self.prompt.fill(session, turns, scale, self.with_behaviour)
        return {"role": "user", "content": text}

    def _windows(self, session: Session) -> list[range]:
        return split_windows(len(assistant_turns(session["messages"])), self.window, self.overlap)

    def _scale(self, sessions: Dataset) -> tuple[float, float]:
        if self.with_behaviour and "behaviour" not in sessions.column_names:
            raise SessionError("behaviour: the sessions have no such column; decompose them without it")
        scores = sessions["score"][:]
        if self.scale is None:
            return scale_of(scores)
        lowest, highest = self.scale
        for row, score in enumerate(scores):
            if not math.isnan(score) and not lowest <= score <= highest:
                raise SessionError(f"scale: row {row} has the score {score:g}, beyond {lowest:g} to {highest:g}")
        return self.scale


class _Run:
    """What the threads of a run share."""

    def __init__(self, scale: tuple[float, float]):
        self.scale, self.report = scale, LlmReport()
        self.stop = threading.Event()
        self.error: BackendError | None = None  # that which ended it; the other threads only stop
        self._lock = threading.Lock()

    def count(self, answer: Answer | None) -> None:
        """An answer that was paid, or one of the cache."""
        with self._lock:
            if answer is None:
                self.report.cached += 1
                return
            self.report.calls += 1
            self.report.prompt_tokens += answer.prompt_tokens
            self.report.answer_tokens += answer.answer_tokens

    def end(self, error: BackendError) -> None:
        with self._lock:
            self.error = self.error or error
        self.stop.set()

    def result(self, session: Session, contributions: Future) -> list[float]:
        """What a session came to: NaN for all of its turns if it failed."""
        try:
            values = contributions.result()
        except BackendError:
            raise self.error from None
        except (UnusableAnswer, CallError) as error:
            self.report.failed.setdefault(error.reason, {})[session["session_id"]] = str(error)
            return [math.nan] * len(assistant_turns(session["messages"]))
        self.report.done += 1
        return values
