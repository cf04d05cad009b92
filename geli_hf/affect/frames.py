"""The frames of a video as grey pictures with their true times, read by PyAV one after the other.

Times are the frames' own timestamps, in seconds from the start of the file (that of its earliest stream), as a
transcript of its sound counts them. Frame number over frame rate is not the time: what browsers and phones record has
no constant rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .faces import NEEDS

LONGEST_SIDE = 1920  # larger frames are scaled down to it: a face in them is large enough then
BACK = 1.0  # seconds by which times that go back are those of another recording
BREAKS_OFF = 1.0  # seconds short of its length from which a video counts as cut off
LIMITED = np.clip((np.arange(256) - 16) * (255 / 219), 0, 255).round().astype(np.uint8)  # luma 16..235 to 0..255


class Frame(NamedTuple):
    time: float  # seconds
    image: np.ndarray  # (height, width) uint8, grey, 0..255, the right way up
    scale: float  # of its pixels to those of the video: 1, or less where that is larger than LONGEST_SIDE


class VideoFrames:
    """Iterates over the frames of a video, `fps` of them a second or all if there are fewer.

    Of each stretch of 1 / fps seconds the first frame is taken. Memory doesn't grow with the length of the video.

    Args:
        source: path; file-like object, which needs nothing but `read`; or an iterable of (seconds, picture) with
            (height, width) grey or (height, width, 3) RGB arrays of uint8, such as a camera gives.
        fps: frames per second; may be infinite, for all.

    Attributes:
        duration (`float`): seconds, as the file says; NaN if it doesn't.
        incomplete (`str` or `None`): after iteration, why not everything could be read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no video, has no picture, or none that can be decoded, or no times.
    """

    def __init__(self, source: Any, fps: float = 5.0):
        if not fps > 0:
            raise ValueError(f"fps: expected a number of frames per second above 0, found {fps}")
        self.fps = fps
        self.duration = math.nan
        self.incomplete: str | None = None
        self._back: str | None = None
        self.name = _name(source)
        self._container = None
        if isinstance(source, (str, Path)) or hasattr(source, "read"):
            self._open(source)
            self._all = self._decoded()
        elif isinstance(source, Iterable) and not isinstance(source, bytes):
            self._all = self._given(source)
        else:
            raise TypeError(
                f"source: expected a path, a file or (seconds, picture) pairs, found {type(source).__name__}"
            )

    def __iter__(self) -> Iterator[Frame]:
        last, latest = -math.inf, -math.inf
        try:
            for time, picture in self._all:
                if time < latest - BACK and self._back is None:  # files that were joined
                    self._back = f"its times go back from {latest:.1f} s to {time:.1f} s; what comes again is left out"
                latest = max(latest, time)
                # The least bit more, since 0.6 * 5 may come out below 3.
                slot = math.floor(time * self.fps + 1e-6) if math.isfinite(self.fps) else time
                if slot <= last:
                    continue
                last = slot
                yield Frame(time, *_at_most(picture(), LONGEST_SIDE))
            self.incomplete = self.incomplete or self._back
        finally:
            if self._container is not None:
                self._container.close()

    def _open(self, source: Any) -> None:
        try:
            import av
        except ImportError as error:
            raise ImportError(f"reading video needs PyAV: {NEEDS}") from error
        if isinstance(source, (str, Path)):
            if Path(source).is_dir():
                raise ValueError(f"{self.name}: a folder, expected a video")
            if Path(source).is_file() and not Path(source).stat().st_size:
                raise ValueError(f"{self.name}: the file is empty")
        try:
            self._container = av.open(str(source) if isinstance(source, Path) else source)
        except av.error.FileNotFoundError:
            raise FileNotFoundError(f"{self.name}: there is no such file") from None
        except (av.error.FFmpegError, EOFError) as error:
            raise ValueError(
                f"{self.name}: no video that can be read ({_said(error)}); cut off, or not a video?"
            ) from None
        streams = self._container.streams
        # A cover picture of a sound file is a stream too.
        videos = [stream for stream in streams.video if "attached_pic" not in _disposition(stream)]
        if not videos:
            has = ", ".join(sorted({stream.type for stream in streams})) or "nothing"
            self._container.close()
            raise ValueError(f"{self.name}: no video in it, only {has}")
        self._stream = videos[0]
        self._stream.thread_type = "AUTO"
        start = self._container.start_time
        self._start = None if start is None else start / av.time_base
        length = self._stream.duration
        if length is not None:  # from the stream's own start, which may be later than the file's
            begin = float((self._stream.start_time or 0) * self._stream.time_base)
            self.duration = float(length * self._stream.time_base) + max(0.0, begin - (self._start or 0.0))
        elif self._container.duration:  # from the file's start, or in Matroska from 0
            self.duration = self._container.duration / av.time_base - max(0.0, self._start or 0.0)

    def _decoded(self) -> Iterator[tuple[float, Any]]:
        import av

        end, seen, timeless, broken = -math.inf, False, False, []
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
            except (av.error.FFmpegError, OSError) as error:
                if not isinstance(error, av.error.EOFError):
                    broken.append(_said(error))
                continue
            for frame in frames:
                if frame.pts is None:
                    timeless = True
                    continue
                # What a decoder gives at the end has no time base of its own.
                time = float(frame.pts * self._stream.time_base) - (self._start or 0.0)
                if time < -1e-3:  # cut away by the file's edit list
                    continue
                if not seen:
                    self._held = _how_it_was_held(frame)
                seen = True
                yield max(0.0, time), lambda frame=frame: _turned(_grey(frame), self._held)
        if not seen:
            if timeless:
                raise ValueError(
                    f"{self.name}: its frames have no times; put them into a container that has "
                    "(ffmpeg -i FILE -c copy FILE.mp4)"
                )
            raise ValueError(
                f"{self.name}: no frame of it can be decoded{f' ({broken[0]})' if broken else ''}; cut off?"
            )
        if self.duration - end > BREAKS_OFF:
            self.incomplete = f"breaks off at {end:.1f} s of {self.duration:.1f} s"
        elif broken:
            self.incomplete = f"{len(broken)} of its packets can't be read ({broken[-1]})"

    def _packets(self, broken: list[str]) -> Iterator[Any]:
        """All packets of the file, and where it breaks off None, for which a decoder gives what it still holds."""
        import av

        try:
            yield from self._container.demux()
        except (av.error.FFmpegError, OSError) as error:
            broken.append(_said(error))
            yield None

    def _given(self, pairs: Iterable) -> Iterator[tuple[float, Any]]:
        for number, (time, picture) in enumerate(pairs):
            where = f"{self.name}, frame {number}"
            try:
                seconds = float(time)
            except (TypeError, ValueError):
                seconds = math.nan
            if not math.isfinite(seconds):
                raise ValueError(f"{where}: expected a time in seconds, found {time!r}")
            yield seconds, lambda picture=picture, where=where: grey(picture, where)


def grey(picture: np.ndarray, where: str = "picture") -> np.ndarray:
    """(height, width) uint8 of such a picture or of a (height, width, 3) RGB one.

    Raises:
        ValueError: it is neither.
    """
    picture = np.asarray(picture)
    colours = picture.shape[2:] or (1,)
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or colours not in ((1,), (3,)) or not picture.size:
        found = f"{picture.shape} of {picture.dtype}"
        raise ValueError(f"{where}: expected (height, width) or (height, width, 3) of uint8, found {found}")
    if picture.ndim == 2:
        return picture
    if picture.shape[2] == 1:
        return picture[..., 0]
    import cv2

    return cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)


def _grey(frame: Any) -> np.ndarray:
    """The luma of a decoded frame, full range."""
    import cv2

    form = frame.format
    if form.is_rgb or form.has_palette:
        image = grey(frame.to_ndarray(format="rgb24"))
    else:
        luma = form.components[0]
        if luma.bits != 8 or not (form.is_planar or len(form.components) == 1):  # 10 bits, or luma between the colours
            full = _is_full(frame)
            frame = frame.reformat(format="yuvj420p" if full else "yuv420p")
        plane = frame.planes[0]
        image = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
        image = image.copy() if _is_full(frame) else cv2.LUT(image, LIMITED)
    return image


def _is_full(frame: Any) -> bool:
    return frame.color_range == 2 or frame.format.name.startswith(("yuvj", "gray"))


def _how_it_was_held(frame: Any) -> tuple[float, float, float, float] | None:
    """The turning part (a, b, c, d) of the display matrix, by which phones say how they were held.

    It is one for all of a video. Asking each frame for it would keep each in memory until Python looks for cycles.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d, *_ = (np.frombuffer(data, np.int32) / 65536).tolist()
    return a, b, c, d


def _turned(image: np.ndarray, held: tuple[float, float, float, float] | None) -> np.ndarray:
    """The picture as it is to be shown: a point (x, y) goes to (a x + c y, b x + d y)."""
    if held is None:
        return image
    a, b, c, d = held
    across, down = a, d
    if abs(b) > abs(a):
        image, across, down = image.T, c, b
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _at_most(image: np.ndarray, longest: int) -> tuple[np.ndarray, float]:
    side = max(image.shape)
    if side <= longest:
        return image, 1.0
    import cv2

    factor = longest / side
    size = tuple(max(1, round(length * factor)) for length in image.shape[::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), factor


def _disposition(stream: Any) -> str:
    return str(stream.disposition)


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _name(source: Any) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    return str(getattr(source, "name", None) or "the video")
