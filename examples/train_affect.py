"""A classifier of facial affect from labelled pictures of faces.

    accelerate launch examples/train_affect.py --config examples/configs/affect.yaml --data.train faces/train.parquet \
        --data.validation faces/validation.parquet --data.test faces/test.parquet

Trains one model per seed, calibrates each on the validation pictures, measures all on the test pictures, and leaves in
`output_dir`:

    seed_<n>/         the models, one per seed
    model/            the one that is best on the validation pictures, with its card
    metrics.json      every figure, with 95 % intervals over persons
    reliability.png   how often a face smiled, against how probable the models said it was

Every setting stands in the YAML file, and the command line overrides it: `--seeds [0] --training.num_train_epochs 5`.
A run that was stopped goes on with `--resume`: seeds that are finished are kept.
"""

import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import torch
from accelerate import PartialState
from huggingface_hub import ModelCard
from matplotlib.figure import Figure
from PIL import Image
from torch.nn import functional
from torch.utils.data import Dataset, WeightedRandomSampler
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from geli_hf.affect.classify import ImageAffect
from geli_hf.affect.emotions import EMOTIONS, HAPPINESS, emotions_of_labels
from geli_hf.affect.faces import Box, square_crop
from geli_hf.cache import whole
from geli_hf.hub.cards import Measured, facial_affect_card, made, own_card, save_card
from geli_hf.metrics import Interval
from geli_hf.models.facial_affect.configuration_affect import FacialAffectConfig
from geli_hf.models.facial_affect.image_processing_affect import FacialAffectImageProcessor, standardise
from geli_hf.models.facial_affect.modeling_affect import FacialAffectModel
from geli_hf.settings import SettingsError, build, claim, parse_settings

RESAMPLES = 1000
FEW = 50  # an emotion with fewer test pictures is marked as one that the figures say little of


@dataclass
class RunSettings:
    output_dir: str = field(metadata={"help": "Where everything goes."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "A model is trained for each."})
    resume: bool = field(default=False, metadata={"help": "Go on with the run in output_dir; keep what is finished."})


@dataclass
class DataSettings:
    """A part is a Parquet file, or a folder of pictures as `datasets` reads it (`imagefolder` with a metadata file).
    Columns: `image`, `label` (a ClassLabel of emotions) and `person`."""

    train: str = field(metadata={"help": "Pictures to learn from."})
    validation: str = field(metadata={"help": "Pictures to calibrate and to choose the seed on."})
    test: str = field(metadata={"help": "Pictures to measure on."})
    side: int = field(default=80, metadata={"help": "Pictures are brought to squares of so many pixels."})
    box: list[float] = field(
        default_factory=lambda: [0.0, 0.0, 1.0, 1.0],
        metadata={"help": "Where the detector's box lies in a picture: left, top, width, height, in its sides."},
    )
    source: str = field(default="not told", metadata={"help": "Where the pictures come from, for the card."})


@dataclass
class ModelSettings:
    config: dict = field(default_factory=dict, metadata={"help": "Fields of FacialAffectConfig."})
    pretrained: bool = field(default=False, metadata={"help": "Start from torchvision's weights of the backbone."})
    scale: float = field(default=1.0, metadata={"help": "Side of what is cut out, in sides of the detector's box."})
    shift: float = field(default=0.0, metadata={"help": "How far below the middle of the box, in its sides."})
    license: str = field(default="apache-2.0", metadata={"help": "Of the weights, for the card."})


@dataclass
class RecipeSettings:
    balance: float = field(default=0.5, metadata={"help": "Draw a label count**-balance times as often; 1: evenly."})
    average: float = field(default=0.999, metadata={"help": "Decay of the running mean of the weights."})
    rotation: float = field(default=12.0, metadata={"help": "Degrees to either side."})
    zoom: float = field(default=0.2, metadata={"help": "Share by which a face is cut out too narrow or too wide."})
    shift: float = field(default=0.1, metadata={"help": "How far beside the face, in sides of what is cut out."})
    blurred: float = field(default=0.375, metadata={"help": "Share of faces that are reduced to 16 to 40 pixels."})
    gamma: float = field(default=0.5, metadata={"help": "Log of the greatest change of gamma."})
    light: float = field(default=0.4, metadata={"help": "Greatest slope of light over the face."})
    noise: float = field(default=0.15, metadata={"help": "Greatest noise, in deviations of the face."})


