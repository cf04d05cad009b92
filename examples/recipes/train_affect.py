"""A classifier of facial affect from labelled pictures of faces.

    accelerate launch examples/recipes/train_affect.py --config examples/configs/affect.yaml \
        --data.train faces/train.parquet --data.validation faces/validation.parquet --data.test faces/test.parquet

Trains one model per seed, calibrates each on the validation pictures, measures all on the test pictures, and leaves in
`output_dir`:

    seed_<n>/         the models, one per seed
    model/            the one that is best on the validation pictures, with its card
    metrics.json      every figure, with 95 % intervals over persons

Every setting stands in the YAML file, and the command line overrides it: `--seeds [0] --training.num_train_epochs 5`.
A run that was stopped goes on with `--resume`: finished seeds are kept.
"""

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import PartialState
from affect_figures import card, evaluate_affect, figure_table
from transformers import TrainingArguments, set_seed

from geli_hf.affect.classify import ImageAffect
from geli_hf.cache import atomic_path
from geli_hf.hub.cards import describe_origin, read_own_card, save_card
from geli_hf.models.facial_affect.configuration_affect import FacialAffectConfig
from geli_hf.models.facial_affect.image_processing_affect import FacialAffectImageProcessor
from geli_hf.models.facial_affect.modeling_affect import FacialAffectModel
from geli_hf.settings import build, parse_settings, reserve_folder
from geli_hf.training.affect import AffectRecipe, calibrate, label_weights, load_faces, save_affect, train_affect
from geli_hf.training.script import run_main, setting_errors

PARTS = ("train", "validation", "test")


@dataclass
class RunSettings:
    output_dir: str = field(metadata={"help": "Where everything goes."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "A model is trained for each."})
    resume: bool = field(default=False, metadata={"help": "Go on with the run in output_dir; keep what is finished."})


@dataclass
class DataSettings:
    """A part is a Parquet file: see `load_faces`."""

    train: str = field(metadata={"help": "Pictures to learn from."})
    validation: str = field(metadata={"help": "Pictures to calibrate and to choose the seed on."})
    test: str = field(metadata={"help": "Pictures to measure on."})
    side: int = field(default=80, metadata={"help": "Pictures are brought to squares of so many pixels."})
    box: list[float] = field(
        default_factory=lambda: [0.0, 0.0, 1.0, 1.0],
        metadata={"help": "The detector's box in a picture: left, top, width, height, in its sides."},
    )
    source: str = field(default="not told", metadata={"help": "Where the pictures come from, for the card."})


@dataclass
class ModelSettings:
    config: dict = field(default_factory=dict, metadata={"help": "Fields of FacialAffectConfig."})
    scale: float = field(default=1.0, metadata={"help": "Side of what is cut out, in sides of the detector's box."})
    shift: float = field(default=0.0, metadata={"help": "Distance below the middle of the box, in its sides."})
    license: str = field(default="apache-2.0", metadata={"help": "Of the weights, for the card."})


SECTIONS = {"data": DataSettings, "model": ModelSettings, "recipe": AffectRecipe, "training": TrainingArguments}


def main(argv: list[str]) -> None:
    begun = time.monotonic()
    settings = parse_settings(argv, RunSettings, SECTIONS)
    run = build(RunSettings, settings[""])
    data, model, recipe = (build(SECTIONS[name], settings[name]) for name in ("data", "model", "recipe"))
    state, output = PartialState(cpu=not torch.accelerator.is_available()), Path(run.output_dir)
    if state.is_main_process:
        lasting = {name: {k: v for k, v in part.items() if name or k == "seeds"} for name, part in settings.items()}
        reserve_folder(output, lasting, run.resume)
    with setting_errors("data"), state.main_process_first():
        paths = {name: getattr(data, name) for name in PARTS}
        parts, labels = load_faces(paths, side=data.side, box=data.box)
    train = parts["train"]
    for seed in run.seeds:
        folder = output / f"seed_{seed}"
        if folder.exists():
            state.print(f"{folder} exists and is kept")
            continue
        state.print(f"Training seed {seed} on {len(train.labels)} pictures", flush=True)
        set_seed(seed)
        untrained = new_model(model, labels)
        side = untrained.config.image_size
        processor = FacialAffectImageProcessor({"height": side, "width": side}, model.scale, model.shift)
        trained = train_affect(untrained, train, processor, recipe, arguments(settings["training"], seed, output))
        if state.is_main_process:
            shares = torch.bincount(train.labels, label_weights(train, recipe.balance), minlength=len(labels))
            calibrate(trained, parts["validation"], processor, shares)
            with atomic_path(folder) as target:
                save_affect(trained, processor, target)
        state.wait_for_everyone()
    if state.is_main_process:
        models = {seed: ImageAffect(output / f"seed_{seed}") for seed in run.seeds}
        figures = evaluate_affect(models, parts, labels)
        given = {name: part for name, part in settings.items() if name and part}
        command = ["python", "examples/recipes/train_affect.py", *argv]
        figures |= {
            "made": describe_origin(command, settings=given, seconds=time.monotonic() - begun),
            "source": data.source,
            "license": model.license,
            "scale": model.scale,
            "shift": model.shift,
            "parts": {
                name: {"pictures": len(part.labels), "persons": len(set(part.persons))} for name, part in parts.items()
            },
        }
        write_model(output, figures)
        print(f"{output}: {figure_table(figures)}")


def new_model(settings: ModelSettings, labels: list[str]) -> FacialAffectModel:
    with setting_errors("model"):
        return FacialAffectModel(FacialAffectConfig(**settings.config, id2label=dict(enumerate(labels))))


def arguments(given: dict, seed: int, output: Path) -> TrainingArguments:
    usual = {
        "output_dir": str(output / "checkpoints"),
        "use_cpu": not torch.accelerator.is_available(),
        "ddp_find_unused_parameters": False,
        "save_strategy": "no",
        "report_to": "none",
        "dataloader_drop_last": True,  # batch normalisation wants full batches
        "dataloader_pin_memory": torch.accelerator.is_available(),
    }
    return build(TrainingArguments, usual | given | {"seed": seed})


def write_model(output: Path, figures: dict) -> None:
    """Write all figures, and the model of the chosen seed with its card into a folder of its own."""
    text = json.dumps(figures, indent=2) + "\n"
    with atomic_path(output / "metrics.json") as path:
        path.write_text(text, encoding="utf-8")
    chosen, target = output / f"seed_{figures['chosen_seed']}", output / "model"
    edited = read_own_card(target)
    shutil.rmtree(target, ignore_errors=True)
    with atomic_path(target) as folder:
        shutil.copytree(chosen, folder)
        (folder / "figures.json").write_text(text, encoding="utf-8")
        if edited is not None:
            (folder / "README.md").write_text(edited, encoding="utf-8")
        save_card(card(figures, FacialAffectConfig.from_pretrained(chosen)), folder)


if __name__ == "__main__":
    run_main(main)
