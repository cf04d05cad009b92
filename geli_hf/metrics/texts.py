"""What can be counted of replies whatever they are worth: words, variety, repetition. Words are what white space
separates, in lower case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..sessions import Message

REPEATED = 3  # words in a row


def words(text: str) -> int:
    """Number of words."""
    return len(text.split())


def distinct_ngrams(texts: Sequence[str], n: int) -> float:
    """Number of different n-grams over the number of n-grams of all texts (distinct-n, Li et al., NAACL 2016).

    It falls with the amount of text: compare as many texts of about the same length. NaN where there is no n-gram.
    """
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else np.nan


def self_repetition(reply: str, dialogue: Sequence[Message]) -> float:
    """Share of a reply's three-word sequences that the agent has said already: before it in the reply, or earlier in
    the dialogue. NaN of a reply of fewer words.
    """
    grams = _ngrams(reply, REPEATED)
    said = {gram for each in dialogue if each["role"] == "assistant" for gram in _ngrams(each["content"], REPEATED)}
    repeated = 0
    for gram in grams:
        repeated += gram in said
        said.add(gram)
    return repeated / len(grams) if grams else np.nan


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    each = text.lower().split()
    return list(zip(*(each[start:] for start in range(n))))
