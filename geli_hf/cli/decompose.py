"""`geli decompose`: from rated sessions to the same with what a language model says each turn contributed."""

import argparse
from pathlib import Path
from typing import TextIO

from ..data import load_sessions
from ..data.rows import write_jsonl
from ..llm.backend import Backend
from ..llm.decomposer import LlmDecomposer
from ..llm.endpoint import Endpoint
from ..llm.local import LocalModel
from ..llm.prompting import Prompt
from ..settings import json_object


def decompose(arguments: argparse.Namespace, out: TextIO) -> int:
    """Run the command; what is reported goes to `out`.

    Returns:
        How many sessions failed.
    """
    if arguments.output is None and not arguments.dry_run:
        raise ValueError("--output: say where to write the sessions, or give --dry-run")
    decomposer = LlmDecomposer(
        open_backend(arguments, arguments.model),
        with_behaviour=arguments.with_behaviour,
        prompt=Prompt.read(arguments.prompt) if arguments.prompt else None,
        scale=tuple(arguments.scale) if arguments.scale else None,
        window=arguments.window,
        overlap=arguments.overlap,
        attempts=arguments.attempts,
        cache_dir=arguments.cache_dir,
    )
    sessions = load_sessions(arguments.sessions, data_dir=arguments.data_dir)
    if arguments.limit is not None:
        sessions = sessions.select(range(min(arguments.limit, len(sessions))))
    if arguments.dry_run:
        out.write(f"{decomposer.estimate(sessions)}\n")
        return 0
    sessions, report = decomposer.decompose(sessions, name=arguments.name, max_concurrency=arguments.max_concurrency)
    write_jsonl(sessions, arguments.output)
    out.write(f"{Path(arguments.output)}: {arguments.name or decomposer.name} in `feedback`\n{report}\n")
    return report.failures


def open_backend(arguments: argparse.Namespace, model: str) -> Backend:
    """What runs the model: a server, a provider, or this machine, as the arguments say that commands share.

    Raises:
        ValueError: the arguments make no sense together.
    """
    parameters = json_object(arguments.parameters, "--parameters")
    if arguments.base_url is None and arguments.provider is None:
        if arguments.token_env is not None:
            raise ValueError("--token-env: a model on this machine needs no key; or give --base-url or --provider")
        if unknown := sorted(set(parameters) - {"max_tokens"}):
            raise ValueError(f"--parameters: a model on this machine takes max_tokens alone, found {unknown[0]}")
        return LocalModel(model, **parameters)
    return Endpoint(
        model,
        base_url=arguments.base_url,
        provider=arguments.provider,
        token_variable=arguments.token_env,
        parameters=parameters,
        timeout=arguments.timeout,
    )
