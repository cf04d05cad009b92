"""A drawn face, which is nobody's, and a clip of it: the example of the facial-signal page."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np

from ..affect.faces import NEEDS, opencv

WIDTH, HEIGHT = 480, 360
RATE = 10  # frames a second of the clip
STEPS = 8  # smiles between none and a broad one that are drawn for it
SKIN, SHADE, LIGHT = (222, 176, 148), (160, 124, 104), (236, 196, 170)
HAIR, LIP, DARK, TEETH = (58, 42, 36), (178, 92, 88), (60, 25, 25), (245, 242, 236)


class _Canvas:
    """A picture of 640 x 480 pixels to which soft shapes are added."""

    def __init__(self):
        wall = np.linspace(190, 140, 480, dtype=np.float32)[:, None, None] * np.float32([0.92, 0.97, 1.0])
        self.picture = np.repeat(wall, 640, axis=1)

    def lay(self, mask: np.ndarray, colour: Sequence[float], blur: float, share: float = 1.0) -> None:
        cv2 = opencv()
        x, y, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
        margin = math.ceil(3 * blur)
        place = slice(max(0, y - margin), y + height + margin), slice(max(0, x - margin), x + width + margin)
        mask, picture = mask[place], self.picture[place]
        if not mask.size:
            return
        if blur:
            mask = cv2.GaussianBlur(mask, (0, 0), blur)
        picture += share * mask[..., None] * (np.float32(colour) - picture)

    def ellipse(self, x: float, y: float, width: float, height: float, colour, blur: float = 1.0) -> None:
        self.lay(ellipse(x, y, width, height), colour, blur)

    def arc(self, x, y, width, height, colour, *, turned=0.0, first=200, last=340, line=4, blur=1.0, share=1.0):
        angle = np.radians(np.arange(first, last + 1, 4))
        around, down = width * np.cos(angle), height * np.sin(angle)
        turn = math.radians(turned)
        points = np.stack(
            [x + around * math.cos(turn) - down * math.sin(turn), y + around * math.sin(turn) + down * math.cos(turn)],
            axis=1,
        )
        self.line(points, colour, line=line, blur=blur, share=share)

    def line(self, points: np.ndarray, colour, *, line: int = 3, blur: float = 1.0, share: float = 1.0) -> None:
        mask = np.zeros((480, 640), np.float32)
        cv2 = opencv()
        cv2.polylines(mask, [np.rint(16 * points).astype(np.int32)], False, 1, line, cv2.LINE_AA, 4)
        self.lay(mask, colour, blur, share)

    def area(self, points: np.ndarray, colour, blur: float = 1.0) -> None:
        mask = np.zeros((480, 640), np.float32)
        cv2 = opencv()
        cv2.fillPoly(mask, [np.rint(16 * points).astype(np.int32)], 1, cv2.LINE_AA, 4)
        self.lay(mask, colour, blur)


def ellipse(x: float, y: float, width: float, height: float, last: int = 360) -> np.ndarray:
    """Return a mask (480, 640) float32: 1 within an ellipse.

    Args:
        x, y: its centre.
        width, height: its half axes.
        last: degrees of the part that is filled, from 0 on.
    """
    cv2 = opencv()
    mask = np.zeros((480, 640), np.float32)
    centre, axes = (round(x), round(y)), (max(1, round(width)), max(1, round(height)))
    cv2.ellipse(mask, centre, axes, 0, 360 - last, 360, 1, -1, cv2.LINE_AA)
    return mask


def draw_face(smile: float) -> np.ndarray:
    """Draw a head and shoulders before a wall, (480, 640, 3) uint8 RGB.

    Args:
        smile: from 0, a straight mouth, to 1, a broad smile that shows the teeth.
    """
    cv2, canvas = opencv(), _Canvas()
    canvas.ellipse(320, 520, 190, 140, (60, 80, 120), 2)
    canvas.ellipse(320, 370, 52, 80, (190, 140, 115), 2)
    canvas.ellipse(320, 200, 125, 150, HAIR, 2)
    head = cv2.GaussianBlur(ellipse(320, 225, 100, 132), (0, 0), 1.5)
    canvas.lay(head, SKIN, 0)
    canvas.lay(head * (1 - cv2.GaussianBlur(ellipse(320, 215, 78, 112), (0, 0), 22)), SHADE, 0)
    canvas.lay(np.clip(ellipse(320, 160, 112, 80, 180) - ellipse(320, 215, 88, 95), 0, 1), HAIR, 2)
    for side in (-1, 1):
        eye = 320 + 42 * side
        canvas.ellipse(eye, 205, 30, 20, (165, 118, 98), 8)
        canvas.ellipse(eye, 208, 20, 9 - 2 * smile, TEETH)
        canvas.ellipse(eye, 208, 9, 9 - 2 * smile, (70, 50, 40))
        canvas.ellipse(eye, 208, 4, 4, (15, 12, 10))
        canvas.ellipse(eye + 3, 205, 2, 2, (255, 255, 255), 0.5)
        canvas.arc(eye, 206, 22, 11, (40, 28, 24), line=3, blur=0.8)
        canvas.arc(eye, 190 - smile, 30, 16, HAIR, turned=4 * side, line=7, blur=1.5)
        canvas.lay(ellipse(320 + 58 * side, 262 - 10 * smile, 26, 18), (235, 165, 145), 14, smile)
        along = np.linspace(0, 1, 20)
        cheek = np.stack([320 + side * (26 + 38 * along), 248 + 52 * along - 12 * np.sin(np.pi * along)], 1)
        canvas.line(cheek, (130, 80, 62), line=4, blur=2.2, share=0.45 * smile)
        canvas.ellipse(320 + 8 * side, 258, 6, 4, (120, 80, 65), 2)
    canvas.ellipse(320, 232, 9, 34, LIGHT, 7)
    canvas.arc(320, 254, 20, 12, (150, 100, 82), first=20, last=160, line=3, blur=2, share=0.7)
    _mouth(canvas, smile)
    canvas.ellipse(320, 330, 22, 6, (196, 148, 122), 6)
    return np.rint(np.clip(canvas.picture, 0, 255)).astype(np.uint8)


def _mouth(canvas: _Canvas, smile: float) -> None:
    across = np.linspace(-1, 1, 41)
    bulge = 1 - across**2
    straight = 3 * np.cos(1.5 * np.pi * across) * (1 - smile)
    x, upper = 320 + (36 + 22 * smile) * across, 298 - 2 * smile + 22 * smile * (0.35 - across**2) - straight
    lower = upper + 20 * smile * bulge

    def between(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        return np.concatenate([np.stack([x, top], 1), np.stack([x, bottom], 1)[::-1]])

    canvas.area(between(upper - 7 * bulge, lower + 9 * bulge), LIP)
    canvas.line(np.stack([x, upper], 1), (90, 45, 42), share=1 - smile)
    canvas.area(between(upper, lower), DARK)
    canvas.area(between(upper + 1, upper + 14.4 * smile * bulge), TEETH)


def draw_clip(smiles: Sequence[float], *, rate: int = RATE) -> bytes:
    """Draw a clip of the face, whose head sways a little, as MP4, which browsers play.

    Args:
        smiles: of each frame, from 0 to 1.
        rate: frames a second.

    Raises:
        ImportError: OpenCV or PyAV is missing.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(f"writing video needs PyAV: {NEEDS}") from error
    cv2 = opencv()
    drawn: dict[int, np.ndarray] = {}
    written = io.BytesIO()
    with av.open(written, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "26"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, smile in enumerate(smiles):
            step = round(STEPS * min(max(float(smile), 0.0), 1.0))
            if step not in drawn:
                drawn[step] = draw_face(step / STEPS)
            time = number / rate
            sway = cv2.getRotationMatrix2D((320, 300), 2.5 * math.sin(0.9 * time), 1 + 0.02 * math.sin(0.5 * time))
            sway[:, 2] += 5 * math.sin(0.7 * time), 3 * math.sin(1.1 * time)
            sway *= WIDTH / 640
            picture = cv2.warpAffine(drawn[step], sway, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return written.getvalue()