class Part(NamedTuple):
    pictures: torch.Tensor  # (n, side, side) uint8
    labels: torch.Tensor  # (n,)
    persons: np.ndarray  # (n,)


def main(argv: list[str]) -> None:
    begun = time.monotonic()
    sections = {
        "data": DataSettings,
        "model": ModelSettings,
        "recipe": RecipeSettings,
        "training": TrainingArguments,
    }
    settings = parse_settings(argv, RunSettings, sections)
    run = build(RunSettings, settings[""])
    data, model, recipe = (build(sections[name], settings[name]) for name in ("data", "model", "recipe"))
    state, output = PartialState(cpu=not torch.accelerator.is_available()), Path(run.output_dir)
    if state.is_main_process:
        lasting = {name: {k: v for k, v in part.items() if name or k == "seeds"} for name, part in settings.items()}
        claim(output, lasting, run.resume)
    with state.main_process_first():
        parts, names = load_parts(data)
    for seed in run.seeds:
        folder = output / f"seed_{seed}"
        if folder.exists():
            state.print(f"{folder} is there already and is kept")
            continue
        trained = train(settings["training"], data, model, recipe, parts["train"], names, seed, output)
        if state.is_main_process:
            calibrate(trained, parts["validation"], data, model, drawn_shares(parts["train"], recipe, len(names)))
            with whole(folder) as target:
                save(trained, model, target)
        state.wait_for_everyone()
    if state.is_main_process:
        figures = evaluate(output, run.seeds, parts, data, names)
        given = {name: part for name, part in settings.items() if name and part}
        command = ["python", "examples/train_affect.py", *argv]
        figures["made"] = made(command, settings=given, seconds=time.monotonic() - begun)
        write_model(output, figures | about(data, model, parts))
        print(f"{output}: {figure_table(figures)}")


# ------------------------------------------------------------------------------------------------ data


def load_parts(data: DataSettings) -> tuple[dict[str, Part], list[str]]:
    """The pictures in memory, and the names of the labels.

    Raises:
        SettingsError: a column is missing, the parts have other labels, or show the same person.
    """
    parts, names = {}, {}
    for name in ("train", "validation", "test"):
        path = getattr(data, name)
        if Path(path).is_dir():
            table = datasets.load_dataset("imagefolder", data_dir=path, split="train")
        elif Path(path).exists():
            table = datasets.Dataset.from_parquet(path)
        else:
            raise SettingsError(f"data.{name}: there is no file or folder {path}")
        if missing := {"image", "label", "person"} - set(table.column_names):
            raise SettingsError(f"data.{name}: {path} lacks the columns {', '.join(sorted(missing))}")
        if not hasattr(table.features["label"], "names"):
            raise SettingsError(f"data.{name}: {path}: expected a ClassLabel as `label`")
        names[name] = table.features["label"].names
        if names[name] != names["train"]:
            raise SettingsError(f"data.{name}: expected the labels {names['train']}, found {names[name]}")
        size = (data.side, data.side)
        pictures = [np.asarray(image.convert("L").resize(size, Image.Resampling.BILINEAR)) for image in table["image"]]
        labels, persons = torch.tensor(table["label"][:]), np.array(table["person"][:], str)
        parts[name] = Part(torch.from_numpy(np.stack(pictures)), labels, persons)
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if both := set(parts[first].persons) & set(parts[second].persons):
            raise SettingsError(
                f"data: person {str(min(both))!r} is in {first} and in {second} ({len(both)} persons are in both); "
                "a model that knows a face proves nothing by reading it: split by person"
            )
    try:
        emotions_of_labels(names["train"])
    except ValueError as error:
        raise SettingsError(f"data.train: {error}") from error
    return parts, names["train"]


