"""Text of a language model to one value per turn, and these values towards the score. Pure functions."""

import json
import math
import re
from collections.abc import Sequence

from .backend import CallError

FENCED = re.compile(r"```(?:json)?\s*\n(.*?)\s*```", re.DOTALL)
LONGEST_SHOWN = 80  # characters of an answer in an error


class UnusableAnswer(CallError):
    """Answer that is not exactly one valid value per turn."""


def answer_schema(turns: range) -> dict:
    """JSON schema of an object with one number per turn, under the turn's number, which counts from 1."""
    return _object_schema(_turn_names(turns), {"type": "number"})


def choice_schema(names: Sequence[str], choices: Sequence[str]) -> dict:
    """JSON schema of an object with one of the choices under each name."""
    return _object_schema(names, {"type": "string", "enum": list(choices)})


def parse_contributions(text: str, turns: range, lowest: float, highest: float) -> list[float]:
    """Read the numbers of an answer such as `{"1": 3.5, "2": 4}`, in the order of the turns.

    A block of thoughts before the object and a code fence around it are removed. Nothing else is repaired.

    Args:
        text: the answer.
        turns: the turns of the question, counted from 0; the answer counts from 1.
        lowest, highest: the ends of the rating scale. A number may exceed an end by the length of the scale, since
            the best turn of a session with the highest score contributes more than that score.

    Returns:
        (turns,) numbers.

    Raises:
        UnusableAnswer: the text is not exactly one such number for every turn.
    """
    names, span = _turn_names(turns), highest - lowest
    values = _parse_object(text, names)
    for name, value in zip(names, values):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UnusableAnswer("a value is no number", f"turn {name}: {_short(value)}")
        if not lowest - span <= value <= highest + span:
            found = f"turn {name}: {value}, on a scale from {lowest:g} to {highest:g}"
            raise UnusableAnswer("a number is far off the scale", found)
    return values


def parse_choices(text: str, names: Sequence[str], choices: Sequence[str]) -> list[str]:
    """Read the choices of an answer such as `{"fluent": "A", "sensible": "tie"}`, in the order of the names.

    It is as strict as `parse_contributions`.

    Args:
        text: the answer.
        names: the keys of the object.
        choices: the values that each may have.

    Returns:
        (names,) choices.

    Raises:
        UnusableAnswer: the text is not exactly one of the choices for every name.
    """
    values = _parse_object(text, names)
    for name, value in zip(names, values):
        if value not in choices:
            found = f"{name}: {_short(value)}; expected {' or '.join(choices)}"
            raise UnusableAnswer("a value is none of the choices", found)
    return values


def renormalise(values: Sequence[float], score: float, li_weight: float = 0.5) -> list[float]:
    """Move contributions towards the score, all by the same amount:

        c_t = a_t + (1 - w) (R - 1/T sum_i a_i)

    with a_t the model's answer, R the score and w = `li_weight`. These c_t minimise GELI's own loss over free rewards
    when the answers are its local signal: `(1 - w) (R - 1/T sum_t c_t)^2 + w/T sum_t (a_t - c_t)^2` (`geli_loss` of
    `rrd_loss` over all turns and `li_loss`). w = .5 is the published weight (arXiv 2505.15922); 0 makes the mean equal
    the score, 1 leaves the answers unchanged. Differences between turns stay.

    The result is on the scale of the score and has its mean there, as the turn rewards of a `GeliRewardModel` have. In
    the paper the sum equals the score: those are these divided by T. A sum makes the turns of long sessions worth less
    than those of short ones because of their number alone, and a reward model that is fit to all of them learns that.

    Args:
        values: (T,), a_t, on the scale of the score.
        score: R, not standardised.
        li_weight: w, from 0 to 1.

    Returns:
        (T,) contributions.
    """
    shift = (1 - li_weight) * (score - sum(values) / len(values))
    return [value + shift for value in values]


def _turn_names(turns: range) -> list[str]:
    return [str(turn + 1) for turn in turns]


def _object_schema(names: Sequence[str], value: dict) -> dict:
    return {
        "type": "object",
        "properties": dict.fromkeys(names, value),
        "required": list(names),
        "additionalProperties": False,
    }


def _parse_object(text: str, names: Sequence[str]) -> list:
    """Read the values of a JSON object with exactly these keys."""
    text = text.strip()
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].strip()
    if fenced := FENCED.fullmatch(text):
        text = fenced[1]
    if not text:
        raise UnusableAnswer("the answer is empty")
    try:
        # Integers as floats too: one of a thousand digits is then infinite, and raises no error of its own.
        answer = json.loads(text, object_pairs_hook=_unique, parse_int=float)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UnusableAnswer("the answer is not JSON", str(error)) from None
    if not isinstance(answer, dict):
        raise UnusableAnswer("the answer is no JSON object", _short(answer))
    if missing := [name for name in names if name not in answer]:
        raise UnusableAnswer("values are missing", ", ".join(missing))
    if unknown := sorted(set(answer).difference(names)):
        raise UnusableAnswer("there are keys that nobody asked for", _short(unknown))
    return [answer[name] for name in names]


def _unique(pairs: list[tuple]) -> dict:
    names = [name for name, _ in pairs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UnusableAnswer("a key is there twice", _short(repeated))
    return dict(pairs)


def _short(value: object) -> str:
    return repr(value)[:LONGEST_SHOWN]
