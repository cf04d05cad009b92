"""Figures and card of a classifier of faces, for `train_affect.py` and `mix_affect.py`."""

from collections.abc import Mapping

import numpy as np
import torch
from huggingface_hub import ModelCard
from PIL import Image

from geli_hf.affect.classify import ImageAffect
from geli_hf.affect.emotions import EMOTIONS, HAPPINESS, emotions_of_labels
from geli_hf.affect.faces import Box
from geli_hf.evaluation.affect import affect_statistics, interval_over_persons
from geli_hf.hub.cards import Measured, facial_affect_card
from geli_hf.metrics import Interval
from geli_hf.models.facial_affect.configuration_affect import FacialAffectConfig
from geli_hf.training.affect import LabelledFaces, crop_faces

CLEAN = "as they are"  # the faces of the test pictures without any change
FEW = 50  # pictures of an emotion, below which its figures are marked as unreliable,
LEAST_RECALL = 0.3  # as they are below this recall


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
        "over-exposed, twice the light": faces._replace(pictures=(2 * faces.pictures.int()).clamp(max=255).byte()),
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
            name: list(interval_over_persons([each[name] for each in statistics], test.persons)) for name in names
        }
    return {
        "seeds": list(models),
        "chosen_seed": min(losses, key=losses.get),
        "validation_log_loss": losses,
        "test": conditions.pop(CLEAN),
        "test_by_seed": dict(zip(models, by_seed)),
        **{
            f"{name}_{what}": {
                EMOTIONS[index]: len(kind(parts[name].persons[truth[name] == index]))
                for index in np.unique(emotions if name == "train" else truth[name])
            }
            for name in ("test", "train")
            for what, kind in (("counts", list), ("persons", set))
        },
        "robustness": conditions,
    }


def figure_table(figures: dict) -> str:
    one = len(figures["seeds"]) == 1
    rows = [
        f"| on unseen persons | {'' if one else 'mean of the seeds | the model here'} |",
        f"| --- | ---: |{'' if one else ' ---: |'}",
    ]
    own = {str(seed): each for seed, each in figures["test_by_seed"].items()}[str(figures["chosen_seed"])]
    for name, interval in figures["test"].items():
        if not name.startswith("recall"):
            rows.append(f"| {name} | {Interval(*interval)} |{'' if one else f' {own[name]:.3f} |'}")
    return "\n".join(rows)


def recall_table(figures: dict) -> str:
    """Compare the recall of each emotion; out of fold too, where that was measured."""
    learnt = figures.get("out_of_fold")
    rows = [
        f"| emotion | pictures to learn from | {'recall out of fold | ' if learnt else ''}test pictures | recall |",
        f"| --- | ---: | {'---: | ' if learnt else ''}---: | ---: |",
    ]
    for emotion in figures["train_counts"]:
        name, cells, recalls = f"recall {emotion}", [], []
        for part, found in (("train", learnt), ("test", figures["test"])):
            count, persons = (figures[f"{part}_{what}"].get(emotion, 0) for what in ("counts", "persons"))
            cells.append(f"{count} of {persons} persons" if count else "0")
            if found is not None:
                cells.append(str(Interval(*found[name])) if count else "–")
                recalls.append((count, found[name][0] if count else 0.0))
        told = any(count >= FEW and recall >= LEAST_RECALL for count, recall in recalls)
        rows.append(f"| {emotion}{'' if told else ' (unreliable)'} | {' | '.join(cells)} |")
    return "\n".join(rows)


def negatives_table(found: dict) -> str:
    rows = ["| AUC, out of fold |  |", "| --- | ---: |"]
    rows += [f"| {name} | {Interval(*found[name])} |" for name in found if "against" in name]
    return "\n".join(rows)


def robustness_table(figures: dict) -> str:
    names = ["happiness AUC", "happiness balanced accuracy", "happiness ECE"]
    rows = [f"| faces | {' | '.join(names)} |", "| --- | ---: | ---: | ---: |"]
    for condition, row in ({"as they are": figures["test"]} | figures["robustness"]).items():
        rows.append(f"| {condition} | {' | '.join(str(Interval(*row[name])) for name in names)} |")
    return "\n".join(rows)


def card(figures: dict, config: FacialAffectConfig) -> ModelCard:
    """Render the card of the chosen model from the figures of a run and the model's configuration."""
    shown = {
        name: f"{part['pictures']} pictures of {part['persons']} {'other ' if name == 'validation' else ''}persons"
        for name, part in figures["parts"].items()
    }
    learnt = figures.get("out_of_fold")
    tried, chosen = figures.get("of_seeds", (len(figures["seeds"]), figures["chosen_seed"]))
    seeds = "" if len(figures["seeds"]) == 1 else f", mean of {len(figures['seeds'])} seeds"
    headline = {
        "happiness AUC": "roc_auc",
        "happiness accuracy": "accuracy",
        "happiness ECE": "expected_calibration_error",
    }
    return facial_affect_card(
        "facial_affect",
        config=config,
        figures=[Measured(f"{name}{seeds}", kind, figures["test"][name]) for name, kind in headline.items()],
        measured_on={"type": "faces", "name": f"pictures of {figures['parts']['test']['persons']} unseen persons"},
        metadata={"license": figures["license"]},
        training_data=figures["source"],
        held_out=f"{shown['test']}, none of whom is in training",
        learnt=shown["train"],
        calibrated=shown["validation"],
        seeds=tried,
        chosen_seed=chosen,
        scale=figures["scale"],
        shift=figures["shift"],
        figures_table=figure_table(figures),
        recall=recall_table(figures),
        negatives=None if learnt is None else negatives_table(learnt),
        robustness=robustness_table(figures),
        made=figures["made"],
    )
