"""Questions to a language model: the template and the transcript. Pure functions."""

import re
from functools import cache
from importlib.resources import files

from ..sessions import Message, Session, assistant_turns

PLACEHOLDER = re.compile(r"\{([a-z]+)\}")


@cache
def _template(name: str) -> str:
    return files(__package__).joinpath("prompts", name).read_text(encoding="utf-8")


def question(session: Session, turns: range, scale: tuple[float, float], with_behaviour: bool = False) -> str:
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
    template = _template("contributions_behaviour.txt" if with_behaviour else "contributions.txt")
    # In one pass: a message may look like a placeholder.
    return PLACEHOLDER.sub(lambda match: values[match[1]], template).strip()


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
