"""`geli decompose`: rated sessions with a language model's estimate of each turn's contribution."""

import argparse
import sys
from typing import TextIO

from .common import SESSIONS, add_backend, add_compute, add_corpus, backend_of, compute_options, count, load_corpus


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "decompose",
        help="ask a language model what each turn contributed to the score",
        description="Ask a language model what each turn of the assistant contributed to the session's score "
        "(LLM-GELI), and write the sessions with its answers as a signal in `feedback`. Answers are kept, so a run "
        "that was stopped continues, and none is paid twice. The exit status is 1 if a session failed.",
    )
    add = parser.add_argument
    add("sessions", help=SESSIONS)
    add("--model", required=True, help="language model; without --base-url and --provider it runs on this machine")
    add_backend(parser)
    add_compute(parser, batch=None)
    add("--with-behaviour", action="store_true", help="show the model the listener's behaviour, column `behaviour`")
    add("--name", help="of the signal (default: llm, or llm_behaviour)")
    add("--prompt", metavar="FILE", help="template of the question, in place of the package's own")
    add("--scale", nargs=2, type=float, metavar=("LOWEST", "HIGHEST"), help="of the scores (default: their range)")
    add("--window", type=count, default=40, help="turns in one question (default: 40)")
    add("--overlap", type=count, default=8, help="turns that neighbouring questions share (default: 8)")
    add("--attempts", type=count, default=3, help="tries before a session counts as failed (default: 3)")
    add("--max-concurrency", type=count, default=8, help="sessions in work at once (default: 8)")
    add("--limit", type=count, help="the first so many sessions only")
    add_corpus(parser)
    add("--dry-run", action="store_true", help="estimate the calls and tokens, and send nothing")
    add("-o", "--output", help="JSON lines to write")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, out: TextIO) -> None:
    from ..data.rows import write_jsonl
    from ..llm.decomposer import LlmDecomposer
    from ..llm.prompting import Prompt

    if arguments.output is None and not arguments.dry_run:
        raise ValueError("--output: name a file for the sessions, or give --dry-run")
    if (arguments.base_url or arguments.provider) and compute_options(arguments):
        raise ValueError("--device, --dtype: of a model on this machine; leave them out, or --base-url and --provider")
    decomposer = LlmDecomposer(
        backend_of(arguments, arguments.model),
        with_behaviour=arguments.with_behaviour,
        prompt=Prompt.read(arguments.prompt) if arguments.prompt else None,
        scale=tuple(arguments.scale) if arguments.scale else None,
        window=arguments.window,
        overlap=arguments.overlap,
        attempts=arguments.attempts,
    )
    sessions = load_corpus(arguments)
    if arguments.limit is not None:
        sessions = sessions.select(range(min(arguments.limit, len(sessions))))
    if arguments.dry_run:
        out.write(f"Estimate, if every first answer is valid; nothing was sent:\n{decomposer.estimate(sessions)}\n")
        return
    sessions, report = decomposer.decompose(sessions, name=arguments.name, max_concurrency=arguments.max_concurrency)
    write_jsonl(sessions, arguments.output)
    out.write(f"{arguments.output}: {arguments.name or decomposer.name} in `feedback`\n{report}\n")
    if report.failures:
        sys.exit(1)
