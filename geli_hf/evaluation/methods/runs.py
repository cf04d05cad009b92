"""Runs of all rows with all seeds, each kept in a file: an interrupted benchmark continues with the next row."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from datasets import Dataset
from transformers.utils import logging

from ... import __version__
from ...cache import atomic_path
from ...sessions import SessionError
from .folds import Design, Encoded
from .rows import NotRun, Row

logger = logging.get_logger(__name__)
PACKAGES = ("torch", "transformers", "datasets", "numpy")


@dataclass
class Run:
    """Result of one row with one seed and, for a control, one permutation of the scores.

    Args:
        turn_rewards: one array (turns,) per judged session.
        predicted_scores: (sessions,), in units of the score; NaN throughout from a method that predicts none.
        seconds: time of fits and predictions, without encoding.
        about: row, its settings, seed, permutation, folds, features, fingerprints of the data, and versions.
    """

    turn_rewards: list[np.ndarray]
    predicted_scores: np.ndarray
    seconds: float
    about: dict[str, Any]

    def save(self, file: Path) -> None:
        with atomic_path(file) as partial, partial.open("wb") as stream:
            np.savez(
                stream,
                turn_rewards=np.concatenate([np.zeros(0), *self.turn_rewards]),
                turns=[len(rewards) for rewards in self.turn_rewards],
                predicted_scores=self.predicted_scores,
                seconds=self.seconds,
                about=json.dumps(self.about),
            )

    @classmethod
    def load(cls, file: Path) -> Run:
        with np.load(file) as saved:
            rewards = np.split(saved["turn_rewards"], np.cumsum(saved["turns"])[:-1])
            return cls(rewards, saved["predicted_scores"], float(saved["seconds"]), json.loads(str(saved["about"])))


def run_rows(
    rows: Mapping[str, Row],
    design: Design,
    encoded: Mapping[str, Encoded],
    seeds: Sequence[int],
    folder: str | Path,
) -> Iterator[tuple[str, int, Run | NotRun]]:
    """Run all that is `planned`: read kept runs of the same data and settings, compute and keep the others.

    A row that can't be run is not kept, so it is tried again the next time.

    Args:
        rows: name -> row.
        design: the sessions.
        encoded: features of `design.train` under `"train"`, and of `design.judged` under `"judged"`.
        seeds: of the folds and fits.
        folder: holds `seed-<seed>/<row>.npz`, for a control `<row> <permutation>.npz`.

    Yields:
        Name of the row, seed, and its run or the reason why there is none.
    """
    about = {
        "folds": design.folds,
        "data": {"train": fingerprint(design.train), "judged": fingerprint(design.judged)},
        "features": {name: corpus.key for name, corpus in encoded.items()},
    }
    for name, seed, permutation in planned(rows, seeds):
        stem = name if permutation is None else f"{name} {permutation}"
        file = Path(folder) / f"seed-{seed}" / f"{quote(stem, safe=' (),')}.npz"
        settings = json.loads(json.dumps(rows[name].settings, sort_keys=True, default=str))
        wanted = {"row": name, "settings": settings, "seed": seed, "permutation": permutation, **about}
        if file.exists():
            run = Run.load(file)
            if wanted.items() <= run.about.items():
                yield name, seed, run
                continue
            other = ", ".join(key for key in wanted if run.about.get(key) != wanted[key])
            logger.warning_once(f"{folder}: runs with other {other} are computed anew")
        try:
            run = run_row(rows[name], design, encoded, seed, permutation)
        except (NotRun, SessionError) as reason:
            yield name, seed, NotRun(str(reason))
            continue
        run.about = wanted | {"versions": versions()}
        run.save(file)
        yield name, seed, run


def planned(rows: Mapping[str, Row], seeds: Sequence[int]) -> list[tuple[str, int, int | None]]:
    """List row, seed and permutation of each run of `run_rows`, in its order; None stands for the true scores."""
    return [
        (name, seed, permutation)
        for seed in seeds
        for name, row in rows.items()
        for permutation in range(1, row.permutations + 1) or [None]
    ]


def run_row(
    row: Row, design: Design, encoded: Mapping[str, Encoded], seed: int, permutation: int | None = None
) -> Run:
    """Run one row with one seed over all folds.

    Args:
        row, design, encoded, seed: see `run_rows`.
        permutation: number of a permutation of the scores. Default: the true scores.

    Raises:
        NotRun, SessionError: a fold has nothing to learn from.
        ValueError: the row does not give one array per session.
    """
    judged = len(design.judged)
    sessions = design.train if permutation is None else design.shuffled(seed, permutation)
    rewards: list[np.ndarray] = [np.zeros(0)] * judged
    predicted, seconds = np.full(judged, np.nan), 0.0
    for fold in design.of(seed):
        train, test = sessions.select(fold.train), design.judged.select(fold.test)
        features = {"train": encoded["train"].select(fold.train), "test": encoded["judged"].select(fold.test)}
        began = time.perf_counter()
        turns, scores = row.fit(train, test, features, seed)
        seconds += time.perf_counter() - began
        for index, values in zip(fold.test, turns, strict=True):
            rewards[index] = np.asarray(values, float)
        if scores is not None:
            predicted[fold.test] = scores
    return Run(rewards, predicted, seconds, {})


def fingerprint(sessions: Dataset) -> str:
    """Compute a digest of the contents of the sessions."""
    digest = hashlib.blake2b(digest_size=16)
    for session in sessions:
        digest.update(json.dumps(session, sort_keys=True).encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """List the versions of Python and of the packages that the figures depend on."""
    own = {"python": platform.python_version(), "geli-hf": __version__}
    return own | {name: version(name) for name in PACKAGES}
