"""`geli train-judge`: a judge of replies, fitted to people's ratings of turns."""

import argparse
from typing import TextIO

from .common import SESSIONS, add_compute, add_corpus, load_corpus, new_folder, new_reward_model


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "train-judge",
        help="learn to judge replies from people's ratings of turns",
        description="Learn from people's ratings of single turns to judge the replies of a policy, and measure the "
        "agreement with the ratings of a held-out fifth of the conversations. The judge is a folder like that of a "
        "reward model. Take sessions that no reward model of the policy has learned from.",
    )
    add = parser.add_argument
    add("sessions", help=f"{SESSIONS}, with `turn_rating`")
    add_corpus(parser)
    add("--backbone", help="encoder or decoder: a folder, or a name on the Hub (default: all-MiniLM-L6-v2)")
    add("--context-messages", type=int, default=1, help="messages before a turn that the judge reads (default: 1)")
    add_compute(parser)
    add("-o", "--output", metavar="FOLDER", required=True, help="folder for the judge, new or empty")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, out: TextIO) -> None:
    from ..cache import atomic_path
    from ..evaluation.judges.ratings import describe, fit_judge, measure_judge
    from ..models.features import cached_turn_features
    from ..sessions import split_sessions

    output = new_folder(arguments.output)
    train, held_out = split_sessions(load_corpus(arguments), {"train": 0.8, "held_out": 0.2}).values()
    model = new_reward_model(arguments)
    known, new = (cached_turn_features(model, part, batch_size=arguments.batch_size) for part in (train, held_out))
    report = fit_judge(model, train, features=known)
    measure_judge(model, held_out, report, features=new)
    with atomic_path(output) as partial:
        model.save_pretrained(partial)
        report.save(partial)
    out.write(f"{output}: {describe(report)}\n")
