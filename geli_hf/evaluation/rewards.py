"""Evaluation of saved reward models against turn ratings, beside baselines: `geli evaluate`.

Nothing is learned here, so nothing is out of fold: the figures are too good on sessions that a model has learned from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from ..metrics.baselines import TURN_BASELINES
from ..metrics.table import COLUMNS
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..models.loading import is_attribution, open_model
from ..sessions import assistant_turns, feedback_names
from .methods.comparison import Figures, Scored, describe_sessions, interval_note, join_parts, two_tables
from .methods.rows import NotRun
from .report import WITHIN_SESSIONS

MEAN = "predict the mean"


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


def run_models(
    sessions: Dataset, rows: Mapping[str, str], *, batch_size: int = 32, **how
) -> dict[str, Scored | NotRun]:
    """Compute the turn rewards of every model, one loaded at a time, and of the baselines.

    Args:
        sessions: Session rows.
        rows: from `labels`.
        batch_size: sessions that are encoded together; it changes no reward.
        how: `device` and `dtype` of `open_model`.
    """
    scored: dict[str, Scored | NotRun] = {
        row: _score(sessions, model, batch_size, **how) for row, model in rows.items()
    }
    [mean] = next(iter(scored.values())).train_means
    nothing = [np.zeros(len(assistant_turns(messages))) for messages in sessions["messages"]]
    scored[MEAN] = Scored([nothing], [np.full(len(sessions), mean)], [mean], {})
    for name, baseline in TURN_BASELINES.items():
        try:
            rewards = baseline(sessions)
        except ImportError as error:
            scored[name] = NotRun(str(error))
            continue
        scored[name] = Scored([rewards], None, [mean], {})
        if np.isnan(np.concatenate(rewards)).all():
            scored[name] = NotRun("the sessions have nothing that it reads")
    return scored


def _score(sessions: Dataset, name: str, batch_size: int, **how) -> Scored:
    model = open_model(name, **how)
    sees_reaction = not isinstance(model, GeliRewardModel)
    scores = model.iter_scores(sessions, batch_size=batch_size)
    rows = list(tqdm(scores, desc=f"Scoring by {name}", unit="session", total=len(sessions)))
    mean = float((model.model if sees_reaction else model).config.score_mean)
    about = {"name": name, "sees_reaction": sees_reaction, "train_mean": mean}
    rewards = [np.array(row["turn_rewards"]) for row in rows]
    return Scored([rewards], [[row["score"] for row in rows]], [mean], {"model": about})


def markdown(sessions: Dataset, rows: Figures, *, against: str, corpus: str = "") -> str:
    """Write the tables of an evaluation in Markdown, with notes.

    Args:
        sessions: Session rows.
        rows: from `compare_scored`.
        against: the row that all are compared with.
        corpus: name of the corpus, for the notes on it.
    """
    scored = int(np.isfinite(np.array(sessions["score"], float)).sum())
    data = describe_sessions(sessions, f"{scored} of them with a score")
    tables = two_tables(rows, COLUMNS | {"difference": f"minus {against}"})
    return join_parts(data, tables, [interval_note(sessions, rows, against), *_notes(sessions, rows)], corpus)


def _notes(sessions: Dataset, rows: Figures) -> list[str]:
    models = {name: row["model"] for name, row in rows.items() if "model" in row}
    first = next(iter(models))
    seeing = [name for name, model in models.items() if model["sees_reaction"]] + ["next-turn sentiment"]
    notes = [
        f"{WITHIN_SESSIONS} *uniform, given the score* knows the score that it is judged by. The listener's reaction, "
        f"which the reward of a policy may not see, is seen by {' and '.join(f'*{name}*' for name in seeing)}. On "
        "sessions that a model has learned from, its figures are too good.",
        f"*{MEAN}* says {models[first]['train_mean']:.3g} of every session, the mean of the scores that *{first}* "
        "learned from. The floor of a model's global loss is that of the mean that it learned from itself.",
    ]
    if signals := feedback_names(sessions):
        notes.append(f"The local difference is that of feedback `{signals[0]}`, positive above its mean here.")
    return notes
