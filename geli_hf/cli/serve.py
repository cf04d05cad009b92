"""`geli serve`: a reward model behind HTTP."""

import argparse
import os
import sys
from typing import TextIO

from .common import add_compute, compute_options, count


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "serve",
        help="answer requests for rewards over HTTP",
        description="Answer requests for rewards: a dialogue's turns at /v1/turn_rewards, and vLLM's /classify. "
        "/docs shows both, /health and /metrics watch. Nothing of a request is logged.",
    )
    add = parser.add_argument
    add("model", nargs="?", help="reward model: a folder, or a name on the Hub (default: the one that comes with it)")
    add("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for other machines (default: 127.0.0.1)")
    add("--port", type=count, default=8000, help="default: 8000")
    add("--api-key", help="that requests must carry (default: the environment variable GELI_API_KEY, if it is set)")
    add("--batch-tokens", type=count, default=8192, help="tokens that are scored at once (default: 8192)")
    add("--queue-tokens", type=count, default=262144, help="tokens that wait; beyond, 429 (default: 262144)")
    add_compute(parser, batch=None)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, out: TextIO) -> None:
    try:
        import uvicorn

        from ..serving.app import create_app
    except ImportError as error:
        raise ImportError(f"{error}: pip install 'geli-hf[serve]'") from error
    from ..alignment.shipped import REWARD
    from ..models.loading import is_attribution, open_model

    name = arguments.model or str(REWARD)
    if is_attribution(name, "MODEL"):
        raise ValueError(f"MODEL: {name} is an attribution, which needs reactions; give the reward model beside it")
    model = open_model(name, **compute_options(arguments))
    key = arguments.api_key or os.environ.get("GELI_API_KEY")
    if key is None and arguments.host not in ("127.0.0.1", "localhost", "::1"):
        sys.stderr.write("No --api-key: whoever reaches this address can use the server.\n")
    sizes = {"batch_tokens": arguments.batch_tokens, "queue_tokens": arguments.queue_tokens}
    app = create_app(model, os.path.basename(name.rstrip("/")), api_key=key, **sizes)
    uvicorn.run(app, host=arguments.host, port=arguments.port, access_log=False, timeout_graceful_shutdown=30)
