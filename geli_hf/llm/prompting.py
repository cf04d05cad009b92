"""What a language model is asked: the template, the transcript, and what it is told after a useless answer. Pure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ..sessions import Message, Session, SessionError, assistant_turns

# What stands for what in a template; the first two it has to hold.
PLACEHOLDERS = {
    "transcript": "the dialogue, a line per message, the agent's turns numbered",
    "score": "the session's rating",
    "lowest": "the lower end of the rating scale",
    "highest": "the upper end of the rating scale",
    "first": "number of the agent's first turn in the transcript",
    "last": "number of the agent's last turn in the transcript",
    "turns": "how many turns of the agent the whole session has",
}
NEEDED = ("transcript", "score")
TOLD_OF_AN_ANSWER = 2000  # characters of a useless answer that are shown to the model again


@dataclass(frozen=True)
class Prompt:
    """A template of the question, in which `{name}` stands for what `PLACEHOLDERS` says. Other braces are text.

    Raises:
        ValueError: a placeholder that is needed is missing, or there is one that nobody knows.
    """

    text: str
    where: str = "prompt"  # for errors

    def __post_init__(self):
        found = set(re.findall(r"\{([a-z_]+)\}", self.text))
        there_are = "; there are " + ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        if missing := [name for name in NEEDED if name not in found]:
            raise ValueError(f"{self.where}: the placeholder {{{missing[0]}}} is missing{there_are}")
        if unknown := sorted(found - set(PLACEHOLDERS)):
            raise ValueError(f"{self.where}: unknown placeholder {{{unknown[0]}}}{there_are}")

    @classmethod
    def read(cls, path: str | Path) -> "Prompt":
        """A template of the user's own, as UTF-8 text."""
        try:
            return cls(Path(path).read_text(encoding="utf-8-sig"), f"prompt {path}")
        except UnicodeDecodeError as error:
            raise ValueError(f"prompt {path}: not text in UTF-8 ({error.reason} at byte {error.start})") from None

    @classmethod
    def default(cls, with_behaviour: bool = False) -> "Prompt":
        """The one that comes with the package."""
        name = "contributions_behaviour.txt" if with_behaviour else "contributions.txt"
        return cls(files(__package__).joinpath("prompts", name).read_text(encoding="utf-8"), name)

    def fill(self, session: Session, turns: range, scale: tuple[float, float], with_behaviour: bool) -> str:
        """The question about some turns of a session.

        Args:
            turns: which of its assistant turns, counted from 0.
            scale: the ends of the rating scale.
            with_behaviour: tell how the listener behaved, from the column `behaviour`.
        """
        count = len(assistant_turns(session["messages"]))
        values: Mapping[str, str] = {
            "transcript": transcript(session["messages"], turns, _behaviour(session) if with_behaviour else None),
            "score": f"{session['score']:g}",
            "lowest": f"{scale[0]:g}",
            "highest": f"{scale[1]:g}",
            "first": str(turns[0] + 1),
            "last": str(turns[-1] + 1),
            "turns": str(count),
        }
        # In one go: what people say may look like a placeholder.
        return re.sub(r"\{([a-z_]+)\}", lambda match: values[match[1]], self.text).strip()


def transcript(messages: list[Message], turns: range, behaviour: list[str] | None = None) -> str:
    """Some turns of the agent, numbered from 1 in the session, with what was said before, between and after them.

        Person: We sat in a hut and played cards.
        [2] Agent: Who won?
            (the person meanwhile: smiles)
        Person: She always does.

    Args:
        turns: which assistant turns, counted from 0.
        behaviour: the listener's, per assistant turn of the session; "" where there was none.
    """
    at = assistant_turns(messages)
    lines, turn = [], turns[0]
    for message in messages[max(0, at[turns[0]] - 1) : at[turns[-1]] + 2]:
        words = " ".join(message["content"].split())  # on one line, so that nobody can say what looks like a turn
        if message["role"] == "user":
            lines.append(f"Person: {words}")
            continue
        lines.append(f"[{turn + 1}] Agent: {words}")
        if behaviour is not None and behaviour[turn].strip():
            lines.append(f"    (the person meanwhile: {' '.join(behaviour[turn].split())})")
        turn += 1
    return "\n".join(lines)


def retry(question: Message, answer: str, problem: str, turns: range) -> list[Message]:
    """The messages of another try: the question, the useless answer, and what is wrong with it."""
    shown = answer if len(answer) <= TOLD_OF_AN_ANSWER else f"{answer[:TOLD_OF_AN_ANSWER]} ..."
    told = (
        f"That answer can't be used: {problem}. Answer with the JSON object and nothing else: "
        f'one number for each of the turns from "{turns[0] + 1}" to "{turns[-1] + 1}".'
    )
    return [
        question,
        {"role": "assistant", "content": shown.strip() or "(no answer)"},
        {"role": "user", "content": told},
    ]


def scale_of(scores: list[float]) -> tuple[float, float]:
    """The lowest and the highest score that was given.

    Raises:
        SessionError: they tell nothing about a scale.
    """
    known = [score for score in scores if not math.isnan(score)]
    if not known or min(known) == max(known):
        found = f"all scores are {known[0]:g}" if known else "no session has a score"
        raise SessionError(f"scale: {found}, which says nothing about the scale; give its lowest and highest value")
    return min(known), max(known)


def _behaviour(session: Session) -> list[str]:
    if session.get("behaviour") is None:
        raise SessionError(f"behaviour: session {session['session_id']!r} has no such column; decompose without it")
    return session["behaviour"]
