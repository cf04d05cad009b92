"""A Hub of its own for every test that asks for one, and for every module whose tests share what was pushed."""

import time
import types

import pytest
from huggingface_hub import HfApi, constants, file_download
from huggingface_hub.utils import _http
from loopback_hub import Hub

from geli_hf.cli import main


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with Hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path):
    server.restart(tmp_path / "hub")
    return server


@pytest.fixture
def online(monkeypatch):
    """This process may ask the Hub that it names, and uploads the way that the loopback Hub knows."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def owner(hub, online) -> HfApi:
    return HfApi(hub.url, token="hf_owner")


@pytest.fixture
def here(hub, owner, be_owner):
    """This process is one of the owner's, whose Hub this is."""
    be_owner(hub)
    return hub


@pytest.fixture
def push(here, capsys):
    """`geli push` and the words after it; gives what it printed."""

    def run(*words) -> str:
        main(["push", *map(str, words)])
        return capsys.readouterr().out

    return run


@pytest.fixture
def refusal(push):
    """Return the message with which `geli push` refuses."""

    def run(*words) -> str:
        with pytest.raises(SystemExit) as refused:
            push(*words)
        return str(refused.value)

    return run


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Replace the client's waits between attempts, and list them in seconds."""
    waits = []
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(sleep=waits.append, time=time.time))
    return waits


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory):
    """One Hub for a module."""
    with Hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub
