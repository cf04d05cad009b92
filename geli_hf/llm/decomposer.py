"""Sessions in, the same sessions with one more signal out: what a language model says each turn contributed."""

import math
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

from datasets import Dataset
from tqdm.auto import tqdm

from ..cache import cache_root
from ..sessions import Message, Session, SessionError, add_signal, assistant_turns, feedback_names
from .answers import answer_schema, parse_contributions, renormalise
from .asking import Asking, LlmReport
from .backend import AnswerCache, Backend, CallError, answer_key
from .prompting import Prompt, retry, scale_of
from .windows import merge_windows, split_windows

BYTES_PER_TOKEN = 4  # of a question: holds roughly for all scripts, whose letters take one to four bytes
ANSWER_TOKENS_PER_TURN = 10


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
        scale, report, values = self._scale(sessions), LlmReport(), []
        asking = Asking(self.backend, self.answers, self.attempts, report)
        contributions = asking.each(
            sessions, itemgetter("session_id"), partial(self._session, asking, scale), max_concurrency
        )
        with tqdm(total=len(sessions), desc="Decomposing sessions", unit=" sessions") as bar:
            for each, session in zip(contributions, sessions):  # in this order, so that the first is run to its end
                values.append([math.nan] * len(assistant_turns(session["messages"])) if each is None else each)
                bar.set_postfix(failed=report.failures, refresh=False)
                bar.update()
        return add_signal(sessions, name, values), report

    def _session(self, asking: Asking, scale: tuple[float, float], session: Session) -> list[float]:
        if math.isnan(session["score"]):
            raise CallError("the session has no score")
        windows = self._windows(session)
        said = [self._window(asking, scale, session, turns) for turns in windows]
        merged = merge_windows(windows[-1].stop, windows, said)
        return renormalise(merged, session["score"], self.li_weight)

    def _window(self, asking: Asking, scale: tuple[float, float], session: Session, turns: range) -> list[float]:
        return asking.useful(
            self._question(session, turns, scale),
            answer_schema(turns),
            len(turns),
            lambda text: parse_contributions(text, turns, *scale),
            lambda question, answer, problem: retry(question, answer, problem, turns),
        )

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