def detector_box(data: DataSettings, side: int) -> Box:
    return Box(*(value * side for value in data.box))


def cut(part: Part, data: DataSettings, affect: FacialAffectImageProcessor | ImageAffect, side: int) -> np.ndarray:
    """(n, side, side) uint8: the faces as they are cut out wherever the model is used."""
    box = detector_box(data, data.side)
    return np.stack(
        [square_crop(x, box, scale=affect.scale, shift=affect.shift, side=side) for x in part.pictures.numpy()]
    )


class Augmenter:
    """Collator: from the numbers of training pictures to faces that were turned, moved, blurred and lit anew."""

    def __init__(self, part: Part, data: DataSettings, model: ModelSettings, recipe: RecipeSettings, side: int):
        self.part, self.recipe, self.side = part, recipe, side
        box = detector_box(data, 1)
        length = max(box.width, box.height)
        self.length = length * model.scale  # of what is cut out, in sides of the picture
        self.centre = (box.x + box.width / 2, box.y + box.height / 2 + length * model.shift)

    def __call__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        rows = torch.tensor(rows)
        recipe, n = self.recipe, len(rows)
        faces = functional.grid_sample(
            self.part.pictures[rows, None].float(), self._grid(n), padding_mode="border", align_corners=False
        )
        # Two groups of the batch (it comes in random order) are reduced, each to a size of its own.
        blurred = round(n * recipe.blurred)
        groups = faces.split([blurred - blurred // 3, blurred // 3, n - blurred])
        faces = torch.cat([*map(self._reduced, groups[:2]), groups[2]])
        gamma = torch.exp(_between(-recipe.gamma, recipe.gamma, n, 1, 1, 1))
        faces = 255 * (faces.clamp(0, 255) / 255) ** gamma
        slope = torch.linspace(-1, 1, self.side)
        for ramp in (slope, slope[:, None]):
            faces = faces * (1 + _between(-recipe.light, recipe.light, n, 1, 1, 1) * ramp)
        faces = standardise(faces[:, 0])
        faces = faces + torch.randn_like(faces) * _between(0, recipe.noise, n, 1, 1, 1)
        return {"pixel_values": faces, "labels": self.part.labels[rows]}

    def _grid(self, n: int) -> torch.Tensor:
        recipe = self.recipe
        size = self.length * _between(1 - recipe.zoom, 1 + recipe.zoom, n)
        angle = torch.deg2rad(_between(-recipe.rotation, recipe.rotation, n))
        mirrored = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
        # The coordinates of `affine_grid` run from -1 to 1 over the picture.
        x, y = (2 * centre - 1 + 2 * self.length * _between(-recipe.shift, recipe.shift, n) for centre in self.centre)
        cosine, sine = size * torch.cos(angle), size * torch.sin(angle)
        rows = [torch.stack([mirrored * cosine, -sine, x], -1), torch.stack([mirrored * sine, cosine, y], -1)]
        return functional.affine_grid(torch.stack(rows, 1), (n, 1, self.side, self.side), align_corners=False)

    def _reduced(self, faces: torch.Tensor) -> torch.Tensor:
        if not len(faces):
            return faces
        pixels = [int(torch.randint(16, 41, ()))] * 2
        small = functional.interpolate(faces, pixels, mode="bilinear", antialias=True)
        return functional.interpolate(small, faces.shape[2:], mode="bilinear")


def _between(low: float, high: float, *shape: int) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape)


# ------------------------------------------------------------------------------------------------ training


class Numbers(Dataset):
    """Of the training pictures; the collator makes faces of them."""

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> int:
        return number


class AffectTrainer(Trainer):
    """Draws rare labels more often than they are, and keeps the running mean of the weights."""

    def __init__(self, *args, draw: torch.Tensor, **kwargs):
        super().__init__(*args, **kwargs)
        self.draw = draw

    def _get_train_sampler(self, *args, **kwargs):
        generator = torch.Generator().manual_seed(self.args.seed)  # the same in every process
        return WeightedRandomSampler(self.draw, len(self.draw), generator=generator)


class RunningMean(TrainerCallback):
    def __init__(self, decay: float):
        self.decay, self.steps, self.mean = decay, 0, None

    @torch.no_grad()
    def on_step_end(self, args, state, control, model=None, **kwargs):
        weights = model.state_dict()
        if self.mean is None:
            self.mean = {name: weight.clone() for name, weight in weights.items()}
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 9))  # the first steps are soon forgotten
        for name, weight in weights.items():
            if weight.is_floating_point():
                self.mean[name].lerp_(weight, 1 - decay)
            else:
                self.mean[name].copy_(weight)


