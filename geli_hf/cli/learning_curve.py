"""`geli learning-curve`: how much more ratings would help."""

import argparse
from typing import TextIO

from .common import SESSIONS, add_compute, add_corpus, load_corpus, new_reward_model, report_folder


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "learning-curve",
        help="measure whether more rated sessions would make a better reward model",
        description="Hold out a quarter of the conversations, learn from more and more of the rest by hindsight, and "
        "measure how well the predicted scores agree with the held-out ones. Print a Markdown table with 95 % "
        "intervals, and whether more ratings still help.",
    )
    add = parser.add_argument
    add("sessions", help=f"{SESSIONS}, with scores")
    add_corpus(parser)
    add("--backbone", help="encoder or decoder: a folder, or a name on the Hub (default: all-MiniLM-L6-v2)")
    add("--context-messages", type=int, default=1, help="messages before a turn that are read with it (default: 1)")
    add("--seed", type=int, default=0, help="of the split and all draws (default: 0)")
    add_compute(parser)
    add("-o", "--output", metavar="FOLDER", help="folder for learning_curve.json and learning_curve.png")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, out: TextIO) -> None:
    from ..evaluation.learning_curve import learning_curve

    output = report_folder(arguments.output)
    sessions = load_corpus(arguments)
    model = new_reward_model(arguments)
    curve = learning_curve(model, sessions, seed=arguments.seed, batch_size=arguments.batch_size)
    out.write(str(curve))
    if output is not None:
        curve.write(output)
