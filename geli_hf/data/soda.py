"""SODA: everyday talk between two people that a language model wrote; to try a reward on other people's words.

Source: Kim et al., "SODA: Million-scale Dialogue Distillation with Social Commonsense Contextualization", EMNLP 2023,
arXiv 2212.10465; https://huggingface.co/datasets/allenai/soda; CC BY 4.0.
Files: rows of the Hub's dataset, or Parquet or JSON lines of them, with `dialogue` and `speakers`.
Sessions: two for each dialogue, one for each speaker as the `assistant`. Dialogues are counted from 0, as in
"test-17".
Score: NaN, since nobody rated them.
Feedback: none but `sentiment`.
Turn rating: none.
Skipped: dialogues of other than two speakers, or without a speaker for each utterance.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..sessions import Session, merge_turns
from .reading import Corpus, Skipped, session_of_turns, text_corpus
from .rows import open_rows


def open_corpus(data_dir: str | Path, *, split: str = "test", sentiment: bool | str = False) -> Corpus:
    """Open SODA.

    Args:
        data_dir: holds files with the published columns; or is such a file; or the id of the dataset on the Hub.
        split: "train", "validation" or "test"; of a folder, the files whose names begin with it.
        sentiment: add feedback `sentiment` of the listener's next turn, from -1 to 1: VADER's if True, or that of a
            text classifier, by its name or path (`geli_hf.affect.NextTurnSentiment`).

    Raises:
        FileNotFoundError: the split is not there.
        SessionError: when the rows are read, one is no JSON; the message names file and row.
    """
    source = open_rows(data_dir, split)

    def rows() -> Iterator[Session | Skipped]:
        for number, (_, row) in enumerate(source.rows()):
            yield from _sessions(f"{split}-{number}", row)

    return text_corpus(source.files, rows, where=data_dir, sentiment=sentiment, version=source.version)


def _sessions(name: str, row: Mapping[str, Any]) -> list[Session | Skipped]:
    dialogue, speakers = row.get("dialogue"), row.get("speakers")
    if not isinstance(dialogue, list) or not isinstance(speakers, list) or len(dialogue) != len(speakers):
        return [Skipped("no dialogue with a speaker for each utterance")] * 2
    turns = merge_turns((speaker, text, None) for speaker, text in zip(speakers, dialogue))
    people = list(dict.fromkeys(turn.speaker for turn in turns))
    if len(people) != 2:
        return [Skipped(f"speakers: {len(people)}, not 2")] * 2
    return [
        session_of_turns(name, turns, person, math.nan, perspective=str(index)) for index, person in enumerate(people)
    ]
