"""Figures of a method of attribution, and the Markdown table that compares methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from ..sessions import assistant_turns, feedback_names
from . import metrics
from .baselines import log_length, position
from .intervals import MISSING, Interval, mean_of_known
from .within import kendall_per_session, partial_spearman_per_session

COLUMNS = {
    "within_session_spearman": "Within-session Spearman",
    "spearman_given_length": "Length held fixed",
    "spearman_given_position": "Position held fixed",
    "within_session_auc": "Within-session AUC",
    "within_session_kendall": "Within-session Kendall",
    "session_spearman": "Session Spearman",
    "global_loss": "Global loss",
    "global_loss_floor": "Floor of global loss",
    "local_difference_sd": "Local difference (SD)",
}
NOT_RUN = "*not run*"


def evaluate_rewards(
    sessions: Dataset,
    turn_rewards: metrics.PerTurn,
    predicted_scores: Sequence[float] | None,
    train_mean: float | Sequence[float],
    **options: Any,
) -> dict[str, Any]:
    """Compute all metrics of one method, with 95 % intervals over conversations.

    Args:
        sessions: held-out Session rows; `turn_rating` and `feedback` may be absent.
        turn_rewards: one array (turns,) per session, one reward per assistant turn.
        predicted_scores: (sessions,), in units of the score. None for a method that predicts none: it then has no
            global loss, and its session Spearman is that of its mean reward.
        train_mean: mean score of the training sessions, for the floor of the global loss; out of fold, (sessions,).
        options: `feedback`, `feedback_threshold` and `resamples` of `evaluate_runs`.

    Returns:
        See `evaluate_runs`.

    Example:
        >>> figures = evaluate_rewards(test, TURN_BASELINES["log length"](test), None, train_mean)
        >>> print(figures["within_session_spearman"])
        0.274 [0.250, 0.300]
    """
    predicted = None if predicted_scores is None else [predicted_scores]
    return evaluate_runs(sessions, [turn_rewards], predicted, [train_mean], **options)


def evaluate_runs(
    sessions: Dataset,
    runs: Sequence[metrics.PerTurn],
    predicted_scores: Sequence[Sequence[float]] | None,
    train_means: Sequence[float | Sequence[float]],
    *,
    feedback: str | None = None,
    feedback_threshold: float = 0.0,
    resamples: int = metrics.RESAMPLES,
) -> dict[str, Any]:
    """Compute all metrics of a method as means over several runs on the same sessions.

    Args:
        sessions: held-out Session rows.
        runs: the turn rewards of each run. A conversation is drawn with its rewards in all runs.
        predicted_scores: (runs, sessions), or None.
        train_means: per run, the mean score of the training sessions; or, out of fold, (sessions,).
        feedback: name of the signal for the local difference. Default: the first that the sessions carry.
        feedback_threshold: feedback above it is positive, see `metrics.local_difference`.
        resamples: of the bootstrap.

    Returns:
        `Interval`s under the keys of `COLUMNS`, but a float under global_loss_floor; `sessions`, their number; and
        `missing`, the reason for each figure that is NaN.

    Raises:
        ValueError: rewards or scores are not those of the sessions, or no session carries the feedback.
    """
    conversations, scores = sessions["conversation_id"][:], np.asarray(sessions["score"][:], float)
    ratings, messages = turn_ratings(sessions), sessions.select_columns("messages")
    length, place = log_length(messages), position(messages)
    draw = {"resamples": resamples}
    row: dict[str, Any] = {"sessions": len(scores)}
    values = {
        "within_session_spearman": [metrics.spearman_per_session(run, ratings) for run in runs],
        "within_session_auc": [metrics.auc_per_session(run, ratings) for run in runs],
        "within_session_kendall": [kendall_per_session(run, ratings) for run in runs],
        "spearman_given_length": [partial_spearman_per_session(run, ratings, length) for run in runs],
        "spearman_given_position": [partial_spearman_per_session(run, ratings, place) for run in runs],
    }
    rated = np.isfinite(np.concatenate([np.zeros(0), *ratings])).any()
    why = "no session with two turns of different turn_rating" if rated else "no turn has a turn_rating"
    missing = dict.fromkeys(values, why)

    missing["global_loss"] = "no session with a score and a prediction"
    if predicted_scores is None:
        missing["global_loss"] = "predicts no session score"
        predicted_scores = [[mean_of_known(turns) for turns in rewards] for rewards in runs]
        values["global_loss"] = [np.full(len(scores), np.nan)]
    else:
        values["global_loss"] = [metrics.squared_error_per_session(run, scores) for run in predicted_scores]
    for key, per_run in values.items():
        row[key] = metrics.bootstrap(np.mean(per_run, axis=0), conversations, **draw)
    row["global_loss_floor"] = float(np.mean([metrics.global_loss_floor(scores, mean) for mean in train_means]))
    missing["global_loss_floor"] = "no session with a score, or no mean of training scores"
    row["session_spearman"] = metrics.session_spearman_interval(predicted_scores, scores, conversations, **draw)
    rewarded = np.isfinite(np.asarray(predicted_scores, float)).any()
    missing["session_spearman"] = "no two sessions with different scores" if rewarded else "no session with a reward"

    names = feedback_names(sessions)
    if feedback and feedback not in names:
        raise ValueError(f"feedback: expected one of {', '.join(names) or 'none at all'}, found {feedback!r}")
    name = feedback or next(iter(names), None)
    unobserved = [np.full(len(turns), np.nan) for turns in length]
    signal = [row[name] for row in sessions["feedback"]] if name else unobserved
    threshold = {"threshold": feedback_threshold}
    row["local_difference_sd"] = metrics.local_difference_interval(runs, signal, conversations, **threshold, **draw)
    missing["local_difference_sd"] = "no feedback"
    if name:
        missing["local_difference_sd"] = (
            f"no turns both with and without positive feedback {name!r}, or the same reward for all of them"
        )

    row["missing"] = {key: why for key, why in missing.items() if math.isnan(_estimate(row[key]))}
    return row


def turn_ratings(sessions: Dataset) -> list[Sequence[float]]:
    """List the turn ratings of every session, NaN where there are none."""
    ratings = sessions["turn_rating"] if "turn_rating" in sessions.column_names else [None] * len(sessions)
    return [
        np.full(len(assistant_turns(messages)), np.nan) if of_session is None else of_session
        for messages, of_session in zip(sessions["messages"], ratings)
    ]


def aligned_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table with columns aligned as text, the first to the left and the others to the right.

    Args:
        titles: of the columns.
        rows: one cell per column each.
    """
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (titles, *rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(titles))]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join(
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |" for line in lines
    )


