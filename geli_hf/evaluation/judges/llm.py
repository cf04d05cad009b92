"""A language model as the judge of two replies to the same dialogue, by the questions of GELI's human study.

Language models prefer the first or the second place (Zheng et al., "Judging LLM-as-a-Judge", NeurIPS 2023, arXiv
2306.05685). So each pair is asked about in both orders, and only an answer given in both counts; else it is a tie.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np
from tqdm.auto import tqdm

from ... import llm
from ...alignment.dialogue import without_opening
from ...llm.answers import choice_schema, parse_choices
from ...llm.asking import AnswerCache, LlmReport, Questioner
from ...llm.backend import Backend
from ...sessions import Message
from ..comparison import Dialogues, JudgedReply, PolicyComparison

# Paraphrases of the questions in the human studies of GELI (arXiv 2403.11330) and LLM-GELI (arXiv 2505.15922).
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
ATTEMPTS = 3  # of a question, each with the problem of the last answer, before a pair counts as failed
NOTHING = "(says nothing)"
CONCURRENCY = 8  # pairs that are asked about at once


class LlmJudge:
    """Judge that asks a language model which of two replies is better.

    Args:
        backend: an [`Endpoint`] or a [`LocalModel`].
        model: name of the model, for the reader.
        criteria: name of a question -> the question.
    """

    def __init__(self, backend: Backend, model: str = "", *, criteria: Mapping[str, str] = CRITERIA):
        self.backend, self.criteria, self.answers = backend, dict(criteria), AnswerCache()
        self.name = f"the language model {model}"
        self._template = files(llm).joinpath("prompts", "comparison.txt").read_text(encoding="utf-8")
        self.report = LlmReport()

    def compare(
        self, dialogues: Dialogues, before: Sequence[str], after: Sequence[str], conversation_ids: Sequence[str]
    ) -> PolicyComparison:
        """Judge two replies to each dialogue. Equal texts are a tie, without a question.

        `report` then counts calls and failures.

        Args:
            dialogues: messages before the replies.
            before, after: (dialogues,), the replies.
            conversation_ids: (dialogues,).

        Raises:
            BackendError: no call can succeed. The answers so far are cached for the next run.
        """
        self.report = LlmReport(what="pairs of replies judged")
        asking = Questioner(self.backend, self.answers, ATTEMPTS, self.report)
        wins = np.full((len(before), len(self.criteria)), 0.5)
        differ = [index for index, (a, b) in enumerate(zip(before, after)) if a.split() != b.split()]
        wins[differ] = np.nan
        self.report.done = len(before) - len(differ)

        def ask_in_both_orders(index: int) -> list[tuple[str, str]]:
            a, b = before[index], after[index]
            return list(zip(self._ask(asking, dialogues[index], a, b), self._ask(asking, dialogues[index], b, a)))

        with tqdm(total=len(differ), desc="Comparing replies", unit=" pairs") as bar:
            for index, answers in zip(differ, asking.ask_all(differ, str, ask_in_both_orders, CONCURRENCY)):
                if answers is not None:
                    wins[index] = [{("B", "A"): 1.0, ("A", "B"): 0.0}.get(answer, 0.5) for answer in answers]
                bar.set_postfix(failed=self.report.failures, refresh=False)
                bar.update()
        sides = [[JudgedReply(text, math.nan, None) for text in replies] for replies in (before, after)]
        verdicts = dict(zip(self.criteria, wins.T))
        return PolicyComparison(dialogues, *sides, conversation_ids, self.name, verdicts)

    def notes(self, dialogues: Dialogues, comparison: PolicyComparison) -> list[str]:
        """List sentences on the last comparison."""
        failed = self.report.failed.items()
        return [
            "Each pair was asked about twice, with the replies in either order; an answer that follows it is a tie.",
            *(f"{len(pairs)} pairs could not be judged and are left out ({reason})." for reason, pairs in failed),
        ]

    def _ask(self, asking: Questioner, dialogue: Sequence[Message], a: str, b: str) -> list[str]:
        """Ask in one order: "A", "B" or "tie" for each criterion."""
        names = list(self.criteria)
        values = {
            "criteria": "\n".join(f'- "{name}": {question}' for name, question in self.criteria.items()),
            "dialogue": "\n".join(
                f"{'Agent' if message['role'] == 'assistant' else 'Person'}: {_one_line(message['content'])}"
                for message in without_opening(dialogue)
            ),
            "a": _one_line(a) or NOTHING,
            "b": _one_line(b) or NOTHING,
            "names": ", ".join(f'"{name}"' for name in names),
        }
        # In a single pass, since messages may contain what looks like a placeholder.
        text = re.sub(r"\{([a-z]+)\}", lambda match: values[match[1]], self._template).strip()
        return asking.ask_until_valid(
            text,
            choice_schema(names, CHOICES),
            len(names),
            lambda answer: parse_choices(answer, names, CHOICES),
            '"A", "B" or "tie" each.',
        )


def _one_line(text: str) -> str:
    """Join lines, so that no message can imitate one of the other speaker."""
    return " ".join(text.split())
