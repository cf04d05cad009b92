"""The training script of the classifier of faces, on a few pictures made of one free face, with a tiny net."""

import itertools
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
from scripts import EXAMPLES, as_module
from shown import shown

from geli_hf import FacialAffectConfig, ImageAffect
from geli_hf.affect.faces import Box, square_crop
from geli_hf.settings import SettingsError, build


@pytest.fixture(scope="module")
def script():
    return as_module(EXAMPLES / "train_affect.py")


def pictures(first_person: int, persons: int) -> datasets.Dataset:
    """Four of each person, two of them bright and called happiness."""
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
    script.RESAMPLES = 20
    script.main(arguments(faces, output))
    return output


def test_a_run_leaves_models_figures_a_picture_and_a_card(ran):
    assert {"seed_0", "seed_1", "model", "metrics.json", "reliability.png", "settings.yaml"} <= {
        path.name for path in ran.iterdir()
    }
    figures = json.loads((ran / "metrics.json").read_text())
    low, high = figures["test"]["happiness AUC"][1:]
    assert 0 <= low <= figures["test"]["happiness AUC"][0] <= high <= 1
    assert figures["test_counts"] == {"happiness": 12, "neutral": 6, "surprise": 6}
    assert figures["train_counts"]["surprise"] == 8
    assert figures["train_counts"]["fear"] == 0
    assert len(figures["robustness"]) == 8
    chosen = ran / f"seed_{figures['chosen_seed']}"
    assert figures["validation_log_loss"][str(figures["chosen_seed"])] == min(figures["validation_log_loss"].values())
    assert (ran / "model" / "model.safetensors").read_bytes() == (chosen / "model.safetensors").read_bytes()
    assert {weight.dtype for weight in load_file(chosen / "model.safetensors").values()} == {
        torch.float16,
        torch.int64,
    }
    card = ModelCard.load(ran / "model" / "README.md")
    assert f"seed {figures['chosen_seed']}" in card.text
    assert "| surprise (unreliable) | 8 | 6 |" in card.text
    with Image.open(ran / "reliability.png") as picture:
        assert picture.width > 400


def test_the_figures_are_those_of_the_saved_model(ran, faces, script):
    figures = json.loads((ran / "metrics.json").read_text())
    affect = ImageAffect(ran / "model")
    assert (affect.scale, affect.shift) == (0.84, 0.045)
    data = script.DataSettings(**faces, box=[0.0155, -0.0025, 0.975, 0.975])
    test = script.load_parts(data)[0]["test"]
    read = affect.classify(script.cut(test, data, affect, affect.side))
    smile, truth = read[:, 4], test.labels.numpy() == SEVEN.index("happiness")
    by_pairs = np.mean([(a > b) + 0.5 * (a == b) for a in smile[truth] for b in smile[~truth]])
    assert figures["test_by_seed"][str(figures["chosen_seed"])]["happiness AUC"] == pytest.approx(by_pairs)


def test_a_finished_seed_is_kept_and_another_made_anew(ran, faces, script, tmp_path):
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


def test_a_person_on_both_sides_is_named(faces, script, tmp_path):
    pictures(7, 6).to_parquet(tmp_path / "validation.parquet")
    mixed = faces | {"validation": str(tmp_path / "validation.parquet")}
    with pytest.raises(SettingsError, match=r"person 'p07' is in train and in validation \(1 persons"):
        script.main(arguments(mixed, tmp_path / "run"))


def test_a_folder_of_pictures_is_the_same_as_a_table(faces, script, tmp_path):
    rows = []
    for index, row in enumerate(pictures(14, 6)):
        row["image"].save(tmp_path / f"{index:03}.png")
        rows.append({"file_name": f"{index:03}.png", "label": row["label"], "person": row["person"]})
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SettingsError, match="expected a ClassLabel"):
        script.load_parts(script.DataSettings(**faces | {"test": str(tmp_path)}))


def test_a_missing_column_or_file_is_named(faces, script, tmp_path):
    pictures(20, 2).remove_columns("person").to_parquet(tmp_path / "test.parquet")
    with pytest.raises(SettingsError, match=r"data\.test: .*test\.parquet lacks the columns person"):
        script.load_parts(script.DataSettings(**faces | {"test": str(tmp_path / "test.parquet")}))
    with pytest.raises(SettingsError, match=r"data\.test: there is no file or folder nowhere"):
        script.load_parts(script.DataSettings(**faces | {"test": "nowhere"}))


