"""`geli evaluate`: models beside baselines, on sessions whose turns were rated."""

import argparse
from collections.abc import Mapping
from typing import TextIO

from .common import SESSIONS, add_corpus, load_corpus, model_name, report_folder


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure how well turn rewards agree with ratings of the turns",
        description="Measure how well the turn rewards of models agree with the turn ratings of sessions, beside "
        "baselines that any model has to beat. Print Markdown tables with 95 % intervals over conversations, and "
        "the reason wherever a figure can't be computed.",
    )
    add = parser.add_argument
    add("sessions", help=f"{SESSIONS}; best with `turn_rating`")
    add("--model", required=True, nargs="+", metavar="MODEL", help="reward models or attributions, by folder or name")
    add_corpus(parser)
    add("--against", metavar="NAME", help="model, or row, to compare the others with (default: the first model)")
    add("-o", "--output", metavar="FOLDER", help="folder for evaluation.md, evaluation.json and evaluation.png")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, out: TextIO) -> None:
    from ..evaluation.methods.comparison import write_files
    from ..evaluation.rewards import evaluate_models, labels, markdown, run_models

    output = report_folder(arguments.output)
    models = labels(list(map(model_name, arguments.model)))
    against = _reference_row(arguments.against, models)
    sessions = load_corpus(arguments)
    runs = run_models(sessions, models)
    rows = evaluate_models(sessions, runs, against=against)
    text = markdown(sessions, rows, against=against, corpus=arguments.sessions)
    out.write(text)
    if output is not None:
        write_files(output / "evaluation", text, rows)


def _reference_row(name: str | None, models: Mapping[str, str]) -> str:
    """Find the row of a name; `models` has the folder or name of the model of each row."""
    from ..evaluation.rewards import MEAN
    from ..metrics.baselines import TURN_BASELINES

    if name is None:
        return next(iter(models))
    rows = {model: row for row, model in models.items()} | {row: row for row in (*models, MEAN, *TURN_BASELINES)}
    if model_name(name) not in rows:
        raise ValueError(f"--against: expected one of {'; '.join(rows)}, found {name!r}")
    return rows[model_name(name)]
