"""Finished models beside trivial rows, on sessions whose turns were rated: what `geli evaluate` computes and shows.

Nothing is learned here, so nothing is out of fold: whether a model has seen these sessions is for the reader to know.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from ..metrics import metrics
from ..metrics.baselines import TURN_BASELINES
from ..metrics.table import COLUMNS, markdown_table
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..models.loading import is_attribution, open_model
from ..sessions import assistant_turns, feedback_names
from .methods.comparison import CONVERSATIONS_NEEDED, CORPUS_NOTES, FIRST, SECOND, compare, write_files
from .methods.rows import NotRun
from .methods.runs import Run, fingerprint, versions

MEAN = "predict the mean"
WITHOUT = {  # why a baseline has no value for any turn
    "uniform, given the score": "no session has a score",
    "next-turn sentiment": "no turn was answered by the user",
}


class Judged:
    """Sessions that finished models are judged on, with a score or without: a `Design` where nothing is learned.

    Args:
        judged: Session rows. What feedback is usual is told by them too.
        train_mean: of the scores that the first model learned from.
    """

    folds = None

    def __init__(self, judged: Dataset, train_mean: float):
        self.judged = self.train = judged
        self.train_mean = train_mean

    def train_means(self, seed: int) -> np.ndarray:
        return np.full(len(self.judged), self.train_mean)


def labels(models: Sequence[str]) -> dict[str, str]:
    """Name of each row -> the folder or name of its model. That of an attribution says that it sees the reaction.

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
    """The turn rewards of every model, one loaded at a time, and those of the trivial rows.

    Args:
        rows: as of `labels`.
    """
    about = {"seed": None, "settings": {}, "folds": None, "data": {"judged": fingerprint(sessions)}}
    about |= {"versions": versions()}
    found: dict[str, list[Run] | NotRun] = {name: [_scored(sessions, of, about)] for name, of in rows.items()}
    turns = [len(assistant_turns(messages)) for messages in sessions["messages"]]
    mean = np.full(len(turns), _train_mean(found))
    found[MEAN] = [Run([np.zeros(count) for count in turns], mean, 0.0, about)]
    for name, baseline in TURN_BASELINES.items():
        began = time.perf_counter()
        try:
            rewards = baseline(sessions)
        except ImportError as error:
            found[name] = NotRun(str(error))
            continue
        seconds, nothing = time.perf_counter() - began, np.full(len(turns), np.nan)
        unknown = np.isnan(np.concatenate(rewards)).all()
        found[name] = NotRun(WITHOUT[name]) if unknown else [Run(rewards, nothing, seconds, about)]
    return found


def _scored(sessions: Dataset, name: str, about: Mapping[str, Any]) -> Run:
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
    sessions: Dataset,
    runs: Mapping[str, Sequence[Run] | NotRun],
    *,
    against: str,
    resamples: int = metrics.RESAMPLES,
) -> dict[str, dict[str, Any]]:
    """The figures of every row, as of `compare`, and under `model` what the row of a model is about.

    Args:
        runs: as of `run_models`.
        against: the row that all are compared with, session by session.

    Raises:
        ValueError: there is no row `against`.
    """
    rows = compare(Judged(sessions, _train_mean(runs)), runs, against=against, resamples=resamples)
    scores = np.array(sessions["score"], float)
    for name, model in _models(runs).items():
        floor = metrics.global_loss_floor(scores, model["train_mean"])
        rows[name] |= {"model": model, "global_loss_floor": floor}
    for row in rows.values():
        row.pop("seeds", None)
    return rows


def markdown(sessions: Dataset, rows: Mapping[str, Mapping[str, Any]], *, against: str, corpus: str = "") -> str:
    """Two tables of the rows of `evaluate_models`, with all that has to be said beside them."""
    titles = COLUMNS | {"difference": f"minus {against}"}
    run = {name: row for name, row in rows.items() if "not_run" not in row}
    first = [key for key in FIRST if key in titles]
    tables = [
        markdown_table(shown, columns={key: titles[key] for key in keys})
        for shown, keys in ((rows, first), (run, SECOND))
    ]
    return "\n".join(
        [_data(sessions), "", *tables, *(f"{note}\n" for note in _notes(sessions, rows, against, corpus))]
    )


