"""`geli train-judge`: a judge of replies, fitted to people's ratings of turns."""

import argparse
from typing import TextIO

from .common import SESSIONS, add_corpus, check_share, load_corpus, new_folder


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "train-judge",
        help="learn to judge replies from people's ratings of turns",
        description="Learn from people's ratings of single turns to judge the replies of a policy, and measure the "
        "agreement with the ratings of held-out sessions. The judge is a folder like that of a reward model. Take "
        "sessions that no reward model of the policy has learned from.",
    )
    add = parser.add_argument
    add("sessions", help=f"{SESSIONS}, with `turn_rating`")
    add_corpus(parser)
    add("--held-out-share", type=float, default=0.2, help="held-out share of the conversations (default: 0.2)")
    add("--seed", type=int, default=0, help="of that split (default: 0)")
    add("--backbone", help="encoder or decoder: a folder, or a name on the Hub (default: all-MiniLM-L6-v2)")
    add("--context-messages", type=int, default=1, help="messages before a turn that the judge reads (default: 1)")
    add("-o", "--output", metavar="FOLDER", required=True, help="folder for the judge, new or empty")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, out: TextIO) -> None:
    from ..cache import atomic_path
    from ..evaluation.judges.ratings import describe, fit_judge, measure_judge
    from ..models.geli_reward.modeling_geli import GeliRewardModel
    from ..sessions import split_sessions

    output = new_folder(arguments.output)
    check_share(arguments.held_out_share, "--held-out-share")
    shares = {"train": 1 - arguments.held_out_share, "held_out": arguments.held_out_share}
    train, held_out = split_sessions(load_corpus(arguments), shares, seed=arguments.seed).values()
    try:
        model = GeliRewardModel.from_backbone(arguments.backbone, context_messages=arguments.context_messages)
    except (OSError, ValueError) as error:
        raise ValueError(f"--backbone: {error}") from error
    report = fit_judge(model, train)
    measure_judge(model, held_out, report)
    with atomic_path(output) as partial:
        model.save_pretrained(partial)
        report.save(partial)
    out.write(f"{output}: {describe(report)}\n")
