"""Boxes of faces, and the protocols of what finds and reads a face.

Pictures are grey (the luma of a video frame, full range), and live in memory only.
"""

from types import ModuleType
from typing import NamedTuple, Protocol

import numpy as np

NEEDS = "pip install 'geli-hf[faces]'"


def opencv() -> ModuleType:
    """Import OpenCV, which comes with an extra.

    Raises:
        ImportError: it is missing.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(f"looking at faces needs OpenCV: {NEEDS}") from error
    return cv2


class Box(NamedTuple):
    """A face in a picture, in pixels: the upper left corner and the size."""

    x: float
    y: float
    width: float
    height: float


class FaceDetector(Protocol):
    """The protocol of what finds faces.

    Attributes:
        fingerprint: differs from that of every detector that may find other boxes.
    """

    fingerprint: str

    def detect(self, image: np.ndarray, size: tuple[float, float] | None = None) -> list[Box]:
        """Find the faces of a picture.

        Args:
            image: (height, width) uint8.
            size: least and greatest width in pixels, where a face of known size is expected. It saves time, and a
                detector may accept less certain faces then.

        Returns:
            The faces, in any order; none is no error.
        """


class FaceClassifier(Protocol):
    """The protocol of what reads the emotions of faces.

    Cutting out and reading are two steps, so that a frame can be freed before there are enough faces for a batch.

    Attributes:
        fingerprint: differs from that of every classifier that may give other probabilities.
    """

    fingerprint: str

    def crop(self, image: np.ndarray, box: Box) -> np.ndarray:
        """Cut out a face.

        Args:
            image: (height, width) uint8.
            box: may reach over the edge of the picture.

        Returns:
            A small uint8 array, of one shape for all faces.
        """

    def classify(self, crops: np.ndarray) -> np.ndarray:
        """Compute the emotions of faces.

        Args:
            crops: (n, ...), as `crop` made them.

        Returns:
            (n, 8) float32: probabilities in the order of `EMOTIONS`. NaN for an emotion that it has no label of.
        """


def scaled(image: np.ndarray, factor: float) -> tuple[np.ndarray, float]:
    """Scale a picture (height, width), and return the true factor too: sides are whole pixels."""
    height, width = image.shape
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if size == (width, height):
        return image, 1.0
    cv2 = opencv()
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=method), size[0] / width


def square_crop(image: np.ndarray, box: Box, *, scale: float = 1.0, shift: float = 0.0, side: int) -> np.ndarray:
    """Cut out a square around a face. Outside of the picture its edge is repeated.

    Args:
        image: (height, width) uint8.
        box: the face.
        scale: side of the square, in sides of the box (the greater one).
        shift: distance of the square below the middle of the box, in sides of the box.
        side: pixels of the result.

    Returns:
        (side, side) uint8.

    Raises:
        ValueError: the square lies outside of the picture.
    """
    cv2 = opencv()
    length = max(box.width, box.height) * scale
    x = box.x + box.width / 2
    y = box.y + box.height / 2 + max(box.width, box.height) * shift
    left, top = round(x - length / 2), round(y - length / 2)
    pixels = max(1, round(length))
    right, bottom = left + pixels, top + pixels
    height, width = image.shape
    inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if not inside.size:
        raise ValueError(f"box: {tuple(box)} lies outside of a picture of {width} x {height} pixels")
    edges = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    if any(edges):
        inside = cv2.copyMakeBorder(inside, *edges, cv2.BORDER_REPLICATE)
    return cv2.resize(inside, (side, side), interpolation=cv2.INTER_AREA if pixels > side else cv2.INTER_LINEAR)