def write_evaluation(
    folder: str | Path,
    rows: Mapping[str, Mapping[str, Any]],
    runs: Mapping[str, Sequence[Run] | NotRun],
    text: str,
) -> None:
    """Write `evaluation.json`, `evaluation.png` (a forest plot) and `evaluation.md` into the folder.

    Args:
        text: as of `markdown`.
    """
    write_files(Path(folder) / "evaluation", text, rows, runs, _seeing(rows))


def _models(runs: Mapping[str, Sequence[Run] | NotRun]) -> dict[str, dict[str, Any]]:
    """What the row of each model is about."""
    abouts = {name: each[0].about for name, each in runs.items() if not isinstance(each, NotRun)}
    return {name: about["model"] for name, about in abouts.items() if "model" in about}


def _seeing(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The rows that read the listener's reaction."""
    seen = {name for name, row in rows.items() if row.get("model", {}).get("sees_reaction")} | {"next-turn sentiment"}
    return [name for name in rows if name in seen]


def _train_mean(runs: Mapping[str, Sequence[Run] | NotRun]) -> float:
    """Of the first model."""
    return next(iter(_models(runs).values()))["train_mean"]


def _data(sessions: Dataset) -> str:
    turns = sum(len(assistant_turns(messages)) for messages in sessions["messages"])
    ratings = sessions["turn_rating"][:] if "turn_rating" in sessions.column_names else []
    rated = sum(not math.isnan(rating) for session in ratings for rating in session)
    scored = sum(not math.isnan(score) for score in sessions["score"])
    return (
        f"{len(sessions)} sessions of {len(set(sessions['conversation_id']))} conversations, {scored} of them with a "
        f"score; {rated} of {turns} turns have a rating."
    )


def _notes(sessions: Dataset, rows: Mapping[str, Mapping[str, Any]], against: str, corpus: str) -> list[str]:
    models = {name: row["model"] for name, row in rows.items() if "model" in row}
    first, about = next(iter(models.items()))
    notes = [
        _intervals(sessions, rows, against),
        "Within-session figures compare turns of one session, so who rates high does not matter to them. A good local "
        "difference by itself proves nothing: a reward that copies the signal has one. *uniform, given the score* "
        "knows the score that it is judged by. The listener's reaction, which the reward of a policy may not see, is "
        f"seen by {' and '.join(f'*{name}*' for name in _seeing(rows))}. What a model has learned "
        "from is not known here: on those very sessions its figures are too good.",
        f"*{MEAN}* says {about['train_mean']:.3g} of every session, the mean of the scores that *{first}* learned "
        "from. The floor of a model's global loss is that of the mean that it learned from itself.",
    ]
    if signals := feedback_names(sessions):
        notes.append(f"The local difference is that of feedback `{signals[0]}`, positive above its mean here.")
    known = [score for score in sessions["score"] if not math.isnan(score)]
    for name, model in models.items():
        if known and not min(known) <= model["train_mean"] <= max(known):
            notes.append(
                f"*{name}* learned from scores with the mean {model['train_mean']:.3g}, and here they are from "
                f"{min(known):.3g} to {max(known):.3g}: on another scale its global loss says nothing. Figures of "
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
    return [*notes, *([CORPUS_NOTES[corpus]] if corpus in CORPUS_NOTES else [])]


def _intervals(sessions: Dataset, rows: Mapping[str, Mapping[str, Any]], against: str) -> str:
    conversations = len(set(sessions["conversation_id"]))
    if conversations < CONVERSATIONS_NEEDED:
        return (
            f"No intervals: {conversations} conversations were judged, and a bootstrap over fewer than "
            f"{CONVERSATIONS_NEEDED} says little. The estimates say little either."
        )
    corrected = {name: row["corrected"] for name, row in rows.items() if "corrected" in row}
    corrected = {name: interval for name, interval in corrected.items() if not math.isnan(interval.estimate)}
    text = "In brackets 95 % bootstrap intervals over conversations."
    if corrected:
        remain = [f"*{name}*" for name, interval in corrected.items() if interval.low > 0 or interval.high < 0]
        text += (
            f" Differences from *{against}* are paired, session by session; with Bonferroni's correction for the "
            f"{len(corrected)} of them, " + (f"{', '.join(remain)} differ from it." if remain else "none excludes 0.")
        )
    return text
