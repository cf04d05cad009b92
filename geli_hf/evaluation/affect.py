"""Evaluation of classifiers of faces on pictures of unseen persons, with intervals over persons."""

from collections.abc import Callable

import numpy as np

from ..affect.emotions import EMOTIONS, HAPPINESS
from ..metrics.intervals import Interval, bootstrap_statistic

RESAMPLES = 1000
# A figure of one model, as a function of how often each picture occurs.
Statistic = Callable[[np.ndarray], float]


def happiness_auc(smile: np.ndarray, truth: np.ndarray, times: np.ndarray) -> float:
    """Compute the area under the ROC curve of weighted pictures; a tie counts .5.

    Args:
        smile: (n,), probability of happiness.
        truth: (n,), true where the face is happy.
        times: (n,), how often each picture occurs.
    """
    _, code = np.unique(smile, return_inverse=True)
    positive, negative = np.bincount(code, times * truth), np.bincount(code, times * ~truth)
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / (positive.sum() * negative.sum()))


def happiness_ece(smile: np.ndarray, truth: np.ndarray, times: np.ndarray) -> float:
    """Compute the expected calibration error in ten bins of equal width (Guo et al., arXiv 1706.04599).

    Args:
        smile, truth, times: (n,), as in `happiness_auc`.
    """
    gap = np.bincount(np.minimum((smile * 10).astype(int), 9), times * (smile - truth), minlength=10)
    return float(np.abs(gap).sum() / times.sum())


def affect_statistics(probabilities: np.ndarray, emotions: np.ndarray) -> dict[str, Statistic]:
    """Return the statistics of one model's answers, by name.

    Args:
        probabilities: (n, 8) in the order of `EMOTIONS`; a row of NaN, a face that can't be read, doesn't count.
        emotions: (n,), the true ones as indices.
    """
    known = ~np.isnan(probabilities).all(1)
    probabilities, emotions = probabilities[known], emotions[known]
    smile, truth = probabilities[:, HAPPINESS].astype(float), emotions == HAPPINESS
    right = np.nanargmax(probabilities, 1) == emotions

    def mean(values: np.ndarray, times: np.ndarray) -> float:
        return float(np.average(values, weights=times)) if times.any() else np.nan

    def balanced(times: np.ndarray) -> float:
        return (mean(smile > 0.5, times * truth) + mean(smile <= 0.5, times * ~truth)) / 2

    statistics: dict[str, Statistic] = {
        "happiness AUC": lambda times: happiness_auc(smile, truth, times),
        "happiness balanced accuracy": balanced,
        "happiness accuracy": lambda times: mean((smile > 0.5) == truth, times),
        "happiness ECE": lambda times: happiness_ece(smile, truth, times),
        "accuracy": lambda times: mean(right, times),
    }
    for index in np.unique(emotions):
        statistics[f"recall {EMOTIONS[index]}"] = lambda times, of=emotions == index: mean(right, times * of)
    return {name: lambda times, of=of: of(times[known]) for name, of in statistics.items()}


def interval_over_persons(statistics: list[Statistic], persons: np.ndarray) -> Interval:
    """Compute the mean of a statistic over models, with its 95 % bootstrap interval over persons.

    Args:
        statistics: one for each model.
        persons: (n,), a name for each picture.
    """

    def means(weights: np.ndarray) -> np.ndarray:
        return np.array([np.mean([statistic(times) for statistic in statistics]) for times in weights])

    return bootstrap_statistic(means, persons, np.ones(len(persons), bool), resamples=RESAMPLES)
