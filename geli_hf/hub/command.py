"""`geli push`: a folder or sessions to the Hub in one commit; or what that would send."""

import argparse
import tempfile
from pathlib import Path
from typing import TextIO

from huggingface_hub import metadata_load
from yaml import YAMLError

from ..settings import json_object
from .folders import kind_by_names, open_folder
from .pushing import CARD, Push, check_repo_id, is_private, send
from .rows import from_candor, hash_raters, read_splits, with_schema, write_parquet

STALE_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
ROWS_CARD = """---
tags:
  - dialogue
  - human-feedback
  - geli
---

# {repo}

Rated sessions of dialogue, one row per session and person who rated it, as `geli_hf.load_sessions("{repo}")` reads
them. {raters}
"""


def push_model(arguments: argparse.Namespace, out: TextIO) -> None:
    check_repo_id(arguments.repo)
    folder = open_folder(arguments.folder)
    if folder.left_out:
        out.write(f"left out, for a trainer alone: {', '.join(folder.left_out)}\n")
    card = _card(folder.path)
    if card is None:
        out.write(f"{folder.path} has no {CARD}: it goes without a card\n")
    _push(arguments, out, "model", folder.kind, folder.files, card, stale=STALE_WEIGHTS, kind_of=kind_by_names)


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
    card = _card(Path(arguments.sessions)) or ROWS_CARD.format(repo=arguments.repo, raters=raters)
    with tempfile.TemporaryDirectory(prefix="geli_push_") as folder:
        files = write_parquet(splits, Path(folder))

        def described(card: str) -> str:
            return with_schema(card, splits, download=sum(path.stat().st_size for path in files.values()))

        stale = ("data/*.parquet",)
        _push(arguments, out, "dataset", "sessions", files, described(card), stale=stale, merged=described)


def _card(folder: Path) -> str | None:
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        metadata_load(path)
    except (ValueError, YAMLError) as error:
        raise ValueError(f"{path}: what stands between the dashes is no YAML: {error}") from None
    return path.read_text(encoding="utf-8")


def _push(arguments: argparse.Namespace, out: TextIO, repo_type: str, what: str, files, card, **how) -> None:
    options = {name: getattr(arguments, name) for name in ("private", "create_pr", "revision", "replace_card")}
    push = Push(arguments.repo, repo_type, what, files, card, **options, **how)
    if arguments.dry_run:
        sizes = push.sizes()
        width = max(len(f"{size:,}") for size in sizes.values())
        out.write(f"{push.repo}: would get this {what} in one commit; nothing was sent\n")
        out.writelines(f"{size:>{width},}  {name}\n" for name, size in sizes.items())
        if card is not None:
            out.write(f"\n{CARD}, unless somebody edited the one on the Hub:\n\n{card}\n")
        return
    pushed = send(push)
    out.write(f"{pushed.url}: {what}, {len(push.sizes())} files\n")
    if pushed.card_kept:
        out.write("the card there was edited on the Hub, so it was kept; --replace-card replaces it\n")
