"""DeepFace's emotion model and its face detectors, at the places of our own.

What goes through it are our boxes, many faces at once. Without a face it answers too, with the whole picture for a box
and plausible probabilities; nothing of that gets through here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import warnings
from contextlib import redirect_stdout
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.request import urlopen

import numpy as np
from huggingface_hub import is_offline_mode
from tqdm import tqdm
from transformers.utils import logging

from ..cache import whole
from .emotions import EMOTIONS, emotions_of_labels
from .faces import NEEDS, Box

logger = logging.get_logger(__name__)

# What each engine reads, and the package that it is.
WEIGHTS = {
    "onnx": "facial_expression_model_weights.onnx",
    "pytorch": "facial_expression_model_weights.pth",
    "tensorflow": "facial_expression_model_weights.h5",
}
PACKAGES = {"onnx": "onnxruntime", "pytorch": "torch", "tensorflow": "tensorflow"}
# Where DeepFace gets them from itself.
SOURCES = (
    "https://github.com/serengil/deepface_models/releases/download/v1.0/",
    "https://huggingface.co/serengil/deepface/resolve/main/",
)
SIDE = 48  # of the grey pictures that its emotion model reads
WHOLE = 224  # of the pictures that it scales all faces to before


class DeepFaceAffect:
    """DeepFace's emotion model, a `FaceClassifier`. It knows no contempt, which is NaN.

    Its weights are read from `$DEEPFACE_HOME/.deepface/weights` (`~/.deepface/weights`), and downloaded to there when
    they are used for the first time.

    Args:
        engine: what runs it: `onnx`, `pytorch` or `tensorflow`. A process has one, once DeepFace is imported.

    Raises:
        ImportError: DeepFace or the engine is missing.
        OSError: the weights are missing and can't be downloaded. Says which file to put where.
        RuntimeError: DeepFace runs on another engine in this process already.
        ValueError: there is no such engine, or it can't read the weights.
    """

    def __init__(self, engine: str = "onnx"):
        self._deepface = _import(engine)
        path = _weights(engine)
        self.fingerprint = f"deepface {engine} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
        try:
            client = self._deepface.build_model("Emotion", task="facial_attribute")
        except Exception as error:
            raise ValueError(
                f"{path}: DeepFace can't read these weights ({error}); delete the file, and it is downloaded anew"
            ) from error
        probe = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE), np.uint8)
        alone = [self._analyze(crop) for crop in probe]
        self._emotions = emotions_of_labels(list(alone[0]))
        self._client = client if _is_batched(client, probe, alone) else None

    def crop(self, image: np.ndarray, box: Box) -> np.ndarray:
        """(48, 48) uint8: what DeepFace's emotion model sees of the box, in DeepFace's way: scaled to fit into a
        square, black beside it, and from there to the size of the model. See `FaceClassifier`."""
        import cv2

        height, width = image.shape
        left, top = max(0, int(box.x)), max(0, int(box.y))
        face = image[top : max(0, int(box.y + box.height)), left : max(0, int(box.x + box.width))]
        if not face.size:
            raise ValueError(f"box: {tuple(box)} lies outside of a picture of {width} x {height} pixels")
        factor = WHOLE / max(face.shape)
        size = tuple(max(1, int(length * factor)) for length in face.shape[::-1])
        square = np.zeros((WHOLE, WHOLE), np.float32)
        x, y = (WHOLE - size[0]) // 2, (WHOLE - size[1]) // 2
        square[y : y + size[1], x : x + size[0]] = cv2.resize(face.astype(np.float32), size)
        return cv2.resize(square, (SIDE, SIDE)).round().astype(np.uint8)

    def classify(self, crops: np.ndarray) -> np.ndarray:
        """(n, 8) float32: probabilities of (n, 48, 48) faces. See `FaceClassifier`."""
        result = np.full((len(crops), len(EMOTIONS)), np.nan, np.float32)
        if not len(crops):
            return result
        if self._client is not None:
            result[:, self._emotions] = _predict(self._client, crops)
        else:
            result[:, self._emotions] = [list(self._analyze(crop).values()) for crop in crops]
        return result

    def _analyze(self, crop: np.ndarray) -> dict[str, float]:
        """DeepFace's own answer for one face, as shares of 1."""
        import cv2

        # Every pixel is repeated, so that scaling it down again gives it back as it was.
        face = cv2.resize(crop, (WHOLE, WHOLE), interpolation=cv2.INTER_NEAREST)
        [answer] = self._deepface.analyze(
            np.repeat(face[..., None], 3, -1),
            actions=["emotion"],
            detector_backend="skip",
            enforce_detection=False,
            silent=True,
        )
        return {name: float(percent) / 100 for name, percent in answer["emotion"].items()}


