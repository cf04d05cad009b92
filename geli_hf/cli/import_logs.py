"""`geli import`: sessions from chat logs of other products."""

import argparse
import sys
from pathlib import Path
from typing import TextIO

OPTIONS = ("format", "score", "signals", "columns", "roles", "scale", "redact")  # of `geli_hf.data.logs.open_corpus`


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "import",
        help="make sessions of chat logs",
        description="Make sessions of chat logs, with the ratings, thumbs and edits that they carry: OpenAI messages, "
        "ShareGPT, WildChat, LMSYS, Langfuse, Open WebUI, or a CSV whose columns you name. A report says what was "
        "read, and what was left out and why.",
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="JSON, JSON lines, Parquet or CSV of one format; or a folder of them")
    add("-o", "--output", required=True, type=Path, help="file for the sessions, as JSON lines")
    add("--format", default="auto", help="such as openai, sharegpt, langfuse or openwebui (default: auto)")
    add(
        "--score",
        default="",
        metavar="NAME",
        help="rating of a session; or a signal or turn_rating, for the mean of it",
    )
    add("--signals", nargs="+", default=(), metavar="NAME", help="further signals of turns")
    add("--columns", nargs="+", type=_pair, metavar="X=Y", help="of a CSV, as session=chat role=who text=words")
    add("--roles", nargs="+", type=_pair, metavar="X=Y", help="names of the sides, as customer=user agent=assistant")
    add("--scale", nargs=2, type=float, metavar=("LOW", "HIGH"), help="lowest and highest rating; others are none")
    add("--redact", action="store_true", help="mask mail addresses, links, card and phone numbers")
    parser.set_defaults(run=_run)


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not value:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, found {text!r}")
    return name, value


def _run(arguments: argparse.Namespace, out: TextIO) -> None:
    from ..data.logs import open_corpus
    from ..data.reading import ReadReport, checked_rows
    from ..data.rows import write_jsonl

    report, options = ReadReport(), {name: getattr(arguments, name) for name in OPTIONS}
    write_jsonl(checked_rows(open_corpus(arguments.files, **options), report), arguments.output)
    if arguments.redact:
        sys.stderr.write("Masked by pattern: mail addresses, links, card and phone numbers. Names of people remain.\n")
    out.write(f"{report}\n")
