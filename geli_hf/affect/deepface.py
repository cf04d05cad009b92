"""DeepFace's emotion model and face detectors behind the protocols of `faces.py`.

DeepFace answers without a face too, with the whole picture as the box and plausible probabilities. Here such an answer
is dropped.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import warnings
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
from accelerate.utils import patch_environment
from huggingface_hub import is_offline_mode

from .emotions import EMOTIONS, emotions_of_labels
from .faces import NEEDS, Box

WEIGHTS = {  # by engine
    "onnx": "facial_expression_model_weights.onnx",
    "pytorch": "facial_expression_model_weights.pth",
    "tensorflow": "facial_expression_model_weights.h5",
}
SOURCE = "https://github.com/serengil/deepface_models/releases/download/v1.0/"
INPUT_SIDE = 48  # pixels of the grey face that the emotion model reads
SQUARE_SIDE = 224  # pixels of the square into which DeepFace scales every face first


class DeepFaceAffect:
    """DeepFace's emotion model, a `FaceClassifier`. It has no contempt, which is NaN.

    DeepFace reads its weights from `$DEEPFACE_HOME/.deepface/weights` (default: `~/.deepface/weights`) and downloads
    them to there when they are missing, unless offline mode is set.

    Args:
        engine: `onnx`, `pytorch` or `tensorflow`. A process has one engine, once DeepFace is imported.

    Raises:
        ImportError: DeepFace is missing.
        OSError: the weights are missing and can't be downloaded. The message names the file and where to put it.
        RuntimeError: DeepFace runs on another engine in this process already.
        ValueError: there is no such engine, or it can't read the weights.
    """

    def __init__(self, engine: str = "onnx"):
        deepface = _import_deepface(engine)
        from deepface.models.demography.DemographyUtils import EMOTION_LABELS

        path = Path(os.environ.get("DEEPFACE_HOME", Path.home())) / ".deepface" / "weights" / WEIGHTS[engine]
        try:
            if not path.is_file() and is_offline_mode():
                raise OSError("offline mode is set")
            with redirect_stdout(sys.stderr):
                self._client = deepface.build_model("Emotion", task="facial_attribute")
        except Exception as error:
            if path.is_file():
                raise ValueError(
                    f"{path}: DeepFace can't read these weights ({error}); delete the file, and it is downloaded again"
                ) from error
            raise OSError(
                f"{path}: the weights of DeepFace's emotion model are missing and can't be downloaded ({error}). "
                f"Get {SOURCE}{path.name} and put it there"
            ) from error
        self._emotions = emotions_of_labels(EMOTION_LABELS)
        self.fingerprint = f"deepface {engine} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"

    def crop(self, image: np.ndarray, box: Box) -> np.ndarray:
        """Cut out a face as `DeepFace.analyze` does: scaled into a black square, then to the size of the model.

        Args:
            image: (height, width) uint8.
            box: the face; parts outside of the picture are left out.

        Returns:
            (48, 48) uint8.

        Raises:
            ValueError: the box lies outside of the picture.
        """
        import cv2

        height, width = image.shape
        left, top = max(0, int(box.x)), max(0, int(box.y))
        face = image[top : max(0, int(box.y + box.height)), left : max(0, int(box.x + box.width))]
        if not face.size:
            raise ValueError(f"box: {tuple(box)} lies outside of a picture of {width} x {height} pixels")
        factor = SQUARE_SIDE / max(face.shape)
        size = tuple(max(1, int(length * factor)) for length in face.shape[::-1])
        square = np.zeros((SQUARE_SIDE, SQUARE_SIDE), np.float32)
        x, y = (SQUARE_SIDE - size[0]) // 2, (SQUARE_SIDE - size[1]) // 2
        square[y : y + size[1], x : x + size[0]] = cv2.resize(face.astype(np.float32), size)
        return cv2.resize(square, (INPUT_SIDE, INPUT_SIDE)).round().astype(np.uint8)

    def classify(self, crops: np.ndarray) -> np.ndarray:
        """Compute the emotions of faces, (n, 48, 48) uint8 to (n, 8) float32. See `FaceClassifier`."""
        result = np.full((len(crops), len(EMOTIONS)), np.nan, np.float32)
        if len(crops):
            faces = [np.repeat((crop / np.float32(255))[..., None], 3, -1) for crop in crops]
            shares = np.reshape(self._client.predict(faces), (len(crops), -1))  # one face comes without the first axis
            result[:, self._emotions] = shares / shares.sum(1, keepdims=True)
        return result


class DeepFaceDetector:
    """One of DeepFace's face detectors, a `FaceDetector`.

    Args:
        name: DeepFace's name of it, such as `retinaface`, `yunet`, `mtcnn`, `mediapipe`, `opencv`. Many download a
            model when they are used for the first time, and some need one more package.
        engine: see `DeepFaceAffect`; the same for both.

    Raises:
        ImportError: DeepFace is missing.
        RuntimeError: DeepFace runs on another engine in this process already.
        ValueError: DeepFace has no such detector or engine, or lacks the model or package that it needs.
    """

    def __init__(self, name: str, *, engine: str = "onnx"):
        self._deepface = _import_deepface(engine)
        self.name = name
        try:
            with redirect_stdout(sys.stderr):  # packages behind it print that they download
                self._deepface.build_model(name, task="face_detector")
        except Exception as error:
            raise ValueError(f"detector {name!r}: DeepFace can't load it: {error}") from error
        self.fingerprint = f"deepface {version('deepface')} {name}"

    def detect(self, image: np.ndarray, size: tuple[float, float] | None = None) -> list[Box]:
        """Find the faces of a picture, (height, width) uint8. See `FaceDetector`."""
        answers = self._deepface.extract_faces(
            np.repeat(image[..., None], 3, -1),
            detector_backend=self.name,
            enforce_detection=False,
            align=False,
            normalize_face=False,
        )
        # Without a face the answer is the whole picture, with no confidence.
        areas = [face["facial_area"] for face in answers if face["confidence"] > 0]
        boxes = [Box(*(float(area[side]) for side in "xywh")) for area in areas]
        return [box for box in boxes if size is None or size[0] <= box.width <= size[1]]


def _import_deepface(engine: str) -> ModuleType:
    """Import DeepFace on an engine, which it takes from the environment once per process."""
    level = os.environ.get("DEEPFACE_LOG_LEVEL", logging.CRITICAL)  # DeepFace prints its messages
    try:
        # DeepFace ignores the warnings of all packages from then on.
        with patch_environment(DEEPFACE_BACKEND_ENGINE=engine, DEEPFACE_LOG_LEVEL=level), warnings.catch_warnings():
            from deepface import DeepFace
            from deepface.commons.backend_utils import get_backend_engine

            runs_on = get_backend_engine()
    except ImportError as error:
        raise ImportError(f"DeepFace can't be imported ({error}): {NEEDS}") from error
    if runs_on != engine:
        raise RuntimeError(
            f"engine: expected {engine}, but DeepFace runs on {runs_on} in this process already and can't change; "
            f"take engine={runs_on!r}, or start a new process"
        )
    return DeepFace
