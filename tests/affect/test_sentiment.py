"""The sentiment of the next turn, by VADER and by a function of one's own."""

import numpy as np
import pytest
from datasets import Dataset
from tiny import session, talk

from geli_hf import add_signal
from geli_hf.affect.sentiment import NextTurnSentiment


def count_letters(texts: list[str]) -> list[float]:
    assert texts
    return [len(text) / 1000 for text in texts]


def test_a_value_for_each_turn_that_is_answered():
    messages = talk(8)
    values = NextTurnSentiment(count_letters)(messages)
    answers = [messages[turn + 1]["content"] for turn in (1, 3, 5)]
    np.testing.assert_array_equal(values, [*(len(text) / 1000 for text in answers), np.nan])
    assert not np.isnan(NextTurnSentiment(count_letters)(talk(7))).any()  # the user has the last word
    assert np.isnan(NextTurnSentiment(count_letters)(talk(2))).all()  # nothing to ask about


def test_vader_is_the_default():
    pytest.importorskip("vaderSentiment")
    turn = {"role": "assistant", "content": "Well?"}
    good, bad = ({"role": "user", "content": text} for text in ("I love it, it is wonderful!", "I hate it."))
    first, second, last = NextTurnSentiment()([turn, good, turn, bad, turn])
    assert second < 0 < first <= 1
    assert np.isnan(last)


def test_it_is_added_as_a_signal():
    sessions = Dataset.from_list([session(8), session(5)])
    signals = [add_signal(sessions, "mood", NextTurnSentiment(count_letters)) for _ in range(2)]
    assert signals[0]._fingerprint == signals[1]._fingerprint
    assert [len(row["mood"]) for row in signals[0]["feedback"]] == [4, 2]
