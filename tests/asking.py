"""Sessions to ask a language model about, and what it said of them."""

import math

from datasets import Dataset

from geli_hf.sessions import session_features


def session(name: str, turns: list[str], score: float = 5.0, **columns) -> dict:
    """A session whose agent says these turns."""
    messages = []
    for index, words in enumerate(turns):
        messages.append({"role": "user", "content": f"{name} asks {index}"})
        messages.append({"role": "assistant", "content": words})
    messages.append({"role": "user", "content": f"{name} thanks"})
    row = {"session_id": name, "conversation_id": name, "rater_id": "", "messages": messages, "score": score}
    return row | columns


def dataset(*rows: dict, feedback=()) -> Dataset:
    features = session_features(feedback, behaviour="behaviour" in rows[0])
    return Dataset.from_list(list(rows), features=features)


def signal(sessions: Dataset, name: str = "llm") -> list[list[float]]:
    return [feedback[name] for feedback in sessions["feedback"]]


def all_nan(values: list[float]) -> bool:
    return all(map(math.isnan, values))
