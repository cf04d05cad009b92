"""One listener's face from frame to frame.

A detector looks at every frame anew; a track looks where the face was, which costs a tenth, and knows whose it is.
"""

from __future__ import annotations

import re

import numpy as np

from .faces import Box, FaceDetector

FACE = 48.0  # pixels to which the face is scaled for the search around its last place
NEAR = 1.0  # that search reaches so many widths of the face beyond it, on every side
SCAN_EVERY = 10  # frames from one look at the whole picture to the next, while the face is seen
SIDES = (
    320,
    640,
)  # longer side of the whole picture when it is looked at: the larger one only if the smaller shows nothing
LARGEST_SIDE = 1280  # at which it is looked at every SCAN_EVERY frames without a face, for faces that are far away
OUTGROWN = 2.0  # a face with so many times the area takes over ...
SCANS = 3  # ... if so many looks at the whole picture in a row show it


class FaceTrack:
    """Follows one face through the frames of a recording.

    Which one, if there are several:

    - `"largest"`: the largest of the first frame with a face. It is followed, whoever else comes and goes, until it is
      lost; then the face that is nearest to where it was, if it is about as large, else the largest one. A face of
      twice its area that stays for `SCANS` looks at the whole picture takes over.
    - `"left"`, `"right"`: the largest one whose middle lies in that half of the picture, for two people side by side.
    - `"x,y,width,height"`: the one that overlaps most with this box, in pixels; faces that don't are nobody's.

    A face that was found by a look at the whole picture counts if a second look, close up, finds it again.
    """

    def __init__(self, detector: FaceDetector, face: str = "largest"):
        self._detector = detector
        self._admits = _admits(face)
        self._box: Box | None = None  # the last one that was seen
        self._unseen = 0  # frames since then
        self._frames = 0  # since the last look at the whole picture
        self._rival = 0  # looks in a row that showed a larger face

    def __call__(self, image: np.ndarray) -> Box | None:
        """The box of the face in the next frame, (height, width) uint8; None where it isn't seen."""
        self._frames += 1
        box = self._near(image, self._box) if self._box and not self._unseen else None
        if box is not None and not self._admits(box, image.shape):
            box = None
        if box is None or self._frames >= SCAN_EVERY:
            box = self._choose(self._everywhere(image), box)
        if box is None:
            self._unseen += 1
        else:
            self._box, self._unseen = box, 0
        return box

    def _choose(self, faces: list[Box], followed: Box | None) -> Box | None:
        if followed is not None:
            larger = [
                face for face in faces if _area(face) > OUTGROWN * _area(followed) and not _overlap(face, followed)
            ]
            self._rival = self._rival + 1 if larger else 0
            if self._rival < SCANS:
                return followed
            faces = larger
        self._rival = 0
        if not faces:
            return None
        if self._box is not None and followed is None:
            last = self._box
            alike = [face for face in faces if 1 / OUTGROWN < _area(face) / _area(last) < OUTGROWN]
            near = [face for face in alike if _distance(face, last) < 2 * last.width]
            if near:
                return min(near, key=lambda face: _distance(face, last))
        return max(faces, key=_area)

    def _everywhere(self, image: np.ndarray) -> list[Box]:
        """All faces that may be the one, from the smallest scale that shows any."""
        # Without a face each frame is looked at as a whole, at the largest scale now and then.
        far = self._unseen % SCAN_EVERY == 0
        self._frames = 0
        longer = max(image.shape)
        sides = [side for side in (*SIDES, *([LARGEST_SIDE] if far else [])) if side < longer]
        for side in sides or [longer]:
            small, factor = _scaled(image, min(1.0, side / longer))
            faces = [Box(*(value / factor for value in box)) for box in self._detector.detect(small)]
            faces = [face for face in faces if self._admits(face, image.shape)]
            if faces := [face for face in faces if self._near(image, face) is not None]:
                return faces
        return []

    def _near(self, image: np.ndarray, last: Box) -> Box | None:
        """The face around a place where one was."""
        margin = NEAR * last.width
        left, top = max(0, round(last.x - margin)), max(0, round(last.y - margin))
        right, bottom = round(last.x + last.width + margin), round(last.y + last.height + margin)
        small, factor = _scaled(image[top:bottom, left:right], min(1.0, FACE / last.width))
        if min(small.shape) < 24:
            return None
        width = last.width * factor
        found = self._detector.detect(small, (0.7 * width, 1.5 * width))
        faces = [Box(x / factor + left, y / factor + top, w / factor, h / factor) for x, y, w, h in found]
        return min(faces, key=lambda face: _distance(face, last), default=None)


def _admits(face: str):
    """Whether a box in a picture of (height, width) may be the face that is asked for."""
    if face == "largest":
        return lambda box, shape: True
    if face == "left":
        return lambda box, shape: box.x + box.width / 2 < shape[1] / 2
    if face == "right":
        return lambda box, shape: box.x + box.width / 2 >= shape[1] / 2
    if re.fullmatch(r"\d+(\.\d+)?(,\d+(\.\d+)?){3}", face) and Box(*map(float, face.split(","))).width > 0:
        given = Box(*map(float, face.split(",")))
        return lambda box, shape: _overlap(box, given) > 0
    raise ValueError(f"face: expected largest, left, right or x,y,width,height in pixels, found {face!r}")


def _scaled(image: np.ndarray, factor: float) -> tuple[np.ndarray, float]:
    """The picture made smaller, and by how much in truth: sides are whole pixels."""
    if factor >= 1 or not image.size:
        return image, 1.0
    import cv2

    height, width = image.shape
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), size[0] / width


def _area(box: Box) -> float:
    return box.width * box.height


def _distance(one: Box, other: Box) -> float:
    """Between the middles, in pixels."""
    x = one.x + one.width / 2 - other.x - other.width / 2
    y = one.y + one.height / 2 - other.y - other.height / 2
    return float(np.hypot(x, y))


def _overlap(one: Box, other: Box) -> float:
    """Pixels that both cover."""
    width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    return max(width, 0.0) * max(height, 0.0)
