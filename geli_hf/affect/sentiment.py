"""Sentiment of the listener's next words: a Local Implicit signal of corpora that have no camera.

It is the LS of GELI (EMNLP 2024, arXiv 2403.11330).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..sessions import Message, assistant_turns


class NextTurnSentiment:
    """The sentiment, from -1 to 1, of the user message that follows each assistant turn.

    Args:
        sentiment: function of several texts that returns a number for each, such as by a classifier of another
            language. Default: VADER's compound sentiment (English only).

    Raises:
        ImportError: without `sentiment`, and without the package vaderSentiment.
    """

    def __init__(self, sentiment: Callable[[list[str]], Sequence[float]] | None = None):
        self.sentiment = sentiment or vader()

    def __call__(self, messages: Sequence[Message]) -> list[float]:
        """Return one value per assistant turn of a session, NaN where no message follows."""
        turns = assistant_turns(messages)
        answers = [messages[turn + 1]["content"] for turn in turns if turn + 1 < len(messages)]
        # Only the last turn can lack a reaction.
        return [*(self.sentiment(answers) if answers else []), *[math.nan] * (len(turns) - len(answers))]


def vader() -> Callable[[list[str]], list[float]]:
    """Load VADER: a function of several English texts that returns their compound sentiment, from -1 to 1.

    Raises:
        ImportError: without the package vaderSentiment.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise ImportError(
            "the sentiment of words needs the package vaderSentiment: pip install 'geli-hf[text]'"
        ) from error
    analyser = SentimentIntensityAnalyzer()
    return lambda texts: [analyser.polarity_scores(text)["compound"] for text in texts]
