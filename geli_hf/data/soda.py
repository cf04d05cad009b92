"""SODA: everyday talk between two people that a language model wrote around facts of common sense; nobody rated it.

Rows of the Hub's `allenai/soda`, or files of them: `dialogue` and `speakers`, one entry each per utterance, beside the
`narrative` and the fact (`head`, `relation`, `tail`) that they were written from. Each dialogue gives two sessions,
one for each speaker whose turns are rewarded. Nobody rated them: here a reward that was learned elsewhere is tried on
other people's words. Data: Kim et al., "SODA", EMNLP 2023, arXiv 2212.10465.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..affect.sentiment import NextTurnSentiment
from ..sessions import Session, merge_turns, session_features
from .reading import Corpus, Skipped
from .rows import SUFFIXES, located_rows, rows_of_hub


def open_corpus(data_dir: str | Path, *, split: str = "test", sentiment: bool | str = False) -> Corpus:
    """
    Args:
        data_dir: holds `<split>.parquet` or `<split>.jsonl` with the published columns, or is itself such a file; or
            the id of the dataset on the Hub.
        split: "train", "validation" or "test"; of a folder, the files whose names begin with it.
        sentiment: add feedback `sentiment` of the listener's next turn: VADER's if True, or a text classifier's, by
            its name or path (see `NextTurnSentiment`).

    `score` is NaN throughout. The dialogues have no names and are counted from 0, as in "test-17".
    """
    path = Path(data_dir)
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(file for suffix in SUFFIXES for file in path.glob(f"{split}*{suffix}"))
        if not files:
            raise FileNotFoundError(f"split: {path} has no {' or '.join(SUFFIXES)} file that begins with {split!r}")
    else:
        files = None
    hub = rows_of_hub(str(data_dir), split) if files is None else None
    features = session_features(["sentiment"] if sentiment else [])

    def rows() -> Iterator[Session | Skipped]:
        sentiment_of = NextTurnSentiment(None if sentiment is True else sentiment) if sentiment else None
        for number, row in enumerate(hub if files is None else (row for _, row in located_rows(files))):
            yield from _sessions(f"{split}-{number}", row, sentiment_of)

    version = hub._fingerprint if hub is not None else ""
    return Corpus(files or [], features, rows, where=str(data_dir), version=version)


def _sessions(
    name: str, row: Mapping[str, Any], sentiment_of: NextTurnSentiment | None
) -> Iterator[Session | Skipped]:
    dialogue, speakers = row.get("dialogue"), row.get("speakers")
    if not isinstance(dialogue, list) or not isinstance(speakers, list) or len(dialogue) != len(speakers):
        yield from [Skipped("no dialogue with a speaker for each utterance")] * 2
        return
    turns = merge_turns((speaker, text, None) for speaker, text in zip(speakers, dialogue))
    people = list(dict.fromkeys(turn.speaker for turn in turns))
    if len(people) != 2:
        yield from [Skipped(f"{len(people)} speaker{'s' * (len(people) != 1)}, not 2")] * 2
        return
    for person in people:
        messages = [
            {"role": "assistant" if turn.speaker == person else "user", "content": turn.text} for turn in turns
        ]
        session = {
            "session_id": f"{name}/{people.index(person)}",
            "conversation_id": name,
            "rater_id": "",
            "messages": messages,
            "score": math.nan,
        }
        yield session | ({"feedback": {"sentiment": sentiment_of(messages)}} if sentiment_of else {})