def draw_weights(part: Part, recipe: RecipeSettings, labels: int) -> torch.Tensor:
    counts = torch.bincount(part.labels, minlength=labels).double()
    return counts[part.labels] ** -recipe.balance


def drawn_shares(part: Part, recipe: RecipeSettings, labels: int) -> torch.Tensor:
    """(labels,): how often training sees each."""
    shares = torch.bincount(part.labels, draw_weights(part, recipe, labels), minlength=labels)
    return (shares / shares.sum()).float()


def train(
    training: dict,
    data: DataSettings,
    settings: ModelSettings,
    recipe: RecipeSettings,
    part: Part,
    names: list[str],
    seed: int,
    output: Path,
) -> FacialAffectModel:
    PartialState().print(f"Training seed {seed} on {len(part.labels)} pictures", flush=True)
    set_seed(seed)
    config = settings.config | {"id2label": dict(enumerate(names))}
    try:
        if settings.pretrained:
            config = dict(config)
            model = FacialAffectModel.from_torchvision(config.pop("backbone"), **config)
        else:
            model = FacialAffectModel(FacialAffectConfig(**config))
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"model: {error}") from error
    usual = {
        "output_dir": str(output / "checkpoints"),
        "use_cpu": not torch.accelerator.is_available(),
        "ddp_find_unused_parameters": False,
        "save_strategy": "no",
        "report_to": "none",
        "dataloader_drop_last": True,  # batch normalisation wants full batches
        "dataloader_pin_memory": torch.accelerator.is_available(),
    }
    mean = RunningMean(recipe.average)
    trainer = AffectTrainer(
        model.to(memory_format=torch.channels_last),
        build(TrainingArguments, usual | training | {"seed": seed}),
        train_dataset=Numbers(len(part.labels)),
        data_collator=Augmenter(part, data, settings, recipe, model.config.image_size),
        draw=draw_weights(part, recipe, len(names)),
        callbacks=[mean],
    )
    trainer.train()
    trained = trainer.accelerator.unwrap_model(trainer.model)
    trained.load_state_dict({name.removeprefix("module."): weight for name, weight in mean.mean.items()})
    return trained.eval().cpu()


def calibrate(
    model: FacialAffectModel, part: Part, data: DataSettings, settings: ModelSettings, drawn: torch.Tensor
) -> None:
    """Write into the model's configuration how to correct its scores.

    The shift is log(share in the validation pictures) - log(share in training). Of a person with many pictures each
    counts less (one over the root of their number), and a few pictures with training's shares are added, so that a
    label which is not among them stays possible. The temperature is the one of the least log loss.
    """
    side = model.config.image_size
    faces = torch.from_numpy(
        cut(part, data, FacialAffectImageProcessor(scale=settings.scale, shift=settings.shift), side)
    )
    with torch.no_grad():
        scores = torch.cat([model(standardise(batch)).logits for batch in faces.split(64)])
    _, person, pictures = np.unique(part.persons, return_inverse=True, return_counts=True)
    weight = torch.from_numpy(pictures[person] ** -0.5).float()
    shares = torch.bincount(part.labels, weight, minlength=len(drawn)) + 5 * drawn
    shift = torch.log(shares / shares.sum()) - torch.log(drawn.clamp(min=1e-9))
    log_temperature = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        losses = functional.cross_entropy(scores / log_temperature.exp() + shift, part.labels, reduction="none")
        loss = (losses * weight).sum() / weight.sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    model.config.temperature = round(log_temperature.exp().item(), 4)
    model.config.log_prior_shift = [round(value, 4) for value in shift.tolist()]


