"""Sentiment of the listener's next words: a Local Implicit signal of corpora that have no camera.

It is the LS of GELI (EMNLP 2024, arXiv 2403.11330).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..sessions import Message, assistant_turns

# The value of each label of a classifier, in lower case. Labels that are neither good nor bad are 0.
LABEL_VALUES = {
    **dict.fromkeys(("positive", "pos"), 1.0),
    **dict.fromkeys(("neutral", "neu"), 0.0),
    **dict.fromkeys(("negative", "neg"), -1.0),
    **dict.fromkeys(("happiness", "happy", "joy", "love", "admiration", "amusement", "approval", "caring"), 1.0),
    **dict.fromkeys(("desire", "excitement", "gratitude", "optimism", "pride", "relief", "trust"), 1.0),
    **dict.fromkeys(("surprise", "confusion", "curiosity", "realization", "anticipation"), 0.0),
    **dict.fromkeys(("anger", "annoyance", "contempt", "disappointment", "disapproval", "disgust"), -1.0),
    **dict.fromkeys(("embarrassment", "fear", "grief", "nervousness", "pessimism", "remorse", "sadness"), -1.0),
}
_STARS = re.compile(r"([1-9]) stars?")
BATCH = 32  # messages that a model reads at once
_NO_LIMIT = 10**6  # a tokenizer without a limit gives a number beyond any


class NextTurnSentiment:
    """The sentiment, from -1 to 1, of the user message that follows each assistant turn.

    Args:
        model: a text classifier, by name or path, whose labels have `values`; the sentiment is the mean of the labels'
            values, weighted by their probabilities. Texts are cut to what the model takes. Default: VADER's compound
            sentiment (English only).
        values: value of each label of the model, from -1 to 1. Default: by the label's name, in upper or lower case,
            from `LABEL_VALUES` (sentiments and emotions), or star ratings ("1 star" to "5 stars"), which are spread
            evenly from -1 to 1.

    Raises:
        ImportError: without `model`, and without the package vaderSentiment.
        ValueError: a label has no known value, such as "LABEL_0", or a value is not from -1 to 1.
        OSError: there is no such model.
    """

    def __init__(self, model: str | Path | None = None, *, values: Mapping[str, float] | None = None):
        self.model, self.values = model, values
        self._sentiment = vader() if model is None else _load_classifier(str(model), values)

    def __call__(self, messages: Sequence[Message]) -> list[float]:
        """Return one value per assistant turn of a session, NaN where no message follows."""
        turns = assistant_turns(messages)
        sentiment = self._sentiment([messages[turn + 1]["content"] for turn in turns if turn + 1 < len(messages)])
        return sentiment + [math.nan] * (len(turns) - len(sentiment))  # only the last turn can lack a reaction

    def __getstate__(self) -> dict[str, Any]:
        """Return the arguments and not the weights, for fingerprints of data sets and for other processes."""
        files = sorted(Path(self.model).iterdir()) if self.model is not None and os.path.isdir(self.model) else []
        return {
            "arguments": (self.model, self.values),
            "files": [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        model, values = state["arguments"]
        self.__init__(model, values=values)


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


def _load_classifier(model: str, values: Mapping[str, float] | None) -> Callable[[list[str]], list[float]]:
    from transformers import AutoConfig, pipeline

    labels = list(AutoConfig.from_pretrained(model).id2label.values())  # before the weights are fetched
    values = _label_values(model, labels, values)
    classify = pipeline("text-classification", model=model)
    tokenizer, config = classify.tokenizer, classify.model.config
    if tokenizer.model_max_length > _NO_LIMIT and getattr(config, "max_position_embeddings", None):
        # Positions of RoBERTa and its kin begin after that of padding.
        unused = config.pad_token_id + 1 if "roberta" in config.model_type else 0
        tokenizer.model_max_length = config.max_position_embeddings - unused

    def sentiment(texts: list[str]) -> list[float]:
        answers = classify(texts, batch_size=BATCH, top_k=None, truncation=True) if texts else []
        # Probabilities of a model that may give several labels need not sum to 1.
        return [
            sum(values[each["label"]] * each["score"] for each in answer) / sum(each["score"] for each in answer)
            for answer in answers
        ]

    return sentiment


def _label_values(model: str, labels: Sequence[str], values: Mapping[str, float] | None) -> dict[str, float]:
    """Return the value of each label."""
    if len(labels) < 2:
        raise ValueError(f"model: expected a classifier of several labels, and {model} has only {labels[0]!r}")
    stars = [_STARS.fullmatch(label.strip().lower()) for label in labels]
    if values is None and all(stars):
        most = max(int(match[1]) for match in stars)
        values = {label: 2 * (int(match[1]) - 1) / (most - 1) - 1 for label, match in zip(labels, stars)}
    elif values is None:
        values = {label: LABEL_VALUES.get(label.strip().lower()) for label in labels}
    for label in labels:
        if values.get(label) is None or not -1 <= values[label] <= 1:
            raise ValueError(
                f"values: expected a number from -1 to 1 for the label {label!r} of {model}, found {values.get(label)}"
            )
    return {label: float(values[label]) for label in labels}
