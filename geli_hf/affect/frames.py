"""Frames of a video as grey pictures with their true times, read by PyAV one after the other.

Times are the frames' own timestamps, in seconds from the start of the file (that of its earliest stream), as a
transcript of its sound counts them. Frame number over frame rate is not the time: what browsers and phones record has
no constant rate.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .faces import NEEDS, scaled

MAX_SIDE = 4096  # pixels of a frame that is decoded: a larger one takes gigabytes, whatever the file's size
MAX_PIXELS = MAX_SIDE**2
LONGEST_SIDE = 1920  # larger frames are scaled down to it: a face in them is large enough then
BACK = 1.0  # seconds by which times that go back are those of another recording
BREAKS_OFF = 1.0  # seconds short of its length from which a video counts as cut off


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        time: seconds.
        image: (height, width) uint8, grey, 0..255, upright.
        scale: size of the image, in sizes of the video's picture: 1, or less where that is larger than LONGEST_SIDE.
    """

    time: float
    image: np.ndarray
    scale: float


class VideoFrames:
    """Iterates over the frames of a video, `fps` of them a second or all if there are fewer.

    Of each stretch of 1 / fps seconds the first frame is taken. Memory doesn't grow with the length of the video.

    Args:
        source: path; file-like object, which needs nothing but `read`; or an iterable of (seconds, picture) with
            (height, width) grey or (height, width, 3) RGB arrays of uint8, such as a camera gives.
        fps: frames per second; may be infinite, for all.

    Attributes:
        duration (`float`): seconds, as the file says; NaN if it doesn't.
        incomplete (`str` or `None`): after iteration, the reason why not everything could be read.

    Raises:
        ImportError: PyAV is missing.
        FileNotFoundError: there is no such file.
        ValueError: it is no video, has no picture, or none that can be decoded, or no times; or its frames are larger
            than MAX_SIDE.
    """

    def __init__(self, source: Any, fps: float = 5.0):
        if not fps > 0:
            raise ValueError(f"fps: expected a number of frames per second above 0, found {fps}")
        self.fps = fps
        self.duration = math.nan
        self.incomplete: str | None = None
        self.name = str(source if isinstance(source, (str, Path)) else getattr(source, "name", None) or "the video")
        self._container = None
        if isinstance(source, (str, Path)) or hasattr(source, "read"):
            self._open(source)
            self._all = self._decode()
        else:
            self._all = self._read_pairs(source)

    def __iter__(self) -> Iterator[Frame]:
        last, latest, back = -math.inf, -math.inf, None
        try:
            for time, picture in self._all:
                if time < latest - BACK and back is None:  # files that were joined
                    back = f"its times go back from {latest:.1f} s to {time:.1f} s; what comes again is left out"
                latest = max(latest, time)
                # The least bit more, since 0.6 * 5 may come out below 3.
                slot = math.floor(time * self.fps + 1e-6) if math.isfinite(self.fps) else time
                if slot <= last:
                    continue
                last = slot
                yield Frame(time, *picture())
            self.incomplete = self.incomplete or back
        finally:
            if self._container is not None:
                self._container.close()

    def _open(self, source: Any) -> None:
        try:
            import av
        except ImportError as error:
            raise ImportError(f"reading video needs PyAV: {NEEDS}") from error
        try:
            # FFmpeg takes what comes before a colon for a protocol, but for a file that is named as one.
            is_file = isinstance(source, Path) or (isinstance(source, str) and os.path.exists(source))
            self._container = av.open(f"file:{source}" if is_file else source)
        except av.error.FileNotFoundError:
            raise FileNotFoundError(f"{self.name}: there is no such file") from None
        except (av.error.FFmpegError, EOFError) as error:
            raise ValueError(f"{self.name}: no video that can be read ({_reason(error)})") from None
        streams = self._container.streams
        # A cover picture of a sound file is a stream too.
        videos = [stream for stream in streams.video if "attached_pic" not in str(stream.disposition)]
        if not videos:
            self._container.close()
            raise ValueError(f"{self.name}: no video in it")
        self._stream = videos[0]
        self._stream.thread_type = "AUTO"
        size = (self._stream.width or 0, self._stream.height or 0)
        if max(size) > MAX_SIDE:
            self._container.close()
            raise ValueError(f"{self.name}: expected up to {MAX_SIDE} pixels a side, found {size}; scale it down")
        # Of frames that are larger than the file says, FFmpeg decodes none.
        self._stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        start = self._container.start_time
        self._start = None if start is None else start / av.time_base
        length = self._stream.duration
        if length is not None:  # from the stream's own start, which may be later than the file's
            begin = float((self._stream.start_time or 0) * self._stream.time_base)
            self.duration = float(length * self._stream.time_base) + max(0.0, begin - (self._start or 0.0))
        elif self._container.duration:  # from the file's start, or in Matroska from 0
            self.duration = self._container.duration / av.time_base - max(0.0, self._start or 0.0)

    def _decode(self) -> Iterator[tuple[float, Any]]:
        """Yield the time of each frame and a function that makes its picture."""
        import av

        end, rotation, timeless, broken = -math.inf, None, False, []
        for packet in self._packets(broken):
            if packet is not None and packet.pts is not None:
                time = float(packet.pts * packet.time_base)
                if self._start is None:
                    self._start = time
                # Of any stream: sound may go on when the picture has ended, and isn't cut off then.
                end = max(end, time - self._start + float((packet.duration or 0) * packet.time_base))
            if packet is not None and packet.stream.index != self._stream.index:
                continue
            try:
                frames = self._stream.decode(packet)
            except av.error.EOFError:
                continue
            except (av.error.FFmpegError, OSError) as error:
                broken.append(_reason(error))
                continue
            for frame in frames:
                if frame.pts is None:
                    timeless = True
                    continue
                # Frames that a decoder gives at the end have no time base of their own.
                time = float(frame.pts * self._stream.time_base) - (self._start or 0.0)
                if time < -1e-3:  # cut away by the file's edit list
                    continue
                # One for all of a video: a frame that is asked for it stays in memory until cycles are collected.
                rotation = rotation or _rotation(frame)
                yield max(0.0, time), partial(_picture, frame, rotation)
        if rotation is None:
            reason = "its frames have no times" if timeless else "no frame of it can be decoded"
            raise ValueError(f"{self.name}: {reason}; {', '.join(broken[:1]) or 'convert it to .mp4'}")
        if self.duration - end > BREAKS_OFF:
            self.incomplete = f"breaks off at {end:.1f} s of {self.duration:.1f} s"
        elif broken:
            self.incomplete = f"{len(broken)} of its packets can't be read ({broken[-1]})"

    def _packets(self, broken: list[str]) -> Iterator[Any]:
        """Yield all packets of the file, and None where it breaks off: a decoder then gives what it still holds."""
        import av

        try:
            yield from self._container.demux()
        except (av.error.FFmpegError, OSError) as error:
            broken.append(_reason(error))
            yield None

    def _read_pairs(self, pairs: Iterable) -> Iterator[tuple[float, Any]]:
        for number, (time, picture) in enumerate(pairs):
            where = f"{self.name}, frame {number}"
            if not math.isfinite(time):
                raise ValueError(f"{where}: expected a time in seconds, found {time!r}")
            yield float(time), lambda picture=picture, where=where: scale_down(grey(picture, where))