def test_the_auc_and_the_calibration_error_by_hand(script):
    smile = np.array([0.1, 0.4, 0.4, 0.8, 0.95])
    truth = np.array([False, False, True, True, False])
    once = np.ones(5)
    # pairs: .4 beats .1, ties .4, loses to .95; .8 beats .1 and .4, loses to .95
    assert script.smile_auc(smile, truth, once) == pytest.approx((1 + 0.5 + 0 + 1 + 1 + 0) / 6)
    # bins: {.1}: |0 - .1|; {.4, .4}: |1 - .8|; {.8}: |1 - .8|; {.95}: |0 - .95|
    assert script.smile_ece(smile, truth, once) == pytest.approx((0.1 + 0.2 + 0.2 + 0.95) / 5)
    twice = np.array([2.0, 1, 1, 1, 0])
    again = [0, 0, 1, 2, 3]
    assert script.smile_auc(smile, truth, twice) == script.smile_auc(smile[again], truth[again], once)
    assert script.smile_ece(smile, truth, twice) == pytest.approx(script.smile_ece(smile[again], truth[again], once))


def test_calibration_corrects_the_prior_and_the_temperature(script):
    """Scores that are three times too wide, of labels that training saw equally often."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.choice(2, 4000, p=[0.8, 0.2]))
    evidence = torch.from_numpy(rng.normal(0, 1, (4000, 2))).float()
    evidence[torch.arange(4000), labels] += 1  # for two unit normals, its log likelihood ratio

    class Model(torch.nn.Module):
        config = FacialAffectConfig(id2label={0: "neutral", 1: "happiness"}, image_size=2)
        seen = 0

        def forward(self, pixels):
            self.seen += len(pixels)
            scores = 3 * evidence[self.seen - len(pixels) : self.seen]
            return type("Output", (), {"logits": scores})

    part = script.Part(torch.zeros(4000, 2, 2, dtype=torch.uint8), labels, np.arange(4000).astype(str))
    data, model = script.DataSettings("", "", "", side=2), Model()
    script.calibrate(model, part, data, script.ModelSettings(), torch.tensor([0.5, 0.5]))
    assert model.config.temperature == pytest.approx(3, rel=0.1)
    assert np.diff(model.config.log_prior_shift)[0] == pytest.approx(np.log(0.2 / 0.8), abs=0.1)


def test_faces_are_made_anew_around_the_place_where_they_are_read(script):
    """Without any change, a training face is nearer to the one that is read later than to any beside it."""
    face = torch.from_numpy(np.array(Image.fromarray(grey_astronaut()[60:170, 170:280]).resize((80, 80))))
    part = script.Part(face[None], torch.tensor([3]), np.array(["a"]))
    data = script.DataSettings("", "", "", box=[0.05, 0.0, 0.9, 0.9])
    model = script.ModelSettings(scale=0.8, shift=0.05)
    still = script.RecipeSettings(rotation=0, zoom=0, shift=0, blurred=0, gamma=0, light=0, noise=0)
    torch.manual_seed(0)
    many = script.Augmenter(part, data, model, still, 48)([0] * 8)["pixel_values"]
    distances = {}
    for right, down, larger in itertools.product((-2, 0, 2), (-2, 0, 2), (-4, 0, 4)):
        box = Box(4 + right - larger / 2, down - larger / 2, 72 + larger, 72 + larger)
        read = torch.from_numpy(square_crop(face.numpy(), box, scale=0.8, shift=0.05, side=48))[None]
        expected = script.standardise(read)[0]
        distances[right, down, larger] = min((many[0] - x).abs().mean() for x in (expected, expected.flip(-1)))
    assert min(distances, key=distances.get) == (0, 0, 0)
    assert not torch.equal(many.std(0), torch.zeros_like(many[0]))  # some are mirrored
    moved = script.Augmenter(part, data, model, script.RecipeSettings(), 48)([0] * 8)["pixel_values"]
    assert (moved[0] - moved[1]).abs().mean() > 0.1


def test_the_configuration_has_known_settings_of_known_types(script):
    sections = {"data": script.DataSettings, "model": script.ModelSettings, "recipe": script.RecipeSettings}
    sections["training"] = script.TrainingArguments
    file = EXAMPLES / "configs" / "affect.yaml"
    settings = script.parse_settings(["--config", str(file)], script.RunSettings, sections)
    where = {"train": "a", "validation": "b", "test": "c"}
    offline = {"output_dir": "runs", "use_cpu": True}
    extra = {"": {}, "data": where, "training": offline}
    for name, cls in ({"": script.RunSettings} | sections).items():
        build(cls, settings[name] | extra.get(name, {}))
    FacialAffectConfig(**settings["model"]["config"])
