"""DeepFace as it is installed, on random weights: what it says of a face doesn't matter, but that we say the same."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from emotion_weights import write_weights

from geli_hf.affect import deepface
from geli_hf.affect.deepface import DeepFaceAffect, DeepFaceDetector
from geli_hf.affect.detect import _cascade_text
from geli_hf.affect.emotions import EMOTIONS
from geli_hf.affect.faces import Box

backend_utils, modeling, detection = (
    pytest.importorskip(f"deepface.{name}", exc_type=ImportError)
    for name in ("commons.backend_utils", "modules.modeling", "modules.detection")
)
astronaut = pytest.importorskip("skimage.data").astronaut

FACE = Box(176, 60, 96, 112)  # of the picture below
NAMES = {
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home for DeepFace, which knows nothing of an engine yet."""
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


@pytest.fixture(scope="module")
def boxes():
    """About the face, of many sizes and forms, some of them over the edge."""
    random = np.random.default_rng(0)
    moved = FACE + np.stack([*random.uniform(-40, 40, (2, 9)), *random.uniform(-70, 120, (2, 9))], 1)
    return [FACE, Box(-20.5, 3, 90, 60), Box(450, 470, 100, 100), *(Box(*box) for box in moved)]


def by_deepface(picture: np.ndarray) -> list[float]:
    from deepface import DeepFace

    [answer] = DeepFace.analyze(
        np.repeat(picture[..., None], 3, -1), actions=["emotion"], detector_backend="skip", enforce_detection=False
    )
    named = {NAMES[name]: percent / 100 for name, percent in answer["emotion"].items()}
    return [named.get(emotion, np.nan) for emotion in EMOTIONS]


@pytest.mark.parametrize("engine", ["onnx", "pytorch"])
def test_as_deepface_analyses_the_same_face(engine, weights, picture, boxes):
    affect = DeepFaceAffect(engine)
    crops = np.stack([affect.crop(picture, box) for box in boxes])
    assert crops.dtype == np.uint8
    found = affect.classify(crops)
    assert found.dtype == np.float32
    cut = [picture[max(0, int(y)) : int(y + height), max(0, int(x)) : int(x + width)] for x, y, width, height in boxes]
    # Crops are rounded to whole grey levels.
    np.testing.assert_allclose(found, [by_deepface(face) for face in cut], atol=1e-3)
    assert found[:, EMOTIONS.index("anger")].std() > 0.1  # the faces differ by much more
    assert np.isnan(found[:, EMOTIONS.index("contempt")]).all()
    np.testing.assert_allclose(np.nansum(found, 1), 1, atol=1e-5)


@pytest.mark.parametrize("engine", ["onnx", "pytorch"])
def test_one_by_one_and_by_analyze_as_all_at_once(engine, weights, picture, boxes, monkeypatch):
    affect = DeepFaceAffect(engine)
    crops = np.stack([affect.crop(picture, box) for box in boxes])
    at_once = affect.classify(crops)
    one_by_one = np.concatenate([affect.classify(crop[None]) for crop in crops])
    np.testing.assert_allclose(one_by_one, at_once, atol=1e-5)
    assert affect.classify(crops[:0]).shape == (0, len(EMOTIONS))

    predict = type(affect._client).predict

    def only_one(self, img):
        if isinstance(img, list):
            raise TypeError("one at a time")
        return predict(self, img)

    monkeypatch.setattr(type(affect._client), "predict", only_one)
    slow = DeepFaceAffect(engine)
    assert slow._client is None
    np.testing.assert_allclose(slow.classify(crops), at_once, atol=1e-5)


def test_a_client_that_answers_otherwise_is_not_used(weights, picture, monkeypatch):
    client = type(DeepFaceAffect()._client)
    predict = client.predict
    monkeypatch.setattr(
        client, "predict", lambda self, img: predict(self, img)[::-1] if isinstance(img, list) else predict(self, img)
    )
    affect = DeepFaceAffect()
    assert affect._client is None
    crop = affect.crop(picture, FACE)
    np.testing.assert_allclose(affect.classify(crop[None]), DeepFaceAffect().classify(crop[None]))


