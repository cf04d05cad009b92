"""The listener's smile while a reply is on the screen, as Local Implicit feedback. No frame is kept."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from PIL import Image

from ..affect.emotions import EMOTIONS, HAPPINESS
from ..affect.faces import Box, FaceClassifier, FaceDetector
from ..affect.turns import affect_of_turns
from .conversation import Conversation

# A reply counts with what the face showed in so many seconds after it was there: in these it is read, and later
# somebody is thinking of the answer.
LOOKED_AT = 20.0
MOST_PIXELS = 1920 * 1080  # of a frame
MOST_SAMPLES = 20_000  # of one watch, more than two hours at two a second
_NOTHING = np.full(len(EMOTIONS), np.nan, np.float32)


@dataclass
class Face:
    """What a frame shows: the box of the face and the probability of a smile; None and NaN if no face."""

    box: Box | None
    smile: float


class FaceReader:
    """A detector and a classifier that every visitor shares."""

    def __init__(self, detector: FaceDetector, classifier: FaceClassifier):
        self.detector, self.classifier = detector, classifier
        self._lock = Lock()  # OpenCV's detectors look at one picture at a time

    def read(self, image: np.ndarray) -> tuple[Box | None, np.ndarray]:
        """The greatest face of a picture (height, width) uint8, and its emotions (8,); without a face None and NaN."""
        with self._lock:
            boxes = self.detector.detect(image)
        if not boxes:
            return None, _NOTHING
        box = max(boxes, key=lambda box: box.width * box.height)
        return box, self.classifier.classify(self.classifier.crop(image, box)[None])[0]


@dataclass
class Watch:
    """What was seen in one tab: times and emotions, and no picture."""

    seconds: list[float] = field(default_factory=list)
    emotions: list[np.ndarray] = field(default_factory=list)

    def see(self, reader: FaceReader, picture: np.ndarray, now: float) -> Face:
        """Read a frame and keep what it showed.

        Args:
            picture: (height, width) or (height, width, 3) uint8.
        """
        grey = picture if picture.ndim == 2 else luma(picture)
        box, emotions = reader.read(grey)
        if len(self.seconds) < MOST_SAMPLES:
            self.seconds.append(now)
            self.emotions.append(emotions)
        return Face(box, float(emotions[HAPPINESS]))

    def feedback(self, conversation: Conversation) -> dict[str, list[float]]:
        """`affect` and `affect_mean` for each turn of the assistant; empty if no face was seen in any of them."""
        turns = conversation.turns
        start = [turns[index].at for index in conversation.replies]
        if not self.seconds or not start:
            return {}
        stop = []
        for index, begins in zip(conversation.replies, start):
            answered = turns[index + 1].at if index + 1 < len(turns) else math.inf
            stop.append(min(answered, begins + LOOKED_AT))  # NaN for a turn that was loaded, which nobody watched
        # However few its words, a reply stays on the screen until it is answered: no turn is too short.
        words = np.ones(len(start))
        affect, mean = affect_of_turns(
            np.array(self.seconds), np.array(self.emotions), np.array(start), np.array(stop), words, short_words=0
        )
        if np.isnan(mean).all():
            return {}
        return {"affect": affect.tolist(), "affect_mean": mean.tolist()}


def picture_of(frame: dict | None) -> np.ndarray | None:
    """The grey (height, width) uint8 of what a browser sends of its camera; None if it is no picture, or too large.

    Gradio would read it too, and where it can't, write a part of it into the server's log.

    Args:
        frame: as Gradio passes it on. Its `url` holds the picture itself (`data:image/jpeg;base64,...`); what else
            could be named there, a file or an address, is not opened.
    """
    kind, _, content = str((frame or {}).get("url")).partition(",")
    if not kind.startswith("data:image/"):
        return None
    try:
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        if image.width * image.height > MOST_PIXELS:
            return None
        image.draft("L", image.size)  # of a JPEG nothing but the luma is decoded
        return np.asarray(image.convert("L"))
    except (OSError, ValueError):
        return None


def luma(picture: np.ndarray) -> np.ndarray:
    """The grey of an RGB picture (height, width, 3), as video has it (Rec. 601)."""
    return np.rint(picture[..., :3].astype(np.float32) @ np.float32([0.299, 0.587, 0.114])).astype(np.uint8)
