"""Cards of session datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from datasets import Dataset
from huggingface_hub import DatasetCard

from .base import render_card

MEANING = {
    "session_id": "unique in the dataset",
    "conversation_id": "the conversation that was rated, perhaps by several people",
    "messages": "`role` and `content`; the assistant is the one whose turns are rewarded, the user is the rater",
    "score": "the rating of the session",
    "scores": "further ratings of the session, by name",
    "rater_id": "the person who rated",
    "feedback": "signals by name, each with one number per turn of the assistant",
    "start": "seconds, one per message",
    "stop": "seconds, one per message",
    "behaviour": "the listener's behaviour in words, one text per turn of the assistant",
    "turn_rating": "a rating per turn of the assistant: for evaluation, never for training",
}


def dataset_card(splits: Mapping[str, Dataset], repo_id: str, *, source: str, raters: str, **facts) -> DatasetCard:
    """Render the card of sessions.

    Args:
        splits: Session rows by split.
        repo_id: title, and the name that its code loads.
        source: origin and licence.
        raters: treatment of the ids of the raters.
        facts: `license`, `language`.
    """
    columns = next(iter(splits.values())).column_names
    return render_card(
        "dataset",
        repo_id,
        source=source,
        raters=raters,
        columns=_table(("column", ""), [(f"`{name}`", MEANING[name]) for name in columns]),
        sizes=_table(
            ("split", "sessions", "conversations"),
            [(f"`{name}`", len(part), len(set(part["conversation_id"]))) for name, part in splits.items()],
        ),
        **facts,
    )


def _table(head: Sequence, rows: Iterable[Sequence]) -> str:
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (head, ("---",) * len(head), *rows))
