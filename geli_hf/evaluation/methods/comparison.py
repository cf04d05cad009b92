"""Comparison of methods from the runs of their rows: means over seeds with intervals, paired differences, tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from ...cache import atomic_path, write_text
from ...metrics import metrics, table
from ...metrics.intervals import UNKNOWN, mean_of_known
from ...metrics.plots import plot_comparison
from ...sessions import assistant_turns, feedback_names
from ..report import CONVERSATIONS_NEEDED, WITHIN_SESSIONS
from .folds import Design
from .rows import ATTRIBUTION, SHUFFLED, NotRun
from .runs import Run

Runs = Mapping[str, Sequence[Run] | NotRun]
Figures = Mapping[str, Mapping[str, Any]]

HEADLINE = "within_session_spearman"
FIRST = (HEADLINE, "difference", "spearman_given_length", "spearman_given_position", "session_spearman", "seconds")
SECOND = ("within_session_auc", "within_session_kendall", "global_loss", "global_loss_floor", "local_difference_sd")
THIRD = {
    "true": "Within-session Spearman",
    "mean": "With shuffled scores, mean",
    "deviation": "Deviation between fits",
    "fits": "Fits",
    "p": "p",
}
SEE_THE_REACTION = ("next-turn sentiment", ATTRIBUTION)
CORPUS_NOTES = {
    "uss": "Circularity: the turn ratings of USS stand on the user's next line, which the annotators read. The "
    "sentiment of that line, and whatever reads or learns from it, is therefore partly compared with itself; a method "
    "that learns from the reaction and rewards without it never reads it, but its targets do.",
    "sample": "The sample is simulated, and its turn ratings are the true values: these figures say whether methods "
    "and code do what they should, and not how well they do on people.",
}


def by_row(results: Iterable[tuple[str, int, Run | NotRun]]) -> dict[str, list[Run] | NotRun]:
    """Collect the runs of each row over all seeds; a row that failed with one of them counts as not run.

    Args:
        results: from `run_rows`.
    """
    rows: dict[str, Any] = {}
    for name, _, run in results:
        before = rows.setdefault(name, [])
        if isinstance(run, NotRun):
            rows[name] = run
        elif not isinstance(before, NotRun):
            before.append(run)
    return rows


class Scored(NamedTuple):
    """Rewards of the judged sessions by a method, in one run or in several.

    Args:
        runs: per run, one array (turns,) per session.
        predicted: (runs, sessions), in units of the score; None from a method that predicts none.
        train_means: per run, the mean score of the training sessions; or, out of fold, (sessions,).
        about: more for the record of the method, by name.
    """

    runs: Sequence[metrics.PerTurn]
    predicted: Sequence[Sequence[float]] | None
    train_means: Sequence[float | Sequence[float]]
    about: Mapping[str, Any]


def compare(design: Design, runs: Runs, *, against: str, feedback: str | None = None) -> dict[str, dict[str, Any]]:
    """Compute the figures of every row.

    Args:
        design: the sessions.
        runs: from `by_row`.
        against: the row that all are compared with, session by session.
        feedback: signal of the local difference, positive above its mean over the training sessions. Default: the
            first that the sessions carry.

    Returns:
        See `compare_scored`; with `seconds` (mean over seeds), `seeds`, `settings`, `folds`, `data` (fingerprints) and
        `versions`. Of a control also `shuffled`, see `among_shuffled`.

    Raises:
        ValueError: there is no row `against`.
    """
    scored = {name: each if isinstance(each, NotRun) else _scored(design, each) for name, each in runs.items()}
    rows = compare_scored(design.judged, design.train, scored, against=against, feedback=feedback)
    for name, row in rows.items():
        if name.endswith(SHUFFLED) and "not_run" not in row:
            row["shuffled"] = among_shuffled(design.judged, runs[name], rows.get(name.removesuffix(SHUFFLED), {}))
    return rows


def _scored(design: Design, runs: Sequence[Run]) -> Scored:
    predicted = np.array([run.predicted_scores for run in runs])
    abouts = [run.about for run in runs]
    versions = [about["versions"] for about in abouts]
    means = [design.train_means(about["seed"]) for about in abouts]
    seeds = sorted({about["seed"] for about in abouts})
    about = {key: abouts[0][key] for key in ("settings", "folds", "data")}
    about |= {"seeds": seeds, "seconds": sum(run.seconds for run in runs) / len(seeds)}
    about["versions"] = [each for index, each in enumerate(versions) if each not in versions[:index]]
    rewards = [run.turn_rewards for run in runs]
    return Scored(rewards, None if np.isnan(predicted).all() else predicted, means, about)


def compare_scored(
    judged: Dataset,
    train: Dataset,
    scored: Mapping[str, Scored | NotRun],
    *,
    against: str,
    feedback: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Compute the figures of every row from its rewards.

    Args:
        judged, train: Session rows.
        scored: by row.
        against, feedback: see `compare`.

    Returns:
        By row, the figures of `evaluate_runs`, `difference` (of the within-session Spearman), `corrected` (the same,
        with Bonferroni's correction for all rows but controls), and what is said `about` it. Of a row that was not run
        only the reason, as `not_run`. Without intervals where fewer than `CONVERSATIONS_NEEDED` conversations were
        judged.

    Raises:
        ValueError: there is no row `against`.
    """
    if against not in scored:
        raise ValueError(f"against: expected one of {', '.join(scored)}, found {against!r}")
    ratings, conversations = table.turn_ratings(judged), judged["conversation_id"][:]
    resamples = metrics.RESAMPLES if len(set(conversations)) >= CONVERSATIONS_NEEDED else 0
    feedback = feedback or next(iter(feedback_names(judged)), None)
    options = {"feedback": feedback, "feedback_threshold": mean_signal(train, feedback), "resamples": resamples}
    rows: dict[str, dict[str, Any]] = {}
    values = {}
    for name, each in scored.items():
        if isinstance(each, NotRun):
            rows[name] = {"not_run": str(each)}
            continue
        runs, predicted, train_means, about = each
        rows[name] = table.evaluate_runs(judged, runs, predicted, train_means, **options) | about
        values[name] = np.mean([metrics.spearman_per_session(rewards, ratings) for rewards in runs], axis=0)
    corrected = [name for name in values if name != against and not name.endswith(SHUFFLED)]
    level = 1 - (1 - metrics.LEVEL) / max(1, len(corrected))
    for name in values:
        row = rows[name]
        row |= {"difference": UNKNOWN, "corrected": UNKNOWN}
        if name == against:
            row["missing"]["difference"] = "the row that the others are compared with"
            continue
        if against not in values:
            row["missing"]["difference"] = f"{against!r} was not run"
            continue
        pair = values[name], values[against], conversations
        row["difference"] = metrics.paired_bootstrap(*pair, resamples=resamples)
        if name in corrected:
            row["corrected"] = metrics.paired_bootstrap(*pair, resamples=resamples, level=level)
        if math.isnan(row["difference"].estimate):
            row["missing"]["difference"] = row["missing"].get(HEADLINE, "no session where both have a figure")
    return rows


