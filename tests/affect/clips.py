"""Videos to test with: scikit-image's picture of an astronaut, who smiles, put where a test wants her.

The picture is NASA's, free of rights (https://scikit-image.org/docs/stable/api/skimage.data.html).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from skimage import data

from geli_hf.affect.faces import Box

# Her head, and within that square the face as the cascade sees it, both found by eye.
HEAD = (slice(0, 240), slice(110, 350))
FACE = Box(63 / 240, 65 / 240, 102 / 240, 102 / 240)


@lru_cache
def astronaut() -> np.ndarray:
    """(512, 512, 3) RGB."""
    return data.astronaut()


@lru_cache
def background(width: int, height: int) -> np.ndarray:
    """(height, width, 3) RGB: something like a wall, with soft spots and some grain."""
    rng = np.random.default_rng(0)
    spots = cv2.resize(rng.normal(130, 25, (5, 7, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(spots + rng.normal(0, 3, (height, width, 1)), 0, 255).astype(np.uint8)


def head_at(box: Sequence[float]) -> Box:
    """The square of the head whose face is in this box."""
    x, y, width, _ = box
    side = width / FACE.width
    return Box(x - FACE.x * side, y - FACE.y * side, side, side)


def scene(*faces: Sequence[float], width: int = 640, height: int = 480, mirrored: bool = False) -> np.ndarray:
    """(height, width, 3) RGB: a wall, and before it the astronaut's face in each of these boxes."""
    picture = background(width, height).copy()
    for face in faces:
        x, y, side, _ = (round(value) for value in head_at(face))
        head = cv2.resize(astronaut()[HEAD], (side, side), interpolation=cv2.INTER_AREA)
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + side, width), min(y + side, height)
        picture[top:bottom, left:right] = head[top - y : bottom - y, left - x : right - x]
    return picture[:, ::-1].copy() if mirrored else picture


def walk(frames: int, side: float = 90.0) -> list[Box]:
    """Return the boxes of a face that moves about, in a picture of 640 x 480."""
    phase = np.linspace(0, 2 * np.pi, frames, endpoint=False)
    return [Box(250 + 120 * np.sin(p), 180 + 40 * np.sin(2 * p), side, side) for p in phase]


def write(
    to: Any,
    pictures: Iterable[np.ndarray | av.VideoFrame],
    *,
    times: Sequence[float] | None = None,
    rate: int = 25,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    container: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: tuple | None = None,
    full: bool = False,
    sound: float = 0.0,
) -> Any:
    """Write a video, and return where.

    Args:
        to: path, or an object with `write`.
        pictures: RGB or grey arrays, or frames as the encoder gets them.
        times: of the frames, in seconds. Default: constant rate.
        rotation: arguments of PyAV's `set_display_rotation`.
        full: luma of 0..255 instead of 16..235.
        sound: seconds of silence beside it.
    """
    kinds = {"libvpx": {"deadline": "realtime", "cpu-used": "8"}, "libx264": {"preset": "ultrafast", "crf": "16"}}
    with av.open(
        str(to) if isinstance(to, Path) else to, "w", format=container, options=container_options or {}
    ) as file:
        stream = None
        for number, picture in enumerate(pictures):
            frame = picture if isinstance(picture, av.VideoFrame) else _frame(picture)
            if stream is None:
                stream = file.add_stream(codec, rate=rate, options=kinds.get(codec, {}) | (options or {}))
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixels
                stream.codec_context.time_base = stream.time_base = Fraction(1, 1000 if times else rate)
                stream.codec_context.color_range = 2 if full else 1
                if rotation:
                    stream.set_display_rotation(*rotation)
                if sound:
                    silence = file.add_stream("aac" if container is None else "libopus", rate=48000, layout="mono")
            if frame.format.name != pixels:
                frame = frame.reformat(format=pixels, dst_color_range=2 if full else 1, dst_colorspace="ITU601")
            frame.pts = number if times is None else round(1000 * times[number])
            frame.time_base = stream.codec_context.time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if sound:
            for first in range(0, round(sound * 48000), 960):
                part = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), "fltp", "mono")
                part.sample_rate, part.pts, part.time_base = 48000, first, Fraction(1, 48000)
                file.mux(silence.encode(part))
            file.mux(silence.encode())
    return to


def _frame(picture: np.ndarray) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(picture, format="gray" if picture.ndim == 2 else "rgb24")


class OnlyReads:
    """A stream that can't be rewound, as one from a browser."""

    def __init__(self, data: bytes):
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


class OnlyWrites:
    def __init__(self):
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += bytes(data)
        return len(data)