def markdown_table(rows: Mapping[str, Mapping[str, Any]], *, columns: Mapping[str, str] = COLUMNS) -> str:
    """Format rows of `evaluate_rewards` as an aligned Markdown table, with a note for each kind of missing figure.

    Args:
        rows: name of the row -> its figures (an `Interval`, a float or a whole number); or the reason, under
            `not_run`, why there are none.
        columns: key of the figure -> title, in order.
    """
    lines = []
    notes: dict[str, list[str]] = {}
    for name, row in rows.items():
        if "not_run" in row:
            lines.append([name, NOT_RUN, *[""] * (len(columns) - 1)])
            notes.setdefault(f"{NOT_RUN}: {row['not_run']}", []).append(name)
            continue
        absent = [key for key in columns if math.isnan(_estimate(row[key]))]
        for key in absent:
            notes.setdefault(f"{MISSING} {columns[key]}: {row['missing'][key]}", []).append(name)
        lines.append([name, *(format_figure(row[key]) for key in columns)])
    text = [aligned_table(["", *columns.values()], lines), *[""] * bool(notes)]
    run = sum("not_run" not in row for row in rows.values())
    for reason, names in notes.items():
        which = "" if len(names) == run and not reason.startswith(NOT_RUN) else f" ({'; '.join(names)})"
        text.append(f"{reason}{which}.  ")
    return "\n".join(text) + "\n"


def format_figure(value: Interval | float | str | None) -> str:
    """Format a figure for a table: numbers with three decimals, a dash for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def as_json(value: Any) -> Any:
    """Convert figures to plain JSON: intervals by name, NaN (which JSON lacks) to null."""
    if isinstance(value, Interval):
        return as_json(value._asdict())
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _estimate(value: Interval | float) -> float:
    return value.estimate if isinstance(value, Interval) else value
