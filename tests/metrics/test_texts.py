"""Counts of words, variety and repetition, by hand."""

import math

import pytest

from geli_hf.metrics.texts import distinct_ngrams, self_repetition, words


def test_words():
    assert [words("How was your day?"), words("  "), words("")] == [4, 0, 0]


def test_distinct_ngrams_over_all_texts():
    texts = ["I see.", "I see what you mean.", ""]
    # i, see., i, see, what, you, mean.: 6 of 7 differ; i see. | i see, see what, what you, you mean.: 5 of 5
    assert distinct_ngrams(texts, 1) == pytest.approx(6 / 7)
    assert distinct_ngrams(texts, 2) == 1
    assert distinct_ngrams(["no no no"], 2) == 1 / 2
    assert math.isnan(distinct_ngrams(["no", ""], 2))


def test_repetition_of_earlier_replies():
    dialogue = [
        {"role": "assistant", "content": "Tell me more about it please"},
        {"role": "user", "content": "I went to the lake."},
    ]
    assert self_repetition("Tell me more!", dialogue) == 0  # "more!" is another word
    # tell me more | me more about | more about that: the first two were said
    assert self_repetition("tell me more about that", dialogue) == pytest.approx(2 / 3)
    assert self_repetition("I went to the lake.", dialogue) == 0  # the user's words
    # la la la three times: the second and third repeat the first
    assert self_repetition("la la la la la", []) == pytest.approx(2 / 3)
    assert math.isnan(self_repetition("Oh no", dialogue))
