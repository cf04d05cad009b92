"""The reader of frames: true times, the same luma in every form of file, and errors for files that are no video."""

import io
import math
import re
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import OnlyReads, OnlyWrites, astronaut, scene, write
from hypothesis import given, settings
from hypothesis import strategies as st

from geli_hf.affect.frames import VideoFrames
from geli_hf.affect.video import VideoAffect

FACE = (250.0, 180.0, 90.0, 90.0)


def luma(picture: np.ndarray) -> np.ndarray:
    return np.rint(picture @ [0.299, 0.587, 0.114]).astype(np.uint8)


def small(number: int = 0) -> np.ndarray:
    """(120, 160, 3): a picture that no rotation or flip leaves as it is, and that tells its number."""
    picture = cv2.resize(astronaut(), (160, 120), interpolation=cv2.INTER_AREA)
    picture[:40, :40] = 20 * (number % 10) + 30
    return picture


def all_frames(source, fps: float = math.inf):
    frames = VideoFrames(source, fps)
    return frames, list(frames)


def times(source, fps: float = math.inf) -> list[float]:
    return [frame.time for frame in all_frames(source, fps)[1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def ten_seconds(folder) -> Path:
    """25 frames a second."""
    return write(folder / "ten.mp4", map(small, range(250)), options={"bf": "2", "preset": "veryfast"})


# Times


def test_times_of_a_constant_rate(ten_seconds):
    frames, read = all_frames(ten_seconds)
    assert [frame.time for frame in read] == pytest.approx([number / 25 for number in range(250)])
    assert frames.duration == pytest.approx(10)
    assert frames.incomplete is None
    for number in (0, 7, 249):  # each time belongs to its picture, though such a file stores them in another order
        assert read[number].image[10:30, 10:30].mean() == pytest.approx(20 * (number % 10) + 30, abs=3)


@pytest.mark.parametrize("container", ["mkv", "ts", "mp4", "webm"])
def test_a_file_may_begin_at_any_time(folder, container):
    """The start of its own clock is 0."""
    codec = "libvpx" if container == "webm" else "libx264"
    at = [5.2, 5.3, 5.5, 5.9]
    path = write(folder / f"late.{container}", [small()] * 4, times=at, codec=codec)
    assert times(path) == pytest.approx([0, 0.1, 0.3, 0.7], abs=2e-3)


def test_the_earliest_stream_is_the_start(folder):
    """A transcript of the sound counts from the sound, even if the picture comes later."""
    path = write(folder / "sound.mp4", [small()] * 3, times=[0.5, 0.9, 1.3], sound=2.0)
    assert times(path) == pytest.approx([0.5, 0.9, 1.3], abs=0.03)


def grainy(frames: int):
    """Pictures that take about the same number of bytes each."""
    for number in range(frames):
        grain = np.random.default_rng(number).integers(0, 60, (120, 160, 3), np.uint8)
        yield np.minimum(small(number), 195) + grain


def recorded(at: list[float], pictures=None) -> bytes:
    """Make the stream of a browser's recorder: no index, since nothing can be written later."""
    file = OnlyWrites()
    options = {"live": "1"}
    pictures = pictures or map(small, range(len(at)))
    write(file, pictures, times=at, codec="libvpx", container="webm", container_options=options)
    return file.data


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(10, 900), min_size=1, max_size=12))
def test_times_of_a_browsers_recording(gaps):
    at = [0.0, *(sum(gaps[:count]) / 1000 for count in range(1, len(gaps) + 1))]
    source = OnlyReads(recorded(at))
    assert times(source) == pytest.approx(at, abs=0.002)


def test_a_recording_of_thirteen_seconds(folder):
    """Frame number over frame rate would be wrong by seconds."""
    rng = np.random.default_rng(0)
    at = [0.0, *np.cumsum(rng.choice([0.033, 0.066, 0.4], 80)).round(3).tolist()]
    frames, read = all_frames(OnlyReads(recorded(at)), 5)
    slots = {}
    for time in at:
        slots.setdefault(math.floor(time * 5 + 1e-6), time)
    assert [frame.time for frame in read] == pytest.approx(list(slots.values()), abs=0.04)
    assert math.isnan(frames.duration)
    assert frames.incomplete is None