class DeepFaceDetector:
    """One of DeepFace's face detectors, a `FaceDetector`.

    Many of them download a model when they are used for the first time, and some need a package more; DeepFace's
    errors say which.

    Args:
        name: as DeepFace calls it, such as `retinaface`, `yunet`, `mtcnn`, `mediapipe`, `opencv`.
        engine: what DeepFace runs on, see `DeepFaceAffect`; the same for both.

    Raises:
        ImportError: DeepFace or its engine is missing.
        RuntimeError: DeepFace runs on another engine in this process already.
        ValueError: DeepFace has no such detector, or can't get its model or the package that it needs.
    """

    def __init__(self, name: str, *, engine: str = "onnx"):
        self._deepface = _import(engine)
        self.name = name
        try:
            with redirect_stdout(sys.stderr):  # packages behind it print that they download
                self._deepface.build_model(name, task="face_detector")
        except Exception as error:
            raise ValueError(f"detector {name!r}: DeepFace can't make it: {error}") from error
        self.fingerprint = f"deepface {version('deepface')} {name}"

    def detect(self, image: np.ndarray, size: tuple[float, float] | None = None) -> list[Box]:
        """See `FaceDetector`."""
        found = self._deepface.extract_faces(
            np.repeat(image[..., None], 3, -1),
            detector_backend=self.name,
            enforce_detection=False,
            align=False,
            normalize_face=False,
        )
        # Where it sees no face DeepFace answers with the whole picture, and no confidence in that.
        areas = [face["facial_area"] for face in found if face["confidence"] > 0]
        boxes = [Box(*(float(area[side]) for side in "xywh")) for area in areas]
        return [box for box in boxes if size is None or size[0] <= box.width <= size[1]]


def _import(engine: str) -> ModuleType:
    """DeepFace on that engine. It asks the environment for one when it is imported, and then no more."""
    if engine not in PACKAGES:
        raise ValueError(f"engine: expected one of {', '.join(PACKAGES)}, found {engine!r}")
    if find_spec("deepface") is None:
        raise ImportError(f"DeepFace is not installed: {NEEDS}")
    if find_spec(PACKAGES[engine]) is None:
        raise ImportError(
            f"engine: DeepFace's {engine!r} needs the package {PACKAGES[engine]}: pip install {PACKAGES[engine]}"
        )
    before = dict(os.environ)
    os.environ["DEEPFACE_BACKEND_ENGINE"] = engine
    os.environ.setdefault("DEEPFACE_LOG_LEVEL", str(logging.CRITICAL))  # it prints its messages
    try:
        with warnings.catch_warnings():  # it silences those of everybody
            from deepface import DeepFace
            from deepface.commons.backend_utils import get_backend_engine
        runs_on = get_backend_engine()
    except ImportError as error:
        raise ImportError(f"DeepFace can't be imported ({error}): {NEEDS}") from error
    finally:
        for name in ("DEEPFACE_BACKEND_ENGINE", "DEEPFACE_LOG_LEVEL"):
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)
    if runs_on != engine:
        raise RuntimeError(
            f"engine: expected {engine}, but DeepFace runs on {runs_on} in this process already and can't change; "
            f"take engine={runs_on!r}, or start a process in which nothing has imported DeepFace before"
        )
    return DeepFace


def _weights(engine: str) -> Path:
    """The file with the emotion model's weights, which is downloaded if it isn't there."""
    name = WEIGHTS[engine]
    path = Path(os.environ.get("DEEPFACE_HOME", Path.home())) / ".deepface" / "weights" / name
    if path.is_file():
        return path
    problems = ["offline mode is set"] if is_offline_mode() else []
    for source in [] if problems else SOURCES:
        try:
            _download(source + name, path)
        except OSError as error:
            problems.append(f"{source + name}: {error}")
        else:
            return path
    raise OSError(
        f"{path}: the weights of DeepFace's emotion model are not there and can't be downloaded "
        f"({'; '.join(problems)}). Get {SOURCES[0] + name} and put it there"
    )


def _download(url: str, path: Path) -> None:
    with urlopen(url, timeout=30) as answer, whole(path) as partial:
        length = int(answer.headers.get("Content-Length") or 0)
        with (
            partial.open("wb") as file,
            tqdm.wrapattr(file, "write", total=length or None, desc=path.name, miniters=1) as out,
        ):
            shutil.copyfileobj(answer, out)
            if length and file.tell() != length:
                raise OSError(f"the connection broke off after {file.tell()} of {length} bytes")


def _predict(client: Any, crops: np.ndarray) -> np.ndarray:
    """(n, emotions): shares of 1 of (n, 48, 48) faces, all at once."""
    faces = [np.repeat((crop / np.float32(255))[..., None], 3, -1) for crop in crops]
    shares = np.reshape(client.predict(faces), (len(crops), -1))  # without the first axis for a single one
    return shares / shares.sum(1, keepdims=True)


def _is_batched(client: Any, probe: np.ndarray, alone: list[dict[str, float]]) -> bool:
    """Whether the class that DeepFace keeps for itself gives for several faces what `analyze` gives for each."""
    expected = [list(answer.values()) for answer in alone]
    try:
        agrees = np.allclose(_predict(client, probe), expected, atol=1e-4)
        problem = "gives other values"
    except Exception as error:
        agrees, problem = False, f"{type(error).__name__}: {error}"
    if not agrees:
        logger.warning("DeepFace's emotion model has changed (%s): faces are analysed one by one, slowly", problem)
    return agrees
