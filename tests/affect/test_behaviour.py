"""Behaviour in words, on rows made by hand and on random ones, where nothing unobserved may get words."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geli_hf.affect.behaviour import LEAST_USUAL, behaviour_of_turns
from geli_hf.affect.emotions import EMOTIONS

LETTERS = {"h": "happiness", "n": "neutral", "s": "sadness", "S": "surprise", "-": None}


def faces(letters):
    """Make a row per letter, one per second."""
    return np.array(
        [
            [math.nan if LETTERS[each] is None else 0.65 if name == LETTERS[each] else 0.05 for name in EMOTIONS]
            for each in letters
        ]
    )


def of_face(letters):
    """Describe a turn of fewer rows than make a mean."""
    assert len(letters) < LEAST_USUAL
    span = np.array([0.0]), np.array([len(letters) - 1.0])
    return behaviour_of_turns(np.arange(len(letters)), *span, probabilities=faces(letters))[0]


@pytest.mark.parametrize(
    ("letters", "words"),
    [
        ("hhhhhhhhh", "listener smiles throughout this turn"),
        ("nhhhhhhhh", "listener smiles through most of this turn"),
        ("hhhnnnnnn", "listener smiles at the start"),
        ("nnnnnnhhh", "listener smiles at the end"),
        ("hhnnnnnhh", "listener smiles at the start and at the end"),
        ("nnnnhnnnn", "listener smiles briefly"),
        ("nnnnSnnnn", "listener keeps a neutral face"),  # a moment of another emotion may be a mistake
        ("SSSnnnhhh", "listener smiles at the end, looks surprised at the start"),
        ("sssssnnnn", "listener looks sad through most of this turn"),
        ("nnnnnnnnn", "listener keeps a neutral face"),
        ("---------", ""),
        ("h-------", ""),  # seen too rarely
        ("---nnhhhh", "listener smiles through most of this turn"),  # of what was seen of it
        ("---nnnhhh", "listener smiles at the end"),
        ("nnnnnh---", "listener smiles briefly"),  # nobody saw the end
        ("hn", "listener smiles briefly"),  # two rows have no thirds
        ("n", "listener keeps a neutral face"),
    ],
)
def test_a_face_in_words(letters, words):
    assert of_face(letters) == words


def test_usual_is_what_this_listener_does_while_listening():
    # Ten seconds of listening, ten of speaking with a wide smile, ten of listening.
    probabilities = faces("nnnnnnnnnn" + "hhhhhhhhhh" + "nnnnnnhhhh")
    start, stop = np.array([0.0, 20, 26]), np.array([9.0, 25, 29])
    assert behaviour_of_turns(np.arange(30), start, stop, probabilities=probabilities) == [
        "listener keeps a neutral face",  # by what is usual while listening; it would be less than usual over all
        "listener keeps a neutral face",
        "listener smiles throughout this turn, looks happier than usual",
    ]


def test_eyes():
    gaze = np.array([1.0] * 9 + [0] * 3 + [1] * 12)
    start, stop = np.array([0.0, 12, 9]), np.array([11.0, 23, 11])
    expected = ["listener looks away at the end", "", "listener looks away throughout this turn"]
    assert behaviour_of_turns(np.arange(24), start, stop, gaze=gaze) == expected
    # The same in numbers between on and off; who never looks can't look away.
    assert behaviour_of_turns(np.arange(24), start, stop, gaze=0.2 + gaze / 2) == expected
    assert behaviour_of_turns(np.arange(24), start, stop, gaze=0 * gaze) == ["", "", ""]


def test_voice():
    start, stop = np.array([0.0, 10, 20, 30]), np.array([9.0, 19, 29, 39])
    pitch = np.repeat([200.0, 200, 260, 0], 10) + np.tile([-1.0, 1], 20)
    pitch[30:] = 0  # says nothing
    intensity = np.repeat([50.0, 50, 50, 30], 10)
    assert behaviour_of_turns(np.arange(40), start, stop, pitch=pitch, intensity=intensity) == [
        "",
        "",
        "listener has a higher voice than usual",
        "listener is quieter than usual",
    ]


def test_all_of_it_in_one_sentence():
    letters, away = "nnnnnnnnnnnn" + "nhhhhhhhh", [1.0] * 18 + [0.0] * 3
    words = behaviour_of_turns(
        np.arange(21),
        np.array([0.0, 12]),
        np.array([11.0, 20]),
        probabilities=faces(letters),
        gaze=np.array(away),
        intensity=np.array([40.0] * 12 + [60.0] * 9),
    )
    assert words == [
        "listener keeps a neutral face",
        "listener smiles through most of this turn, looks happier than usual, looks away at the end, "
        "is louder than usual",
    ]


ABOUT = {
    "probabilities": (
        "smiles",
        "happ",
        "neutral",
        *(f"looks {how}" for how in ("sur", "sad", "ang", "afr", "dis", "con")),
    ),
    "gaze": ("away",),
    "pitch": ("voice",),
    "intensity": ("louder", "quieter"),
}
number = st.floats(0, 1) | st.just(math.nan)


@st.composite
def observed(draw):
    n, turns = draw(st.integers(0, 40)), draw(st.integers(1, 5))
    time = st.integers(0, 40).map(float) | st.just(math.nan)
    rows = {name: draw(arrays(float, n, elements=number)) for name in ("gaze", "pitch", "intensity")}
    rows["probabilities"] = draw(arrays(float, (n, 8), elements=st.floats(0, 1)))
    rows["probabilities"][draw(arrays(bool, n))] = math.nan
    for name in draw(st.sets(st.sampled_from(sorted(ABOUT)))):
        rows[name][:] = math.nan
    return (
        draw(arrays(float, n, elements=time)),
        draw(arrays(float, turns, elements=time)),
        draw(arrays(float, turns, elements=time)),
        rows,
    )


@settings(max_examples=120, deadline=None)
@given(observed())
def test_nothing_unobserved_gets_words(case):
    seconds, start, stop, rows = case
    described = behaviour_of_turns(seconds, start, stop, **rows)
    backwards = {name: values[::-1] for name, values in rows.items()}
    assert described == behaviour_of_turns(seconds[::-1], start, stop, **backwards)
    assert len(described) == len(start)
    for words, begin, end in zip(described, start, stop):
        within = (seconds >= begin) & (seconds <= end) & (begin <= end)
        thirds = {
            "at the start": within & (seconds <= begin + (end - begin) / 3 + 1e-9),
            "at the end": within & (seconds >= end - (end - begin) / 3 - 1e-9),
        }
        for name, about in ABOUT.items():
            known = ~np.isnan(rows[name]) if name != "probabilities" else ~np.isnan(rows[name]).any(1)
            if name == "pitch":
                known &= rows[name] > 0
            for clause in words.removeprefix("listener ").split(", "):
                if any(each in clause for each in about):
                    assert (known & within).any()
                    for place, third in thirds.items():
                        assert place not in clause or (known & third).any()
        assert not words or words.startswith("listener ")


@settings(max_examples=60, deadline=None)
@given(observed())
def test_senses_are_described_independently(case):
    seconds, start, stop, rows = case
    alone = [behaviour_of_turns(seconds, start, stop, **{name: rows[name]}) for name in ABOUT]
    for described, *each in zip(behaviour_of_turns(seconds, start, stop, **rows), *alone):
        clauses = [words.removeprefix("listener ") for words in each if words]
        assert described == (f"listener {', '.join(clauses)}" if clauses else "")
