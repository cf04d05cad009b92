"""DeepFace's emotion model behind the protocol of `faces.py`."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import numpy as np
from accelerate.utils import patch_environment
from huggingface_hub import is_offline_mode

from .emotions import EMOTIONS, emotions_of_labels
from .faces import NEEDS, Box

ENGINE = "onnx"
WEIGHTS = "facial_expression_model_weights.onnx"
SOURCE = "https://github.com/serengil/deepface_models/releases/download/v1.0/"
INPUT_SIDE = 48  # pixels of the grey face that the emotion model reads
SQUARE_SIDE = 224  # pixels of the square into which DeepFace scales every face first


class DeepFaceAffect:
    """DeepFace's emotion model, a `FaceClassifier`. It has no contempt, which is NaN.

    DeepFace reads its weights from `$DEEPFACE_HOME/.deepface/weights` (default: `~/.deepface/weights`) and downloads
    them to there when they are missing, unless offline mode is set.

    Raises:
        ImportError: DeepFace is missing.
        OSError: the weights can't be read, or are missing and can't be downloaded. The message names the file.
        RuntimeError: DeepFace runs on another engine than ONNX in this process already.
    """

    def __init__(self):
        deepface = _import_deepface()
        from deepface.models.demography.DemographyUtils import EMOTION_LABELS

        path = Path(os.environ.get("DEEPFACE_HOME", Path.home())) / ".deepface" / "weights" / WEIGHTS
        try:
            if not path.is_file() and is_offline_mode():
                raise OSError("offline mode is set")
            with redirect_stdout(sys.stderr):
                self._client = deepface.build_model("Emotion", task="facial_attribute")
        except Exception as error:
            raise OSError(
                f"{path}: DeepFace can't read its weights, or can't download them ({error}); get {SOURCE}{path.name}"
            ) from error
        self._emotions = emotions_of_labels(EMOTION_LABELS)
        self.fingerprint = f"deepface {ENGINE} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"

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


def _import_deepface() -> ModuleType:
    """Import DeepFace on its ONNX engine; it reads the engine from the environment, once per process."""
    level = os.environ.get("DEEPFACE_LOG_LEVEL", logging.CRITICAL)  # DeepFace prints its messages
    try:
        # DeepFace ignores the warnings of all packages from then on.
        with patch_environment(DEEPFACE_BACKEND_ENGINE=ENGINE, DEEPFACE_LOG_LEVEL=level), warnings.catch_warnings():
            from deepface import DeepFace
            from deepface.commons.backend_utils import get_backend_engine

            runs_on = get_backend_engine()
    except ImportError as error:
        raise ImportError(f"DeepFace can't be imported ({error}): {NEEDS}") from error
    if runs_on != ENGINE:
        raise RuntimeError(f"DeepFace runs on {runs_on} in this process already, and not on {ENGINE}; start a new one")
    return DeepFace
