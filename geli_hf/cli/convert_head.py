"""`geli convert-head`: the published GELI head as a reward model."""

import argparse
from typing import TextIO

from .common import new_folder


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "convert-head",
        help="make a reward model of the published GELI head",
        description="Make a reward model of the published GELI head, without running anything that its file names. "
        "The published encoder was trained too, and is not in the file; and its text format was another. So the "
        "rewards are those of the head on the encoder that you name, and not those of the published system. "
        "The head's licence is its authors' (CC BY-NC-SA 4.0).",
    )
    add = parser.add_argument
    add("file", help="the published file, a pickled module as torch.save wrote it")
    add("--backbone", default="facebook/bart-large", help="folder or name on the Hub (default: facebook/bart-large)")
    add("--output", required=True, help="folder for the reward model, new or empty")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, out: TextIO) -> None:
    from ..cache import atomic_path
    from ..models.published_head import convert_head

    output = new_folder(arguments.output)
    model = convert_head(arguments.file, arguments.backbone)
    with atomic_path(output) as partial:
        model.save_pretrained(partial)
    out.write(f"{output}: the published head on {arguments.backbone}; its rewards are not the published system's\n")