def save(model: FacialAffectModel, settings: ModelSettings, folder: Path) -> None:
    """Half precision on disk, single precision when it is loaded: half of it is noise of training anyway."""
    weights = {
        name: weight.half() if weight.is_floating_point() else weight
        for name, weight in model.to(memory_format=torch.contiguous_format).state_dict().items()
    }
    model.save_pretrained(folder, state_dict=weights)
    side = model.config.image_size
    processor = FacialAffectImageProcessor({"height": side, "width": side}, settings.scale, settings.shift)
    processor.save_pretrained(folder)


# ------------------------------------------------------------------------------------------------ evaluation


def smile_auc(smile: np.ndarray, truth: np.ndarray, times: np.ndarray) -> float:
    """Area under the ROC curve where picture i occurs `times[i]` times; a tie counts .5."""
    _, code = np.unique(smile, return_inverse=True)
    positive, negative = np.bincount(code, times * truth), np.bincount(code, times * ~truth)
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / (positive.sum() * negative.sum()))


def smile_ece(smile: np.ndarray, truth: np.ndarray, times: np.ndarray) -> float:
    """Expected calibration error in ten bins of equal width (Guo et al., arXiv 1706.04599)."""
    code = np.minimum((smile * 10).astype(int), 9)
    gap = np.bincount(code, times * (smile - truth), minlength=10)
    return float(np.abs(gap).sum() / times.sum())


def accuracy(right: np.ndarray, times: np.ndarray) -> float:
    total = times.sum()
    return float((right * times).sum() / total) if total else math.nan


def statistics(probabilities: np.ndarray, emotions: np.ndarray) -> dict[str, Callable[[np.ndarray], float]]:
    """Every figure of one model as a function of how often each picture occurs."""
    smile, truth = probabilities[:, HAPPINESS].astype(float), emotions == HAPPINESS
    best = np.nanargmax(probabilities, 1)

    def balanced(times: np.ndarray) -> float:
        return (accuracy(smile > 0.5, times * truth) + accuracy(smile <= 0.5, times * ~truth)) / 2

    return {
        "happiness AUC": lambda times: smile_auc(smile, truth, times),
        "happiness balanced accuracy": balanced,
        "happiness accuracy": lambda times: accuracy((smile > 0.5) == truth, times),
        "happiness ECE": lambda times: smile_ece(smile, truth, times),
        "accuracy": lambda times: accuracy(best == emotions, times),
    } | {
        f"recall {EMOTIONS[index]}": lambda times, index=index: accuracy(best == index, times * (emotions == index))
        for index in np.unique(emotions)
    }


def with_interval(functions: list[Callable[[np.ndarray], float]], persons: np.ndarray, resamples: int) -> Interval:
    """Mean of a figure over the seeds, with its 95 % bootstrap interval over persons."""
    _, code = np.unique(persons, return_inverse=True)
    count, rng = code.max() + 1, np.random.default_rng(0)

    def mean(times: np.ndarray) -> float:
        return float(np.mean([function(times) for function in functions]))

    drawn = [mean(np.bincount(rng.integers(0, count, count), minlength=count)[code]) for _ in range(resamples)]
    return Interval(mean(np.ones(len(code))), *np.nanpercentile(drawn, [2.5, 97.5]).tolist())


