"""The recipe of the classifier of faces, on a few pictures made of one free face, with a tiny net."""

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from faces import SEVEN, grey_astronaut
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from scripts import EXAMPLES, RECIPES, as_module
from shown import shown

from geli_hf import FacialAffectConfig, ImageAffect
from geli_hf.evaluation import affect as evaluation
from geli_hf.settings import SettingsError, build, parse_settings
from geli_hf.training.affect import crop_faces, load_faces


@pytest.fixture(scope="module")
def script():
    return as_module(RECIPES / "train_affect.py")


def pictures(first_person: int, persons: int) -> datasets.Dataset:
    """Make four of each person, two of them bright and called happiness."""
    rng, rows = np.random.default_rng(first_person), []
    for person in range(first_person, first_person + persons):
        for label in ("happiness", "happiness", "neutral", "surprise"):
            face = grey_astronaut()[60:170, 170:280].astype(float) + rng.normal(0, 20, (110, 110))
            if label == "happiness":
                face[70:, :] = 255 - face[70:, :]
            image = Image.fromarray(face.clip(0, 255).astype(np.uint8))
            rows.append({"image": image, "label": SEVEN.index(label), "person": f"p{person:02}"})
    label = datasets.ClassLabel(names=list(SEVEN))
    features = datasets.Features({"image": datasets.Image(), "label": label, "person": datasets.Value("string")})
    return datasets.Dataset.from_list(rows, features=features)


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("faces")
    for name, first, persons in (("train", 0, 8), ("validation", 8, 6), ("test", 14, 6)):
        pictures(first, persons).to_parquet(folder / f"{name}.parquet")
    return {name: str(folder / f"{name}.parquet") for name in ("train", "validation", "test")}


def arguments(faces: dict[str, str], output: Path, *more: str) -> list[str]:
    given = {f"data.{name}": path for name, path in faces.items()} | {
        "output_dir": str(output),
        "seeds": "[0, 1]",
        "model.config": "{image_size: 16, hidden_sizes: [8, 8]}",
        "training.max_steps": "4",
        "training.per_device_train_batch_size": "8",
        "training.use_cpu": "true",
        "training.disable_tqdm": "true",
    }
    flags = [word for name, value in given.items() for word in (f"--{name}", value)]
    return [*shown("train_affect"), *flags, *more]


@pytest.fixture(scope="module")
def ran(script, faces, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "affect"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "RESAMPLES", 20)
        script.main(arguments(faces, output))
    return output


def test_a_run_leaves_models_figures_and_a_card(ran):
    assert {"seed_0", "seed_1", "model", "metrics.json", "settings.yaml"} <= {path.name for path in ran.iterdir()}
    figures = json.loads((ran / "metrics.json").read_text())
    low, high = figures["test"]["happiness AUC"][1:]
    assert 0 <= low <= figures["test"]["happiness AUC"][0] <= high <= 1
    assert figures["test_counts"] == {"happiness": 12, "neutral": 6, "surprise": 6}
    assert figures["train_counts"]["surprise"] == 8
    assert figures["train_counts"]["fear"] == 0
    assert figures["train_persons"]["surprise"] == 8
    assert len(figures["robustness"]) == 9
    chosen = ran / f"seed_{figures['chosen_seed']}"
    assert figures["validation_log_loss"][str(figures["chosen_seed"])] == min(figures["validation_log_loss"].values())
    assert (ran / "model" / "model.safetensors").read_bytes() == (chosen / "model.safetensors").read_bytes()
    assert {weight.dtype for weight in load_file(chosen / "model.safetensors").values()} == {
        torch.float16,
        torch.int64,
    }
    card = ModelCard.load(ran / "model" / "README.md")
    assert f"seed {figures['chosen_seed']}" in card.text
    assert "| surprise (unreliable) | 8 of 8 persons | 6 of 6 persons |" in card.text


def test_the_figures_are_those_of_the_saved_model(ran, faces):
    figures = json.loads((ran / "metrics.json").read_text())
    affect = ImageAffect(ran / "model")
    assert (affect.scale, affect.shift) == (0.84, 0.045)
    test = load_faces(faces, side=80, box=[0.0155, -0.0025, 0.975, 0.975])[0]["test"]
    read = affect.classify(crop_faces(test, scale=affect.scale, shift=affect.shift, side=affect.side))
    smile, truth = read[:, 4], test.labels.numpy() == SEVEN.index("happiness")
    by_pairs = np.mean([(a > b) + 0.5 * (a == b) for a in smile[truth] for b in smile[~truth]])
    assert figures["test_by_seed"][str(figures["chosen_seed"])]["happiness AUC"] == pytest.approx(by_pairs)


def test_resuming_trains_only_the_missing_seed(ran, faces, script, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "RESAMPLES", 20)
    output = tmp_path / "again"
    shutil.copytree(ran, output)
    shutil.rmtree(output / "seed_1")
    before = (output / "seed_0" / "model.safetensors").stat().st_mtime_ns
    script.main(arguments(faces, output, "--resume"))
    assert (output / "seed_0" / "model.safetensors").stat().st_mtime_ns == before
    for file in ("model.safetensors", "config.json"):
        assert (output / "seed_1" / file).read_bytes() == (ran / "seed_1" / file).read_bytes()
    with pytest.raises(SettingsError, match="other settings"):
        script.main(arguments(faces, output, "--resume", "--recipe.balance", "1.0"))


def test_the_configuration_has_known_settings_of_known_types(script):
    file = EXAMPLES / "configs" / "affect.yaml"
    settings = parse_settings(["--config", str(file)], script.RunSettings, script.SECTIONS)
    extra = {
        "data": {"train": "a", "validation": "b", "test": "c"},
        "training": {"output_dir": "runs", "use_cpu": True},
    }
    for name, cls in ({"": script.RunSettings} | script.SECTIONS).items():
        build(cls, settings[name] | extra.get(name, {}))
    FacialAffectConfig(**settings["model"]["config"])
