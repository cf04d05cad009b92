"""Evaluation of saved reward models against turn ratings, beside baselines: `geli evaluate`.

Nothing is learned here, so nothing is out of fold: the figures are too good on sessions that a model has learned from.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from ..metrics import metrics
from ..metrics.baselines import TURN_BASELINES
from ..metrics.table import COLUMNS
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..models.loading import is_attribution, open_model
from ..sessions import assistant_turns, feedback_names
from .methods.comparison import (
    Figures,
    Runs,
    compare,
    describe_sessions,
    interval_note,
    join_parts,
    two_tables,
    write_files,
)
from .methods.rows import NotRun
from .methods.runs import Run, fingerprint, versions
from .report import WITHIN_SESSIONS

MEAN = "predict the mean"
WITHOUT = {  # reason why a baseline has no value for any turn
    "uniform, given the score": "no session has a score",
    "next-turn sentiment": "no turn was answered by the user",
}


class JudgedSessions:
    """Sessions on which saved models are judged, with a score or without: a `Design` without training.

    Args:
        judged: Session rows. They also give the mean of the feedback.
        train_mean: mean of the scores that the first model learned from.
    """

    folds = None

    def __init__(self, judged: Dataset, train_mean: float):
        self.judged = self.train = judged
        self.train_mean = train_mean

    def train_means(self, seed: int) -> np.ndarray:
        """Give the mean training score for each judged session: (sessions,)."""
        return np.full(len(self.judged), self.train_mean)


def labels(models: Sequence[str]) -> dict[str, str]:
    """Map the name of each row to the folder or name of its model; that of an attribution says that it is one.

    Raises:
        OSError, ValueError: one is no model, or is named twice.
    """
    rows = {}
    for model in models:
        row = f"{model} (sees the reaction)" if is_attribution(model) else model
        if row in {*rows, MEAN, *TURN_BASELINES}:
            raise ValueError(f"--model: {model} is the name of two rows; give each model once")
        rows[row] = model
    return rows


def run_models(sessions: Dataset, rows: Mapping[str, str]) -> dict[str, list[Run] | NotRun]:
    """Compute the turn rewards of every model, one loaded at a time, and of the baselines.

    Args:
        sessions: Session rows.
        rows: from `labels`.
    """
    about = {"seed": None, "settings": {}, "folds": None, "data": {"judged": fingerprint(sessions)}}
    about |= {"versions": versions()}
    runs: dict[str, list[Run] | NotRun] = {row: [_score(sessions, model, about)] for row, model in rows.items()}
    turns = [len(assistant_turns(messages)) for messages in sessions["messages"]]
    mean = np.full(len(turns), _train_mean(runs))
    runs[MEAN] = [Run([np.zeros(count) for count in turns], mean, 0.0, about)]
    for name, baseline in TURN_BASELINES.items():
        began = time.perf_counter()
        try:
            rewards = baseline(sessions)
        except ImportError as error:
            runs[name] = NotRun(str(error))
            continue
        run = Run(rewards, np.full(len(turns), np.nan), time.perf_counter() - began, about)
        runs[name] = NotRun(WITHOUT[name]) if np.isnan(np.concatenate(rewards)).all() else [run]
    return runs


def _score(sessions: Dataset, name: str, about: Mapping[str, Any]) -> Run:
    began = time.perf_counter()
    model = open_model(name)
    sees_reaction = not isinstance(model, GeliRewardModel)
    rows = list(tqdm(model.iter_scores(sessions), desc=f"Scoring by {name}", unit="session", total=len(sessions)))
    config = (model.model if sees_reaction else model).config
    signals = model.signals if sees_reaction else {}
    of_model = {
        "name": name,
        "sees_reaction": sees_reaction,
        "signals_missing": [name for name in signals if signals[name].beta and name not in feedback_names(sessions)],
        "train_mean": float(config.score_mean),
        "cropped": sum(row["cropped"] for row in rows),
    }
    rewards, predicted = [np.array(row["turn_rewards"]) for row in rows], np.array([row["score"] for row in rows])
    return Run(rewards, predicted, time.perf_counter() - began, {**about, "model": of_model})


def evaluate_models(
    sessions: Dataset, runs: Runs, *, against: str, resamples: int = metrics.RESAMPLES
) -> dict[str, dict[str, Any]]:
    """Compute the figures of every row, see `compare`; a model's row also describes it, under `model`.

    Args:
        sessions: Session rows.
        runs: from `run_models`.
        against: the row that all are compared with, session by session.
        resamples: of the bootstrap.

    Raises:
        ValueError: there is no row `against`.
    """
    rows = compare(JudgedSessions(sessions, _train_mean(runs)), runs, against=against, resamples=resamples)
    scores = np.array(sessions["score"], float)
    for name, model in _models(runs).items():
        floor = metrics.global_loss_floor(scores, model["train_mean"])
        rows[name] |= {"model": model, "global_loss_floor": floor}
    for row in rows.values():
        row.pop("seeds", None)
    return rows


def markdown(sessions: Dataset, rows: Figures, *, against: str, corpus: str = "") -> str:
    """Write the tables of an evaluation in Markdown, with notes.

    Args:
        sessions: Session rows.
        rows: from `evaluate_models`.
        against: the row that all are compared with.
        corpus: name of the corpus, for the notes on it.
    """
    scored = int(np.isfinite(np.array(sessions["score"], float)).sum())
    data = describe_sessions(sessions, f"{scored} of them with a score")
    tables = two_tables(rows, COLUMNS | {"difference": f"minus {against}"})
    return join_parts(data, tables, [interval_note(sessions, rows, against), *_notes(sessions, rows)], corpus)


def write_evaluation(folder: str | Path, rows: Figures, runs: Runs, text: str) -> None:
    """Write `evaluation.json`, `evaluation.png` (a forest plot) and `evaluation.md` into the folder.

    Args:
        folder: to write into.
        rows: from `evaluate_models`.
        runs: from `run_models`.
        text: from `markdown`.
    """
    write_files(Path(folder) / "evaluation", text, rows, runs, _seeing(rows))


def _models(runs: Runs) -> dict[str, dict[str, Any]]:
    """The description of the model of each row that has one."""
    abouts = {name: row[0].about for name, row in runs.items() if not isinstance(row, NotRun)}
    return {name: about["model"] for name, about in abouts.items() if "model" in about}


def _seeing(rows: Figures) -> list[str]:
    """The rows that read the listener's reaction."""
    return [
        name
        for name, row in rows.items()
        if row.get("model", {}).get("sees_reaction") or name == "next-turn sentiment"
    ]


