"""From what a language model writes to a number per turn, and from these towards the score. Pure functions."""

import json
import math
import re
from collections.abc import Sequence

FENCED = re.compile(r"```(?:json)?\s*\n(.*?)\s*```", re.DOTALL)
TURNS_NAMED = 5  # in an error


class UnusableAnswer(ValueError):
    """An answer that isn't exactly one number per turn. `reason` is what to count it as, the message what to tell."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def answer_schema(turns: range) -> dict:
    """JSON schema of an answer: an object with one number per turn, by the turn's number, which counts from 1."""
    names = [str(turn + 1) for turn in turns]
    return {
        "type": "object",
        "properties": {name: {"type": "number"} for name in names},
        "required": names,
        "additionalProperties": False,
    }


def parse_contributions(text: str, turns: range, lowest: float, highest: float) -> list[float]:
    """The numbers of an answer such as `{"1": 3.5, "2": 4}`, in the order of the turns.

    A block of thoughts before the object and a code fence around it are taken off. Nothing else is guessed or mended.

    Args:
        turns: the turns that were asked for, counted from 0; the answer counts from 1.
        lowest, highest: the ends of the rating scale. A number may lie beyond one by the length of the scale, since
            the best turn of a session that was rated with the highest score has to get more than that.

    Raises:
        UnusableAnswer: there isn't exactly one such number for every turn.
    """
    answer = _object(text)
    wanted = [str(turn + 1) for turn in turns]
    if missing := [name for name in wanted if name not in answer]:
        raise UnusableAnswer("turns are missing", f"no number for turn {_some(missing)}")
    if unknown := sorted(set(answer) - set(wanted)):
        raise UnusableAnswer(
            "there are keys that are no turn",
            f"{_some(unknown)}: expected turns {wanted[0]} to {wanted[-1]} alone",
        )
    span = highest - lowest
    for name in wanted:
        value = answer[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UnusableAnswer("a value is no number", f"turn {name}: expected a number, found {_short(value)}")
        if not lowest - span <= value <= highest + span:
            raise UnusableAnswer(
                "a number is far off the scale",
                f"turn {name}: {_short(value)} is far off the scale from {lowest:g} to {highest:g}",
            )
    return [float(answer[name]) for name in wanted]


def choice_schema(names: Sequence[str], choices: Sequence[str]) -> dict:
    """JSON schema of an answer: an object with one of the choices under each name."""
    return {
        "type": "object",
        "properties": {name: {"type": "string", "enum": list(choices)} for name in names},
        "required": list(names),
        "additionalProperties": False,
    }


def parse_choices(text: str, names: Sequence[str], choices: Sequence[str]) -> list[str]:
    """The choices of an answer such as `{"fluent": "A", "sensible": "tie"}`, in the order of the names.

    As strict as `parse_contributions`.

    Raises:
        UnusableAnswer: there isn't exactly one of the choices for every name.
    """
    answer = _object(text)
    if missing := [name for name in names if name not in answer]:
        raise UnusableAnswer("choices are missing", f"no choice for {_some(missing)}")
    if unknown := sorted(set(answer) - set(names)):
        raise UnusableAnswer(
            "there are keys that nobody asked for", f"{_some(unknown)}: expected {_some(names)} alone"
        )
    for name in names:
        if answer[name] not in choices:
            expected = " or ".join(f'"{choice}"' for choice in choices)
            raise UnusableAnswer(
                "a value is none of the choices", f"{name}: expected {expected}, found {_short(answer[name])}"
            )
    return [answer[name] for name in names]


def renormalise(values: Sequence[float], score: float, li_weight: float = 0.5) -> list[float]:
    """Contributions that softly amount to the score:

        c_t = a_t + (1 - w) (R - 1/T sum_i a_i)

    with a_t what the model said, R the score and w = `li_weight`. These are the free rewards that GELI's own loss is
    least at when the answers are its local signal: `(1 - w) (R - 1/T sum_t c_t)^2 + w/T sum_t (a_t - c_t)^2`
    (`geli_loss` of `rrd_loss` over all turns and `li_loss`). w = .5 is the published weight; 0 makes the mean the
    score exactly, 1 leaves the answers as they are. What the model says about one turn against another stays: all
    turns are moved by the same amount.

    They are on the scale of the score and amount to it by their mean, as the turn rewards of a `GeliRewardModel` do.
    In the paper they amount to it by their sum: those are these divided by T. A sum would make the turns of long
    sessions worth less than those of short ones for no other reason than their number, and a reward model that is fit
    to all of them at once would learn that.

    Args:
        values: (T,), a_t, on the scale of the score.
        score: R, not standardised.
    """
    if not 0 <= li_weight <= 1:
        raise ValueError(f"li_weight: expected a weight of the answers from 0 to 1, found {li_weight}")
    shift = (1 - li_weight) * (score - sum(values) / len(values))
    return [value + shift for value in values]


def _object(text: str) -> dict:
    """The JSON object that is all of an answer, but for a block of thoughts before it and a code fence around it."""
    text = text.strip()
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].strip()
    if fenced := FENCED.fullmatch(text):
        text = fenced[1]
    if not text:
        raise UnusableAnswer("the answer is empty", "the answer is empty")
    try:
        # Whole numbers as floats too: one of a thousand digits is then infinite, and no error of its own.
        answer = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number, parse_int=float)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UnusableAnswer("the answer is not JSON", f"the answer is not JSON ({error})") from None
    if not isinstance(answer, dict):
        raise UnusableAnswer("the answer is no JSON object", f"expected a JSON object, found {_short(answer)}")
    return answer


def _unique(pairs: list[tuple]) -> dict:
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UnusableAnswer("a key is there twice", f"{_some(twice)}: expected every key once")
    return dict(pairs)


def _no_number(name: str) -> None:
    raise UnusableAnswer("a value is no number", f"expected numbers, found {name}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - TURNS_NAMED} more" if len(names) > TURNS_NAMED else ""
    return _short(", ".join(names[:TURNS_NAMED]), str) + more


def _short(value: object, text=repr) -> str:
    text = text(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
