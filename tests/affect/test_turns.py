"""The face's rule against a loop that does what the paper says, one second at a time."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geli_hf.affect.emotions import EMOTIONS, HAPPINESS
from geli_hf.affect.turns import affect_of_turns


def by_hand(seconds, probabilities, start, stop, words, *, lag=0.0, min_share=0.0):
    hard, graded = [], []
    for begin, end, length in zip(start, stop, words):
        told = {}  # the different faces of each second
        looks = {second for second in seconds if begin <= second <= end + lag}
        for second, row in zip(seconds, probabilities):
            if begin <= second <= end + lag and not any(map(math.isnan, row)):
                told.setdefault(second, set()).add(tuple(row))
        rows = [faces.pop() for faces in told.values() if len(faces) == 1]
        if len(rows) < min_share * len(looks):
            rows = []
        winners = Counter(list(row).index(max(row)) for row in rows)
        most_frequent = min(winners, key=lambda emotion: (-winners[emotion], emotion), default=None)
        hard.append(math.nan if not rows else float(EMOTIONS[most_frequent] == "happiness" and length > 5))
        graded.append(math.nan if not rows else sum(row[HAPPINESS] for row in rows) / len(rows))
    return hard, graded


# Coarse numbers make ties, and borders on the very second.
time = st.integers(0, 24).map(lambda half: half / 2) | st.just(math.nan)
# Few different faces, so that a second may be told twice with the same one or another.
faces = st.sampled_from([*np.random.default_rng(0).integers(0, 4, (6, len(EMOTIONS))) / 3, np.full(8, math.nan)])


@st.composite
def faces_and_turns(draw):
    n, turns = draw(st.integers(0, 12)), draw(st.integers(0, 6))
    return (
        np.array(draw(st.lists(time, min_size=n, max_size=n))),
        np.array(draw(st.lists(faces, min_size=n, max_size=n))).reshape(n, len(EMOTIONS)),
        draw(arrays(float, turns, elements=time)),
        draw(arrays(float, turns, elements=time)),
        draw(arrays(int, turns, elements=st.integers(1, 9))),
    )


@settings(max_examples=300, deadline=None)
@given(faces_and_turns())
def test_as_one_second_at_a_time(case):
    hard, graded = affect_of_turns(*case)
    expected_hard, expected_graded = by_hand(*case)
    np.testing.assert_array_equal(hard, expected_hard)
    np.testing.assert_allclose(graded, expected_graded, atol=1e-12)


@settings(max_examples=300, deadline=None)
@given(faces_and_turns(), st.sampled_from([0.0, 0.5, 3.0]), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_with_a_lag_and_where_little_was_seen(case, lag, min_share):
    for one, other in zip(
        affect_of_turns(*case, lag=lag, min_share=min_share), by_hand(*case, lag=lag, min_share=min_share)
    ):
        np.testing.assert_allclose(one, other, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(faces_and_turns())
def test_an_emotion_that_the_classifier_does_not_know_hides_no_face(case):
    """Without contempt, which is never the most probable here, all is as with it."""
    seconds, probabilities, *turns = case
    probabilities = probabilities.copy()
    probabilities[:, EMOTIONS.index("contempt")] *= 0
    expected = affect_of_turns(seconds, probabilities, *turns)
    probabilities[:, EMOTIONS.index("contempt")] = np.nan
    for one, other in zip(affect_of_turns(seconds, probabilities, *turns), expected):
        np.testing.assert_allclose(one, other, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(faces_and_turns(), st.randoms())
def test_the_order_of_the_seconds_does_not_matter(case, random):
    seconds, probabilities, *turns = case
    order = list(range(len(seconds)))
    random.shuffle(order)
    for one, other in zip(affect_of_turns(*case), affect_of_turns(seconds[order], probabilities[order], *turns)):
        np.testing.assert_allclose(one, other, atol=1e-12)


def one_turn(*emotions, words=6):
    probabilities = np.array([[0.65 if each == emotion else 0.05 for each in EMOTIONS] for emotion in emotions])
    span = np.array([0.0]), np.array([float(len(emotions))])
    return affect_of_turns(np.arange(len(emotions), dtype=float), probabilities, *span, np.array([words]))[0][0]


def test_the_rule_by_hand():
    assert one_turn("happiness", "happiness", "neutral") == 1
    assert one_turn("happiness", "neutral", "neutral") == 0
    assert one_turn("happiness", "happiness", "sadness", "anger") == 1  # the most frequent one need be no majority
    assert one_turn("happiness", words=6) == 1
    assert one_turn("happiness", words=5) == 0  # too short for a face to answer
    assert one_turn("happiness", "neutral") == 1  # of a tie the first of EMOTIONS
    assert one_turn("happiness", "anger") == 0


def test_a_second_told_twice_counts_once_and_a_contradicted_one_not_at_all():
    smile, frown = (
        np.array([0.65 if each == emotion else 0.05 for each in EMOTIONS]) for emotion in ("happiness", "anger")
    )
    unseen = np.full(len(EMOTIONS), math.nan)
    seconds = np.array([1, 1, 2, 2, 3, 3, math.nan, math.nan])
    probabilities = np.stack([smile, smile, frown, smile, frown, unseen, smile, frown])
    hard, graded = affect_of_turns(seconds, probabilities, np.array([1.0, 2, 2]), np.array([3.0, 2, 3]), np.full(3, 6))
    np.testing.assert_array_equal(hard, [0, math.nan, 0])  # smile and frown tie, and anger comes first; nothing; frown
    np.testing.assert_allclose(graded, [(0.65 + 0.05) / 2, math.nan, 0.05])


def test_without_words_no_utterance_is_too_short():
    smile = np.array([[0.65 if each == "happiness" else 0.05 for each in EMOTIONS]])
    span = np.array([0.0]), np.array([1.0])
    assert affect_of_turns(np.zeros(1), smile, *span, np.array([1]))[0] == [0]
    assert affect_of_turns(np.zeros(1), smile, *span)[0] == [1]


def test_a_turn_of_which_too_little_was_seen_is_missing_and_not_neutral():
    """Five frames a second; the face is away for the second half of the turn."""
    times = np.arange(50) / 5
    probabilities = np.full((50, len(EMOTIONS)), 0.05)
    probabilities[:, HAPPINESS] = 0.65
    probabilities[25:] = math.nan
    turn = np.array([0.0]), np.array([9.8])
    assert affect_of_turns(times, probabilities, *turn, min_share=0.5)[1] == pytest.approx([0.65])
    assert np.isnan(affect_of_turns(times, probabilities, *turn, min_share=0.51)).all()


def test_a_long_recording_keeps_its_digits():
    """Differences of running sums over two hundred thousand frames."""
    random = np.random.default_rng(0)
    times, probabilities = np.sort(random.uniform(0, 4e4, 200_000)), random.dirichlet(np.ones(8), 200_000)
    start = random.uniform(0, 4e4, 200)
    stop = start + random.uniform(0, 20, 200)
    graded = affect_of_turns(times, probabilities, start, stop)[1]
    for mean, begin, end in zip(graded, start, stop):
        rows = probabilities[(times >= begin) & (times <= end), HAPPINESS]
        np.testing.assert_allclose(mean, rows.mean() if len(rows) else np.nan, atol=1e-9)


@pytest.mark.parametrize("wrong", [{"lag": -1.0}, {"lag": math.nan}, {"min_share": 1.5}, {"min_share": math.nan}])
def test_rules_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        affect_of_turns(np.zeros(0), np.zeros((0, 8)), np.zeros(1), np.ones(1), **wrong)
