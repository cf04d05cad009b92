"""Contrast set of a turn-level reward model: does it prefer a kind, fitting answer to nonsense?

Each dialogue comes with a fitting next turn of the assistant. Rules make foils from it, which no person would prefer:
an answer to something else, a rude line, a repetition, a shuffle, an empty template. It is a test of the least that a
reward for a policy needs, and no measure of how good an answer is: a model that passes may still rank good answers
badly. Dismissals, and most echoes and repetitions, are shorter than the answer, so a reward for length alone passes on
them; on other answers and salads it is at chance. The project's set is `results/contrast/dialogues.jsonl`; no model is
trained on it.
"""

from __future__ import annotations

import json
import random
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..metrics.intervals import Interval
from ..metrics.metrics import bootstrap
from ..metrics.table import aligned_table, as_json
from ..sessions import Message, validate_messages

MEAN = "mean"  # over the kinds of foils
BATCH_SIZE = 32  # dialogues that are scored together
SALAD_WORDS, SALAD_TRIES = 4, 100
PUNCTUATION = string.punctuation.replace("'", "")  # an apostrophe belongs to its word

FOIL_TEXTS = json.loads(Path(__file__).with_name("foils.json").read_text(encoding="utf-8"))
DISMISSALS, TEMPLATES = FOIL_TEXTS["dismissals"], FOIL_TEXTS["templates"]
TOPICS = FOIL_TEXTS["topics"]  # kind of dialogue -> topics; a template foil takes one of another kind
KINDS = tuple(TOPICS)


