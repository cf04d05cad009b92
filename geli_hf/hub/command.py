"""`geli push`: a folder or sessions, and a card, to the Hub in one commit; or what that would send."""

import argparse
import tempfile
from pathlib import Path
from typing import TextIO

from ..settings import json_object
from .cards import dataset_card, model_card, own_card, with_schema
from .folders import open_folder
from .pushing import Push, Target, check_repo_id, is_private, push
from .rows import from_candor, hash_raters, read_splits, write_parquet

STALE_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")


def push_model(arguments: argparse.Namespace, out: TextIO) -> None:
    check_repo_id(arguments.repo)
    folder = open_folder(arguments.folder)
    if folder.left_out:
        out.write(f"left out, for a trainer alone: {', '.join(folder.left_out)}\n")
    card = own_card(folder.path)
    _send(
        Push(
            arguments.repo,
            "model",
            folder.kind,
            folder.files,
            model_card(folder, arguments.repo) if card is None else card,
            stale=STALE_WEIGHTS,
        ),
        arguments,
        out,
    )


def push_dataset(arguments: argparse.Namespace, out: TextIO) -> None:
    check_repo_id(arguments.repo)
    options = json_object(arguments.options, "--options")
    splits = read_splits(arguments.sessions, data_dir=arguments.data_dir, options=options)
    if from_candor(arguments.sessions, splits) and not arguments.i_have_the_rights:
        there = None if arguments.dry_run else is_private(arguments.repo, "dataset")
        if not (arguments.private if there is None else there):
            raise ValueError(
                f"{arguments.sessions}: sessions of CANDOR, by their name or their ids, whose terms forbid to publish "
                f"them again, and {arguments.repo} is public or would be. Give --private and a repository that is, or "
                "--i-have-the-rights if they are yours or no sessions of CANDOR"
            )
    raters = "Nothing tells who rated."
    if "rater_id" in next(iter(splits.values())).column_names:
        raters = "`rater_id` is as in the source."
        if not arguments.keep_rater_ids:
            splits = {name: hash_raters(sessions) for name, sessions in splits.items()}
            raters = "`rater_id` is no name that anybody else uses: the ids of the source were hashed with a secret."
    source = Path(arguments.sessions)
    card = own_card(source) if source.is_dir() else None
    if card is None:
        told = "A file of their owner." if source.exists() else f"The corpus `{arguments.sessions}`."
        card = dataset_card(splits, arguments.repo, source=told, raters=raters)
    with tempfile.TemporaryDirectory(prefix="geli_push_") as folder:
        files = write_parquet(splits, Path(folder))
        sizes = {name: (len(sessions), sessions.data.nbytes) for name, sessions in splits.items()}
        download = sum(path.stat().st_size for path in files.values())
        features = next(iter(splits.values())).features

        def described(card: str) -> str:
            return with_schema(card, features, sizes, download)

        stale = ("data/*.parquet",)
        _send(
            Push(arguments.repo, "dataset", "sessions", files, described(card), stale=stale, merged=described),
            arguments,
            out,
        )


def _send(sent: Push, arguments: argparse.Namespace, out: TextIO) -> None:
    if arguments.dry_run:
        sizes = sent.sizes()
        width = max(len(f"{size:,}") for size in sizes.values())
        out.write(f"{sent.repo}: would get this {sent.what} in one commit; nothing was sent\n")
        out.writelines(f"{size:>{width},}  {name}\n" for name, size in sizes.items())
        out.write(f"\nREADME.md, unless somebody edited the one on the Hub:\n\n{sent.card}\n")
        return
    target = Target(arguments.private, arguments.create_pr, arguments.revision, arguments.replace_card)
    pushed = push(sent, target)
    out.write(f"{pushed.url}: {sent.what}, {len(sent.files) + 1} files\n")
    if pushed.card_kept:
        out.write("the card there was edited on the Hub, so it was kept; --replace-card replaces it\n")
