"""A tracker of training curves, in the place of trackio."""

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from geli_hf.training import script


@pytest.fixture
def tracker(monkeypatch) -> list[str]:
    """The classes of the arguments of the trainings that the tracker was told of, in their order."""
    told = []

    class Tracker(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            told.append(type(args).__name__)

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Tracker)
    monkeypatch.setattr(script, "get_available_reporting_integrations", lambda: ["trackio"])
    return told
