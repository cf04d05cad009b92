"""Probabilities of a face's emotions over time, in a video or before a camera."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from .backends import face_classifier, face_detector
from .emotions import EMOTIONS, FACE_COLUMNS
from .faces import Box, FaceClassifier, FaceDetector
from .frames import VideoFrames, grey, scale_down
from .track import FaceTrack

BOX_COLUMNS = list(Box._fields)
COLUMNS = ["time", *BOX_COLUMNS, *FACE_COLUMNS]
PATIENCE = 3.0  # seconds for which a face that was lost is awaited where it was
# Seconds of the video, which are no whole numbers as tqdm's own bar has them, and the time that is left.
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f} of {total:.1f} s [{elapsed}<{remaining}]"
BAR_WITHOUT_END = "{desc}: {n:.1f} s [{elapsed}]"  # recordings of browsers, and cameras, tell no length


class VideoAffect:
    """Reads one listener's face in videos.

    Frames are in memory one at a time, and of the faces in them only small crops until they make a batch. Nothing is
    written.

    Args:
        classifier: reads a face. Default: the one that comes with the package.
        detector: finds it. Default: `CascadeDetector`.
        fps: frames looked at per second.
        face: which one, if several are seen; see `FaceTrack`.
        batch_size: faces that are read at once.

    Raises:
        ValueError: `fps` is not positive, or `face` is none that `FaceTrack` takes.
    """

    def __init__(
        self,
        classifier: FaceClassifier | None = None,
        detector: FaceDetector | None = None,
        *,
        fps: float = 5.0,
        face: str = "largest",
        batch_size: int = 64,
    ):
        if not fps > 0:
            raise ValueError(f"fps: expected a number of frames per second above 0, found {fps}")
        self.classifier = face_classifier() if classifier is None else classifier
        self.detector = face_detector() if detector is None else detector
        self.fps, self.face, self.batch_size = fps, face, batch_size
        self.track()  # a wrong `face` is an error now

    @property
    def fingerprint(self) -> str:
        """Text that differs where tables may differ."""
        return json.dumps([self.classifier.fingerprint, self.detector.fingerprint, self.fps, self.face])

    def __call__(self, source: Any, *, progress: bool = False) -> pd.DataFrame:
        """Read the face in a video.

        Args:
            source: path, file-like object, or (seconds, picture) pairs; see `VideoFrames`.
            progress: show a bar of seconds.

        Returns:
            A row for every frame that was looked at: `time` in seconds, `x`, `y`, `width`, `height` of the face in
            pixels of the video, and `prob_face_*`, as in CANDOR's features. All but the time are NaN where no face
            was seen, and the probabilities where it can't be read. An emotion that the classifier has no label of is
            NaN everywhere. `attrs["incomplete"]` is the reason why not all of the video could be read, if so, and
            `attrs["crowded"]` the share of looks at the whole picture that showed two faces of about the same size.

        Raises:
            FileNotFoundError, ValueError: see `VideoFrames`.
        """
        frames, track = VideoFrames(source, self.fps), self.track()
        parts = list(self._batches(frames, track, progress))
        table = pd.DataFrame(np.concatenate(parts) if parts else np.zeros((0, len(COLUMNS))), columns=COLUMNS)
        table.attrs["crowded"] = track.crowded / max(1, track.scans)
        if frames.incomplete:
            table.attrs["incomplete"] = frames.incomplete
        return table

    def track(self) -> FaceTrack:
        """Make a track, of which every video and every viewer needs its own."""
        return FaceTrack(self.detector, self.face, patience=round(min(PATIENCE * self.fps, 1e6)))

    def live(self) -> LiveAffect:
        """Make a reader of a camera's frames, of which every viewer needs its own."""
        return LiveAffect(self)

    def _batches(self, frames: VideoFrames, track: FaceTrack, progress: bool) -> Iterator[np.ndarray]:
        """Yield the rows of the table, (frames, columns) at a time."""
        rows: list[list[float]] = []
        crops: list[np.ndarray] = []
        places: list[int] = []  # the rows of the crops

        def batch() -> np.ndarray:
            part = np.full((len(rows), len(COLUMNS)), np.nan)
            part[:, : 1 + len(BOX_COLUMNS)] = rows
            if crops:
                part[places, -len(EMOTIONS) :] = self.classifier.classify(np.stack(crops))
            return part

        length = None if np.isnan(frames.duration) else round(frames.duration, 1)
        shape = BAR_WITHOUT_END if length is None else BAR
        with tqdm(total=length, desc=Path(frames.name).name, bar_format=shape, disable=not progress) as bar:
            for frame in frames:
                box = track(frame.image)
                if box is not None:
                    crops.append(self.classifier.crop(frame.image, box))
                    places.append(len(rows))
                place = [np.nan] * len(BOX_COLUMNS) if box is None else [value / frame.scale for value in box]
                rows.append([frame.time, *place])
                bar.update(frame.time - bar.n)
                if len(crops) == self.batch_size or len(rows) == 100 * self.batch_size:
                    yield batch()
                    rows, crops, places = [], [], []
            if length is not None and not frames.incomplete:
                bar.update(length - bar.n)
        if rows:
            yield batch()


class LiveAffect:
    """Reads one listener's face before a camera, frame by frame. Made by `VideoAffect.live`."""

    def __init__(self, affect: VideoAffect):
        self._classifier = affect.classifier
        self._track = affect.track()

    def __call__(self, picture: np.ndarray) -> tuple[Box, np.ndarray] | None:
        """Read the face in the next frame.

        Args:
            picture: (height, width) grey or (height, width, 3) RGB, uint8.

        Returns:
            The face's box in pixels, and (8,) probabilities in the order of `EMOTIONS`; None where no face is seen
            or none can be read.
        """
        image, scale = scale_down(grey(picture))
        box = self._track(image)
        if box is None:
            return None
        [probabilities] = self._classifier.classify(self._classifier.crop(image, box)[None])
        return None if np.isnan(probabilities).all() else (Box(*(value / scale for value in box)), probabilities)
