"""A language model as the judge of two replies to the same dialogue, by the questions of GELI's human study.

Language models prefer what stands first, or second (Zheng et al., "Judging LLM-as-a-Judge", NeurIPS 2023, arXiv
2306.05685). So each pair is asked about both ways round, and only what is said both times counts; else it is a tie.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ...cache import cache_root
from ...llm.answers import choice_schema, parse_choices
from ...llm.asking import AnswerCache, LlmReport, Questioner
from ...llm.backend import Backend
from ...sessions import Message

# What people were asked in the studies of GELI (arXiv 2403.11330) and LLM-GELI (arXiv 2505.15922), in our words.
CRITERIA = {
    "connection": "With which one would the person feel more connected to the agent?",
    "positivity": "Which one is warmer and more positive?",
    "social_understanding": "Which one shows a better understanding of what the person feels and means?",
    "inclination": "After which one would the person be more inclined to go on talking?",
    "interestingness": "Which one is more interesting?",
    "reuse": "After which one would the person rather talk with this agent again?",
    "specific": "Which one is more specific to this conversation?",
    "sensible": "Which one makes more sense here?",
    "fluent": "Which one is better English, or whatever language they speak?",
}
CHOICES = ("A", "B", "tie")
NOTHING = "(says nothing)"


@dataclass(frozen=True)
class Verdicts:
    """What a language model said of pairs of replies.

    Args:
        criteria: the names of what was asked, in order.
        wins: (pairs, criteria): 1 where the second reply is better, 0 where it is worse, .5 for a tie. NaN throughout
            a pair that could not be judged: what was not answered is not made up.
        swayed: share of the questions on which another reply was better when the two changed places: a tie then.
        report: what was asked for, and what failed.
    """

    criteria: tuple[str, ...]
    wins: np.ndarray
    swayed: float
    report: LlmReport


class LlmJudge:
    """Asks a language model which of two replies is better.

    Args:
        backend: an [`Endpoint`] or a [`LocalModel`].
        criteria: name of a question -> the question.
        attempts: how often to ask, with what was wrong with the last answer, before a pair counts as failed.
        cache_dir: where answers are kept. Default: `llm` under `geli_hf.cache.cache_root()`.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        criteria: Mapping[str, str] = CRITERIA,
        attempts: int = 3,
        cache_dir: str | Path | None = None,
    ):
        if not criteria:
            raise ValueError("criteria: expected at least one question, found none")
        if attempts < 1:
            raise ValueError(f"attempts: expected at least 1, found {attempts}")
        self.backend, self.criteria, self.attempts = backend, dict(criteria), attempts
        self.answers = AnswerCache(cache_dir or cache_root() / "llm")
        self._template = files(__package__).joinpath("prompts", "comparison.txt").read_text(encoding="utf-8")

    def compare(
        self,
        dialogues: Sequence[Sequence[Message]],
        first: Sequence[str],
        second: Sequence[str],
        *,
        names: Sequence[str] | None = None,
        max_concurrency: int = 8,
    ) -> Verdicts:
        """Which of two replies to each dialogue is better. The same words are a tie, without a question.

        Args:
            names: of the pairs, for the report on what failed. Default: their numbers from 0.
            max_concurrency: pairs that are asked about at once.

        Raises:
            BackendError: no call can succeed. What was answered is kept, so that the next run goes on from there.
        """
        names = [str(index) for index in range(len(first))] if names is None else names
        report = LlmReport(what="pairs of replies judged")
        asking = Questioner(self.backend, self.answers, self.attempts, report)
        wins = np.full((len(first), len(self.criteria)), np.nan)
        differ = [index for index, (a, b) in enumerate(zip(first, second)) if a.split() != b.split()]
        for index in set(range(len(first))) - set(differ):
            wins[index] = 0.5
        report.done = len(first) - len(differ)

        def both_ways(index: int) -> tuple[list[str], list[str]]:
            a, b = first[index], second[index]
            return self._ask(asking, dialogues[index], a, b), self._ask(asking, dialogues[index], b, a)

        swayed, answered = 0, 0
        with tqdm(total=len(differ), desc="Comparing replies", unit=" pairs") as bar:
            judged = asking.ask_all(differ, lambda index: names[index], both_ways, max_concurrency)
            for said, index in zip(judged, differ):
                if said is not None:
                    wins[index] = [_verdict(as_b, as_a) for as_b, as_a in zip(*said)]
                    swayed += sum(as_b == as_a != "tie" for as_b, as_a in zip(*said))
                    answered += len(self.criteria)
                bar.set_postfix(failed=report.failures, refresh=False)
                bar.update()
        return Verdicts(tuple(self.criteria), wins, swayed / answered if answered else 0.0, report)

    def _ask(self, asking: Questioner, dialogue: Sequence[Message], a: str, b: str) -> list[str]:
        """Of each criterion "A", "B" or "tie"."""
        names = list(self.criteria)
        values = {
            "criteria": "\n".join(f'- "{name}": {question}' for name, question in self.criteria.items()),
            "dialogue": "\n".join(
                f"{'Agent' if each['role'] == 'assistant' else 'Person'}: {_one_line(each['content'])}"
                for each in dialogue
                if each["role"] != "system"
            ),
            "a": _one_line(a) or NOTHING,
            "b": _one_line(b) or NOTHING,
            "names": ", ".join(f'"{name}"' for name in names),
        }
        # In one go: what people say may look like a placeholder.
        text = re.sub(r"\{([a-z]+)\}", lambda match: values[match[1]], self._template).strip()
        return asking.ask_until_valid(
            text,
            choice_schema(names, CHOICES),
            len(names),
            lambda answer: parse_choices(answer, names, CHOICES),
            '"A", "B" or "tie" each.',
        )


def _verdict(as_b: str, as_a: str) -> float:
    """For the second reply, of what was said when it was B and when it was A."""
    return {("B", "A"): 1.0, ("A", "B"): 0.0}.get((as_b, as_a), 0.5)


def _one_line(text: str) -> str:
    """So that nobody can say what looks like a line of the other's."""
    return " ".join(text.split())
