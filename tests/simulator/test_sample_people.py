"""Simulated people outside of their corpus: they answer any text, and their face responds to its value."""

from types import SimpleNamespace

import numpy as np
import pytest

from geli_hf.simulator.corpus import Person, listener_affect, true_turn_value
from geli_hf.simulator.grammar import parse
from geli_hf.simulator.people import TRAITS, speak_next

AVERAGE = dict.fromkeys(TRAITS, 0.0)


def test_an_answer_depends_on_the_seed_alone():
    messages = [(1, "Hello there! My cat ran away last week, and I'm so sad.")]
    one, again, other = (speak_next(messages, 0, AVERAGE, np.random.default_rng(seed)).text for seed in (1, 1, 2))
    assert one == again != other


def test_own_texts_outside_of_the_grammar_are_not_repeated():
    for seed in range(100):
        assert speak_next([(0, "Blah."), (1, "Okay, I see.")], 0, AVERAGE, np.random.default_rng(seed)).text != "Blah."


@pytest.mark.parametrize("other", ["", "What?", "My cat and my roof, blah.", "Okay, I see."])
def test_any_text_is_answered_again_and_again(other):
    messages = []
    for turn in range(60):
        spoken = speak_next(messages, 0, AVERAGE, np.random.default_rng(turn))
        assert parse(spoken.text) is not None
        assert spoken.speaker == 0
        messages += [(0, spoken.text), (1, other)]


def test_messages_carry_the_values_of_the_oracle():
    rng, messages = np.random.default_rng(5), []
    for turn in range(12):
        spoken = speak_next(messages, turn % 2, AVERAGE, rng)
        messages.append((turn % 2, spoken.text))
        dialogue = [
            {"role": "assistant" if author == turn % 2 else "user", "content": text} for author, text in messages
        ]
        assert true_turn_value(dialogue)[::2] == (spoken.value, spoken.act)


def test_a_face_responds_to_the_values():
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
