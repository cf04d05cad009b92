"""The classifier of facial affect as an image classifier of transformers."""

import json
import math

import numpy as np
import pytest
import torch
from faces import SEVEN, affect_checkpoint, affect_model, astronaut
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, pipeline

from geli_hf import FacialAffectConfig, FacialAffectImageProcessor, FacialAffectModel
from geli_hf.affect.emotions import EMOTIONS


def faces(count: int = 3, side: int = 48) -> torch.Tensor:
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(1))


def test_the_default_labels_are_the_emotions_of_candor():
    config = FacialAffectConfig()
    assert tuple(config.id2label.values()) == EMOTIONS
    assert config.label2id["happiness"] == EMOTIONS.index("happiness")
    assert config.num_labels == 8


def test_the_small_net_is_small():
    model = FacialAffectModel(FacialAffectConfig())
    assert 250_000 < sum(weight.numel() for weight in model.parameters()) < 350_000


def test_a_wrong_calibration_is_refused():
    with pytest.raises(ValueError, match="temperature: expected a positive number"):
        FacialAffectConfig(temperature=0.0)


def test_a_crop_outside_of_the_picture_is_refused():
    with pytest.raises(ValueError, match=r"crop_size.*48.*49"):
        FacialAffectConfig(image_size=48, crop_size=49)


@torch.no_grad()
def test_scores_are_the_mean_over_a_face_and_its_mirror_image():
    plain, mirrored = affect_model(), affect_model(mirror=True)
    expected = (plain(faces()).logits + plain(faces().flip(-1)).logits) / 2
    np.testing.assert_allclose(mirrored(faces()).logits, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mirrored(faces()).logits, mirrored(faces().flip(-1)).logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain(faces()).logits, plain(faces().flip(-1)).logits, atol=1e-3)


@torch.no_grad()
def test_a_checkpoint_of_before_the_mixture_opens(tmp_path):
    folder = affect_checkpoint(tmp_path)
    expected = FacialAffectModel.from_pretrained(folder)(faces()).logits
    config = json.loads((folder / "config.json").read_text())
    for name in ("crop_size", "xception_sizes", "mirror", "geli_hf_version"):
        config.pop(name, None)
    (folder / "config.json").write_text(json.dumps(config | {"backbone": "small"}))
    torch.testing.assert_close(FacialAffectModel.from_pretrained(folder)(faces()).logits, expected)


@pytest.mark.parametrize("side", [48, 58, 64])
def test_a_mixture_is_saved_and_trained_as_one_model(tmp_path, side):
    model = affect_model(image_size=side, crop_size=16, xception_sizes=[8, 8, 16])
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(faces(side=side)).logits, model(faces(side=side)).logits)
    model.train()(faces(side=side), labels=torch.tensor([0, 1, 2])).loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def test_logits_are_calibrated_and_the_loss_is_not():
    plain = affect_model()
    shift = [0.5, -1.0, 0.0, 2.0, 0.1, 0.2, 0.3]
    calibrated = affect_model(temperature=2.0, log_prior_shift=shift)
    labels = torch.tensor([3, 4, 0])
    with torch.no_grad():
        before, after = (model(faces(), labels=labels) for model in (plain, calibrated))
    np.testing.assert_allclose(after.logits, before.logits.numpy() / 2 + np.array(shift), rtol=1e-5, atol=1e-6)
    scores = before.logits.double().numpy()
    by_hand = [math.log(np.exp(row).sum()) - row[label] for row, label in zip(scores, labels.tolist())]
    assert before.loss.item() == pytest.approx(np.mean(by_hand), rel=1e-5)
    assert after.loss.item() == before.loss.item()


def test_the_auto_classes_and_the_pipeline_agree(tmp_path):
    folder = affect_checkpoint(tmp_path, temperature=1.7, log_prior_shift=[0.1 * i for i in range(7)])
    assert type(AutoConfig.from_pretrained(folder)) is FacialAffectConfig
    model = AutoModelForImageClassification.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    assert type(model) is FacialAffectModel
    assert type(processor) is FacialAffectImageProcessor
    assert (processor.scale, processor.shift) == (0.9, 0.05)
    face = astronaut().crop((174, 66, 273, 165))
    with torch.no_grad():
        expected = model(**processor(face, return_tensors="pt")).logits.softmax(-1)[0]
    read = pipeline("image-classification", model=str(folder), device="cpu")(face, top_k=7)
    assert {row["label"]: row["score"] for row in read} == pytest.approx(dict(zip(SEVEN, expected.tolist())), rel=1e-4)