def _train_mean(runs: Runs) -> float:
    """The mean training score of the first model."""
    return next(iter(_models(runs).values()))["train_mean"]


def _notes(sessions: Dataset, rows: Figures) -> list[str]:
    models = {name: row["model"] for name, row in rows.items() if "model" in row}
    first = next(iter(models))
    notes = [
        f"{WITHIN_SESSIONS} *uniform, given the score* knows the score that it is judged by. The listener's reaction, "
        "which the reward of a policy may not see, is seen by "
        f"{' and '.join(f'*{name}*' for name in _seeing(rows))}. On sessions that a model has learned from, its "
        "figures are too good.",
        f"*{MEAN}* says {models[first]['train_mean']:.3g} of every session, the mean of the scores that *{first}* "
        "learned from. The floor of a model's global loss is that of the mean that it learned from itself.",
    ]
    if signals := feedback_names(sessions):
        notes.append(f"The local difference is that of feedback `{signals[0]}`, positive above its mean here.")
    scores = np.array(sessions["score"], float)
    known = scores[np.isfinite(scores)]
    for name, model in models.items():
        if len(known) and not known.min() <= model["train_mean"] <= known.max():
            notes.append(
                f"*{name}* learned from scores with the mean {model['train_mean']:.3g}, and here they are from "
                f"{known.min():.3g} to {known.max():.3g}: on another scale its global loss says nothing. Figures of "
                "ranks are the same on any scale."
            )
        if absent := model["signals_missing"]:
            which = ", ".join(f"`{signal}`" for signal in absent)
            notes.append(f"These sessions lack feedback {which}, which *{name}* reads where it is there.")
        if model["cropped"]:
            notes.append(
                f"{model['cropped']} sessions are longer than the context of *{name}*: some turns were rewarded "
                "without the beginning."
            )
    return notes
