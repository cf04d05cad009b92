"""Every row once per seed, each kept in a file of its own: a benchmark that was stopped goes on with the next row."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from datasets import Dataset
from transformers.utils import logging

from ...cache import whole
from ...sessions import SessionError, assistant_turns
from .folds import Design, Encoded, FoldFeatures
from .rows import NotRun, Row

logger = logging.get_logger(__name__)
PACKAGES = ("geli-hf", "torch", "transformers", "datasets", "numpy")


@dataclass
class Run:
    """One row with one seed and, of a control, one permutation of the scores.

    Args:
        turn_rewards: one array per judged session.
        predicted_scores: (sessions,), NaN throughout from a way that predicts none.
        seconds: that its fits and predictions took, encoding left aside.
        about: row, its settings, seed, permutation, folds, features, fingerprints of the data, and versions.
    """

    turn_rewards: list[np.ndarray]
    predicted_scores: np.ndarray
    seconds: float
    about: dict[str, Any]

    def save(self, file: Path) -> None:
        with whole(file) as partial, partial.open("wb") as stream:
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
    """Everything that is `planned`: what is there, of the same data and settings, is read, the rest computed and kept.

    A row that can't be run is not kept, so that it is tried again the next time.

    Args:
        encoded: features of `design.train` under `"train"`, and of `design.judged` under `"judged"`.
        folder: `seed-<seed>/<row>.npz` in it, of a control `<row> <permutation>.npz`.
    """
    about = {
        "folds": design.folds,
        "data": {"train": fingerprint(design.train), "judged": fingerprint(design.judged)},
        "features": {name: each.key for name, each in encoded.items()},
    }
    told = set()
    for name, seed, permutation in planned(rows, seeds):
        stem = name if permutation is None else f"{name} {permutation}"
        file = Path(folder) / f"seed-{seed}" / f"{quote(stem, safe=' (),')}.npz"
        settings = json.loads(json.dumps(rows[name].settings, sort_keys=True, default=str))  # as they will be read
        wanted = {"row": name, "settings": settings, "seed": seed, "permutation": permutation, **about}
        if file.exists():
            run = Run.load(file)
            if wanted.items() <= run.about.items():
                yield name, seed, run
                continue
            other = ", ".join(key for key in wanted if run.about.get(key) != wanted[key])
            if other not in told:
                logger.warning(f"{folder}: what was computed with other {other} is computed anew")
                told.add(other)
        try:
            run = run_row(rows[name], design, encoded, seed, permutation)
        except (NotRun, SessionError) as reason:
            yield name, seed, NotRun(str(reason))
            continue
        run.about = wanted | {"versions": versions()}
        run.save(file)
        yield name, seed, run


def planned(rows: Mapping[str, Row], seeds: Sequence[int]) -> list[tuple[str, int, int | None]]:
    """Row, seed and permutation of everything that `run_rows` gives, in that order; None is the scores as they are."""
    return [
        (name, seed, permutation)
        for seed in seeds
        for name, row in rows.items()
        for permutation in range(1, row.permutations + 1) or [None]
    ]


def run_row(
    row: Row, design: Design, encoded: Mapping[str, Encoded], seed: int, permutation: int | None = None
) -> Run:
    """One row with one seed, over all folds; with a number, that permutation of the scores.

    Raises:
        NotRun, SessionError: in one of them there is nothing to learn from.
    """
    judged = len(design.judged)
    sessions = design.train if permutation is None else design.shuffled(seed, permutation)
    rewards: list[np.ndarray] = [np.zeros(0)] * judged
    predicted, seconds = np.full(judged, np.nan), 0.0
    for fold in design.of(seed):
        train, test = sessions.select(fold.train), design.judged.select(fold.test)
        encoding = sum(each.seconds for each in {*encoded.values()})
        began = time.perf_counter()
        turns, scores = row.fit(train, test, FoldFeatures(encoded["train"], encoded["judged"], fold), seed)
        seconds += time.perf_counter() - began - (sum(each.seconds for each in {*encoded.values()}) - encoding)
        for index, session, values in zip(fold.test, test["messages"], turns, strict=True):
            if len(values) != len(assistant_turns(session)):
                raise ValueError(f"a row gave {len(values)} rewards for {len(assistant_turns(session))} turns")
            rewards[index] = np.asarray(values, float)
        if scores is not None:
            predicted[fold.test] = scores
    return Run(rewards, predicted, seconds, {})


def fingerprint(sessions: Dataset) -> str:
    """Of all that the sessions hold, whatever file they were read from."""
    digest = hashlib.blake2b(digest_size=16)
    for session in sessions:
        digest.update(json.dumps(session, sort_keys=True).encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of Python and of the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
