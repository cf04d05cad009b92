"""`geli evaluate`: models beside baselines, on sessions whose turns were rated."""

import argparse
from typing import TextIO

from .common import SESSIONS, add_compute, add_corpus, compute_options, load_corpus, model_name, report_folder


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
    add_compute(parser)
    add("--against", metavar="NAME", help="model, or row, to compare the others with (default: the first model)")
    add("-o", "--output", metavar="FOLDER", help="folder for evaluation.md, evaluation.json and evaluation.png")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, out: TextIO) -> None:
    from ..evaluation.methods.comparison import compare_scored, write_files
    from ..evaluation.rewards import MEAN, labels, markdown, run_models
    from ..metrics.baselines import TURN_BASELINES

    output = report_folder(arguments.output)
    models = labels(list(map(model_name, arguments.model)))
    against = model_name(arguments.against or arguments.model[0])
    against = next((row for row, model in models.items() if model == against), against)
    rows = (*models, MEAN, *TURN_BASELINES)
    if against not in rows:
        raise ValueError(f"--against: expected one of {'; '.join(rows)}, found {against!r}")
    sessions = load_corpus(arguments)
    scored = run_models(sessions, models, batch_size=arguments.batch_size, **compute_options(arguments))
    figures = compare_scored(sessions, sessions, scored, against=against)
    text = markdown(sessions, figures, against=against, corpus=arguments.sessions)
    out.write(text)
    if output is not None:
        write_files(output / "evaluation", text, figures)
