"""What a face in a picture is here, and what finds and reads one: the protocols that everything else keeps to.

Pictures are grey (the luma of a video frame, full range), and live in memory only.
"""

from types import ModuleType
from typing import NamedTuple, Protocol

import numpy as np

NEEDS = "pip install 'geli-hf[faces]'"


def opencv() -> ModuleType:
    """OpenCV, which only those need who look at faces.

    Raises:
        ImportError: it is missing. Says what to install.
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
    """Finds faces."""

    fingerprint: str  # differs from that of every detector that may find other boxes

    def detect(self, image: np.ndarray, size: tuple[float, float] | None = None) -> list[Box]:
        """
        Args:
            image: (height, width) uint8.
            size: least and greatest width of the faces that are looked for, in pixels, where one is expected. It saves
                time, and a detector may be content with less.

        Returns:
            The faces, in any order; none is no error.
        """


class FaceClassifier(Protocol):
    """Reads the emotions of faces. Cutting a face out and reading it are two steps, so that a frame can be forgotten
    before there are enough faces for a batch."""

    fingerprint: str  # differs from that of every classifier that may give other probabilities

    def crop(self, image: np.ndarray, box: Box) -> np.ndarray:
        """
        Args:
            image: (height, width) uint8.
            box: may reach over the edge of the picture.

        Returns:
            A small uint8 array, of one shape for all faces.
        """

    def classify(self, crops: np.ndarray) -> np.ndarray:
        """
        Args:
            crops: (n, ...), as `crop` made them.

        Returns:
            (n, 8) float32: probabilities in the order of `EMOTIONS`. NaN for an emotion that it does not know.
        """


def square_crop(image: np.ndarray, box: Box, *, scale: float = 1.0, shift: float = 0.0, side: int) -> np.ndarray:
    """(side, side) uint8: a square around a face. What lies outside of the picture repeats its edge.

    Args:
        image: (height, width) uint8.
        scale: side of the square, in sides of the box (the greater one).
        shift: how far the square lies below the middle of the box, in sides of the box.
        side: pixels of the result.
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
    smaller = pixels > side
    return cv2.resize(inside, (side, side), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
