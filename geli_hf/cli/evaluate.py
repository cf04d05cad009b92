"""`geli evaluate`: from finished models and rated sessions to a table, records and a forest plot."""

import argparse
from pathlib import Path
from typing import TextIO

from datasets import Dataset

from ..data import load_sessions
from ..evaluation.rewards import MEAN, evaluate_models, labels, markdown, run_models, write_evaluation
from ..metrics.baselines import TURN_BASELINES
from ..settings import json_object


def evaluate(arguments: argparse.Namespace, out: TextIO) -> None:
    """Run the command; the table goes to `out`. What is wrong with the arguments is said before anything is scored."""
    output = None if arguments.output is None else Path(arguments.output)
    if output is not None and output.exists() and not output.is_dir():
        raise NotADirectoryError(f"--output: {output} is a file; name a folder, and it is made")
    options = json_object(arguments.options, "--options")
    models = labels([name.rstrip("/") or name for name in arguments.model])
    against = _against(arguments.against, models)
    sessions = _sessions(arguments, options)
    runs = run_models(sessions, models)
    rows = evaluate_models(sessions, runs, against=against)
    text = markdown(sessions, rows, against=against, corpus=arguments.sessions)
    out.write(text)
    if output is not None:
        write_evaluation(output, rows, runs, text)


def _against(name: str | None, models: dict[str, str]) -> str:
    """The row of that name, or of the model of that name. Default: the first model's."""
    if name is None:
        return next(iter(models))
    rows = {model: row for row, model in models.items()} | {row: row for row in (*models, MEAN, *TURN_BASELINES)}
    if name.rstrip("/") not in rows:
        raise ValueError(f"--against: expected one of {'; '.join(rows)}, found {name!r}")
    return rows[name.rstrip("/")]


def _sessions(arguments: argparse.Namespace, options: dict) -> Dataset:
    try:
        return load_sessions(arguments.sessions, data_dir=arguments.data_dir, **options)
    except TypeError as error:  # an option that there is not, or that can't have this value
        raise ValueError(f"--options: {error}") from error