def grey(picture: np.ndarray, where: str = "picture") -> np.ndarray:
    """Make a picture grey.

    Args:
        picture: (height, width), (height, width, 1) or (height, width, 3) RGB, uint8.
        where: name of the picture in an error.

    Returns:
        (height, width) uint8.

    Raises:
        ValueError: it is no such picture.
    """
    picture = np.asarray(picture)
    colours = picture.shape[2:] or (1,)
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or colours not in ((1,), (3,)) or not picture.size:
        found = f"{picture.shape} of {picture.dtype}"
        raise ValueError(f"{where}: expected (height, width) or (height, width, 3) of uint8, found {found}")
    if colours == (1,):
        return picture.reshape(picture.shape[:2])
    import cv2

    return cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)


def scale_down(image: np.ndarray) -> tuple[np.ndarray, float]:
    """Scale a picture (height, width) to at most LONGEST_SIDE, and return the factor too."""
    return scaled(image, min(1.0, LONGEST_SIDE / max(image.shape)))


def _rotation(frame: Any) -> tuple[float, float, float, float]:
    """Return (a, b, c, d) of the display matrix, by which phones say how they were held; (1, 0, 0, 1) without one."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1.0, 0.0, 0.0, 1.0
    a, b, _, c, d, *_ = (np.frombuffer(data, np.int32) / 65536).tolist()
    return a, b, c, d


def _picture(frame: Any, rotation: tuple[float, float, float, float]) -> tuple[np.ndarray, float]:
    """Return the upright luma of a frame, of at most LONGEST_SIDE, and its scale.

    The frame's point (x, y) goes to (a x + c y, b x + d y).
    """
    scale = min(1.0, LONGEST_SIDE / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    # Full range; scaled in the same step, so that there is never a whole picture beside the frame.
    image = frame.reformat(width, height, "gray", dst_color_range="JPEG", interpolation="AREA").to_ndarray()
    a, b, c, d = rotation
    across, down = a, d
    if abs(b) > abs(a):
        image, across, down = image.T, c, b
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]), scale


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
