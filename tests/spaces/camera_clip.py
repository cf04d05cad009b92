"""A clip for a browser's camera: scikit-image's `astronaut` (NASA, public domain), smiling and not smiling."""

from collections.abc import Sequence
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


def write_clip(path: Path, pictures: Sequence[np.ndarray] = (), *, seconds: float = 2.0, rate: int = 10) -> Path:
    """Write `seconds` of each picture: by default of the face without a smile, then of the one with it.

    A path `*.mjpeg` is Motion JPEG, which Chromium plays for a camera; any other is H.264.
    """
    kind, pixels = ("mjpeg", "yuvj420p") if path.suffix == ".mjpeg" else ("libx264", "yuv420p")
    with av.open(str(path), "w") as file:
        stream = file.add_stream(kind, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 640, 480, pixels
        for picture in pictures or (not_smiling(), smiling()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            for _ in range(round(seconds * rate)):
                frame.pts = None
                file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
