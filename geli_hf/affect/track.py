"""One listener's face from frame to frame.

A detector looks at every frame anew. A track looks where the face was, which costs a tenth, and keeps to one person.
"""

from __future__ import annotations

import numpy as np

from .faces import Box, FaceDetector, scaled

SMALLEST = 20.0  # pixels of a face's width; in a smaller one no expression can be told
FACE = 48.0  # pixels to which the face is scaled for the search around its last place
NEAR = 1.0  # widths of the face by which that search reaches beyond it, on every side
SCAN_EVERY = 10  # frames from one look at the whole picture to the next, while the face is seen
SIDE = 320  # longer side of the whole picture when it is looked at
LARGER_SIDES = (640, 1280)  # when a face was just lost, and every SCAN_EVERY frames without one: small faces
OUTGROWN = 2.0  # a face with so many times the area takes over ...
SCANS = 3  # ... if so many looks at the whole picture in a row show it


class FaceTrack:
    """Follows one face through the frames of a recording.

    - `"largest"`: the largest of the first frame with a face. It is followed, whoever else comes and goes. A face of
      twice its area that stays for `SCANS` looks at the whole picture takes over.
    - `"left"`, `"right"`: the largest one whose middle lies in that half of the picture, for two people side by side.

    A lost face is awaited near its last place. After `patience` frames any other face is taken for it. A face that a
    look at the whole picture finds counts if a second look, close up, finds it again.

    Args:
        detector: finds faces.
        face: which one to follow.
        patience: frames to wait for a face that was lost.

    Attributes:
        scans (`int`): looks at the whole picture that showed a face.
        crowded (`int`): those of them that showed another one of about its size.

    Raises:
        ValueError: `face` is none of these.
    """

    def __init__(self, detector: FaceDetector, face: str = "largest", *, patience: int = 15):
        self._detector = detector
        if face not in ("largest", "left", "right"):
            raise ValueError(f"face: expected largest, left or right, found {face!r}")
        self._face = face
        self._patience = patience
        self._box: Box | None = None  # the last one that was seen
        self._unseen = 0  # frames since then
        self._frames = 0  # since the last look at the whole picture
        self._rival = 0  # looks in a row that showed a larger face
        self.scans = self.crowded = 0

    def __call__(self, image: np.ndarray) -> Box | None:
        """Find the face in the next frame.

        Args:
            image: (height, width) uint8.

        Returns:
            The box of the face in pixels of the frame; None where it isn't seen.
        """
        self._frames += 1
        awaited = self._box is not None and self._unseen <= self._patience
        box = self._search_near(image, self._box) if awaited else None
        if box is not None and not self._admits(box, image):
            box = None
        if box is None or self._frames >= SCAN_EVERY:
            faces = self._scan(image, box is None)
            self.scans += bool(faces)
            self.crowded += sum(_alike(face, max(faces, key=_area)) for face in faces) > 1
            box = self._choose(faces, box, awaited)
        if box is None:
            self._unseen += 1
        else:
            self._box, self._unseen = box, 0
        return box

    def _choose(self, faces: list[Box], followed: Box | None, awaited: bool) -> Box | None:
        if followed is not None:
            others = [face for face in faces if not _overlap(face, followed)]
            larger = [face for face in others if _area(face) > OUTGROWN * _area(followed)]
            self._rival = self._rival + 1 if larger else 0
            if self._rival < SCANS:
                return followed
            faces = larger
        elif awaited:
            last = self._box
            near = [face for face in faces if _alike(face, last) and _distance(face, last) < 2 * last.width]
            return min(near, key=lambda face: _distance(face, last), default=None)
        self._rival = 0
        return max(faces, key=_area, default=None)

    def _admits(self, box: Box, image: np.ndarray) -> bool:
        """Tell whether a face may be the one that is asked for."""
        left = box.x + box.width / 2 < image.shape[1] / 2
        return box.width >= SMALLEST and self._face in ("largest", "left" if left else "right")

    def _scan(self, image: np.ndarray, lost: bool) -> list[Box]:
        """Find all faces that may be the one, at the smallest scale that shows any."""
        self._frames = 0
        longer = max(image.shape)
        small_too = lost and self._unseen % SCAN_EVERY == 0
        sides = sorted({min(side, longer) for side in (SIDE, *(LARGER_SIDES if small_too else ()))})
        for side in sides:
            small, factor = scaled(image, side / longer)
            faces = [Box(*(value / factor for value in box)) for box in self._detector.detect(small)]
            faces = [face for face in faces if self._admits(face, image)]
            if faces := [face for face in faces if self._confirms(image, face)]:
                return faces
        return []

    def _search_near(self, image: np.ndarray, last: Box) -> Box | None:
        """Find the face around its last place."""
        faces = self._search(image, last, (0.7 * FACE, 1.5 * FACE))
        return min(faces, key=lambda face: _distance(face, last), default=None)

    def _confirms(self, image: np.ndarray, face: Box) -> bool:
        """Tell whether a look from close up, at which no face is expected, shows this one too."""
        return any(_alike(other, face) and _overlap(other, face) for other in self._search(image, face, None))

    def _search(self, image: np.ndarray, place: Box, size: tuple[float, float] | None) -> list[Box]:
        """Find the faces in and around a place, which is scaled to a width of FACE pixels."""
        margin = NEAR * place.width
        left, top = max(0, round(place.x - margin)), max(0, round(place.y - margin))
        right, bottom = round(place.x + place.width + margin), round(place.y + place.height + margin)
        around = image[top:bottom, left:right]
        if not around.size:  # the picture has become smaller
            return []
        small, factor = scaled(around, FACE / place.width)
        boxes = self._detector.detect(small, size)
        return [Box(x / factor + left, y / factor + top, w / factor, h / factor) for x, y, w, h in boxes]


def _area(box: Box) -> float:
    return box.width * box.height


def _alike(one: Box, other: Box) -> bool:
    """Tell whether two boxes are about as large."""
    return 1 / OUTGROWN < _area(one) / _area(other) < OUTGROWN


def _distance(one: Box, other: Box) -> float:
    """Return the distance between the middles, in pixels."""
    x = one.x + one.width / 2 - other.x - other.width / 2
    y = one.y + one.height / 2 - other.y - other.height / 2
    return float(np.hypot(x, y))


def _overlap(one: Box, other: Box) -> float:
    """Return the pixels that both boxes cover."""
    width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    return max(width, 0.0) * max(height, 0.0)