@pytest.mark.parametrize("engine", ["onnx", "pytorch"])
def test_the_installed_deepface_reads_faces_all_at_once(engine, weights, picture, monkeypatch):
    """If this fails, DeepFace's internals have moved: all still works, but one face at a time."""
    affect = DeepFaceAffect(engine)
    assert affect._client is not None
    passes = []
    inside = affect._client._predict_internal
    monkeypatch.setattr(affect._client, "_predict_internal", lambda faces: passes.append(faces.shape) or inside(faces))
    affect.classify(np.stack([affect.crop(picture, FACE)] * 5))
    assert passes == [(5, 48, 48, 1)]


def test_engines_agree(weights, picture, monkeypatch):
    onnx = DeepFaceAffect("onnx")
    monkeypatch.setattr(backend_utils, "_backend_engine", None)
    monkeypatch.setattr(modeling, "cached_models", {task: {} for task in modeling.AVAILABLE_MODELS})
    pytorch = DeepFaceAffect("pytorch")
    assert type(onnx._client) is not type(pytorch._client)
    crops = onnx.crop(picture, FACE)[None]
    np.testing.assert_allclose(onnx.classify(crops), pytorch.classify(crops), atol=1e-5)


def test_the_fingerprint_is_that_of_engine_and_weights(home, monkeypatch):
    found = []
    for seed, engine in [(0, "onnx"), (0, "onnx"), (0, "pytorch"), (1, "onnx")]:
        monkeypatch.setattr(backend_utils, "_backend_engine", None)
        write_weights(home, seed)
        found.append(DeepFaceAffect(engine).fingerprint)
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_a_box_outside_of_the_picture(weights, picture):
    with pytest.raises(ValueError, match=r"box: .* lies outside of a picture of 512 x 512 pixels"):
        DeepFaceAffect().crop(picture, Box(600, 10, 50, 50))


# --- weights


def test_weights_are_downloaded_whole(home, tmp_path, monkeypatch, capsys):
    there = write_weights(tmp_path / "server")["onnx"]
    monkeypatch.setattr(deepface, "is_offline_mode", lambda: False)
    sources = (f"{(tmp_path / 'nowhere').as_uri()}/", f"{there.parent.as_uri()}/")
    monkeypatch.setattr(deepface, "SOURCES", sources)
    DeepFaceAffect()
    here = home / ".deepface" / "weights"
    assert (here / there.name).read_bytes() == there.read_bytes()
    assert [path.name for path in here.iterdir()] == [there.name]
    out, err = capsys.readouterr()
    assert there.name in err  # the bar
    assert out == ""


def test_a_download_that_breaks_off_leaves_nothing(home, tmp_path, monkeypatch):
    class Broken:
        headers = {"Content-Length": "1000"}  # noqa: RUF012
        parts = (b"x" * 10, b"")

        def __enter__(self):
            self.left = iter(self.parts)
            return self

        def __exit__(self, *error):
            pass

        def read(self, length):
            return next(self.left)

    monkeypatch.setattr(deepface, "is_offline_mode", lambda: False)
    monkeypatch.setattr(deepface, "urlopen", lambda url, timeout: Broken())
    with pytest.raises(OSError, match="broke off after 10 of 1000 bytes"):
        DeepFaceAffect()
    assert not list((home / ".deepface" / "weights").iterdir())


def test_without_weights_and_network_the_error_says_what_to_put_where(home):
    path = home / ".deepface" / "weights" / "facial_expression_model_weights.onnx"
    with pytest.raises(OSError, match=r"offline mode is set.*Get https://.*weights\.onnx and put it there") as error:
        DeepFaceAffect()
    assert str(path) in str(error.value)


def test_weights_that_are_none(weights):
    weights["onnx"].write_bytes(b"<html>Not Found</html>")
    with pytest.raises(ValueError, match=r"weights\.onnx: DeepFace can't read these weights.*delete the file"):
        DeepFaceAffect()


# --- engines


def test_an_engine_that_is_none():
    with pytest.raises(ValueError, match="engine: expected one of onnx, pytorch, tensorflow, found 'keras'"):
        DeepFaceAffect("keras")


def test_an_engine_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(deepface, "find_spec", lambda name: None if name == "tensorflow" else name)
    with pytest.raises(ImportError, match="'tensorflow' needs the package tensorflow: pip install tensorflow"):
        DeepFaceAffect("tensorflow")


