"""Fixtures that several folders of tests share. Everything runs offline."""

import gc
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import settings

# What is imported stays, and is much: looking through it for garbage takes a fifth of the time that importing takes.
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_unconfigure():
    gc.unfreeze()


# A busy machine is no reason to fail.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real corpora beside the checkout, for those who have it; the project never needs it."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real corpora at {folder}")
    return folder


@pytest.fixture
def be_owner(tmp_path, monkeypatch):
    """Called with a loopback Hub: this process is then one of its owner's, with empty caches."""
    from huggingface_hub import constants
    from transformers.utils import hub as hub_of_transformers

    def be_owner(hub) -> None:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        monkeypatch.setattr(hub_of_transformers, "_hf_api", None)  # it keeps the Hub that it asked first
        monkeypatch.setenv("HF_TOKEN", "hf_owner")
        monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "geli_hf"))

    return be_owner
