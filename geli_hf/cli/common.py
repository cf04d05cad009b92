"""Arguments and checks that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # each of them takes a second to import
    from datasets import Dataset

    from ..llm.backend import Backend

SESSIONS = "Session rows, or a corpus, as `load_sessions` takes them"


def count(text: str) -> int:
    """Read a positive integer, as the type of an argument.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1, found {text!r}")
    return int(text)


def add_corpus(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `load_corpus` reads beside `sessions`."""
    parser.add_argument("--data-dir", help="folder of the corpus, if SESSIONS names one")
    parser.add_argument("--options", metavar="JSON", default="{}", help="options of the corpus's reader")


def load_corpus(arguments: argparse.Namespace) -> Dataset:
    """Load the sessions that the arguments `sessions`, `data_dir` and `options` name.

    Raises:
        ValueError: the options are no JSON object, or the reader does not have one.
    """
    from ..data import load_sessions
    from ..settings import json_object

    options = json_object(arguments.options, "--options")
    try:
        return load_sessions(arguments.sessions, data_dir=arguments.data_dir, **options)
    except TypeError as error:
        raise ValueError(f"--options: {error}") from error


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `backend_of` reads."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--base-url", help="OpenAI-compatible server, as in http://localhost:8000/v1")
    place.add_argument("--provider", help="Inference Provider of the Hub, or auto")
    add = parser.add_argument
    add("--token-env", metavar="VARIABLE", help="environment variable of the key (default for a provider: HF_TOKEN)")
    add("--parameters", metavar="JSON", default="{}", help="of the request, such as max_tokens; null removes one")
    add("--timeout", type=float, default=120.0, help="seconds to wait for an answer (default: 120)")


def backend_of(arguments: argparse.Namespace, model: str) -> Backend:
    """Open a language model on a server, at a provider or else on this machine.

    Raises:
        ValueError: the arguments do not fit together.
    """
    from ..llm import Endpoint, LocalModel
    from ..settings import json_object

    parameters = json_object(arguments.parameters, "--parameters")
    if arguments.base_url is None and arguments.provider is None:
        if arguments.token_env is not None or not {"max_tokens"}.issuperset(parameters):
            raise ValueError("--token-env, --parameters: a model on this machine takes max_tokens alone")
        return LocalModel(model, **parameters)
    return Endpoint(
        model,
        base_url=arguments.base_url,
        provider=arguments.provider,
        token_variable=arguments.token_env,
        parameters=parameters,
        timeout=arguments.timeout,
    )


def model_name(name: str) -> str:
    """Return the name of a model or policy without the slash at the end of a folder."""
    return name.rstrip("/") or name


def new_folder(name: str) -> Path:
    """Return the folder of `--output` for a new model.

    Raises:
        FileExistsError: it is a file, or is not empty.
    """
    folder = Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"--output: {folder} holds something; choose an empty or a new folder")
    return folder


def report_folder(name: str | None) -> Path | None:
    """Return the folder of `--output` for a report, if there is one.

    Raises:
        NotADirectoryError: it is a file.
    """
    if name is not None and Path(name).is_file():
        raise NotADirectoryError(f"--output: {name} is a file; choose a folder")
    return None if name is None else Path(name)