# Sampling


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 20, allow_subnormal=False), min_size=1, max_size=60).map(sorted),
    st.floats(0.1, 60) | st.just(math.inf),
)
def test_sampling(at, fps):
    picture = np.zeros((4, 4), np.uint8)
    taken = times(((time, picture) for time in at), fps)
    assert taken[0] == at[0]
    assert set(taken) <= set(at)
    assert all(one < other for one, other in pairwise(taken))
    if fps == math.inf:
        assert taken == sorted(set(at))
        return
    slots = [math.floor(time * fps + 1e-6) for time in taken]
    assert len(set(slots)) == len(slots)
    assert set(slots) == {math.floor(time * fps + 1e-6) for time in at}


@pytest.mark.parametrize(("fps", "expected"), [(1, 10), (5, 50), (12.5, 125), (25, 250), (1000, 250)])
def test_frames_per_second(ten_seconds, fps, expected):
    taken = times(ten_seconds, fps)
    assert len(taken) == expected
    assert taken == pytest.approx([number / min(fps, 25) for number in range(expected)], abs=1e-6)


@pytest.mark.parametrize("fps", [0, -1, math.nan])
def test_no_such_rate(ten_seconds, fps):
    with pytest.raises(ValueError, match="fps"):
        VideoFrames(ten_seconds, fps)


# Pictures


@pytest.mark.parametrize(
    ("codec", "pixels", "full"),
    [
        ("ffv1", "yuv420p", False),
        ("ffv1", "yuv420p", True),
        ("ffv1", "yuv422p", True),
        ("ffv1", "yuv444p10le", False),
        ("ffv1", "yuv422p16le", True),
        ("libx264", "yuv420p", False),
        ("libx264", "yuv420p", True),
        ("libx264", "yuv420p10le", False),
        ("libx264", "yuv420p10le", True),
        ("rawvideo", "nv12", False),
        ("rawvideo", "uyvy422", False),
    ],
)
def test_luma_is_the_same_in_every_form(folder, codec, pixels, full):
    path = folder / f"{codec}-{pixels}-{full}.{'nut' if codec == 'rawvideo' else 'mkv'}"
    write(path, [scene(FACE)] * 2, codec=codec, pixels=pixels, full=full)
    _holds(path, scene(FACE))


@pytest.mark.parametrize(
    ("codec", "pixels", "full"),
    [
        ("libx264", "yuvj420p", True),
        ("mjpeg", "yuvj422p", True),
        ("ffv1", "gray", False),
        ("ffv1", "gray16le", False),
        ("qtrle", "rgb24", False),
        ("ffv1", "bgra", False),
        ("ffv1", "gbrp10le", False),
        ("libx264rgb", "rgb24", False),
        ("libvpx-vp9", "gbrp", False),
    ],
)
def test_luma_of_what_has_one_range(folder, codec, pixels, full):
    path = folder / f"{codec}-{pixels}.{'mkv' if codec in ('ffv1', 'libvpx-vp9') else 'mov'}"
    write(path, [scene(FACE)] * 2, codec=codec, pixels=pixels, full=full)
    _holds(path, scene(FACE))


def _holds(path: Path, picture: np.ndarray) -> None:
    _, read = all_frames(path)
    assert len(read) == 2
    for frame in read:
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == picture.shape[:2]
        assert frame.scale == 1
        off = frame.image.astype(int) - luma(picture)
        assert abs(off.mean()) < 1
        assert np.abs(off).mean() < 3


