"""The rules of affect against a loop over single rows."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geli_hf.affect.emotions import EMOTIONS, HAPPINESS
from geli_hf.affect.turns import affect_of_turns, smooth_faces, valence_of_turns


def by_hand(seconds, probabilities, start, stop, words, min_share=0.0, short_words=5):
    known = [emotion for emotion in range(8) if not all(math.isnan(row[emotion]) for row in probabilities)]
    hard, graded = [], []
    for begin, end, length in zip(start, stop, words):
        seen = {}  # the different faces of each time
        for second, row in zip(seconds, probabilities):
            if begin <= end and begin <= second <= end:
                faces = seen.setdefault(second, set())
                if HAPPINESS in known and not any(math.isnan(row[emotion]) for emotion in known):
                    faces.add(tuple(row[emotion] if emotion in known else -1 for emotion in range(8)))
        rows = [faces.pop() for faces in seen.values() if len(faces) == 1]
        winners = Counter(list(row).index(max(row)) for row in rows)
        most_frequent = min(winners, key=lambda emotion: (-winners[emotion], emotion), default=None)
        unknown = not rows or len(rows) / len(seen) < min_share
        hard.append(math.nan if unknown else float(EMOTIONS[most_frequent] == "happiness" and length > short_words))
        graded.append(math.nan if unknown else sum(row[HAPPINESS] for row in rows) / len(rows))
    return hard, graded


# Coarse numbers make ties, and borders on the very second.
time = st.integers(0, 24).map(lambda half: half / 2) | st.just(math.nan)
# Few different faces, so that a second may come twice with the same one or another.
FACES = [*np.random.default_rng(0).integers(0, 4, (6, len(EMOTIONS))) / 3, np.full(8, math.nan)]
FACES.append(np.where(np.arange(8) == 2, math.nan, FACES[0]))  # lacks an emotion that others have
faces = st.sampled_from(FACES)
rules = st.fixed_dictionaries(
    {
        "min_share": st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]),
        "short_words": st.sampled_from([0, 5]),
    }
)


@st.composite
def faces_and_turns(draw):
    n, turns = draw(st.integers(0, 12)), draw(st.integers(0, 6))
    probabilities = np.array(draw(st.lists(faces, min_size=n, max_size=n))).reshape(n, len(EMOTIONS))
    probabilities[:, sorted(draw(st.sets(st.integers(0, 7), max_size=2)))] = math.nan  # the classifier knows them not
    return (
        np.array(draw(st.lists(time, min_size=n, max_size=n))),
        probabilities,
        draw(arrays(float, turns, elements=time)),
        draw(arrays(float, turns, elements=time)),
        draw(arrays(int, turns, elements=st.integers(1, 9))),
    )


@settings(max_examples=300, deadline=None)
@given(faces_and_turns(), st.just({}) | rules)
def test_as_one_row_at_a_time(case, rules):
    hard, graded = affect_of_turns(*case, **rules)
    expected_hard, expected_graded = by_hand(*case, **rules)
    np.testing.assert_array_equal(hard, expected_hard)
    np.testing.assert_allclose(graded, expected_graded, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(faces_and_turns(), rules, st.randoms())
def test_the_order_of_the_rows_does_not_matter(case, rules, random):
    seconds, probabilities, *turns = case
    order = list(range(len(seconds)))
    random.shuffle(order)
    shuffled = affect_of_turns(seconds[order], probabilities[order], *turns, **rules)
    for one, other in zip(affect_of_turns(*case, **rules), shuffled):
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


def test_a_repeated_second_counts_once_and_a_contradicted_one_not_at_all():
    smile, frown = (
        np.array([0.65 if each == emotion else 0.05 for each in EMOTIONS]) for emotion in ("happiness", "anger")
    )
    unseen = np.full(len(EMOTIONS), math.nan)
    seconds = np.array([1, 1, 2, 2, 3, 3, math.nan, math.nan])
    probabilities = np.stack([smile, smile, frown, smile, frown, unseen, smile, frown])
    hard, graded = affect_of_turns(seconds, probabilities, np.array([1.0, 2, 2]), np.array([3.0, 2, 3]), np.full(3, 6))
    np.testing.assert_array_equal(hard, [0, math.nan, 0])  # smile and frown tie, and anger comes first; nothing; frown
    np.testing.assert_allclose(graded, [(0.65 + 0.05) / 2, math.nan, 0.05])


def test_an_emotion_that_the_classifier_does_not_know_hides_no_face():
    smile = np.array([0.65 if each == "happiness" else 0.05 for each in EMOTIONS])
    smile[EMOTIONS.index("contempt")] = math.nan
    probabilities = np.stack([smile, np.full(8, math.nan), smile])
    turn = np.array([0.0]), np.array([2.0]), np.array([6])
    hard, graded = affect_of_turns(np.arange(3), probabilities, *turn)
    np.testing.assert_allclose([hard[0], graded[0]], [1, 0.65])
    # One who knows nothing of happiness says nothing.
    probabilities[:, HAPPINESS] = math.nan
    np.testing.assert_array_equal(affect_of_turns(np.arange(3), probabilities, *turn), np.full((2, 1), math.nan))


def test_too_few_faces_are_missing_and_so_is_a_turn_without_rows():
    smile = np.array([0.65 if each == "happiness" else 0.05 for each in EMOTIONS])
    probabilities = np.stack([smile, *[np.full(8, math.nan)] * 3])
    seconds, start, stop = np.arange(4) / 5, np.array([0, 0.05]), np.array([0.6, 0.15])
    for min_share, expected in ((0, 1), (0.25, 1), (0.26, math.nan)):
        hard, _ = affect_of_turns(seconds, probabilities, start, stop, np.array([6, 6]), min_share=min_share)
        np.testing.assert_array_equal(hard, [expected, math.nan])


def test_a_long_recording_loses_no_digits():
    generator = np.random.default_rng(1)
    happiness = generator.random(100_000).astype(np.float32)
    probabilities = np.repeat(((1 - happiness) / 7)[:, None], 8, 1)
    probabilities[:, HAPPINESS] = happiness
    start = generator.integers(0, 99_000, 50) / 5
    _, graded = affect_of_turns(np.arange(100_000) / 5, probabilities, start, start + 2.1, np.full(50, 6))
    expected = [np.mean(happiness[round(begin * 5) :][:11], dtype=float) for begin in start]
    np.testing.assert_allclose(graded, expected, rtol=1e-9)


def test_wrong_rules_are_refused():
    nothing = np.zeros(0), np.zeros((0, 8)), np.zeros(0), np.zeros(0), np.zeros(0)
    with pytest.raises(ValueError, match="min_share"):
        affect_of_turns(*nothing, min_share=50)


def by_hand_valence(seconds, probabilities, start, stop, min_share, own_mean):
    """One row at a time, from rows of distinct times."""
    rows = [
        (time, face[4] - sum(value for value in (face[0], face[1], face[2], face[3], face[6]) if value == value))
        for time, face in zip(seconds, probabilities)
    ]
    known = [value for _, value in rows if value == value]
    usual = sum(known) / len(known) if own_mean and known else 0.0
    found = []
    for begin, end in zip(start, stop):
        inside = [value for time, value in rows if begin <= time <= end]
        seen = [value - usual for value in inside if value == value]
        found.append(sum(seen) / len(seen) if seen and len(seen) >= min_share * len(inside) else math.nan)
    return found


@pytest.mark.parametrize("min_share", [0.0, 0.6])
@pytest.mark.parametrize("own_mean", [False, True])
def test_valence_is_happiness_less_the_negative_emotions(min_share, own_mean):
    rng = np.random.default_rng(0)
    seconds = np.arange(40.0)
    faces = rng.dirichlet(np.ones(8), 40)
    faces[:, 1] = np.nan  # a classifier without contempt
    faces[rng.random(40) < 0.4] = np.nan
    start, stop = np.array([0.0, 3.5, 20, 50, np.nan]), np.array([10.0, 9, 39, 60, 3])
    found = valence_of_turns(seconds, faces, start, stop, min_share=min_share, own_mean=own_mean)
    np.testing.assert_allclose(found, by_hand_valence(seconds, faces, start, stop, min_share, own_mean))
    assert np.isnan(found[-2:]).all()
    assert not np.isnan(found[0])


def test_valence_of_a_smile_detector_is_unknown():
    faces = np.full((3, 8), np.nan)
    faces[:, [4, 5]] = [0.9, 0.1]
    assert np.isnan(valence_of_turns([0, 1, 2], faces, [0.0], [2.0])).all()
    assert affect_of_turns([0, 1, 2], faces, [0.0], [2.0], [6])[0] == [1]


def test_smoothing_is_a_running_median_that_guesses_nothing():
    rng = np.random.default_rng(1)
    seconds = np.cumsum(rng.uniform(0.05, 0.4, 60))
    faces = rng.dirichlet(np.ones(8), 60)
    faces[:, 1] = np.nan
    faces[10:20] = np.nan
    order = rng.permutation(60)
    times, smooth = smooth_faces(seconds[order], faces[order], 1.0)
    np.testing.assert_array_equal(times, seconds)
    for row, time in enumerate(seconds):
        if 10 <= row < 20:
            assert np.isnan(smooth[row]).all()
            continue
        near = faces[np.abs(seconds - time) <= 0.5]
        expected = np.median(near[~np.isnan(near[:, 0])], 0)
        expected /= np.nansum(expected)
        np.testing.assert_allclose(smooth[row], expected, atol=1e-12)
    np.testing.assert_array_equal(smooth_faces(seconds, faces, 0)[1], faces)


def test_a_smile_in_a_single_frame_is_smoothed_away():
    faces = np.full((9, 8), 0.02)
    faces[:, 5] = 0.86
    faces[4, [4, 5]] = 0.86, 0.02
    assert smooth_faces(np.arange(9) / 5, faces, 1.0)[1][:, 4].max() < 0.05