@dataclass(frozen=True)
class ContrastDialogue:
    """A dialogue with a fitting, kind next turn of the assistant.

    Args:
        id: name of the dialogue.
        kind: of the situation, one of `KINDS`.
        messages: alternating, with at least one of the assistant; the last is the user's.
        answer: the fitting turn; neither the user's last message nor the assistant's.

    Raises:
        ValueError: one of them is of another form.
    """

    id: str
    kind: str
    messages: Sequence[Message]
    answer: str

    def __post_init__(self):
        for name in ("id", "answer"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{name}: expected a text, found {value!r:.80}")
        if self.kind not in KINDS:
            raise ValueError(f"{self.id}, kind: expected one of {', '.join(KINDS)}, found {self.kind!r:.80}")
        validate_messages(self.messages, self.id)
        if self.messages[-1]["role"] != "user":
            raise ValueError(f"{self.id}, messages: expected the user's as the last, which the answer answers")
        texts = {_plain(text) for text in (self.answer, self.last_message("user"), self.last_message("assistant"))}
        if len(texts) < 3:
            raise ValueError(
                f"{self.id}, answer: expected three different texts as answer and last message of each side, "
                f"found {self.answer!r:.80}; else a foil is the answer"
            )

    def last_message(self, role: str) -> str:
        """Return the last message of the user or the assistant."""
        return next(message["content"] for message in reversed(self.messages) if message["role"] == role)

    def with_turn(self, text: str) -> list[Message]:
        """Return the messages with a text as the assistant's next turn."""
        return [*self.messages, {"role": "assistant", "content": text}]


def load_contrast(path: str | Path) -> list[ContrastDialogue]:
    """Read a contrast set.

    Args:
        path: JSON lines, each with the fields of `ContrastDialogue`.

    Raises:
        OSError: there is no such file.
        ValueError: a line is no dialogue, or repeats the id or the answer of another. It names file and line.
    """
    dialogues: list[ContrastDialogue] = []
    lines: dict[tuple[str, str], int] = {}  # (field, text) -> line
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                dialogue = ContrastDialogue(**json.loads(line))
                for key in (("id", dialogue.id), ("answer", _plain(dialogue.answer))):
                    if key in lines:
                        raise ValueError(f"{key[0]}: {key[1]!r:.80} is that of line {lines[key]} already; change one")
                    lines[key] = number
            except (TypeError, ValueError) as error:  # no JSON, or other fields
                names = ", ".join(field.name for field in fields(ContrastDialogue))
                raise ValueError(f"{path}, line {number}: {error}; expected a JSON object with {names}") from error
            dialogues.append(dialogue)
    if not dialogues:
        raise ValueError(f"{path}: expected a dialogue on each line, found an empty file")
    return dialogues


def other_answer(dialogue: ContrastDialogue, dialogues: Sequence[ContrastDialogue], rng: random.Random) -> str:
    """Draw the answer of a dialogue of another kind."""
    return rng.choice([other.answer for other in dialogues if other.kind != dialogue.kind])


def dismissal(dialogue: ContrastDialogue, dialogues: Sequence[ContrastDialogue], rng: random.Random) -> str:
    """Draw a short line that rejects the user."""
    return rng.choice(DISMISSALS)


def echo(dialogue: ContrastDialogue, dialogues: Sequence[ContrastDialogue], rng: random.Random) -> str:
    """Give the user's last message back."""
    return dialogue.last_message("user")


def repeat(dialogue: ContrastDialogue, dialogues: Sequence[ContrastDialogue], rng: random.Random) -> str:
    """Say the assistant's previous message again."""
    return dialogue.last_message("assistant")


def salad(dialogue: ContrastDialogue, dialogues: Sequence[ContrastDialogue], rng: random.Random) -> str:
    """Shuffle the words of the answer, so that none follows the word that it followed.

    Fewer than four different words can't be shuffled into nonsense: the rest then comes from other answers. Words lose
    the punctuation around them, which would give them away, and the first gets a capital. Of an answer that repeats
    few words, such as "no, no, no", some order may stay.
    """
    words = _words(dialogue.answer)
    different = {word.lower() for word in words}
    if len(different) < SALAD_WORDS:
        new = sorted({word.lower() for other in dialogues for word in _words(other.answer)} - different)
        words += rng.sample(new, min(SALAD_WORDS - len(different), len(new)))
    neighbours = set(_pairs(words))
    orders = [rng.sample(words, len(words)) for _ in range(SALAD_TRIES)]
    best = min(orders, key=lambda order: sum(pair in neighbours for pair in _pairs(order)))
    text, end = " ".join(best), dialogue.answer[-1]
    return text[:1].upper() + text[1:] + (end if end in ".!?" else ".")


def template(dialogue: ContrastDialogue, dialogues: Sequence[ContrastDialogue], rng: random.Random) -> str:
    """Ask a stock question about a topic of another kind of dialogue."""
    topics = [topic for kind, of_kind in TOPICS.items() if kind != dialogue.kind for topic in of_kind]
    return rng.choice(TEMPLATES).format(topic=rng.choice(topics))


# Name -> a function of the dialogue, all dialogues and the source of chance.
FOILS: dict[str, Callable[[ContrastDialogue, Sequence[ContrastDialogue], random.Random], str]] = {
    "other_answer": other_answer,
    "dismissal": dismissal,
    "echo": echo,
    "repeat": repeat,
    "salad": salad,
    "template": template,
}


def make_foils(dialogues: Sequence[ContrastDialogue], *, seed: int = 0) -> dict[str, list[str]]:
    """Make a foil of every kind for every dialogue.

    Args:
        dialogues: of at least two kinds.
        seed: of the draws.

    Returns:
        Kind of foil -> (dialogues,), texts.

    Raises:
        ValueError: all dialogues are of one kind, or there is none.
    """
    kinds = {dialogue.kind for dialogue in dialogues}
    if len(kinds) < 2:
        raise ValueError(f"dialogues: expected at least two kinds, to answer one as another, found {kinds or 'none'}")
    return {
        name: [foil(each, dialogues, random.Random(f"{seed} {name} {each.id}")) for each in dialogues]
        for name, foil in FOILS.items()
    }


@dataclass(frozen=True)
class ContrastFigures:
    """Figures of a reward model on a contrast set. Their text is a Markdown table.

    Both mappings end with `MEAN`, the mean over the kinds of foils. Intervals are 95 % bootstrap intervals over
    dialogues.

    Args:
        shares: kind of foil -> share of the dialogues whose answer has a higher reward than the foil; a tie counts .5,
            which is also chance.
        margins: kind of foil -> mean reward of the answer minus that of the foil, in units of the reward.
        dialogues: kind of dialogue -> number of dialogues.
    """

    shares: Mapping[str, Interval]
    margins: Mapping[str, Interval]
    dialogues: Mapping[str, int]

    def __str__(self) -> str:
        rows = [[name, str(self.shares[name]), str(self.margins[name])] for name in self.shares]
        return aligned_table(["foil", "answer preferred", "margin of reward"], rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON."""
        return as_json(vars(self))


def contrast_figures(
    score: Callable[[list[list[Message]]], Any], dialogues: Sequence[ContrastDialogue], *, seed: int = 0
) -> ContrastFigures:
    """Compare the reward of each dialogue's fitting answer with those of its foils.

    The share is the pairwise accuracy of reward models (RewardBench, Lambert et al., arXiv 2403.13787), on pairs of a
    fitting answer and a foil.

    Args:
        score: maps dialogues, lists of messages that end with the assistant's, to the reward of each one's last turn,
            such as `GeliRewardModel.score_messages`. It gets a batch at a time.
        dialogues: from `load_contrast`.
        seed: of the foils and the intervals.

    Raises:
        ValueError: the dialogues are of one kind, or `score` does not return one finite number per dialogue.

    Example:
        >>> dialogues = load_contrast("results/contrast/dialogues.jsonl")
        >>> print(contrast_figures(model.score_messages, dialogues))
    """
    foils = make_foils(dialogues, seed=seed)
    turns = {"answer": [dialogue.answer for dialogue in dialogues], **foils}
    asked = [dialogue.with_turn(text) for texts in turns.values() for dialogue, text in zip(dialogues, texts)]
    rewards = []
    for first in tqdm(range(0, len(asked), BATCH_SIZE), desc="Scoring the contrast set", unit="batch"):
        batch = asked[first : first + BATCH_SIZE]
        of_batch = torch.as_tensor(score(batch), dtype=torch.float64, device="cpu").numpy()
        if of_batch.shape != (len(batch),):
            raise ValueError(f"score: expected one reward for each of {len(batch)}, found shape {of_batch.shape}")
        rewards.append(of_batch)
    table = np.concatenate(rewards).reshape(len(turns), len(dialogues))
    if len(wrong := np.argwhere(~np.isfinite(table))):
        turn, place = wrong[0]
        where = f"{dialogues[place].id} with the turn {list(turns)[turn]!r}"
        raise ValueError(f"score: expected finite rewards, found {table[turn, place]} for {where}")

    differences = table[0] - table[1:]  # (foils, dialogues)
    wins = (1 + np.sign(differences)) / 2
    ids = [dialogue.id for dialogue in dialogues]

    def intervals(values: np.ndarray) -> dict[str, Interval]:
        rows = zip([*foils, MEAN], [*values, values.mean(0)])
        return {name: bootstrap(row, ids, seed=seed) for name, row in rows}

    count = Counter(dialogue.kind for dialogue in dialogues)
    return ContrastFigures(shares=intervals(wins), margins=intervals(differences), dialogues=dict(count))


def _plain(text: str) -> str:
    """Text without what makes no difference to a reader: case, and white space and punctuation around words."""
    return " ".join(_words(text)).lower() or text.strip()


def _words(text: str) -> list[str]:
    return [word for part in text.split() if (word := part.strip(PUNCTUATION))]


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    return list(pairwise(word.lower() for word in words))