@pytest.mark.parametrize("size", [(321, 201), (33, 97), (1, 1), (2, 301)])
def test_odd_sizes(folder, size):
    """Decoders store lines longer than they are."""
    picture = cv2.resize(astronaut(), size, interpolation=cv2.INTER_AREA)
    _, [frame] = all_frames(write(folder / f"odd-{size}.mkv", [picture], codec="ffv1", pixels="yuv444p"))
    assert frame.image.shape == size[::-1]
    assert np.abs(frame.image.astype(int) - luma(picture)).max() <= 2


@pytest.mark.parametrize("flips", [(), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_pictures_that_lie_are_turned(folder, angle, flips):
    stored = small()
    path = write(folder / f"{angle}-{flips}.mp4", [stored], rotation=(angle, *flips))
    upright = np.rot90(luma(stored), angle // 90)  # counter-clockwise, as PyAV counts
    if flips:
        upright = upright[:: -1 if flips[1] else 1, :: -1 if flips[0] else 1]
    _, [frame] = all_frames(path)
    assert frame.image.shape == upright.shape
    assert np.abs(frame.image.astype(int) - upright).mean() < 3


def test_a_frame_of_4k_is_scaled_once(folder):
    """And the face's box is in the video's own pixels."""
    picture = scene((900, 425, 225, 225), width=1920, height=1080).repeat(2, 0).repeat(2, 1)
    path = write(folder / "4k.mkv", [picture], codec="mjpeg", pixels="yuvj420p", full=True)
    _, [frame] = all_frames(path)
    assert frame.image.shape == (1080, 1920)
    assert frame.scale == pytest.approx(0.5)
    [row] = VideoAffect()(path).to_dict("records")
    assert row["x"] == pytest.approx(1800, abs=50)
    assert row["y"] == pytest.approx(850, abs=50)
    assert row["width"] == pytest.approx(450, abs=60)


@pytest.mark.parametrize("shape", [(16, 4112), (4112, 16)])
def test_a_frame_that_is_too_large_is_refused_before_it_is_decoded(folder, shape, monkeypatch):
    path = write(folder / f"large{shape[0]}.mkv", [np.zeros((*shape, 3), np.uint8)], codec="mjpeg", pixels="yuvj420p")
    monkeypatch.setattr(VideoFrames, "_decode", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"large.*4096.*4112"):
        VideoFrames(path)


def test_frames_larger_than_the_file_says_are_not_decoded(folder, monkeypatch):
    """FFmpeg itself is held to the bound, here with a lower one."""
    path = write(folder / "plain.mkv", [small(number) for number in range(3)], codec="mjpeg", pixels="yuvj420p")
    monkeypatch.setattr("geli_hf.affect.frames.MAX_PIXELS", 100)
    with pytest.raises(ValueError, match=r"plain\.mkv"):
        list(VideoFrames(path))


# Pictures that are given


def test_given_pictures():
    colour, plain = small(), luma(small())
    _, read = all_frames([(0.5, colour), (1.0, plain), (1.5, plain[..., None])])
    assert [frame.time for frame in read] == [0.5, 1.0, 1.5]
    for frame in read:
        assert np.abs(frame.image.astype(int) - plain).max() <= 1


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4)),
        np.zeros(4, np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        None,
    ],
)
def test_given_something_else(picture):
    with pytest.raises(ValueError, match="the video, frame 1"):
        all_frames([(0.0, small()), (1.0, picture)])


@pytest.mark.parametrize("time", [math.nan, math.inf])
def test_given_no_time(time):
    with pytest.raises(ValueError, match="the video, frame 0"):
        all_frames([(time, small())])


# Files that are broken, or none


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    shorter = path.with_stem(f"{path.stem}-cut")
    shorter.write_bytes(data[: int(share * len(data))])
    return shorter


