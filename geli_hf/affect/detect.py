"""Face detectors that need no network: a cascade that comes with a dependency, and YuNet from a file of the user's."""

from __future__ import annotations

import hashlib
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .faces import NEEDS, Box, opencv

NEIGHBOURS = 6  # overlapping windows that have to agree on a face; with more of them, faces are missed
CONFIDENCE = 0.8  # of YuNet


class CascadeDetector:
    """OpenCV's cascade of local binary patterns for upright frontal faces, a `FaceDetector`.

    Its data comes with scikit-image, since OpenCV's own packages hold none any more. It finds faces from 24 pixels,
    turned by up to about 30 degrees. It misses faces from the side and behind dark sunglasses. Where the size of a
    face is known, a third of `NEIGHBOURS` will do.

    Raises:
        ImportError: scikit-image, or an OpenCV with cascades, is missing.
    """

    def __init__(self):
        cv2, text = opencv(), cascade_xml()
        if not hasattr(cv2, "CascadeClassifier"):
            raise ImportError(f"OpenCV {cv2.__version__} has no CascadeClassifier: {NEEDS}")
        storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        self._cascade = cv2.CascadeClassifier()
        self._cascade.read(storage.getFirstTopLevelNode())
        self.fingerprint = f"lbp-cascade {hashlib.sha256(text.encode()).hexdigest()[:16]} {NEIGHBOURS}"

    def detect(self, image: np.ndarray, size: tuple[float, float] | None = None) -> list[Box]:
        """Find the faces of a picture, (height, width) uint8. See `FaceDetector`."""
        low, high = (max(24, int(size[0])), max(25, int(size[1]))) if size else (24, 0)
        agree = math.ceil(NEIGHBOURS / 3) if size else NEIGHBOURS
        boxes = self._cascade.detectMultiScale(
            image, scaleFactor=1.1, minNeighbors=agree, minSize=(low, low), maxSize=(high, high)
        )
        return [Box(*map(float, box)) for box in boxes]


def cascade_xml() -> str:
    """Read the cascade's XML from scikit-image.

    Raises:
        ImportError: scikit-image is missing.
    """
    spec = find_spec("skimage")
    if spec is None:
        raise ImportError(f"the cascade detector reads its data from scikit-image: {NEEDS}")
    path = Path(spec.origin).parent / "data" / "lbpcascade_frontalface_opencv.xml"
    # A misspelt tag keeps OpenCV from reading the file as it is.
    return path.read_text(encoding="utf-8").replace("featuhreParams", "featureParams")


class YuNetDetector:
    """OpenCV's YuNet, a `FaceDetector`. It sees faces from the side and partly covered ones, and is slower.

    Args:
        path: its model file, such as `face_detection_yunet_2023mar.onnx` of the OpenCV model zoo.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no YuNet.
    """

    def __init__(self, path: str | Path):
        cv2 = opencv()
        data = Path(path).read_bytes()
        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), CONFIDENCE)
            self._net.detect(np.zeros((320, 320, 3), np.uint8))
        except cv2.error as error:
            raise ValueError(f"{path}: not a YuNet model that OpenCV can run ({error.err or error})") from None
        self.fingerprint = f"yunet {hashlib.sha256(data).hexdigest()[:16]} {CONFIDENCE}"

    def detect(self, image: np.ndarray, size: tuple[float, float] | None = None) -> list[Box]:
        """Find the faces of a picture, (height, width) uint8. See `FaceDetector`."""
        self._net.setInputSize(image.shape[::-1])
        _, faces = self._net.detect(np.repeat(image[..., None], 3, 2))
        boxes = [] if faces is None else [Box(*map(float, face[:4])) for face in faces]
        return [box for box in boxes if size is None or size[0] <= box.width <= size[1]]
