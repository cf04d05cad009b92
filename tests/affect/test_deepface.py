"""DeepFace as it is installed, on random weights: the same answers as its own, and clear errors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import astronaut
from emotion_weights import write_weights

from geli_hf.affect import deepface
from geli_hf.affect.deepface import DeepFaceAffect
from geli_hf.affect.emotions import EMOTIONS
from geli_hf.affect.faces import Box

backend_utils, modeling = (
    pytest.importorskip(f"deepface.{name}", exc_type=ImportError)
    for name in ("commons.backend_utils", "modules.modeling")
)

FACE = Box(176, 60, 96, 112)  # of the picture below
NAMES = {"angry": "anger", "happy": "happiness", "sad": "sadness"}  # those that differ from ours


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home for DeepFace, which has no engine yet."""
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    monkeypatch.setattr(backend_utils, "_backend_engine", None)
    monkeypatch.setattr(modeling, "cached_models", {task: {} for task in modeling.AVAILABLE_MODELS}, raising=False)
    return tmp_path


@pytest.fixture
def weights(home):
    return write_weights(home)


@pytest.fixture(scope="module")
def picture():
    return astronaut()[..., 1].copy()


def analyze(picture: np.ndarray) -> list[float]:
    from deepface import DeepFace

    [answer] = DeepFace.analyze(
        np.repeat(picture[..., None], 3, -1), actions=["emotion"], detector_backend="skip", enforce_detection=False
    )
    named = {NAMES.get(name, name): percent / 100 for name, percent in answer["emotion"].items()}
    return [named.get(emotion, np.nan) for emotion in EMOTIONS]


def test_it_agrees_with_analyze_of_deepface(weights, picture):
    """About the face, in boxes of many sizes and forms, some of them over the edge."""
    random = np.random.default_rng(0)
    moved = FACE + np.stack([*random.uniform(-40, 40, (2, 9)), *random.uniform(-70, 120, (2, 9))], 1)
    boxes = [FACE, Box(-20.5, 3, 90, 60), Box(450, 470, 100, 100), *(Box(*box) for box in moved)]
    affect = DeepFaceAffect()
    crops = np.stack([affect.crop(picture, box) for box in boxes])
    assert crops.dtype == np.uint8
    read = affect.classify(crops)
    assert read.dtype == np.float32
    cut = [picture[max(0, int(y)) : int(y + height), max(0, int(x)) : int(x + width)] for x, y, width, height in boxes]
    # Crops are rounded to whole grey levels.
    np.testing.assert_allclose(read, [analyze(face) for face in cut], atol=1e-3)
    assert read[:, EMOTIONS.index("anger")].std() > 0.1  # the faces differ by much more
    assert np.isnan(read[:, EMOTIONS.index("contempt")]).all()
    np.testing.assert_allclose(np.nansum(read, 1), 1, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([affect.classify(crop[None]) for crop in crops]), read, atol=1e-5)
    assert affect.classify(crops[:0]).shape == (0, len(EMOTIONS))
    with pytest.raises(ValueError, match="box"):
        affect.crop(picture, Box(600, 10, 50, 50))


def test_the_fingerprint_is_that_of_the_weights(home, monkeypatch):
    fingerprints = []
    for seed in (0, 0, 1):
        write_weights(home, seed)
        fingerprints.append(DeepFaceAffect().fingerprint)
        monkeypatch.setattr(modeling, "cached_models", {task: {} for task in modeling.AVAILABLE_MODELS})
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


@pytest.mark.parametrize("offline", [True, False])
def test_missing_weights_are_named(home, offline, monkeypatch):
    def download(*args, **kwargs):
        print("downloading")
        raise ValueError("no network")

    monkeypatch.setattr(deepface, "is_offline_mode", lambda: offline)
    monkeypatch.setattr("deepface.DeepFace.build_model", download)
    path = home / ".deepface" / "weights" / "facial_expression_model_weights.onnx"
    with pytest.raises(OSError, match="offline" if offline else "no network") as error:
        DeepFaceAffect()
    assert str(path) in str(error.value)
    assert f"https://github.com/serengil/deepface_models/releases/download/v1.0/{path.name}" in str(error.value)


def test_damaged_weights_are_named(weights):
    weights["onnx"].write_bytes(b"<html>Not Found</html>")
    with pytest.raises(OSError, match=r"weights\.onnx"):
        DeepFaceAffect()


def test_another_engine_in_this_process(weights, monkeypatch):
    monkeypatch.setattr(backend_utils, "_backend_engine", "pytorch")
    with pytest.raises(RuntimeError, match="pytorch"):
        DeepFaceAffect()


def test_without_deepface(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepface", None)
    with pytest.raises(ImportError, match=r"geli-hf\[faces\]"):
        DeepFaceAffect()


def test_in_a_process_of_its_own(weights, home):
    """It imports DeepFace when it is used, on its own engine whatever the environment says, quietly."""
    code = """
import os, sys, warnings
from geli_hf.affect import DeepFaceAffect
assert "deepface" not in sys.modules
filters = list(warnings.filters)
affect = DeepFaceAffect()
from deepface.commons.backend_utils import get_backend_engine
assert get_backend_engine() == "onnx"
assert os.environ["DEEPFACE_BACKEND_ENGINE"] == "pytorch"
assert ("ignore", None, Warning, None, 0) not in warnings.filters
"""
    root = str(Path(deepface.__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"DEEPFACE_BACKEND_ENGINE": "pytorch", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=home)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "deepface" not in done.stderr.lower()
