"""One row of figures per way to reward turns, and the table that sets them side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from ..sessions import Session, assistant_turns
from . import metrics
from .baselines import log_length, position
from .metrics import Interval
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
MISSING, NOT_RUN = "–", "*not run*"
WITHIN = (
    "within_session_spearman",
    "within_session_auc",
    "within_session_kendall",
    "spearman_given_length",
    "spearman_given_position",
)


def evaluate_rewards(
    sessions: Dataset | Sequence[Session],
    turn_rewards: metrics.PerTurn,
    predicted_scores: Sequence[float] | None,
    train_mean: float,
    *,
    feedback: str | None = None,
    feedback_threshold: float = 0.0,
    resamples: int = metrics.RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """All metrics of one way to reward turns, with 95 % intervals over conversations.

    Args:
        sessions: rows of the held-out sessions; `turn_rating`, `feedback` and scores may be absent.
        turn_rewards: one array per session, one reward per assistant turn.
        predicted_scores: (sessions,), in units of the score. None for a way that predicts none: it then has no global
            loss, and its session Spearman is that of its mean reward.
        train_mean: mean score of the training sessions, for the floor of the global loss.
        feedback: name of the signal for the local difference; by default the first one that the sessions carry.
        feedback_threshold: feedback above it is positive, see `metrics.local_difference`.

    Returns:
        `Interval`s for within_session_spearman, the same with length or position held fixed (spearman_given_length,
        spearman_given_position), within_session_auc, within_session_kendall, session_spearman, global_loss,
        local_difference and local_difference_sd, a float for global_loss_floor, `sessions` (their number), and
        `missing`, which says why a figure is NaN.
    """
    return evaluate_runs(
        sessions,
        [turn_rewards],
        None if predicted_scores is None else [predicted_scores],
        [train_mean],
        feedback=feedback,
        feedback_threshold=feedback_threshold,
        resamples=resamples,
        seed=seed,
    )


def evaluate_runs(
    sessions: Dataset | Sequence[Session],
    runs: Sequence[metrics.PerTurn],
    predicted_scores: Sequence[Sequence[float]] | None,
    train_means: Sequence[float | Sequence[float]],
    *,
    feedback: str | None = None,
    feedback_threshold: float = 0.0,
    resamples: int = metrics.RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """As `evaluate_rewards`, of the mean over several runs of one way on the same sessions.

    Args:
        runs: the turn rewards of each run. A conversation is drawn with its rewards in all runs.
        predicted_scores: (runs, sessions), or None.
        train_means: of each run the mean score of its training sessions; or, out of fold, one for each session.
    """
    turns = [len(assistant_turns(messages)) for messages in _column(sessions, "messages")]
    for rewards in runs:
        _check(sessions, rewards, turns)
    conversations = _column(sessions, "conversation_id")
    scores = np.asarray(_column(sessions, "score"), float)
    draw = {"resamples": resamples, "seed": seed}
    row: dict[str, Any] = {"sessions": len(turns)}
    missing = dict.fromkeys(WITHIN, _why_nothing_within(turn_ratings(sessions)))

    values = values_per_session(sessions, runs, predicted_scores)
    for key in (*WITHIN, "global_loss"):
        row[key] = metrics.bootstrap(values[key], conversations, **draw)
    row["global_loss_floor"] = float(np.mean([metrics.global_loss_floor(scores, mean) for mean in train_means]))
    missing["global_loss_floor"] = "no session with a score, or no mean of training scores"
    if predicted_scores is None:
        whole = [[_nanmean(turn) for turn in rewards] for rewards in runs]
        missing["global_loss"] = "predicts no session score"
    else:
        whole = predicted_scores
        missing["global_loss"] = "no session with a score and a prediction"
    row["session_spearman"] = metrics.session_spearman_interval(whole, scores, conversations, **draw)
    rewarded = np.isfinite(np.asarray(whole, float)).any()
    missing["session_spearman"] = "no two sessions with different scores" if rewarded else "no session with a reward"

    signals = _column(sessions, "feedback")
    name = feedback or next((name for signal in signals for name in signal or ()), None)
    if feedback and not any(feedback in (signal or ()) for signal in signals):
        known = sorted({name for signal in signals for name in signal or ()})
        raise ValueError(f"feedback: expected one of {', '.join(known) or 'none at all'}, found {feedback!r}")
    felt = [(signal or {}).get(name) for signal in signals]
    felt = [np.full(count, np.nan) if values is None else values for values, count in zip(felt, turns)]
    for key, in_deviations in (("local_difference", False), ("local_difference_sd", True)):
        options = {"threshold": feedback_threshold, "in_deviations": in_deviations, **draw}
        row[key] = metrics.local_difference_interval(runs, felt, conversations, **options)
        missing[key] = f"no turns both with and without positive feedback {name!r}" if name else "no feedback"
    if not math.isnan(row["local_difference"].estimate):
        missing["local_difference_sd"] = "the reward is the same for every observed turn"

    row["missing"] = {key: why for key, why in missing.items() if math.isnan(_estimate(row[key]))}
    return row


def values_per_session(
    sessions: Dataset | Sequence[Session],
    runs: Sequence[metrics.PerTurn],
    predicted_scores: Sequence[Sequence[float]] | None,
) -> dict[str, np.ndarray]:
    """(sessions,) under each key of `WITHIN` and "global_loss": means over the runs, for paired differences.

    NaN where a figure is undefined; see `evaluate_runs` for the arguments.
    """
    turns = [len(assistant_turns(messages)) for messages in _column(sessions, "messages")]
    ratings = turn_ratings(sessions)
    messages = [{"messages": each} for each in _column(sessions, "messages")]
    length, place = log_length(messages), position(messages)
    per_session: dict[str, Callable[[metrics.PerTurn], np.ndarray]] = {
        "within_session_spearman": lambda rewards: metrics.spearman_per_session(rewards, ratings),
        "within_session_auc": lambda rewards: metrics.auc_per_session(rewards, ratings),
        "within_session_kendall": lambda rewards: kendall_per_session(rewards, ratings),
        "spearman_given_length": lambda rewards: partial_spearman_per_session(rewards, ratings, length),
        "spearman_given_position": lambda rewards: partial_spearman_per_session(rewards, ratings, place),
    }
    values = {key: np.mean([of(rewards) for rewards in runs], axis=0) for key, of in per_session.items()}
    scores = np.asarray(_column(sessions, "score"), float)
    predicted = [np.full(len(turns), np.nan)] if predicted_scores is None else predicted_scores
    errors = [metrics.squared_error_per_session(run, scores) for run in predicted]
    return values | {"global_loss": np.mean(errors, axis=0)}


def turn_ratings(sessions: Dataset | Sequence[Session]) -> list[Sequence[float]]:
    """The turn ratings of every session, NaN where there are none."""
    return [
        np.full(len(assistant_turns(messages)), np.nan) if ratings is None else ratings
        for messages, ratings in zip(_column(sessions, "messages"), _column(sessions, "turn_rating"))
    ]


def markdown_table(rows: Mapping[str, Mapping[str, Any]], *, columns: Mapping[str, str] = COLUMNS) -> str:
    """An aligned Markdown table of rows of `evaluate_rewards`, with a note for each kind of missing figure.

    Args:
        rows: name of the row -> its figures (an `Interval`, a float or a whole number); or the reason, under
            `not_run`, why there are none.
        columns: key of the figure -> title, in order.
    """
    lines = [["", *columns.values()]]
    notes: dict[str, list[str]] = {}
    for name, row in rows.items():
        cells = [name.replace("|", "\\|")]
        if "not_run" in row:
            lines.append([*cells, NOT_RUN, *[""] * (len(columns) - 1)])
            notes.setdefault(f"{NOT_RUN}: {row['not_run']}", []).append(name)
            continue
        for key in columns:
            value = row[key]
            if math.isnan(_estimate(value)):
                cells.append(MISSING)
                notes.setdefault(f"{columns[key]}: {row['missing'][key]}", []).append(name)
            else:
                cells.append(f"{value:.3f}" if isinstance(value, float) else str(value))
        lines.append(cells)
    widths = [max(3, *(len(line[index]) for line in lines)) for index in range(len(columns) + 1)]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    text = [
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |" for line in lines
    ]
    text += [""] if notes else []
    run = [name for name, row in rows.items() if "not_run" not in row]
    for reason, names in notes.items():
        others = [name for name in run if name not in names]
        if reason.startswith(NOT_RUN):
            text.append(f"{reason} ({'; '.join(names)}).  ")
        elif len(names) > 3 * len(others):  # as long a list as the table has rows says less than its exceptions
            exceptions = f" (all but {'; '.join(others)})" if others else ""
            text.append(f"{MISSING} {reason}{exceptions}.  ")
        else:
            text.append(f"{MISSING} {reason} ({'; '.join(names)}).  ")
    return "\n".join(text) + "\n"


def as_json(value: Any) -> Any:
    """The figures of a row, or of a dict of rows, as plain JSON: intervals by name, NaN (which JSON lacks) as null."""
    if isinstance(value, Interval):
        return as_json(value._asdict())
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _column(sessions: Dataset | Iterable[Session], name: str) -> list[Any]:
    if isinstance(sessions, Dataset):
        return sessions[name][:] if name in sessions.column_names else [None] * len(sessions)
    return [session.get(name) for session in sessions]


def _check(sessions: Dataset | Sequence[Session], turn_rewards: metrics.PerTurn, turns: Sequence[int]) -> None:
    if len(turn_rewards) != len(turns):
        raise ValueError(f"turn_rewards: expected one array per session, {len(turns)}, found {len(turn_rewards)}")
    for row, (rewards, count) in enumerate(zip(turn_rewards, turns)):
        if len(rewards) != count:
            raise ValueError(
                f"turn_rewards, row {row} ({sessions[row]['session_id']!r}): expected one reward per assistant turn, "
                f"{count}, found {len(rewards)}"
            )


def _why_nothing_within(ratings: metrics.PerTurn) -> str:
    known = np.concatenate([np.zeros(0), *(np.asarray(values, float) for values in ratings)])
    known = known[~np.isnan(known)]
    if not len(known):
        return "no turn has a turn_rating"
    if np.ptp(known) == 0:
        return f"every turn_rating is {known[0]:g}"
    return "no session with two turns of different turn_rating"


def _nanmean(values: Sequence[float]) -> float:
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else np.nan


def _estimate(value: Interval | float) -> float:
    return value.estimate if isinstance(value, Interval) else value
