"""A clip for a browser's camera: scikit-image's `astronaut` (NASA, public domain), smiling and not smiling."""

from pathlib import Path

import av
import cv2
import numpy as np
from skimage import data


def smiling() -> np.ndarray:
    """(480, 640, 3) RGB: a face that smiles."""
    return cv2.resize(data.astronaut()[0:300, 30:430], (640, 480), interpolation=cv2.INTER_LINEAR)


def not_smiling() -> np.ndarray:
    """The same face with a mouth drawn over the smile, whose corners hang down."""
    picture = data.astronaut().astype(np.float32)
    skin = np.median(picture[156:164, 215:235].reshape(-1, 3), 0)
    lower = cv2.ellipse(np.zeros(picture.shape[:2], np.float32), (224, 143), (42, 26), 0, 0, 360, 1, -1)
    lower = cv2.GaussianBlur(lower, (0, 0), 4)[..., None]
    picture = (picture * (1 - lower) + skin * lower).astype(np.uint8)
    mouth = np.array([[224 + x, 146 + 5 * (x / 14) ** 2] for x in range(-14, 15)], np.int32)
    cv2.polylines(picture, [mouth], False, (150, 85, 85), 4)
    return cv2.resize(picture[0:300, 30:430], (640, 480), interpolation=cv2.INTER_LINEAR)


def write_clip(path: Path, *, seconds: float = 2.0, rate: int = 10) -> Path:
    """`seconds` of the one and as many of the other, as Motion JPEG, which Chromium plays for a camera."""
    with av.open(str(path), "w", format="mjpeg") as file:
        stream = file.add_stream("mjpeg", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuvj420p"
        for picture in (not_smiling(), smiling()):
            for _ in range(round(seconds * rate)):
                file.mux(
                    stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p"))
                )
        file.mux(stream.encode())
    return path
