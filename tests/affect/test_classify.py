"""Emotions of faces by image classifiers: the one that comes with the package, and others."""

import io
import json

import numpy as np
import pytest
import torch
from faces import ASTRONAUT_BOX, SEVEN, affect_checkpoint, grey_astronaut
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from geli_hf import ImageAffect
from geli_hf.affect.classify import BATCH, SHIPPED
from geli_hf.affect.detect import CascadeDetector
from geli_hf.affect.emotions import EMOTIONS, HAPPINESS
from geli_hf.affect.faces import Box, square_crop


@pytest.fixture(scope="module")
def shipped() -> ImageAffect:
    return ImageAffect()


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A tiny vision transformer with six emotions by other names."""
    folder = tmp_path_factory.mktemp("vit")
    labels = ["angry", "happy", "sad", "neutral", "fear", "disgust"]
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(image_size=32, patch_size=8, id2label=dict(enumerate(labels)), initializer_range=0.5, **sizes)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def noise(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side), np.uint8)


def test_the_shipped_classifier_sees_the_astronaut_smile(shipped):
    crop = shipped.crop(grey_astronaut(), ASTRONAUT_BOX)
    assert crop.shape == (58, 58)
    assert crop.dtype == np.uint8
    read = shipped.classify(crop[None])
    assert read.shape == (1, 8)
    assert read.dtype == np.float32
    assert read[0, HAPPINESS] > 0.9
    assert np.isnan(read[0, EMOTIONS.index("contempt")])
    assert np.nansum(read) == pytest.approx(1, abs=1e-5)


def test_a_box_that_is_a_little_off_changes_little(shipped):
    x, y, width, height = ASTRONAUT_BOX
    boxes = [Box(x + dx, y + dy, width, height) for dx in (-10, 0, 10) for dy in (-10, 0, 10)]
    boxes += [Box(x - 5, y - 5, width + 10, height + 10), Box(x + 5, y + 5, width - 10, height - 10)]
    crops = np.stack([shipped.crop(grey_astronaut(), box) for box in boxes])
    assert shipped.classify(crops)[:, HAPPINESS].min() > 0.8
    assert shipped.classify(crops // 4)[:, HAPPINESS].min() > 0.8  # nor does a dark room


def test_it_agrees_with_the_image_processor(shipped, tmp_path):
    """`standardise` alone is exact, for the shipped model and for others."""
    for affect in (shipped, ImageAffect(affect_checkpoint(tmp_path, image_size=40))):
        crops = noise(5, affect.side)
        by_processor = affect.processor(list(crops), return_tensors="pt")
        with torch.no_grad():
            expected = affect.model(**by_processor).logits.softmax(-1).numpy()
        read = affect.classify(crops)
        np.testing.assert_allclose(read[:, [EMOTIONS.index(name) for name in SEVEN]], expected, atol=1e-6)


def test_a_batch_is_its_faces_one_by_one(shipped):
    crops = noise(BATCH + 3, 48)
    together = shipped.classify(crops)
    alone = np.concatenate([shipped.classify(crops[i : i + 1]) for i in (0, BATCH, BATCH + 2)])
    np.testing.assert_allclose(together[[0, BATCH, BATCH + 2]], alone, atol=1e-5)
    assert shipped.classify(crops[:0]).shape == (0, 8)


def test_a_face_without_contrast_is_no_face(shipped):
    face = shipped.crop(grey_astronaut(), ASTRONAUT_BOX)
    faces = np.stack([face, np.full_like(face, 255), (250 + face / 200).astype(np.uint8), face // 128])
    read = shipped.classify(faces)
    assert read[0, HAPPINESS] > 0.5
    assert np.isnan(read[1:]).all()


def test_the_crop_is_that_of_the_image_processor(tmp_path):
    affect = ImageAffect(affect_checkpoint(tmp_path, scale=0.7, shift=0.1, image_size=40))
    box = Box(150.0, 60.0, 90.0, 110.0)
    expected = square_crop(grey_astronaut(), box, scale=0.7, shift=0.1, side=40)
    assert np.array_equal(affect.crop(grey_astronaut(), box), expected)


def test_any_classifier_of_emotions_serves(vit):
    affect = ImageAffect(vit)
    crop = affect.crop(grey_astronaut(), ASTRONAUT_BOX)
    assert np.array_equal(crop, square_crop(grey_astronaut(), ASTRONAUT_BOX, side=32))
    read = affect.classify(np.stack([crop, 255 - crop]))
    pixels = affect.processor([Image.fromarray(crop).convert("RGB")], return_tensors="pt")
    with torch.no_grad():
        angry, happy, sad, neutral, fear, disgust = affect.model(**pixels).logits.softmax(-1)[0].tolist()
    expected = [angry, np.nan, disgust, fear, happy, neutral, sad, np.nan]
    np.testing.assert_allclose(read[0], expected, rtol=1e-4)
    assert np.abs(read[0] - read[1])[HAPPINESS] > 1e-3


def test_labels_that_are_no_emotions_are_named(tmp_path):
    folder = affect_checkpoint(tmp_path, labels=("happiness", "neutral", "sarcasm"))
    with pytest.raises(ValueError, match="'sarcasm'") as error:
        ImageAffect(folder)
    assert str(folder) in str(error.value)


def test_the_fingerprint_changes_with_the_answers(tmp_path):
    one = affect_checkpoint(tmp_path / "one")
    same = affect_checkpoint(tmp_path / "same")
    other_weights = affect_checkpoint(tmp_path / "weights", seed=1)
    other_calibration = affect_checkpoint(tmp_path / "calibration", temperature=2.0)
    other_crop = affect_checkpoint(tmp_path / "crop", scale=0.8)
    different = [ImageAffect(folder).fingerprint for folder in (one, other_weights, other_calibration, other_crop)]
    assert len(set(different)) == len(different)
    assert ImageAffect(same).fingerprint == different[0]


def test_the_shipped_files_are_small_half_precision_and_have_a_card():
    files = {path.name for path in SHIPPED.iterdir()}
    assert files == {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "figures.json"}
    weights = (SHIPPED / "model.safetensors").read_bytes()
    assert len(weights) < 1_500_000
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"F16", "I64"}
    assert next(ImageAffect().model.parameters()).dtype == torch.float32
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert "(unreliable)" in card
    assert "Copyright (c) 2018 Justin Shenk" in card  # whose licence wants it
    assert "2024/1689" in card


def test_the_shipped_classifier_on_unseen_people(shipped, shared_data):
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(shared_data / "faces" / "test.parquet", columns=["image", "label"]).to_pydict()
    pictures = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in rows["image"]]
    box = Box(0.0155 * 80, -0.0025 * 80, 78, 78)
    smile = shipped.classify(np.stack([shipped.crop(picture, box) for picture in pictures]))[:, HAPPINESS]
    truth = np.array(rows["label"]) == SEVEN.index("happiness")
    higher = (smile[truth][:, None] > smile[~truth]).mean()  # the area under the curve, counted pair by pair
    assert higher >= 0.985
    assert ((smile[truth] > 0.5).mean() + (smile[~truth] <= 0.5).mean()) / 2 >= 0.91


@pytest.mark.parametrize("number", [1, 2, 3])
def test_tears_are_no_smile(shipped, shared_data, number):
    picture = np.asarray(Image.open(shared_data / "media" / f"not_a_smile_{number}.png").convert("L"))
    [box] = CascadeDetector().detect(picture)
    assert shipped.classify(shipped.crop(picture, box)[None])[0, HAPPINESS] <= 0.3
