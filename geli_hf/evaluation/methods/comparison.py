"""What the runs of all rows amount to: means over seeds with intervals, paired differences, and how they are shown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ...cache import whole
from ...metrics import metrics
from ...metrics.metrics import Interval
from ...metrics.plots import plot_comparison
from ...metrics.table import COLUMNS, WITHIN, as_json, evaluate_runs, markdown_table, turn_ratings, values_per_session
from ...sessions import assistant_turns, feedback_names
from ...training.hindsight import SESSIONS_NEEDED
from .folds import Design
from .rows import ATTRIBUTION, HINDSIGHT, SHUFFLED, NotRun, rrd_rows
from .runs import Run

CONVERSATIONS_NEEDED = 20  # below, a bootstrap over conversations is no interval that one can rely on
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


def by_row(found: Iterable[tuple[str, int, Run | NotRun]]) -> dict[str, list[Run] | NotRun]:
    """The runs of each row over all seeds; a row that could not be run with one of them was not run."""
    rows: dict[str, Any] = {}
    for name, _, run in found:
        before = rows.setdefault(name, [])
        if isinstance(run, NotRun):
            rows[name] = run
        elif not isinstance(before, NotRun):
            before.append(run)
    return rows


def compare(
    design: Design,
    runs: Mapping[str, Sequence[Run] | NotRun],
    *,
    against: str,
    feedback: str | None = None,
    resamples: int = metrics.RESAMPLES,
) -> dict[str, dict[str, Any]]:
    """The figures of every row, by its name.

    Args:
        runs: as of `by_row`.
        against: the row that all are compared with, session by session.
        feedback: signal of the local difference, positive above its mean over the training sessions. Default: the
            first that the sessions carry.

    Returns:
        As of `evaluate_runs`, and `difference` (of the within-session Spearman), `differences` (of every figure that
        is a mean over sessions), `corrected` (the first again, at the level that Bonferroni's correction asks for),
        `seconds` (mean over seeds) and `seeds`. Of a control also `shuffled`, see `among_shuffled`, and nothing
        `corrected`, since it claims nothing. Of a row that was not run only the reason, as `not_run`. No intervals
        where fewer than `CONVERSATIONS_NEEDED` conversations were judged.

    Raises:
        ValueError: there is no row `against`.
    """
    if against not in runs:
        raise ValueError(f"against: expected one of {', '.join(runs)}, found {against!r}")
    judged = design.judged
    conversations = judged["conversation_id"][:]
    values = {name: _values(judged, each) for name, each in runs.items() if not isinstance(each, NotRun)}
    claiming = [name for name in values if name != against and not name.endswith(SHUFFLED)]
    level = 1 - (1 - metrics.LEVEL) / max(1, len(claiming))
    feedback = feedback or next(iter(feedback_names(judged)), None)
    signal = {"feedback": feedback, "feedback_threshold": _usual(design.train, feedback)}
    rows: dict[str, dict[str, Any]] = {}
    for name, each in runs.items():
        if isinstance(each, NotRun):
            rows[name] = {"not_run": str(each)}
            continue
        seeds = [run.about["seed"] for run in each]
        means = [design.train_means(seed) for seed in seeds]
        row = evaluate_runs(judged, *_rewards_and_scores(each), means, **signal, resamples=resamples)
        row["seeds"] = sorted(set(seeds))
        row["seconds"] = sum(run.seconds for run in each) / len(row["seeds"])
        row |= {"differences": {}, "difference": Interval(*[np.nan] * 3), "corrected": Interval(*[np.nan] * 3)}
        if name == against:
            row["missing"]["difference"] = "the row that the others are compared with"
        elif against not in values:
            row["missing"]["difference"] = f"{against!r} was not run"
        else:
            for key in (*WITHIN, "global_loss"):
                pair = values[name][key], values[against][key], conversations
                row["differences"][key] = metrics.paired_bootstrap(*pair, resamples=resamples)
            pair = values[name][HEADLINE], values[against][HEADLINE], conversations
            row["difference"] = row["differences"][HEADLINE]
            if name in claiming:
                row["corrected"] = metrics.paired_bootstrap(*pair, resamples=resamples, level=level)
            if math.isnan(row["difference"].estimate):
                row["missing"]["difference"] = row["missing"].get(HEADLINE, "no session where both have a figure")
        if name.endswith(SHUFFLED):
            row["shuffled"] = among_shuffled(judged, each, rows.get(name.removesuffix(SHUFFLED), {}))
        rows[name] = _without_intervals(row) if len(set(conversations)) < CONVERSATIONS_NEEDED else row
    return rows


def among_shuffled(judged: Dataset, runs: Sequence[Run], row: Mapping[str, Any]) -> dict[str, Any]:
    """Where the within-session Spearman of a row lies among those of fits to shuffled scores.

    Args:
        runs: these fits.
        row: the figures of the row itself; without any if it was not run.

    Returns:
        `true`, that of the row; `each`, those of the fits; `mean` and `deviation` of these, and `fits`, how many; `p`,
        the share of all, the row's own among them, that are at least as high as it. The row is a mean over seeds,
        which varies less than single fits do, and so p is rather too high; where conversations have several sessions
        with scores that go together it is rather too low, since scores are dealt out one by one.
    """
    true = row[HEADLINE].estimate if HEADLINE in row else math.nan
    each = np.array([metrics.within_session_spearman(run.turn_rewards, turn_ratings(judged)) for run in runs])
    known = not (math.isnan(true) or np.isnan(each).any())
    return {
        "true": true,
        "each": each.tolist(),
        "mean": float(each.mean()),
        "deviation": float(each.std(ddof=1)) if len(each) > 1 else math.nan,
        "fits": len(each),
        "p": float(1 + np.sum(each >= true)) / (1 + len(each)) if known else math.nan,
    }


def markdown(design: Design, rows: Mapping[str, Mapping[str, Any]], *, against: str, corpus: str = "") -> str:
    """Tables of the rows of `compare`, with all that has to be said beside them."""
    titles = COLUMNS | {"difference": f"minus {against}", "seconds": "Seconds"}
    run = {name: row for name, row in rows.items() if "not_run" not in row}
    tables = [
        markdown_table(shown, columns={key: titles[key] for key in keys})
        for shown, keys in ((rows, FIRST), (run, SECOND))
    ]
    shuffled = {name.removesuffix(SHUFFLED): row["shuffled"] for name, row in run.items() if "shuffled" in row}
    if shuffled := {name: row for name, row in shuffled.items() if not math.isnan(row["mean"])}:
        why = {"true": "not run with the scores as they are", "p": "not run with the scores as they are"}
        why["deviation"] = "of a single fit there is none"
        tables.append(markdown_table({name: row | {"missing": why} for name, row in shuffled.items()}, columns=THIRD))
    return "\n".join(
        [_data(design, rows), "", *tables, *(f"{note}\n" for note in _notes(design, rows, against, corpus))]
    )


def records(rows: Mapping[str, Mapping[str, Any]], runs: Mapping[str, Sequence[Run] | NotRun]) -> list[dict[str, Any]]:
    """One JSON object per row: its figures, with settings, seeds, folds, fingerprints of the data and versions."""
    found = []
    for name, row in rows.items():
        record = {"row": name, "run": "not_run" not in row, **row}
        if record["run"]:
            abouts = [run.about for run in runs[name]]
            record |= {key: abouts[0][key] for key in ("settings", "folds", "data")}
            record["seconds_by_run"] = [run.seconds for run in runs[name]]
            versions = [about["versions"] for about in abouts]
            record["versions"] = [each for index, each in enumerate(versions) if each not in versions[:index]]
        found.append(as_json(record))
    return found


def write_comparison(
    folder: str | Path,
    design: Design,
    runs: Mapping[str, Sequence[Run] | NotRun],
    *,
    against: str,
    corpus: str = "",
    feedback: str | None = None,
    resamples: int = metrics.RESAMPLES,
) -> str:
    """Write `comparison.json`, `comparison.png` (a forest plot) and `comparison.md` into the folder.

    Args:
        corpus: name of the corpus, for the notes that belong to it.

    Returns:
        The Markdown.
    """
    rows = compare(design, runs, against=against, feedback=feedback, resamples=resamples)
    text = markdown(design, rows, against=against, corpus=corpus)
    write_files(Path(folder) / "comparison", text, rows, runs, [name for name in rows if _sees_the_reaction(name)])
    return text


def write_files(
    stem: Path,
    text: str,
    rows: Mapping[str, Mapping[str, Any]],
    runs: Mapping[str, Sequence[Run] | NotRun],
    seeing: Iterable[str],
) -> None:
    """Write the records (`.json`), a forest plot (`.png`) and the text (`.md`).

    Args:
        seeing: rows that read the listener's reaction.
    """
    within = {name: row[HEADLINE] for name, row in rows.items() if "not_run" not in row}
    with whole(stem.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(records(rows, runs), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with whole(stem.with_suffix(".png")) as partial:
        plot_comparison(
            within,
            partial,
            label="Within-session Spearman with the turn ratings",
            seeing=[name for name in seeing if name in within],
            shuffled={name: row["shuffled"]["each"] for name, row in rows.items() if "shuffled" in row},
        )
    with whole(stem.with_suffix(".md")) as partial:
        partial.write_text(text, encoding="utf-8")


def _rewards_and_scores(runs: Sequence[Run]) -> tuple[list[list[np.ndarray]], np.ndarray | None]:
    predicted = np.array([run.predicted_scores for run in runs])
    return [run.turn_rewards for run in runs], None if np.isnan(predicted).all() else predicted


def _values(judged: Dataset, runs: Sequence[Run]) -> dict[str, np.ndarray]:
    return values_per_session(judged, *_rewards_and_scores(runs))


def _usual(train: Dataset, feedback: str | None) -> float:
    """The mean of the signal over the training turns where it was observed; 0 without any."""
    if feedback not in feedback_names(train):
        return 0.0
    felt = np.concatenate([np.asarray(row[feedback], float) for row in train["feedback"]])
    return float(np.nanmean(felt)) if np.isfinite(felt).any() else 0.0


def _without_intervals(row: Mapping[str, Any]) -> dict[str, Any]:
    def bare(value: Any) -> Any:
        return Interval(value.estimate, np.nan, np.nan) if isinstance(value, Interval) else value

    return {key: bare(value) for key, value in row.items()} | {
        "differences": {key: bare(value) for key, value in row["differences"].items()}
    }


def _data(design: Design, rows: Mapping[str, Mapping[str, Any]]) -> str:
    judged = design.judged
    turns = sum(len(assistant_turns(messages)) for messages in judged["messages"])
    ratings = judged["turn_rating"][:] if "turn_rating" in judged.column_names else []
    rated = sum(not math.isnan(rating) for session in ratings for rating in session)
    seeds = {seed for row in rows.values() for seed in row.get("seeds", [])}
    how = f"learned from {len(design.train)} others" if design.folds is None else f"{design.folds} folds, out of fold"
    return (
        f"{len(judged)} sessions of {len(set(judged['conversation_id']))} conversations, {how}; "
        f"{rated} of {turns} turns have a rating. Means over {len(seeds)} seed{'s' * (len(seeds) != 1)}."
    )


def _notes(design: Design, rows: Mapping[str, Mapping[str, Any]], against: str, corpus: str) -> list[str]:
    conversations = len(set(design.judged["conversation_id"]))
    if conversations < CONVERSATIONS_NEEDED:
        notes = [
            f"No intervals: {conversations} conversations were judged, and a bootstrap over fewer than "
            f"{CONVERSATIONS_NEEDED} says little. The estimates say little either."
        ]
    else:
        compared = {name: row["corrected"] for name, row in rows.items() if not _undefined(row.get("corrected"))}
        higher = [name for name, interval in compared.items() if interval.low > 0]
        lower = [name for name, interval in compared.items() if interval.high < 0]
        notes = ["In brackets 95 % bootstrap intervals over conversations, of means over seeds."]
        if compared:
            notes[0] += (
                f" Differences are paired, session by session. Of {len(compared)} differences from *{against}*, "
                f"{len(compared) / 20:.1f} would exclude 0 by chance if there were none. With Bonferroni's correction "
                f"these still do, higher: {'; '.join(higher) or 'none'}; lower: {'; '.join(lower) or 'none'}."
            )
    notes.append(
        "Within-session figures compare turns of one session, so who rates high does not matter to them. A good local "
        "difference by itself proves nothing: a reward that copies the signal has one. *uniform, given the score* "
        "knows the score that it is judged by, and the supervised row has seen turn ratings. "
        f"{' and '.join(f'*{name}*' for name in SEE_THE_REACTION)} read the reaction to the turn that they reward: so "
        "they can explain recorded sessions, and may not reward a policy. Seconds are those of all fits and "
        "predictions of a seed, without encoding."
    )
    seeds = sorted({seed for row in rows.values() for seed in row.get("seeds", [])})
    fewest = min((len(fold.train) for seed in seeds for fold in design.of(seed)), default=SESSIONS_NEEDED)
    if fewest < SESSIONS_NEEDED and any("seeds" in rows.get(name, {}) for name in (HINDSIGHT, ATTRIBUTION)):
        notes.append(
            f"*{HINDSIGHT}* learned from {fewest} sessions. With fewer than about {SESSIONS_NEEDED} the listener's "
            "signal alone is the better reward."
        )
    if any("shuffled" in row for row in rows.values()):
        notes.append(
            "*Scores shuffled* is the same fit after the scores were dealt out anew among its training sessions: what "
            "it still finds, it does not owe to the scores. One such fit can land anywhere, so there are several with "
            "each seed; the interval is that of their mean, and the deviation is that between them. p is the share of "
            "these fits, the one with the true scores counted among them, that are at least as good as that one."
        )
    if design.folds is not None:
        notes.append(
            "Out of fold, the mean of the training scores is low where those of the judged sessions are high, so that "
            "the session Spearman of what predicts little else lies below 0: *predict the mean* shows how far."
        )
    longest = max(len(assistant_turns(messages)) for messages in design.train["messages"])
    if same := [f"*{name}*" for name, turns in rrd_rows().items() if name in rows and turns and turns >= longest]:
        take = "takes" if len(same) == 1 else "take"
        notes.append(f"No session has more than {longest} turns, so {' and '.join(same)} {take} all of them.")
    return [*notes, *([CORPUS_NOTES[corpus]] if corpus in CORPUS_NOTES else [])]


def _sees_the_reaction(name: str) -> bool:
    return name.removesuffix(SHUFFLED) in SEE_THE_REACTION


def _undefined(interval: Interval | None) -> bool:
    return interval is None or math.isnan(interval.estimate)
