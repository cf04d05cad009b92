"""Facial expressions before a camera or in a video, as Local Implicit feedback. No frame is kept."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
from PIL import Image

from ..affect import VideoAffect, face_classifier, face_detector
from ..affect.emotions import EMOTIONS, HAPPINESS
from ..affect.frames import VideoFrames
from ..affect.turns import affect_of_turns, valence_of_turns
from ..affect.video import LiveAffect
from .conversation import Turn

# A turn counts with the face of so many seconds after it appeared: in these it is heard or read.
REACTION_SECONDS = 20.0
STORED_SECONDS = 3_600.0
MAX_PIXELS = 1920 * 1080  # of a frame
VIDEO_FPS = 5.0


class FaceReader:
    """The detector and the classifier that all visitors share.

    Raises:
        ImportError: the packages of the extra `faces` are missing.
    """

    def __init__(self):
        self._detecting = Lock()  # OpenCV's detectors look at one picture at a time
        self._classifier = face_classifier()
        self._affect = VideoAffect(self._classifier, face_detector(), fps=2.0)

    def track(self) -> LiveAffect:
        """Start a track of one viewer's face, for `read`."""
        return self._affect.live()

    def read(self, track: LiveAffect, picture: np.ndarray) -> np.ndarray | None:
        """Read one frame of a viewer.

        Args:
            track: of this viewer.
            picture: (height, width) grey or (height, width, 3) RGB, uint8.

        Returns:
            (8,) probabilities in the order of `EMOTIONS`; None without a face.
        """
        with self._detecting:
            seen = track(picture)
        return None if seen is None else seen[1]

    def read_video(self, source: str | Path | io.BytesIO, *, minutes: float = math.inf) -> pd.DataFrame:
        """Read the face in a video, five frames a second.

        Args:
            source: the video.
            minutes: longest video.

        Returns:
            A table as of `VideoAffect`.

        Raises:
            ValueError: the video is longer than `minutes`.
            FileNotFoundError: see `VideoFrames`.
        """
        frames = VideoFrames(source, VIDEO_FPS)

        def pictures() -> Iterator[tuple[float, np.ndarray]]:
            for frame in frames:
                if max(frame.time, frames.duration) > 60 * minutes:
                    raise ValueError(f"The video is longer than {minutes:g} minutes, which is what this demo takes.")
                yield frame.time, frame.image

        # A detector of its own, so that cameras go on meanwhile.
        table = VideoAffect(self._classifier, face_detector(), fps=VIDEO_FPS)(pictures())
        if frames.incomplete:
            table.attrs["incomplete"] = frames.incomplete
        return table


@dataclass
class Watch:
    """Facial expressions seen in one tab: times and probabilities, and no picture."""

    seconds: list[float] = field(default_factory=list)
    emotions: list[np.ndarray] = field(default_factory=list)  # (8,) each
    track: LiveAffect | None = field(default=None, repr=False)

    @property
    def smiles(self) -> list[float]:
        return [float(each[HAPPINESS]) for each in self.emotions]

    def see(self, faces: FaceReader, picture: np.ndarray, now: float) -> float:
        """Read a frame and store its probabilities, which are forgotten after an hour.

        Args:
            faces: reads it.
            picture: (height, width) or (height, width, 3) RGB, uint8.
            now: time in seconds.

        Returns:
            The probability of a smile; NaN without a face.
        """
        if self.track is None:
            self.track = faces.track()
        emotions = faces.read(self.track, picture)
        if emotions is None:
            emotions = np.full(len(EMOTIONS), np.nan, np.float32)
        self.seconds.append(now)
        self.emotions.append(emotions)
        while now - self.seconds[0] > STORED_SECONDS:
            del self.seconds[0], self.emotions[0]
        return float(emotions[HAPPINESS])

    def signals(self, turns: Sequence[Turn]) -> dict[str, list[float]]:
        """Compute `affect`, `affect_mean` and `valence` of each turn of the assistant, as in `geli_hf.affect.turns`.

        A turn counts with the face from when it appears until the next turn, for `REACTION_SECONDS` at most. The value
        is NaN where no face was seen, or nobody knows when the turn appeared.
        """
        rewarded = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
        start = np.array([turns[index].at for index in rewarded])
        following = [turns[index + 1].at if index + 1 < len(turns) else math.inf for index in rewarded]
        stop = np.minimum(start + REACTION_SECONDS, following)
        emotions = np.array(self.emotions).reshape(-1, len(EMOTIONS))
        # However few its words, a turn lasts until the next: none is too short for a face to answer.
        words = np.ones(len(rewarded))
        seconds = np.array(self.seconds[: len(emotions)])  # a frame may be on its way in another thread
        affect, mean = affect_of_turns(seconds, emotions, start, stop, words, short_words=0)
        valence = valence_of_turns(seconds, emotions, start, stop)
        return {"affect": affect.tolist(), "affect_mean": mean.tolist(), "valence": valence.tolist()}

    def feedback(self, turns: Sequence[Turn]) -> dict[str, list[float]]:
        """Return the `signals`, or an empty dict if no face was seen during any turn."""
        signals = self.signals(turns)
        return {} if np.isnan(signals["affect_mean"]).all() else signals


def read_frame(url: object) -> np.ndarray | None:
    """Decode a frame of a browser's camera; None if it is no picture, or too large.

    Args:
        url: a data URL (`data:image/jpeg;base64,...`), or anything that a browser may send in its place. A file or an
            address that it names is not opened.

    Returns:
        (height, width) uint8, grey.
    """
    kind, _, content = str(url).partition(",")
    if not kind.startswith("data:image/"):
        return None
    try:
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        if image.width * image.height > MAX_PIXELS:
            return None
        image.draft("L", image.size)  # of a JPEG nothing but the luma is decoded
        return np.asarray(image.convert("L"))
    except (OSError, ValueError):
        return None
