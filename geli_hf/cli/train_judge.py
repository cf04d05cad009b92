"""`geli train-judge`: from sessions whose turns were rated to a judge of replies, with how far to believe it."""

import argparse
from pathlib import Path
from typing import TextIO

from datasets import Dataset

from ..cache import whole
from ..data import load_sessions
from ..evaluation.judges.ratings import describe, fit_judge, measure_judge
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import split_sessions
from ..settings import json_object


def train_judge(arguments: argparse.Namespace, out: TextIO) -> None:
    """Run the command; what was measured goes to `out`."""
    output = Path(arguments.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"--output: {output} holds something; choose an empty or a new folder")
    if not 0 < arguments.held_out_share < 1:
        raise ValueError(f"--held-out-share: expected a share between 0 and 1, found {arguments.held_out_share:g}")
    learned, held_out = _sessions(arguments)
    try:
        config = {"context_messages": arguments.context_messages}
        model = GeliRewardModel.from_backbone(arguments.backbone, **config)
    except (OSError, ValueError) as error:
        raise ValueError(f"--backbone: {error}") from error
    report = fit_judge(model, learned, length_free=not arguments.with_length)
    measure_judge(model, held_out, report)
    with whole(output) as partial:
        model.save_pretrained(partial)
        report.save(partial)
    out.write(f"{output}: {describe(report)}\n")


def _sessions(arguments: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """Those to learn from and those to be measured on."""
    options = json_object(arguments.options, "--options")

    def load(options: dict) -> Dataset:
        try:
            return load_sessions(arguments.sessions, data_dir=arguments.data_dir, **options)
        except TypeError as error:  # an option that there is not, or that can't have this value
            raise ValueError(f"--options: {error}") from error

    sessions = load(options)
    if arguments.held_out_options is not None:
        return sessions, load(options | json_object(arguments.held_out_options, "--held-out-options"))
    shares = {"learned": 1 - arguments.held_out_share, "held_out": arguments.held_out_share}
    parts = split_sessions(sessions, shares, seed=arguments.seed)
    return parts["learned"], parts["held_out"]