def among_shuffled(judged: Dataset, runs: Sequence[Run], row: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the within-session Spearman of a row with fits to shuffled scores, by a permutation test.

        p = (1 + number of fits at least as high as the row) / (1 + number of fits)

    The row is a mean over seeds, which varies less than single fits do, so p is rather too high. Where conversations
    have several sessions with related scores it is rather too low, since scores are permuted one by one.

    Args:
        judged: Session rows.
        runs: the fits to shuffled scores.
        row: the figures of the row; empty if it was not run.

    Returns:
        `true`, the figure of the row; `each`, those of the fits; their `mean`, `deviation` and number, `fits`; `p`.
    """
    true = row[HEADLINE].estimate if HEADLINE in row else math.nan
    fits = np.array([metrics.within_session_spearman(run.turn_rewards, table.turn_ratings(judged)) for run in runs])
    known = not (math.isnan(true) or np.isnan(fits).any())
    return {
        "true": true,
        "each": fits.tolist(),
        "mean": float(fits.mean()),
        "deviation": float(fits.std(ddof=1)) if len(fits) > 1 else math.nan,
        "fits": len(fits),
        "p": float(1 + np.sum(fits >= true)) / (1 + len(fits)) if known else math.nan,
    }


def markdown(design: Design, rows: Figures, *, against: str, corpus: str = "") -> str:
    """Write the tables of a comparison in Markdown, with notes.

    Args:
        design: the sessions.
        rows: from `compare`.
        against: the row that all are compared with.
        corpus: name of the corpus, for the notes on it.
    """
    tables = two_tables(rows, table.COLUMNS | {"difference": f"minus {against}", "seconds": "Seconds"})
    shuffled = {name.removesuffix(SHUFFLED): row["shuffled"] for name, row in rows.items() if "shuffled" in row}
    if shuffled := {name: row for name, row in shuffled.items() if not math.isnan(row["mean"])}:
        cells = [[name, *(table.format_figure(row[key]) for key in THIRD)] for name, row in shuffled.items()]
        tables.append(table.aligned_table(["", *THIRD.values()], cells) + "\n")
    how = f"learned from {len(design.train)} others" if design.folds is None else f"{design.folds} folds, out of fold"
    seeds = {seed for row in rows.values() for seed in row.get("seeds", [])}
    data = f"{describe_sessions(design.judged, how)} Means over {len(seeds)} seed{'s' * (len(seeds) != 1)}."
    notes = [interval_note(design.judged, rows, against), *_notes(design, rows)]
    return join_parts(data, tables, notes, corpus)


def two_tables(rows: Figures, titles: Mapping[str, str]) -> list[str]:
    """Format the main figures of all rows and the others of those that were run, as far as they have titles."""
    run = {name: row for name, row in rows.items() if "not_run" not in row}
    return [
        table.markdown_table(shown, columns={key: titles[key] for key in keys if key in titles})
        for shown, keys in ((rows, FIRST), (run, SECOND))
    ]


def describe_sessions(sessions: Dataset, how: str) -> str:
    """Describe judged sessions in a sentence: sessions, conversations, rated turns, and `how` they were used."""
    turns = sum(len(assistant_turns(messages)) for messages in sessions["messages"])
    rated = int(np.isfinite(np.concatenate([np.zeros(0), *table.turn_ratings(sessions)])).sum())
    return (
        f"{len(sessions)} sessions of {len(set(sessions['conversation_id']))} conversations, {how}; "
        f"{rated} of {turns} turns have a rating."
    )


def interval_note(judged: Dataset, rows: Figures, against: str) -> str:
    """Explain the intervals, and list the rows that differ from `against` after Bonferroni's correction."""
    conversations = len(set(judged["conversation_id"]))
    if conversations < CONVERSATIONS_NEEDED:
        return f"No intervals: {conversations} conversations were judged, fewer than {CONVERSATIONS_NEEDED}."
    corrected = {name: row["corrected"] for name, row in rows.items() if "not_run" not in row}
    corrected = {name: interval for name, interval in corrected.items() if not math.isnan(interval.estimate)}
    text = "In brackets 95 % bootstrap intervals over conversations."
    if corrected:
        higher = "; ".join(name for name, interval in corrected.items() if interval.low > 0)
        lower = "; ".join(name for name, interval in corrected.items() if interval.high < 0)
        text += (
            f" Differences from *{against}* are paired, session by session. With Bonferroni's correction for "
            f"{len(corrected)} of them these exclude 0, higher: {higher or 'none'}; lower: {lower or 'none'}."
        )
    return text


def join_parts(data: str, tables: Sequence[str], notes: Sequence[str], corpus: str) -> str:
    """Join the description of the data, the tables and the notes, with that on the corpus last."""
    notes = [*notes, CORPUS_NOTES[corpus]] if corpus in CORPUS_NOTES else notes
    return "\n".join([data, "", *tables, *(f"{note}\n" for note in notes)])


def write_comparison(
    folder: str | Path, design: Design, runs: Runs, *, against: str, corpus: str = "", feedback: str | None = None
) -> str:
    """Write `comparison.json`, `comparison.png` (a forest plot) and `comparison.md` into the folder.

    Args:
        folder: to write into.
        design, runs, against, feedback: see `compare`.
        corpus: name of the corpus, for the notes on it.

    Returns:
        The Markdown.
    """
    rows = compare(design, runs, against=against, feedback=feedback)
    text = markdown(design, rows, against=against, corpus=corpus)
    write_files(Path(folder) / "comparison", text, rows)
    return text


def write_files(stem: Path, text: str, rows: Figures) -> None:
    """Write a JSON object per row (`.json`), a forest plot (`.png`) and the text (`.md`).

    Args:
        stem: of the files.
        text: in Markdown.
        rows: figures by row.
    """
    run = {name: row for name, row in rows.items() if "not_run" not in row}
    records = table.as_json([{"row": name, "run": name in run, **row} for name, row in rows.items()])
    write_text(stem.with_suffix(".json"), json.dumps(records, indent=1, allow_nan=False) + "\n")
    with atomic_path(stem.with_suffix(".png")) as partial:
        intervals = {name: row[HEADLINE] for name, row in run.items()}
        plot_comparison(intervals, partial, label="Within-session Spearman with the turn ratings")
    write_text(stem.with_suffix(".md"), text)


def mean_signal(train: Dataset, feedback: str | None) -> float:
    """Compute the mean of a signal over the training turns where it was observed; 0 without any.

    Args:
        train: Session rows.
        feedback: name of the signal.
    """
    if feedback not in feedback_names(train):
        return 0.0
    mean = mean_of_known(np.concatenate([row[feedback] for row in train["feedback"]]))
    return 0.0 if math.isnan(mean) else mean


def _notes(design: Design, rows: Figures) -> list[str]:
    notes = [
        f"{WITHIN_SESSIONS} *uniform, given the score* knows the score that it is judged by, and the supervised row "
        f"has seen turn ratings. {' and '.join(f'*{name}*' for name in SEE_THE_REACTION)} read the reaction to the "
        "turn that they reward: they can explain recorded sessions, and may not reward a policy. Seconds are those of "
        "all fits and predictions of a seed, without encoding."
    ]
    if any("shuffled" in row for row in rows.values()):
        notes.append(
            "*Scores shuffled* is the same fit to permuted scores: what it still finds does not come from the scores. "
            "p is the share of these fits, the true one included, that are at least as good as the true one."
        )
    if design.folds is not None:
        notes.append(
            "Out of fold, the mean of the training scores is low where those of the judged sessions are high, so the "
            "session Spearman of a method that predicts little else is below 0: *predict the mean* shows how far."
        )
    return notes