def harder(part: Part, data: DataSettings) -> dict[str, Callable[[ImageAffect], np.ndarray]]:
    """The test faces as they are, and as a bad camera or a careless detector would have them."""
    box = detector_box(data, data.side)
    pictures = part.pictures.numpy()

    def crops(pictures, box: Box) -> Callable[[ImageAffect], np.ndarray]:
        return lambda affect: np.stack([affect.crop(picture, box) for picture in pictures])

    def moved(size: float = 1.0, right: float = 0.0, down: float = 0.0) -> Callable[[ImageAffect], np.ndarray]:
        width, height = box.width * size, box.height * size
        x = box.x + box.width * (0.5 + right) - width / 2
        return crops(pictures, Box(x, box.y + box.height * (0.5 + down) - height / 2, width, height))

    pixels = round(24 / data.box[2])
    small = [np.asarray(Image.fromarray(x).resize((pixels, pixels), Image.Resampling.BOX)) for x in pictures]
    return {
        "as they are": crops(pictures, box),
        "a box of 24 pixels": crops(small, detector_box(data, pixels)),
        "a box 10 % too small": moved(0.9),
        "a box 10 % too large": moved(1.1),
        "a box 10 % too far left": moved(right=-0.1),
        "a box 10 % too far right": moved(right=0.1),
        "a box 10 % too high": moved(down=-0.1),
        "a box 10 % too low": moved(down=0.1),
        "a quarter of the light": crops((pictures * 0.25).round().astype(np.uint8), box),
    }


def evaluate(output: Path, seeds: list[int], parts: dict[str, Part], data: DataSettings, names: list[str]) -> dict:
    """Every figure, by name; those of the test pictures as [mean over the seeds, low, high]."""
    emotions = np.array(emotions_of_labels(names))
    truth = {name: emotions[part.labels.numpy()] for name, part in parts.items()}
    test, validation = parts["test"], parts["validation"]
    models = {seed: ImageAffect(output / f"seed_{seed}") for seed in seeds}

    # Chosen by the log loss of the happiness that the validation pictures show, which nothing else here is about.
    losses = {}
    for seed, affect in models.items():
        smile = affect.classify(cut(validation, data, affect, affect.side))[:, HAPPINESS].clip(1e-6, 1 - 1e-6)
        happy = truth["validation"] == HAPPINESS
        losses[seed] = float(-np.log(np.where(happy, smile, 1 - smile)).mean())
    chosen = min(losses, key=losses.get)

    conditions, read = {}, {}
    for condition, crops in harder(test, data).items():
        read[condition] = [affect.classify(crops(affect)) for affect in models.values()]
        functions = [statistics(each, truth["test"]) for each in read[condition]]
        wanted = list(functions[0])[: None if condition == "as they are" else 4]
        conditions[condition] = {
            name: list(with_interval([each[name] for each in functions], test.persons, RESAMPLES)) for name in wanted
        }
    once = np.ones(len(test.labels))
    per_seed = {
        seed: {name: function(once) for name, function in statistics(each, truth["test"]).items()}
        for seed, each in zip(models, read["as they are"])
    }
    smiles = [each[:, HAPPINESS] for each in read["as they are"]]
    draw_reliability(smiles, truth["test"] == HAPPINESS, output / "reliability.png")
    return {
        "seeds": seeds,
        "chosen_seed": chosen,
        "validation_log_loss": losses,
        "test": conditions.pop("as they are"),
        "test_by_seed": per_seed,
        "test_counts": {EMOTIONS[index]: int((truth["test"] == index).sum()) for index in np.unique(truth["test"])},
        "train_counts": {EMOTIONS[index]: int((truth["train"] == index).sum()) for index in np.unique(emotions)},
        "robustness": conditions,
    }


