"""A scripted server, an endpoint that talks to it and is quick to try again, and sessions to ask about."""

import huggingface_hub.constants
import pytest
from asking import dataset, session
from chat_server import ChatServer
from datasets import Dataset

from geli_hf.llm import Endpoint, LlmDecomposer


@pytest.fixture(autouse=True)
def online(monkeypatch, tmp_path):
    """The client of the Hub refuses even loopback when it is told to be offline, as the tests are."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def server():
    """Start a server with a script; the last one started is stopped at the end."""
    started = []

    def start(*script, **options) -> ChatServer:
        started.append(ChatServer(script, **options).__enter__())
        return started[-1]

    yield start
    for each in started:
        each.__exit__()


@pytest.fixture
def decomposer(tmp_path):
    """A decomposer that asks this server; the options of both by name."""

    def make(server, *, model="m", token_variable=None, **options):
        asking = {"tries": 4, "backoff": 0.001, "timeout": 5.0, "parameters": None}
        asking |= {name: options.pop(name) for name in asking if name in options}
        endpoint = Endpoint(model, base_url=server.url, token_variable=token_variable, **asking)
        return LlmDecomposer(endpoint, **{"scale": (1, 9), "cache_dir": tmp_path / "answers"} | options)

    return make


@pytest.fixture
def rows() -> list[dict]:
    return [
        session("a", ["good", "bad", "well"], 5.0),
        session("b", ["bad", "good"], 3.0),
        session("c", ["a good one"], 8.0),
    ]


@pytest.fixture
def sessions(rows) -> Dataset:
    return dataset(*rows)
