"""The sentiment of what the listener says next: a Local Implicit signal of corpora that have no camera."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..sessions import Message, assistant_turns


class NextTurnSentiment:
    """VADER's compound sentiment, from -1 to 1, of the user message that follows each assistant turn (English only).

    Calling it with the messages of a session gives one value per assistant turn. NaN where the session ends with the
    turn: there was no reaction, which is not a neutral one.

    Raises:
        ImportError: without the package vaderSentiment.
    """

    def __init__(self):
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ImportError as error:
            raise ImportError(
                "the sentiment of the next turn needs the package vaderSentiment: pip install 'geli-hf[text]'"
            ) from error
        self._analyser = SentimentIntensityAnalyzer()

    def __call__(self, messages: Sequence[Message]) -> list[float]:
        return [
            self._analyser.polarity_scores(messages[turn + 1]["content"])["compound"]
            if turn + 1 < len(messages)
            else math.nan
            for turn in assistant_turns(messages)
        ]
