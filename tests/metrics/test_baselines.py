"""Baselines on two short sessions."""

import builtins
import math

import numpy as np
import pytest

from geli_hf.metrics import baselines
from geli_hf.metrics.baselines import TURN_BASELINES

SESSIONS = [
    {
        "messages": [
            {"role": "assistant", "content": "How was your trip?"},
            {"role": "user", "content": "Wonderful, I loved every minute!"},
            {"role": "assistant", "content": "Fine."},
            {"role": "user", "content": "That was a terrible, hateful answer."},
            {"role": "assistant", "content": "I am sorry 😬"},
        ],
        "score": 4.0,
    },
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "你好"}], "score": math.nan},
]


def test_every_baseline_gives_one_value_per_assistant_turn():
    for rewards in TURN_BASELINES.values():
        assert [len(values) for values in rewards(SESSIONS)] == [3, 1]


def test_values_by_hand():
    np.testing.assert_array_equal(baselines.uniform(SESSIONS)[0], [4, 4, 4])
    assert np.isnan(baselines.uniform(SESSIONS)[1]).all()
    np.testing.assert_allclose(baselines.log_length(SESSIONS)[0], np.log([4, 1, 4]))
    np.testing.assert_array_equal(baselines.position(SESSIONS)[0], [0, 1, 2])
    sentiment = baselines.next_turn_sentiment(SESSIONS)
    assert sentiment[0][0] > 0.5
    assert sentiment[0][1] < -0.5
    assert np.isnan([sentiment[0][2], sentiment[1][0]]).all()  # nobody answered


def test_mode_score():
    assert baselines.mode_score([1.0, 3.0, 3.0, 1.0, 2.0]) == 1
    assert baselines.mode_score([5, 2, 5]) == 5


def test_error_without_vader_names_the_extra(monkeypatch):
    real_import = builtins.__import__

    def no_vader(name, *args, **kwargs):
        if name.startswith("vaderSentiment"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_vader)
    with pytest.raises(ImportError, match=r"pip install 'geli-hf\[text\]'"):
        baselines.next_turn_sentiment(SESSIONS)