def draw_reliability(smiles: list[np.ndarray], truth: np.ndarray, path: Path) -> None:
    figure = Figure(figsize=(5, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#7d7d7d", linewidth=0.8, linestyle=":", label="calibrated")
    for index, smile in enumerate(smiles):
        code = np.minimum((smile * 10).astype(int), 9)
        count = np.bincount(code, minlength=10)
        seen = count >= 5
        said = np.bincount(code, smile, minlength=10)[seen] / count[seen]
        label = "one model per line" if index == 0 else None
        axes.plot(said, np.bincount(code, truth, minlength=10)[seen] / count[seen], "o-", markersize=4, label=label)
    axes.set(
        xlabel="probability of happiness", ylabel="share of happy faces", title="Reliability on the test pictures"
    )
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, format="png")


# ------------------------------------------------------------------------------------------------ the card


def figure_table(figures: dict) -> str:
    rows = ["| on unseen persons | mean of the seeds | the model here |", "| --- | ---: | ---: |"]
    own = {str(seed): each for seed, each in figures["test_by_seed"].items()}[str(figures["chosen_seed"])]
    for name, interval in figures["test"].items():
        if not name.startswith("recall"):
            rows.append(f"| {name} | {Interval(*interval)} | {own[name]:.3f} |")
    return "\n".join(rows)


def recall_table(figures: dict) -> str:
    rows = ["| emotion | pictures to learn from | test pictures | recall |", "| --- | ---: | ---: | ---: |"]
    for emotion, learnt in figures["train_counts"].items():
        count = figures["test_counts"].get(emotion, 0)
        recall = str(Interval(*figures["test"][f"recall {emotion}"])) if count else "–"
        rows.append(f"| {emotion}{' (unreliable)' if count < FEW else ''} | {learnt} | {count} | {recall} |")
    return "\n".join(rows)


def robustness_table(figures: dict) -> str:
    names = ["happiness AUC", "happiness balanced accuracy", "happiness ECE"]
    rows = [f"| faces | {' | '.join(names)} |", "| --- | ---: | ---: | ---: |"]
    for condition, row in ({"as they are": figures["test"]} | figures["robustness"]).items():
        rows.append(f"| {condition} | {' | '.join(str(Interval(*row[name])) for name in names)} |")
    return "\n".join(rows)


def about(data: DataSettings, model: ModelSettings, parts: dict[str, Part]) -> dict:
    """What else a card has to say, beside the figures."""
    return {
        "source": data.source,
        "license": model.license,
        "scale": model.scale,
        "shift": model.shift,
        "parts": {
            name: {"pictures": len(part.labels), "persons": len(set(part.persons))} for name, part in parts.items()
        },
    }


def card(figures: dict, config: FacialAffectConfig) -> ModelCard:
    """The card of the chosen model, from nothing but the figures of a run and the model's configuration."""
    of = {
        name: f"{part['pictures']} pictures of {part['persons']} {'other ' if name == 'validation' else ''}persons"
        for name, part in figures["parts"].items()
    }
    headline = {
        "happiness AUC": "roc_auc",
        "happiness accuracy": "accuracy",
        "happiness ECE": "expected_calibration_error",
    }
    return facial_affect_card(
        "facial_affect",
        config=config,
        figures=[
            Measured(f"{name}, mean of {len(figures['seeds'])} seeds", kind, figures["test"][name])
            for name, kind in headline.items()
        ],
        measured_on={"type": "faces", "name": f"pictures of {figures['parts']['test']['persons']} unseen persons"},
        metadata={"license": figures["license"]},
        training_data=figures["source"],
        held_out=f"{of['test']}, none of whom is in training",
        learnt=of["train"],
        calibrated=of["validation"],
        seeds=len(figures["seeds"]),
        chosen_seed=figures["chosen_seed"],
        scale=figures["scale"],
        shift=figures["shift"],
        figures_table=figure_table(figures),
        recall=recall_table(figures),
        robustness=robustness_table(figures),
        made=figures["made"],
    )


def write_model(output: Path, figures: dict) -> None:
    """The model of the chosen seed with its card and all figures, in a folder of its own."""
    text = json.dumps(figures, indent=2) + "\n"
    with whole(output / "metrics.json") as path:
        path.write_text(text, encoding="utf-8")
    chosen, target = output / f"seed_{figures['chosen_seed']}", output / "model"
    edited = own_card(target)
    shutil.rmtree(target, ignore_errors=True)
    with whole(target) as folder:
        shutil.copytree(chosen, folder)
        (folder / "figures.json").write_text(text, encoding="utf-8")
        if edited is not None:
            (folder / "README.md").write_text(edited, encoding="utf-8")
        save_card(card(figures, FacialAffectConfig.from_pretrained(chosen)), folder)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (SettingsError, FileNotFoundError) as error:
        sys.exit(f"train_affect: {error}")