@pytest.mark.parametrize("bframes", ["0", "2"])
def test_mp4_cut_off_behind_its_index(folder, bframes):
    path = folder / f"index-{bframes}.mp4"
    options = {"bf": bframes, "preset": "veryfast", "g": "10"}
    write(path, map(small, range(100)), container_options={"movflags": "faststart"}, options=options)
    whole = times(path)
    frames, read = all_frames(cut(path, 0.6))
    at = float(re.fullmatch(r"breaks off at (\d\.\d) s of 4\.0 s", frames.incomplete)[1])
    assert at == pytest.approx(read[-1].time, abs=0.25)  # the next picture of a file may be stored before others
    kept = [frame.time for frame in read]
    assert kept == whole[: len(kept)]
    assert 40 < len(kept) < 80


def test_mp4_cut_off_before_its_index(ten_seconds):
    with pytest.raises(ValueError, match=r"ten-cut\.mp4"):
        VideoFrames(cut(ten_seconds, 0.9))


def test_webm_cut_off(folder):
    path = write(folder / "whole.webm", grainy(100), codec="libvpx")
    frames, read = all_frames(cut(path, 0.5))
    assert 20 < len(read) < 70
    assert frames.incomplete == f"breaks off at {read[-1].time + 0.04:.1f} s of 4.0 s"


def test_a_recording_cut_off_keeps_what_was_sent():
    data = recorded([number / 10 for number in range(40)], grainy(40))
    _, read = all_frames(OnlyReads(data[: len(data) // 2]))
    assert 10 < len(read) < 30


def test_noise_in_the_middle(folder):
    path = write(folder / "noisy.mkv", grainy(100), options={"g": "5"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    _, read = all_frames(io.BytesIO(data))
    assert len(read) > 40
    assert read[0].time == 0
    assert all(one.time < other.time for one, other in pairwise(read))


def test_slow_pictures_do_not_break_off(folder):
    """One picture in three seconds: the last one stands until the end."""
    path = write(folder / "slides.mp4", map(small, range(4)), times=[0, 3, 6, 9], sound=11.5)
    frames, read = all_frames(path)
    assert [frame.time for frame in read] == pytest.approx([0, 3, 6, 9], abs=0.03)
    assert frames.incomplete is None


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_sound_may_last_longer(folder, container):
    path = write(folder / f"longer.{container}", map(small, range(50)), sound=6.0)
    frames, read = all_frames(path)
    assert len(read) == 50
    assert frames.incomplete is None


def test_only_sound(folder):
    path = folder / "sound.wav"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        part = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        part.sample_rate = 8000
        file.mux(stream.encode(part))
    with pytest.raises(ValueError, match=r"sound\.wav"):
        VideoFrames(path)


def test_no_video(folder):
    path = folder / "none.mp4"
    for content in (b"", b"Once upon a time there was no video here.\n" * 50, bytes(5000)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"none\.mp4"):
            all_frames(path)
        with pytest.raises(ValueError, match="the video"):
            all_frames(OnlyReads(content))
    with pytest.raises(ValueError, match=folder.name):
        VideoFrames(folder)
    for nowhere in (folder / "nowhere.mp4", str(folder / "nowhere.mp4")):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4"):
            VideoFrames(nowhere)


def test_no_times(folder):
    """A bare stream of H.264."""
    path = write(folder / "bare.h264", map(small, range(5)))
    with pytest.raises(ValueError, match=r"bare\.h264.*times"):
        all_frames(path)


def test_a_reader_that_stops_in_the_middle_leaves_the_file_open(ten_seconds):
    with open(ten_seconds, "rb") as file:
        frames = iter(VideoFrames(file, 5))
        next(frames)
        frames.close()
        file.seek(0)
        assert len(times(file, 5)) == 50


def test_frames_whose_times_start_again_are_left_out():
    picture = np.zeros((8, 8), np.uint8)
    frames = VideoFrames([(second, picture) for second in [0.0, 1.0, 2.0, 0.5, 1.5, 3.0]], fps=1)
    assert [frame.time for frame in frames] == [0, 1, 2, 3]
    assert frames.incomplete == "its times go back from 2.0 s to 0.5 s; what comes again is left out"
