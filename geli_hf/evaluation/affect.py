"""Evaluation of classifiers of faces on pictures of unseen persons, with intervals over persons."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image

from ..affect.classify import ImageAffect
from ..affect.emotions import EMOTIONS, HAPPINESS, emotions_of_labels
from ..affect.faces import Box
from ..metrics.intervals import Interval, bootstrap_statistic
from ..training.affect import LabelledFaces, crop_faces

RESAMPLES = 1000
CLEAN = "as they are"  # the faces of the test pictures without any change
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
        probabilities: (n, 8) in the order of `EMOTIONS`.
        emotions: (n,), the true ones as indices.
    """
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
    return statistics


def interval_over_persons(statistics: list[Statistic], persons: np.ndarray, resamples: int = RESAMPLES) -> Interval:
    """Compute the mean of a statistic over models, with its 95 % bootstrap interval over persons.

    Args:
        statistics: one for each model.
        persons: (n,), a name for each picture.
        resamples: of the bootstrap.
    """

    def means(weights: np.ndarray) -> np.ndarray:
        return np.array([np.mean([statistic(times) for statistic in statistics]) for times in weights])

    return bootstrap_statistic(means, persons, np.ones(len(persons), bool), resamples=resamples)


def degrade(faces: LabelledFaces) -> dict[str, LabelledFaces]:
    """Return the faces as they are, and as a bad camera or a careless detector would have them, by name."""
    x, y, width, height = faces.box

    def moved(size: float = 1.0, right: float = 0.0, down: float = 0.0) -> LabelledFaces:
        left, top = x + width * (0.5 + right) - width * size / 2, y + height * (0.5 + down) - height * size / 2
        return faces._replace(box=Box(left, top, width * size, height * size))

    pictures, side = faces.pictures.numpy(), faces.pictures.shape[-1]
    pixels = round(24 * side / width)
    small = [Image.fromarray(picture).resize((pixels, pixels), Image.Resampling.BOX) for picture in pictures]
    dark = (pictures * 0.25).round().astype(np.uint8)
    return {
        CLEAN: faces,
        "a box of 24 pixels": faces._replace(
            pictures=torch.from_numpy(np.stack(small)), box=Box(*(value * pixels / side for value in faces.box))
        ),
        "a box 10 % too small": moved(0.9),
        "a box 10 % too large": moved(1.1),
        "a box 10 % too far left": moved(right=-0.1),
        "a box 10 % too far right": moved(right=0.1),
        "a box 10 % too high": moved(down=-0.1),
        "a box 10 % too low": moved(down=0.1),
        "a quarter of the light": faces._replace(pictures=torch.from_numpy(dark)),
    }


def evaluate_affect(models: Mapping[int, ImageAffect], parts: Mapping[str, LabelledFaces], labels: list[str]) -> dict:
    """Measure models of several seeds, and choose one of them.

    Args:
        models: by seed.
        parts: `train`, `validation` and `test`.
        labels: names of the labels.

    Returns:
        The figures by name; those of the test pictures as [mean over the seeds, low, high]. `chosen_seed` has the
        least log loss of happiness on the validation pictures, on which no other figure is measured.
    """
    emotions = np.array(emotions_of_labels(labels))
    truth = {name: emotions[part.labels.numpy()] for name, part in parts.items()}
    test = parts["test"]

    def read(faces: LabelledFaces) -> list[np.ndarray]:
        return [
            affect.classify(crop_faces(faces, scale=affect.scale, shift=affect.shift, side=affect.side))
            for affect in models.values()
        ]

    happy = truth["validation"] == HAPPINESS
    losses = {}
    for seed, probabilities in zip(models, read(parts["validation"])):
        smile = probabilities[:, HAPPINESS].clip(1e-6, 1 - 1e-6)
        losses[seed] = float(-np.log(np.where(happy, smile, 1 - smile)).mean())

    conditions = {}
    for condition, faces in degrade(test).items():
        statistics = [affect_statistics(probabilities, truth["test"]) for probabilities in read(faces)]
        names = list(statistics[0])
        if condition == CLEAN:
            once = np.ones(len(test.labels))
            by_seed = [{name: statistic(once) for name, statistic in each.items()} for each in statistics]
        else:
            names = names[:4]  # those of happiness
        conditions[condition] = {
            name: list(interval_over_persons([each[name] for each in statistics], test.persons, RESAMPLES))
            for name in names
        }
    return {
        "seeds": list(models),
        "chosen_seed": min(losses, key=losses.get),
        "validation_log_loss": losses,
        "test": conditions.pop(CLEAN),
        "test_by_seed": dict(zip(models, by_seed)),
        "test_counts": {EMOTIONS[index]: int((truth["test"] == index).sum()) for index in np.unique(truth["test"])},
        "train_counts": {EMOTIONS[index]: int((truth["train"] == index).sum()) for index in np.unique(emotions)},
        "robustness": conditions,
    }
