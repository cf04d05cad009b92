"""The corpus of a run, and the parts of it to train, to choose a checkpoint and to evaluate on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset

from ..affect.reactions import add_reactions
from ..sessions import split_sessions
from . import load_sessions, read_report


@dataclass
class DataSettings:
    """The section `data` of a run's settings.

    Args:
        corpus: name or path, see [`load_sessions`].
        options: of the corpus's reader.
        test_options: those that differ for a test set of its own.
        eval_share: share of the conversations to choose the checkpoint on.
        test_share: share to evaluate on, without `test_options`.
        reactions: signals of the listener's words and times to add, see [`add_reactions`]: true for all that the
            corpus can carry, or their names.
    """

    corpus: str = "sample"
    options: dict = field(default_factory=dict)
    test_options: dict | None = None
    eval_share: float = 0.15
    test_share: float = 0.2
    reactions: bool | str | list[str] = False


def load_corpus(
    corpus: str, options: Mapping[str, Any], data_dir: str | Path | None = None, *, rated: bool = True
) -> Dataset:
    """Load the sessions of a run's corpus, and print what was read. All processes of a run have to call it.

    Args:
        corpus: name or path, see [`load_sessions`].
        options: of its reader.
        data_dir: folder of the corpus.
        rated: leave out sessions without a score.

    Raises:
        TypeError, ValueError: an option does not exist or can't have this value, or no session has a score.
    """
    state = PartialState()
    with state.main_process_first():
        sessions = load_sessions(corpus, data_dir=data_dir, **options)
        state.print(f"{corpus} {options or ''}\n{read_report(sessions)}")
        if not rated:
            return sessions
        known = sessions.filter(lambda score: score == score, input_columns="score", desc="Keeping rated sessions")
    if not len(known):
        raise ValueError(f"none of the {len(sessions)} sessions has a score")
    if unrated := len(sessions) - len(known):
        state.print(f"{unrated}  of them left out: no score")
    return known


def load_parts(data: DataSettings, data_dir: str | Path | None = None, *, seed: int = 0) -> dict[str, Dataset]:
    """Load the rated sessions of a run as "train", "eval" and "test"; no conversation is in two of them.

    Args:
        data: the corpus and the shares.
        data_dir: folder of the corpus.
        seed: of the split.

    Raises:
        ImportError: see [`add_reactions`].
        TypeError, ValueError: see [`load_corpus`] and [`add_reactions`]; or the shares are none.
    """

    def load(options: Mapping[str, Any]) -> Dataset:
        sessions = load_corpus(data.corpus, options, data_dir)
        if not data.reactions:
            return sessions
        with PartialState().main_process_first():
            return add_reactions(sessions, None if data.reactions is True else data.reactions)

    sessions = load(data.options)
    if data.test_options is None:
        shares = {"train": 1 - data.eval_share - data.test_share, "eval": data.eval_share, "test": data.test_share}
        return split_sessions(sessions, shares, seed=seed)
    parts = split_sessions(sessions, {"train": 1 - data.eval_share, "eval": data.eval_share}, seed=seed)
    return parts | {"test": load(data.options | data.test_options)}
