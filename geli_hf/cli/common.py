"""Arguments and checks that several commands share."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # each of them takes a second to import
    from datasets import Dataset

    from ..llm.backend import Backend
    from ..models.geli_reward.modeling_geli import GeliRewardModel

SESSIONS = "Session rows, or a corpus, as `load_sessions` takes them"
DTYPES = ("float32", "bfloat16", "float16")


def count(text: str) -> int:
    """Read a positive integer, as the type of an argument.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1, found {text!r}")
    return int(text)


def at_least(least: float) -> Callable[[str], float]:
    """Make the type of an argument that is a finite number from `least` on."""

    def number(text: str) -> float:
        value = float(text)
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"expected a number from {least:g}, found {text!r}")
        return value

    return number


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object, as the type of an argument.

    Raises:
        ArgumentTypeError: it is another value.
        ValueError: it is not JSON, which argparse says.
    """
    read = json.loads(text)
    if not isinstance(read, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, found {text!r}")
    return read


def device_name(text: str) -> str:
    """Check that this machine has a device, as the type of an argument.

    Raises:
        ArgumentTypeError: it has not.
    """
    import torch

    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:  # the latter of a torch that was built without CUDA
        reason = str(error).partition("\n")[0]
        raise argparse.ArgumentTypeError(f"this machine has no {text!r} ({reason:.200})") from error
    return text


def add_device(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add `--device`; without a default it is the accelerator, if there is one."""
    help_text = f"such as cpu or cuda:1 (default: {default or 'the accelerator, if there is one'})"
    parser.add_argument("--device", type=device_name, default=default, help=help_text)


def add_compute(parser: argparse.ArgumentParser, *, batch: str | None = "sessions", batch_size: int = 32) -> None:
    """Add `--device`, `--dtype` and `--batch-size`: how models run.

    Args:
        parser: of the command.
        batch: what a batch holds; None for a command that knows no batches.
        batch_size: default of `--batch-size`.
    """
    add_device(parser)
    parser.add_argument("--dtype", choices=DTYPES, help="of weights (default: as saved, of a new model float32)")
    if batch is not None:
        help_text = f"{batch} in a batch (default: {batch_size})"
        parser.add_argument("--batch-size", type=count, default=batch_size, help=help_text)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add how a policy's replies are sampled, and `--batch-size` and the like."""
    add = parser.add_argument
    add("--context-messages", type=count, default=6, help="messages in the prompt of a policy (default: 6)")
    add("--max-new-tokens", type=count, default=64, help="longest reply, in tokens (default: 64)")
    add("--temperature", type=at_least(0), default=0.8, help="of sampling (default: 0.8)")
    add("--seed", type=int, default=0, help="of all random draws (default: 0)")
    add_compute(parser, batch="replies", batch_size=64)


def compute_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return `device` and `dtype`, where they are given, as arguments of what opens a model."""
    return {name: value for name in ("device", "dtype") if (value := getattr(arguments, name)) is not None}


def new_reward_model(arguments: argparse.Namespace) -> GeliRewardModel:
    """Make a reward model of `--backbone`, with a new head, on `--device`.

    Raises:
        ValueError: there is no such backbone, or it can't be used so.
    """
    from ..models.geli_reward.modeling_geli import GeliRewardModel
    from ..models.loading import default_device

    options = {"dtype": arguments.dtype, "context_messages": arguments.context_messages}
    try:
        model = GeliRewardModel.from_backbone(arguments.backbone, **options)
    except (OSError, ValueError) as error:
        raise ValueError(f"--backbone: {error}") from error
    return model.to(arguments.device or default_device())


def add_corpus(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `load_corpus` reads beside `sessions`."""
    parser.add_argument("--data-dir", help="folder of the corpus, if SESSIONS names one")
    help_text = "options of the corpus's reader"
    parser.add_argument("--options", type=json_object, metavar="JSON", default="{}", help=help_text)


def load_corpus(arguments: argparse.Namespace) -> Dataset:
    """Load the sessions that the arguments `sessions`, `data_dir` and `options` name.

    Raises:
        ValueError: the reader does not have one of the options.
    """
    from ..data import load_sessions

    try:
        return load_sessions(arguments.sessions, data_dir=arguments.data_dir, **arguments.options)
    except TypeError as error:
        raise ValueError(f"--options: {error}") from error


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `backend_of` reads."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--base-url", help="OpenAI-compatible server, as in http://localhost:8000/v1")
    place.add_argument("--provider", help="Inference Provider of the Hub, or auto")
    add = parser.add_argument
    add("--token-env", metavar="VARIABLE", help="environment variable of the key (default for a provider: HF_TOKEN)")
    help_text = "of the request, such as max_tokens; null removes one"
    add("--parameters", type=json_object, metavar="JSON", default="{}", help=help_text)
    add("--timeout", type=float, default=120.0, help="seconds to wait for an answer (default: 120)")


def backend_of(arguments: argparse.Namespace, model: str) -> Backend:
    """Open a language model on a server, at a provider or else on this machine, as `add_compute` says.

    Raises:
        ValueError: the arguments do not fit together.
    """
    from ..llm import Endpoint, LocalModel

    if arguments.base_url is None and arguments.provider is None:
        if arguments.token_env is not None or not {"max_tokens"}.issuperset(arguments.parameters):
            raise ValueError("--token-env, --parameters: a model on this machine takes max_tokens alone")
        return LocalModel(model, **arguments.parameters, **compute_options(arguments))
    return Endpoint(
        model,
        base_url=arguments.base_url,
        provider=arguments.provider,
        token_variable=arguments.token_env,
        parameters=arguments.parameters,
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
