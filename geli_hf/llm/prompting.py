"""Questions to a language model: the template and the transcript. Pure functions."""

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ..sessions import Message, Session, assistant_turns

PLACEHOLDERS = ("transcript", "score", "lowest", "highest", "first", "last", "turns")
REQUIRED = ("transcript", "score")
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Prompt:
    """Template of the question, with these placeholders, of which the first two are required. Other braces are text.

    - `{transcript}`: the dialogue, a line per message, the agent's turns numbered.
    - `{score}`: the session's rating.
    - `{lowest}`, `{highest}`: the ends of the rating scale.
    - `{first}`, `{last}`: numbers of the agent's first and last turn in the transcript.
    - `{turns}`: number of the agent's turns in the whole session.

    Args:
        text: the template.
        source: name of the template, for errors.

    Raises:
        ValueError: a required placeholder is missing, or one is unknown.
    """

    text: str
    source: str = "prompt"

    def __post_init__(self):
        names = set(PLACEHOLDER.findall(self.text))
        if missing := set(REQUIRED) - names:
            raise ValueError(f"{self.source}: the placeholder {{{min(missing)}}} is missing")
        if unknown := names - set(PLACEHOLDERS):
            raise ValueError(f"{self.source}: unknown placeholder {{{min(unknown)}}}; there are {PLACEHOLDERS}")

    @classmethod
    def read(cls, path: str | Path) -> "Prompt":
        """Read a template from a text file in UTF-8.

        Raises:
            ValueError: the file is not UTF-8, or no such template.
        """
        try:
            return cls(Path(path).read_text(encoding="utf-8-sig"), f"prompt {path}")
        except UnicodeDecodeError as error:
            raise ValueError(f"prompt {path}: not text in UTF-8 ({error})") from None

    @classmethod
    def default(cls, with_behaviour: bool = False) -> "Prompt":
        """Read a template of the package, with or without the listener's behaviour."""
        name = "contributions_behaviour.txt" if with_behaviour else "contributions.txt"
        return cls(files(__package__).joinpath("prompts", name).read_text(encoding="utf-8"), name)

    def fill(self, session: Session, turns: range, scale: tuple[float, float], with_behaviour: bool) -> str:
        """Write the question about some turns of a session.

        Args:
            session: a Session row.
            turns: indices of its assistant turns, counted from 0.
            scale: lowest and highest value of the rating scale.
            with_behaviour: show the listener's behaviour, column `behaviour`.
        """
        messages = session["messages"]
        values = {
            "transcript": transcript(messages, turns, session["behaviour"] if with_behaviour else None),
            "score": f"{session['score']:g}",
            "lowest": f"{scale[0]:g}",
            "highest": f"{scale[1]:g}",
            "first": str(turns[0] + 1),
            "last": str(turns[-1] + 1),
            "turns": str(len(assistant_turns(messages))),
        }
        # In one pass: a message may look like a placeholder.
        return PLACEHOLDER.sub(lambda match: values[match[1]], self.text).strip()


def transcript(messages: list[Message], turns: range, behaviour: list[str] | None = None) -> str:
    """Write some turns of the agent, numbered within the session, with the messages before, between and after them.

        Person: We sat in a hut and played cards.
        [2] Agent: Who won?
            (the person meanwhile: smiles)
        Person: She always does.

    Args:
        messages: of the session.
        turns: indices of assistant turns, counted from 0.
        behaviour: the listener's, per assistant turn of the session; "" where there is none.
    """
    positions = assistant_turns(messages)
    lines, turn = [], turns[0]
    for message in messages[max(0, positions[turns[0]] - 1) : positions[turns[-1]] + 2]:
        words = " ".join(message["content"].split())  # one line, so that no message can imitate a numbered turn
        if message["role"] == "user":
            lines.append(f"Person: {words}")
            continue
        lines.append(f"[{turn + 1}] Agent: {words}")
        if behaviour is not None and behaviour[turn].strip():
            lines.append(f"    (the person meanwhile: {' '.join(behaviour[turn].split())})")
        turn += 1
    return "\n".join(lines)
