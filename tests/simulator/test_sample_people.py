"""The simulated people outside their corpus: they answer whatever is said to them, and their face shows it."""

from types import SimpleNamespace

import numpy as np
import pytest

from geli_hf.simulator.corpus import Person, listener_affect, true_turn_value
from geli_hf.simulator.grammar import parse
from geli_hf.simulator.people import TRAITS, speak_next

AVERAGE = dict.fromkeys(TRAITS, 0.0)


def test_what_they_say_depends_on_the_words_and_the_draw():
    heard = [(1, "Hello there! My cat ran away last week, and I'm so sad.")]
    said = [speak_next(heard, 0, AVERAGE, np.random.default_rng(seed)).text for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize("other", ["", "What?", "My cat and my roof, blah.", "Okay, I see."])
def test_nothing_that_is_said_to_them_silences_them(other):
    messages = []
    for turn in range(60):
        spoken = speak_next(messages, 0, AVERAGE, np.random.default_rng(turn))
        assert parse(spoken.text) is not None
        assert spoken.speaker == 0
        messages += [(0, spoken.text), (1, other)]


def test_what_they_say_is_worth_what_the_oracle_says():
    rng, messages = np.random.default_rng(5), []
    for turn in range(12):
        spoken = speak_next(messages, turn % 2, AVERAGE, rng)
        messages.append((turn % 2, spoken.text))
        told = [{"role": "assistant" if who == turn % 2 else "user", "content": text} for who, text in messages]
        assert true_turn_value(told)[::2] == (spoken.value, spoken.act)


def test_a_face_shows_what_the_turns_are_worth():
    person = SimpleNamespace(smile_level=-2.0, expressiveness=3.0)
    values, listens = [0.9, 0.0, -0.8, 0.0] * 50, [True, False] * 100
    shown = listener_affect(person, [14] * 200, values, listens, np.random.default_rng(0))
    assert np.isnan(shown[1::2]).all()
    assert set(shown[::2][~np.isnan(shown[::2])]) == {0.0, 1.0}
    assert 0.0 < np.mean(np.isnan(shown[::2])) < 0.2
    assert np.nanmean(shown[::4]) > np.nanmean(shown[2::4]) + 0.2


def test_some_faces_show_nothing():
    drawn = [Person(np.random.default_rng(seed)).expressiveness for seed in range(200)]
    assert min(drawn) < 0.1
    assert 3.0 < max(drawn) < 3.3
