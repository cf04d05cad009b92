"""`geli push`: a model, sessions or a Space to the Hub in one commit."""

import argparse
import tempfile
from pathlib import Path
from typing import TextIO

from .common import SESSIONS, add_corpus

PUSH_OPTIONS = ("repo", "private", "create_pr", "revision", "replace_card")


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "push",
        help="publish a model, sessions or a Space on the Hub",
        description="Publish a model, sessions or a Space on the Hugging Face Hub, in one commit or not at all. "
        "Log in with `hf auth login`, or set HF_TOKEN.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")

    model = kinds.add_parser("model", help="a reward model, attribution, face classifier, policy or adapter")
    model.add_argument("folder", metavar="FOLDER", help="as save_pretrained wrote it; its config names its kind")
    model.add_argument("--base", metavar="OWNER/NAME", help="of an adapter: its base model on the Hub")
    model.set_defaults(run=_push_model)

    dataset = kinds.add_parser("dataset", help="Session rows, as Parquet")
    dataset.add_argument("sessions", metavar="SESSIONS", help=f"{SESSIONS}; a folder's splits are named by its files")
    add_corpus(dataset)
    dataset.add_argument("--keep-rater-ids", action="store_true", help="publish rater ids unchanged, not hashed")
    dataset.add_argument("--i-have-the-rights", action="store_true", help="publish rows that look like CANDOR's")
    dataset.set_defaults(run=_push_dataset)

    space = kinds.add_parser("space", help="the app of a folder of spaces/, with this package beside it")
    add = space.add_argument
    add("name", metavar="NAME", help="a folder of spaces/ in the repository, or a path")
    add("--model", metavar="OWNER/NAME", help="the model of the app, as its variable GELI_MODEL")
    space.set_defaults(run=_push_space)

    for kind in (model, dataset, space):
        add = kind.add_argument
        add("--repo", required=True, metavar="OWNER/NAME", help="repository on the Hub; created if it does not exist")
        add("--private", action="store_true", help="create a private one")
        add("--create-pr", action="store_true", help="open a pull request, in place of a commit")
        add("--revision", help="branch (default: main); created if it does not exist")
        add("--replace-card", action="store_true", help="replace the card even if it was edited on the Hub")
        add("--dry-run", action="store_true", help="list files, sizes and the card, and send nothing")


def _push_model(arguments: argparse.Namespace, out: TextIO) -> None:
    from ..hub.folders import model_push

    with tempfile.TemporaryDirectory(prefix="geli_push_") as folder:
        model = model_push(arguments.folder, base=arguments.base, scratch=Path(folder), **_options(arguments))
        if model.card is None:
            out.write(f"{arguments.folder} has no README.md: it goes without a card\n")
        _push(model, arguments, out)


def _push_dataset(arguments: argparse.Namespace, out: TextIO) -> None:
    from ..hub.cards import card_title, corpus_licence, dataset_card
    from ..hub.push import check_repo_id, is_private, read_card
    from ..hub.sessions import SessionsPush, from_candor, hash_raters, read_splits, without_schema, write_parquet

    check_repo_id(arguments.repo)
    splits = read_splits(arguments.sessions, data_dir=arguments.data_dir, options=arguments.options)
    if from_candor(arguments.sessions, splits) and not arguments.i_have_the_rights:
        private = None if arguments.dry_run else is_private(arguments.repo, "dataset")
        if not (arguments.private if private is None else private):
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
        source = f"The corpus `{card_title(arguments.sessions)}`. {corpus_licence(arguments.sessions)}"
        card = str(dataset_card(splits, arguments.repo, source=source, raters=raters))
    with tempfile.TemporaryDirectory(prefix="geli_push_") as folder:
        files = write_parquet(splits, Path(folder))
        sessions = SessionsPush(what="sessions", files=files, card=without_schema(card), **_options(arguments))
        _push(sessions, arguments, out)


def _push_space(arguments: argparse.Namespace, out: TextIO) -> None:
    from ..hub.spaces import SpacePush, find_space, space_card, space_files

    folder = find_space(arguments.name)
    with tempfile.TemporaryDirectory(prefix="geli_push_") as scratch:
        space = SpacePush(
            what="Space",
            files=space_files(folder, Path(scratch)),
            card=space_card(folder, arguments.model),
            model=arguments.model,
            **_options(arguments),
        )
        _push(space, arguments, out)


def _options(arguments: argparse.Namespace) -> dict:
    return {name: getattr(arguments, name) for name in PUSH_OPTIONS}


def _push(push, arguments: argparse.Namespace, out: TextIO) -> None:
    from ..hub.push import CARD, send

    sizes = push.sizes()
    if arguments.dry_run:
        out.write(f"{push.repo}: would get this {push.what} in one commit; nothing was sent\n")
        out.writelines(f"{size:>15,}  {name}\n" for name, size in sizes.items())
        if push.card is not None:
            out.write(f"\n{CARD}, unless somebody edited the one on the Hub:\n\n{push.card}\n")
        return
    pushed = send(push)
    out.write(f"{pushed.url}: {push.what}, {len(sizes)} files\n")
    if pushed.card_kept:
        out.write("the card there was edited on the Hub, so it was kept; --replace-card replaces it\n")
