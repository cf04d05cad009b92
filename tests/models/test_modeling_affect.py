"""The classifier of facial affect as an image classifier of transformers."""

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
