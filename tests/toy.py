"""A toy corpus in which words decide what a turn is worth."""

import random

import numpy as np
from datasets import Dataset
from tiny import sentence

from geli_hf.sessions import session_features

NAN = float("nan")
GOOD, BAD = "happy", "tired"


def toy_sessions(count: int, *, seed: int = 0, turn_rating: bool = True, unseen: float = 0.2) -> Dataset:
    """Sessions of 2 to 5 turns, each good (it says "happy") or bad ("tired").

    The score is 5, plus 2 if all turns are good, minus 2 if all are bad, and in proportion between. The listener
    smiles (`affect` 1) at good turns; a share of `unseen` is not observed. `noise` is a signal of chance.
    """
    draw = random.Random(seed)
    rows = []
    for index in range(count):
        values = [draw.choice([-1.0, 1.0]) for _ in range(draw.randint(2, 5))]
        messages = []
        for value in values:
            reply = f"{sentence(draw, 2)} {' '.join([GOOD if value > 0 else BAD] * 3)}"
            messages += [{"role": "user", "content": sentence(draw, 3)}, {"role": "assistant", "content": reply}]
        affect = [NAN if draw.random() < unseen else float(value > 0) for value in values]
        noise = [draw.random() for _ in values]
        row = {
            "session_id": f"s{index}",
            "conversation_id": f"c{index}",
            "rater_id": "",
            "messages": messages,
            "score": 5 + 2 * float(np.mean(values)),
            "feedback": {"affect": affect, "noise": noise},
        }
        rows.append(row | ({"turn_rating": values} if turn_rating else {}))
    return Dataset.from_list(rows, features=session_features(["affect", "noise"], turn_rating=turn_rating))


def with_column(sessions: Dataset, name: str, values: list) -> Dataset:
    """The sessions with one column replaced."""
    return sessions.remove_columns(name).add_column(name, values, feature=sessions.features[name])
