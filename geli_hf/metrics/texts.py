"""Counts of replies that need no judge: words, variety, repetition. Words are separated by white space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..sessions import Message

REPEATED = 3  # words in a row


def words(text: str) -> int:
    """Count the words of a text.

    Example:
        >>> words("How was your day?")
        4
    """
    return len(text.split())


def distinct_ngrams(texts: Sequence[str], n: int) -> float:
    """Distinct-n: number of different n-grams over the number of n-grams of all texts, in lower case.

    It falls with the amount of text: compare as many texts of about the same length.
    Reference: Li et al., "A Diversity-Promoting Objective Function", NAACL 2016, arXiv 1510.03055.

    Args:
        texts: (texts,).
        n: words of an n-gram.

    Returns:
        From 0 to 1; NaN without an n-gram.

    Example:
        >>> distinct_ngrams(["no no no"], 2)
        0.5
    """
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else np.nan


def self_repetition(reply: str, dialogue: Sequence[Message]) -> float:
    """Share of a reply's three-word sequences that the agent used before: in the reply, or earlier in the dialogue.

    Args:
        reply: of the agent.
        dialogue: (messages,), before the reply.

    Returns:
        From 0 to 1; NaN for a reply of fewer than three words.

    Example:
        >>> self_repetition("tell me more", [{"role": "assistant", "content": "Tell me more please"}])
        1.0
    """
    grams = _ngrams(reply, REPEATED)
    used = {gram for turn in dialogue if turn["role"] == "assistant" for gram in _ngrams(turn["content"], REPEATED)}
    repeated = 0
    for gram in grams:
        repeated += gram in used
        used.add(gram)
    return repeated / len(grams) if grams else np.nan


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    tokens = text.lower().split()
    return list(zip(*(tokens[start:] for start in range(n))))
