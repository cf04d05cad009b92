"""Training of the classifier of faces: labelled pictures, augmentation, the trainer, and calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import WeightedRandomSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from ..affect.emotions import emotions_of_labels
from ..affect.faces import Box, square_crop
from ..models.facial_affect.image_processing_affect import FacialAffectImageProcessor, standardise
from ..models.facial_affect.modeling_affect import FacialAffectModel


@dataclass
class AffectRecipe:
    """Settings of the sampling, the running mean and the augmentation."""

    balance: float = field(default=0.5, metadata={"help": "Draw a label count**-balance times as often; 1: evenly."})
    average: float = field(default=0.999, metadata={"help": "Decay of the running mean of the weights."})
    rotation: float = field(default=12.0, metadata={"help": "Degrees to either side."})
    zoom: float = field(default=0.2, metadata={"help": "Share by which a face is cut out too narrow or too wide."})
    shift: float = field(default=0.1, metadata={"help": "Distance beside the face, in sides of what is cut out."})
    blurred: float = field(default=0.375, metadata={"help": "Share of faces that are reduced to 16 to 40 pixels."})
    gamma: float = field(default=0.5, metadata={"help": "Log of the greatest change of gamma."})
    light: float = field(default=0.4, metadata={"help": "Greatest slope of light over the face."})
    noise: float = field(default=0.15, metadata={"help": "Greatest noise, in deviations of the face."})


class LabelledFaces(NamedTuple):
    """Pictures of faces whose emotions are known.

    Attributes:
        pictures: (n, side, side) uint8.
        labels: (n,).
        persons: (n,), a name for each picture.
        box: of the detector, the same in every picture, in pixels.
    """

    pictures: torch.Tensor
    labels: torch.Tensor
    persons: np.ndarray
    box: Box


def load_faces(paths: Mapping[str, str], *, side: int, box: Sequence[float]) -> tuple[dict[str, LabelledFaces], list]:
    """Load the parts of a data set of faces into memory.

    Args:
        paths: Parquet file of each part, with the columns `image`, `label` (a ClassLabel of emotions) and `person`.
        side: pixels of the squares to which pictures are brought.
        box: of the detector: left, top, width, height, in sides of a picture.

    Returns:
        The parts, and the names of the labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or the parts have other labels, or show the same person.
    """
    parts, names = {}, []
    for part, path in paths.items():
        table = datasets.Dataset.from_parquet(path)
        if missing := {"image", "label", "person"} - set(table.column_names):
            raise ValueError(f"{path} lacks the columns {', '.join(sorted(missing))}")
        labels = getattr(table.features["label"], "names", None)
        names = names or labels
        if labels is None or labels != names:
            raise ValueError(f"{path}: expected `label` as a ClassLabel, the same in all parts")
        pictures = [image.convert("L").resize((side, side), Image.Resampling.BILINEAR) for image in table["image"]]
        parts[part] = LabelledFaces(
            torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])),
            torch.tensor(table["label"][:]),
            np.array(table["person"][:], str),
            Box(*(value * side for value in box)),
        )
        for other in parts:
            if other != part and (both := {*parts[other].persons} & {*parts[part].persons}):
                raise ValueError(f"person {str(min(both))!r} is in {other} and {part}; split by person")
    emotions_of_labels(names)
    return parts, names


def crop_faces(faces: LabelledFaces, *, scale: float, shift: float, side: int) -> np.ndarray:
    """Cut out faces, (n, side, side) uint8, as wherever the model is used; see `square_crop`."""
    crops = [square_crop(x, faces.box, scale=scale, shift=shift, side=side) for x in faces.pictures.numpy()]
    return np.stack(crops)


def label_weights(faces: LabelledFaces, balance: float) -> torch.Tensor:
    """Compute (n,), how often each picture is drawn: the count of its label to the power of -balance."""
    return torch.bincount(faces.labels).double()[faces.labels] ** -balance


class Augmenter:
    """Collator from the numbers of training pictures to faces that are turned, moved, blurred and lit anew.

    Args:
        faces: training pictures.
        processor: of the model; says where a face is cut out.
        recipe: strengths.
    """

    def __init__(self, faces: LabelledFaces, processor: FacialAffectImageProcessor, recipe: AffectRecipe):
        self.faces, self.recipe, self.side = faces, recipe, processor.size["height"]
        box = Box(*(value / faces.pictures.shape[-1] for value in faces.box))
        length = max(box.width, box.height)
        self.length = length * processor.scale  # of the square that is cut out, in sides of the picture
        self.centre = (box.x + box.width / 2, box.y + box.height / 2 + length * processor.shift)

    def __call__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        """Make a batch of `pixel_values` (rows, 1, side, side) and `labels` (rows,)."""
        rows = torch.tensor(rows)
        recipe, n = self.recipe, len(rows)
        faces = functional.grid_sample(
            self.faces.pictures[rows, None].float(), self._grid(n), padding_mode="border", align_corners=False
        )
        # Two groups of the batch (it comes in random order) are reduced, each to a size of its own.
        blurred = round(n * recipe.blurred)
        groups = faces.split([blurred - blurred // 3, blurred // 3, n - blurred])
        faces = torch.cat([*map(_blur, groups[:2]), groups[2]])
        gamma = torch.exp(_uniform(-recipe.gamma, recipe.gamma, n, 1, 1, 1))
        faces = 255 * (faces.clamp(0, 255) / 255) ** gamma
        slope = torch.linspace(-1, 1, self.side)
        for ramp in (slope, slope[:, None]):
            faces = faces * (1 + _uniform(-recipe.light, recipe.light, n, 1, 1, 1) * ramp)
        faces = standardise(faces[:, 0])
        faces = faces + torch.randn_like(faces) * _uniform(0, recipe.noise, n, 1, 1, 1)
        return {"pixel_values": faces, "labels": self.faces.labels[rows]}

    def _grid(self, n: int) -> torch.Tensor:
        recipe = self.recipe
        size = self.length * _uniform(1 - recipe.zoom, 1 + recipe.zoom, n)
        angle = torch.deg2rad(_uniform(-recipe.rotation, recipe.rotation, n))
        mirrored = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
        # The coordinates of `affine_grid` run from -1 to 1 over the picture.
        x, y = (2 * centre - 1 + 2 * self.length * _uniform(-recipe.shift, recipe.shift, n) for centre in self.centre)
        cosine, sine = size * torch.cos(angle), size * torch.sin(angle)
        rows = [torch.stack([mirrored * cosine, -sine, x], -1), torch.stack([mirrored * sine, cosine, y], -1)]
        return functional.affine_grid(torch.stack(rows, 1), (n, 1, self.side, self.side), align_corners=False)


def _blur(faces: torch.Tensor) -> torch.Tensor:
    if not len(faces):
        return faces
    pixels = [int(torch.randint(16, 41, ()))] * 2
    small = functional.interpolate(faces, pixels, mode="bilinear", antialias=True)
    return functional.interpolate(small, faces.shape[2:], mode="bilinear")


def _uniform(low: float, high: float, *shape: int) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape)


class _WeightedTrainer(Trainer):
    """Draws each row of the training data as often as its weight says."""

    weights: torch.Tensor

    def _get_train_sampler(self, *args, **kwargs):
        generator = torch.Generator().manual_seed(self.args.seed)  # the same in every process
        return WeightedRandomSampler(self.weights, len(self.weights), generator=generator)


class _RunningMean(TrainerCallback):
    """Keeps the running mean of the weights in an `AveragedModel`."""

    def __init__(self, mean: AveragedModel):
        self.mean = mean

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.mean.update_parameters(model)


def train_affect(
    model: FacialAffectModel,
    faces: LabelledFaces,
    processor: FacialAffectImageProcessor,
    recipe: AffectRecipe,
    arguments: TrainingArguments,
) -> FacialAffectModel:
    """Train a classifier of faces.

    Args:
        model: with the labels of the faces, in training mode.
        faces: training pictures.
        processor: of the model; says where a face is cut out.
        recipe: sampling, running mean and augmentation.
        arguments: of the trainer.

    Returns:
        The running mean of the model, on the CPU, not calibrated yet.
    """

    def average(mean: torch.Tensor, current: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        if not mean.is_floating_point():
            return current
        # The first steps are soon forgotten.
        return torch.lerp(mean, current, 1 - min(recipe.average, (int(steps) + 1) / (int(steps) + 10)))

    trainer = _WeightedTrainer(
        model.to(memory_format=torch.channels_last),
        arguments,
        train_dataset=range(len(faces.labels)),
        data_collator=Augmenter(faces, processor, recipe),
    )
    trainer.weights = label_weights(faces, recipe.balance)
    mean = AveragedModel(trainer.model, avg_fn=average, use_buffers=True)
    trainer.add_callback(_RunningMean(mean))
    trainer.train()
    return mean.module.eval().cpu()


@torch.no_grad()
def calibrate(
    model: FacialAffectModel,
    faces: LabelledFaces,
    processor: FacialAffectImageProcessor,
    shares: torch.Tensor,
    prior: float = 1.0,
) -> None:
    """Write the correction of a model's scores into its configuration (Guo et al., arXiv 1706.04599).

        log_prior_shift = prior (log(share in the validation pictures) - log(share in training))

    Of a person with many pictures each counts less (one over the root of their number), and a few pictures with
    training's shares are added, so that a label without validation pictures stays possible. The temperature is the one
    of the least log loss.

    Args:
        model: to be calibrated, with temperature 1 and no shift.
        faces: validation pictures.
        processor: of the model.
        shares: (labels,), how often training draws each label.
        prior: less than 1 where the model is used on faces whose labels are more evenly frequent than those of the
            validation pictures.
    """
    side = model.config.image_size
    crops = torch.from_numpy(crop_faces(faces, scale=processor.scale, shift=processor.shift, side=side))
    scores = torch.cat([model(standardise(batch)).logits for batch in crops.split(64)])
    _, person, pictures = np.unique(faces.persons, return_inverse=True, return_counts=True)
    weight = torch.from_numpy(pictures[person] ** -0.5).float()
    shares = (shares / shares.sum()).float()
    smoothed = torch.bincount(faces.labels, weight, minlength=len(shares)) + 5 * shares
    shift = prior * (torch.log(smoothed / smoothed.sum()) - torch.log(shares.clamp(min=1e-9)))
    log_temperature = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        losses = functional.cross_entropy(scores / log_temperature.exp() + shift, faces.labels, reduction="none")
        loss = (losses * weight).sum() / weight.sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    model.config.temperature = round(log_temperature.exp().item(), 4)
    model.config.log_prior_shift = [round(value, 4) for value in shift.tolist()]


def save_affect(model: FacialAffectModel, processor: FacialAffectImageProcessor, folder: Path) -> None:
    """Save a model in half precision, which it leaves when it is loaded, and its image processor."""
    weights = {
        name: weight.half() if weight.is_floating_point() else weight
        for name, weight in model.to(memory_format=torch.contiguous_format).state_dict().items()
    }
    model.save_pretrained(folder, state_dict=weights)
    processor.save_pretrained(folder)
