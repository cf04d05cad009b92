"""`geli push`: a folder or sessions to the Hub in one commit; or what that would send."""

import argparse
import tempfile
from pathlib import Path
from typing import TextIO

from ..hub.cards import dataset_card, name_of, source_of
from ..hub.push import CARD, Push, check_repo_id, is_private, read_card, send
from ..hub.sessions import SessionsPush, from_candor, hash_raters, read_splits, with_schema, write_parquet
from ..hub.spaces import MODEL_VARIABLE, SpacePush, environment, find_space, space_card, space_files
from ..settings import json_object


def push_model(arguments: argparse.Namespace, out: TextIO) -> None:
    from ..hub.folders import model_push  # with torch, which sessions and Spaces need not wait for

    model = model_push(arguments.folder, **_options(arguments))
    if model.card is None:
        out.write(f"{arguments.folder} has no {CARD}: it goes without a card\n")
    _push(model, arguments, out)


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
    card = read_card(Path(arguments.sessions))
    if card is None:
        source = f"The corpus `{name_of(arguments.sessions)}`. {source_of(arguments.sessions)}"
        card = str(dataset_card(splits, arguments.repo, source=source, raters=raters))
    with tempfile.TemporaryDirectory(prefix="geli_push_") as folder:
        files = write_parquet(splits, Path(folder))
        card = with_schema(card, splits, files)
        sessions = SessionsPush(what="sessions", files=files, card=card, splits=splits, **_options(arguments))
        _push(sessions, arguments, out)


def push_space(arguments: argparse.Namespace, out: TextIO) -> None:
    folder = find_space(arguments.name)
    variables = environment(arguments.variable, "--variable")
    if arguments.model is not None:
        variables[MODEL_VARIABLE] = arguments.model
    secrets = environment(arguments.secret, "--secret")
    with tempfile.TemporaryDirectory(prefix="geli_push_") as scratch:
        space = SpacePush(
            what="Space",
            files=space_files(folder, Path(scratch)),
            card=space_card(folder, arguments.model),
            secrets=secrets,
            variables=variables,
            hardware=arguments.hardware,
            model=arguments.model,
            **_options(arguments),
        )
        if arguments.dry_run:
            for name, value in variables.items():
                out.write(f"variable {name}={value}\n")
            for name in secrets:
                out.write(f"secret {name}, whose value is not shown\n")
            if arguments.hardware:
                out.write(f"hardware {arguments.hardware}\n")
        _push(space, arguments, out)


def _options(arguments: argparse.Namespace) -> dict:
    names = ("repo", "private", "create_pr", "revision", "replace_card")
    return {name: getattr(arguments, name) for name in names}


def _push(push: Push, arguments: argparse.Namespace, out: TextIO) -> None:
    sizes = push.sizes()
    if arguments.dry_run:
        width = max(len(f"{size:,}") for size in sizes.values())
        out.write(f"{push.repo}: would get this {push.what} in one commit; nothing was sent\n")
        out.writelines(f"{size:>{width},}  {name}\n" for name, size in sizes.items())
        if push.card is not None:
            out.write(f"\n{CARD}, unless somebody edited the one on the Hub:\n\n{push.card}\n")
        return
    pushed = send(push)
    out.write(f"{pushed.url}: {push.what}, {len(sizes)} files\n")
    if pushed.card_kept:
        out.write("the card there was edited on the Hub, so it was kept; --replace-card replaces it\n")
