"""Decomposition of scores by a language model: sessions in, the same sessions with one more signal out."""

import math
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

from datasets import Dataset
from tqdm.auto import tqdm

from ..sessions import Session, SessionError, add_signal, assistant_turns, feedback_names
from .answers import answer_schema, parse_contributions, renormalise
from .asking import AnswerCache, LlmReport, Questioner, answer_key
from .backend import Answer, Backend, CallError
from .prompting import Prompt

BYTES_PER_TOKEN = 4  # of a question: holds roughly for all scripts, whose letters take one to four bytes
ANSWER_TOKENS_PER_TURN = 10
NO_SCORE = "the session has no score"


class LlmDecomposer:
    """Estimator of each turn's contribution to the score of its session, by a language model (LLM-GELI).

    A session that fails has NaN for all of its turns.

    Args:
        backend: an [`Endpoint`] or a [`LocalModel`].
        with_behaviour: show the model the listener's behaviour, column `behaviour` (multimodal LLM-GELI).
        prompt: a template in place of the package's own. It has to ask for numbers on the scale of the score, which
            average to it.
        scale: the lowest and the highest possible score. Default: the range of the sessions' scores. As part of the
            question it is part of the key of an answer.
        window, overlap: turns of the agent in one question, and those that neighbouring questions share; see
            [`split_windows`]. A turn in several windows gets the mean of their answers.
        attempts: tries of a question, each with the error of the last answer, before the session counts as failed.
        cache_dir: folder of the answers. Default: `llm` under `geli_hf.cache.cache_root()`.

    Raises:
        ValueError: the overlap does not fit the window.
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
        cache_dir: str | Path | None = None,
    ):
        split_windows(1, window, overlap)
        self.backend, self.with_behaviour = backend, with_behaviour
        self.prompt = prompt or Prompt.default(with_behaviour)
        self.scale, self.window, self.overlap = scale, window, overlap
        self.attempts, self.answers = attempts, AnswerCache(cache_dir)

    @property
    def name(self) -> str:
        """Default name of the signal."""
        return "llm_behaviour" if self.with_behaviour else "llm"

    def estimate(self, sessions: Dataset) -> LlmReport:
        """Estimate the calls and tokens that [`decompose`] would pay for if every first answer is valid.

        Nothing is sent. Tokens of questions are a quarter of their bytes in UTF-8, those of answers ten per turn: a
        rule of thumb, within about a third of a tokenizer's count.

        Args:
            sessions: Session rows.

        Returns:
            Counts as of a run, those of tokens estimated.

        Raises:
            SessionError: as [`decompose`].
        """
        scale, report, keys = self._scale(sessions), LlmReport(what="sessions to decompose"), set()
        for session in sessions:
            if math.isnan(session["score"]):
                report.fail(session["session_id"], CallError(NO_SCORE))
                continue
            report.done += 1
            for turns in self._windows(session):
                question = self.prompt.fill(session, turns, scale, self.with_behaviour)
                messages = [{"role": "user", "content": question}]
                key = answer_key(self.backend, messages, self.backend.parameters(len(turns)))
                if key in keys or self.answers.get(key) is not None:
                    report.cached += 1
                    continue
                keys.add(key)
                prompt_tokens = -(-len(question.encode()) // BYTES_PER_TOKEN)
                report.count_call(Answer("", False, prompt_tokens, ANSWER_TOKENS_PER_TURN * len(turns)))
        return report

    def decompose(
        self, sessions: Dataset, *, name: str | None = None, max_concurrency: int = 8
    ) -> tuple[Dataset, LlmReport]:
        """Add the contributions to the sessions as one more signal in `feedback`.

        Args:
            sessions: Session rows.
            name: of the signal. Default: `name`.
            max_concurrency: sessions in work at once.

        Returns:
            The sessions, in their order, and the counts of the run.

        Raises:
            SessionError: the sessions have a signal of that name, lack the column `behaviour`, or have scores beyond
                the scale; or the scale is empty.
            BackendError: no call can succeed. Earlier answers are kept, and the next run continues from there.
        """
        name = name or self.name
        if name in feedback_names(sessions):  # before anything is paid
            raise SessionError(f"name: the sessions have a signal {name!r} already; choose another name for this one")
        scale, report, values = self._scale(sessions), LlmReport(), []
        questioner = Questioner(self.backend, self.answers, self.attempts, report)
        contributions = questioner.ask_all(
            sessions,
            itemgetter("session_id"),
            lambda session: self._contributions(questioner, scale, session),
            max_concurrency,
        )
        with tqdm(total=len(sessions), desc="Decomposing sessions", unit=" sessions") as bar:
            for row, session in zip(contributions, sessions):  # in this order, so that the first is run to its end
                values.append([math.nan] * len(assistant_turns(session["messages"])) if row is None else row)
                bar.set_postfix(failed=report.failures, refresh=False)
                bar.update()
        return add_signal(sessions, name, values), report

    def _contributions(self, questioner: Questioner, scale: tuple[float, float], session: Session) -> list[float]:
        if math.isnan(session["score"]):
            raise CallError(NO_SCORE)
        windows = self._windows(session)
        answers = [
            questioner.ask_until_valid(
                self.prompt.fill(session, turns, scale, self.with_behaviour),
                answer_schema(turns),
                len(turns),
                lambda text, turns=turns: parse_contributions(text, turns, *scale),
                f'one number for each of the turns from "{turns[0] + 1}" to "{turns[-1] + 1}".',
            )
            for turns in windows
        ]
        return renormalise(merge_windows(windows[-1].stop, windows, answers), session["score"])

    def _windows(self, session: Session) -> list[range]:
        return split_windows(len(assistant_turns(session["messages"])), self.window, self.overlap)

    def _scale(self, sessions: Dataset) -> tuple[float, float]:
        if self.with_behaviour and "behaviour" not in sessions.column_names:
            raise SessionError("behaviour: the sessions have no such column; decompose them without it")
        scores = sessions["score"][:]
        known = [score for score in scores if not math.isnan(score)]
        lowest, highest = self.scale or (min(known, default=math.nan), max(known, default=math.nan))
        if not lowest < highest:
            raise SessionError(f"scale: found {lowest:g} to {highest:g}; give the ends of the scale, lowest first")
        for row, score in enumerate(scores):
            if score < lowest or score > highest:
                raise SessionError(f"scale: row {row} has the score {score:g}, beyond {lowest:g} to {highest:g}")
        return lowest, highest


def split_windows(turns: int, window: int, overlap: int) -> list[range]:
    """Split a session into ranges of at most `window` turns, of which neighbours share at least `overlap`.

    There are as few as possible, all of one length and evenly spread, so that no window holds a few last turns alone:

        n = ceil((T - O) / (W - O)),    start_k = floor(k (T - W) / (n - 1)),  k = 0 .. n - 1

    Args:
        turns: T, of the session.
        window: W.
        overlap: O, less than W.

    Raises:
        ValueError: the overlap is negative, or not less than the window.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"window, overlap: expected 0 <= overlap < window, found {window} and {overlap}")
    if turns <= window:
        return [range(turns)]
    count = -(-(turns - overlap) // (window - overlap))
    starts = (k * (turns - window) // (count - 1) for k in range(count))
    return [range(start, start + window) for start in starts]


def merge_windows(turns: int, windows: Sequence[range], values: Sequence[Sequence[float]]) -> list[float]:
    """Average the values of each turn over the windows that hold it.

    Args:
        turns: T, of the session.
        windows: ranges of turns that cover all of them.
        values: for each window one value per turn.

    Returns:
        (T,) means.
    """
    by_turn: list[list[float]] = [[] for _ in range(turns)]
    for window, window_values in zip(windows, values, strict=True):
        for turn, value in zip(window, window_values, strict=True):
            by_turn[turn].append(value)
    return [sum(entries) / len(entries) for entries in by_turn]