def test_without_deepface(monkeypatch):
    monkeypatch.setattr(deepface, "find_spec", lambda name: None)
    for make in (DeepFaceAffect, lambda: DeepFaceDetector("opencv")):
        with pytest.raises(ImportError, match=r"pip install 'geli-hf\[faces\]'"):
            make()


def test_an_engine_is_chosen_once(weights):
    DeepFaceAffect("onnx")
    with pytest.raises(RuntimeError, match="expected pytorch, but DeepFace runs on onnx in this process already"):
        DeepFaceAffect("pytorch")


def test_in_a_process_of_its_own(weights, home):
    """Imports DeepFace when it is used, on the engine that is asked for whatever the environment says, and quietly."""
    code = """
import os, sys, warnings
from geli_hf.affect import DeepFaceAffect
assert "deepface" not in sys.modules
filters = list(warnings.filters)
affect = DeepFaceAffect("onnx")
from deepface.commons.backend_utils import get_backend_engine
assert get_backend_engine() == "onnx"
assert os.environ["DEEPFACE_BACKEND_ENGINE"] == "pytorch"
assert ("ignore", None, Warning, None, 0) not in warnings.filters
"""
    root = str(Path(deepface.__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    told = os.environ | {"DEEPFACE_BACKEND_ENGINE": "pytorch", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, cwd=home)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "deepface" not in done.stderr.lower()


# --- detectors


class TwoFaces:
    """As DeepFace's detectors are; finds faces where the picture is bright."""

    def detect_faces(self, img):
        from deepface.models.Detector import FacialAreaRegion

        eyes = {"left_eye": (40, 20), "right_eye": (20, 20)}
        regions = [(10, 8, 30, 32, 0.9), (50, 20, 12, 12, 0.4)]
        return [FacialAreaRegion(*box, confidence=sure, **eyes) for *box, sure in regions] if img.max() > 99 else []


@pytest.fixture
def two_faces(monkeypatch):
    monkeypatch.setattr(detection.modeling, "build_model", lambda task, model_name: TwoFaces())
    monkeypatch.setattr("deepface.DeepFace.modeling.build_model", lambda task, model_name: TwoFaces())
    return DeepFaceDetector("yunet")


def test_boxes_of_a_detector(two_faces):
    image = np.full((60, 80), 100, np.uint8)
    assert two_faces.detect(image) == [Box(10, 8, 30, 32), Box(50, 20, 12, 12)]
    assert two_faces.detect(image, (20, 40)) == [Box(10, 8, 30, 32)]


def test_a_guess_without_a_face_is_dropped(two_faces):
    from deepface import DeepFace

    dark = np.zeros((60, 80), np.uint8)
    [guess] = DeepFace.extract_faces(
        np.repeat(dark[..., None], 3, -1), detector_backend="yunet", enforce_detection=False, align=False
    )
    assert guess["facial_area"]["w"] == 79  # what there is to drop
    assert two_faces.detect(dark) == []


def test_a_detector_of_deepface(home, picture):
    """Its default one, with another cascade in the place of the one that it would download."""
    folder = home / ".deepface" / "weights"
    folder.mkdir(parents=True)
    for name in ("frontalface_default", "eye"):
        (folder / f"haarcascade_{name}.xml").write_text(_cascade_text()[0])
    detector = DeepFaceDetector("opencv")
    [face] = detector.detect(picture)
    x, y = face.x + face.width / 2, face.y + face.height / 2
    assert abs(x - 224) < 15
    assert abs(y - 112) < 15
    assert 70 < face.width < 130
    assert detector.detect(picture[250:]) == []


def test_a_detector_that_is_none():
    for name in ("yunett", "skip"):
        with pytest.raises(ValueError, match=f"detector '{name}': DeepFace can't make it"):
            DeepFaceDetector(name)


def test_what_a_detector_prints_is_not_output(monkeypatch, capsys):
    from deepface import DeepFace

    def download(task, model_name):
        print("downloading")
        raise ValueError("no network")

    monkeypatch.setattr(DeepFace.modeling, "build_model", download)
    with pytest.raises(ValueError, match="detector 'retinaface': DeepFace can't make it: no network"):
        DeepFaceDetector("retinaface")
    assert capsys.readouterr() == ("", "downloading\n")


def test_detectors_have_fingerprints_of_their_own(two_faces):
    assert two_faces.fingerprint != DeepFaceDetector("mtcnn").fingerprint
