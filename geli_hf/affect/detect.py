"""What finds faces without a network: a cascade that comes with a dependency, and YuNet from a file of the user's."""

from __future__ import annotations

import hashlib
import math
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .faces import NEEDS, Box, opencv


class CascadeDetector:
    """OpenCV's cascade of local binary patterns for upright frontal faces, a `FaceDetector`.

    The cascade's data comes with scikit-image, since OpenCV's own packages hold none any more. It finds faces from 24
    pixels, turned by up to about 30 degrees. It misses faces from the side and those behind dark sunglasses, and no
    number of neighbours changes that.

    Args:
        neighbours: how many overlapping windows have to agree. More of them miss more faces and invent fewer. Where
            the size is known a third of them will do: a face is expected there, and fewer sizes are looked at.

    Raises:
        ImportError: scikit-image, or an OpenCV with cascades, is missing.
    """

    def __init__(self, neighbours: int = 6):
        self.neighbours = neighbours
        self._cascade = _read_cascade()

    @cached_property
    def fingerprint(self) -> str:
        return f"lbp-cascade {_cascade_text()[1]} {self.neighbours}"

    def detect(self, image: np.ndarray, size: tuple[float, float] | None = None) -> list[Box]:
        """See `FaceDetector`."""
        low, high = (max(24, int(size[0])), max(25, int(size[1]))) if size else (24, 0)
        agree = math.ceil(self.neighbours / 3) if size else self.neighbours
        found = self._cascade.detectMultiScale(
            image, scaleFactor=1.1, minNeighbors=agree, minSize=(low, low), maxSize=(high, high)
        )
        return [Box(*map(float, box)) for box in found]


def _read_cascade():
    cv2 = opencv()
    if not hasattr(cv2, "CascadeClassifier"):
        raise ImportError(
            f"the cascade detector needs an OpenCV with CascadeClassifier; OpenCV {cv2.__version__} has it in "
            f"opencv-contrib-python-headless: {NEEDS}"
        )
    storage = cv2.FileStorage(_cascade_text()[0], cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
    cascade = cv2.CascadeClassifier()
    if not cascade.read(storage.getFirstTopLevelNode()):
        raise ImportError("this OpenCV can't read scikit-image's face cascade; install the pinned versions")
    return cascade


def _cascade_text() -> tuple[str, str]:
    """The cascade's XML and its hash."""
    found = find_spec("skimage")
    path = Path(found.origin).parent / "data" / "lbpcascade_frontalface_opencv.xml" if found else None
    if path is None or not path.is_file():
        raise ImportError(f"the cascade detector reads its data from scikit-image: {NEEDS}")
    # A misspelt tag keeps OpenCV from reading the file as it is.
    text = path.read_text(encoding="utf-8").replace("featuhreParams", "featureParams")
    return text, hashlib.sha256(text.encode()).hexdigest()[:16]


class YuNetDetector:
    """OpenCV's YuNet, a `FaceDetector`: sees faces from the side and partly covered, and costs more.

    Args:
        path: its model file, such as `face_detection_yunet_2023mar.onnx` of the OpenCV model zoo.
        confidence: a face with less counts for none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no YuNet.
    """

    def __init__(self, path: str | Path, confidence: float = 0.8):
        cv2 = opencv()
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"{path}: no such file; YuNet's model is face_detection_yunet_2023mar.onnx of the OpenCV model zoo"
            )
        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), confidence)
            self._net.detect(np.zeros((320, 320, 3), np.uint8))
        except cv2.error as error:
            raise ValueError(f"{path}: not a YuNet model that OpenCV can run ({error.err or error})") from None
        data = Path(path).read_bytes()
        self.fingerprint = f"yunet {hashlib.sha256(data).hexdigest()[:16]} {confidence}"

    def detect(self, image: np.ndarray, size: tuple[float, float] | None = None) -> list[Box]:
        """See `FaceDetector`."""
        self._net.setInputSize(image.shape[::-1])
        _, found = self._net.detect(np.repeat(image[..., None], 3, 2))
        boxes = [] if found is None else [Box(*map(float, face[:4])) for face in found]
        return [box for box in boxes if size is None or size[0] <= box.width <= size[1]]
