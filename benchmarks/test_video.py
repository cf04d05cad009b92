"""Time and memory of `VideoAffect` on a video, against a plain loop over its frames.

The reference: OpenCV reads the frames, the same cascade looks at each whole frame that is sampled, and the same
classifier reads each face by itself.
"""

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "tests" / "affect"))

from clips import scene, walk, write
from fresh_process import peak_memory

from geli_hf.affect import CascadeDetector, ImageAffect, VideoAffect

SECONDS = 15
MIB = 128  # that a clip of two hours may add to the libraries and the classifier, which a build of torch decides


@pytest.fixture(scope="module", autouse=True)
def one_thread_of_opencv():
    cv2.setNumThreads(1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Film a face that moves about before a wall with some grain: 640 x 480, 25 frames a second."""
    pictures = map(scene, walk(SECONDS * 25, 110.0))
    options = {"preset": "medium", "crf": "23"}
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4", pictures, options=options)


def frame_by_frame(path: Path, fps: float, detector: CascadeDetector, classifier: ImageAffect) -> list[np.ndarray]:
    file, found, last = cv2.VideoCapture(str(path)), [], -1
    rate = file.get(cv2.CAP_PROP_FPS)
    for number in range(sys.maxsize):
        there, picture = file.read()
        if not there:
            return found
        if int(number / rate * fps + 1e-6) > last:
            last = int(number / rate * fps + 1e-6)
            image = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
            if boxes := detector.detect(image):
                box = max(boxes, key=lambda box: box.width)
                found.append(classifier.classify(classifier.crop(image, box)[None])[0])


@pytest.mark.parametrize("fps", [1, 5, 25])
def test_frame_by_frame(pair, benchmark, clip, fps):
    classifier, detector, found = ImageAffect(), CascadeDetector(), {}
    affect = VideoAffect(classifier, detector, fps=fps)

    def ours():
        found["ours"] = affect(clip)

    def reference():
        found["theirs"] = frame_by_frame(clip, fps, detector, classifier)

    ratio = pair(ours, reference, rounds=2 if fps == 25 else 5)
    benchmark.extra_info["times_real_time"] = SECONDS / benchmark.stats.stats.median
    print(f"\n{fps} a second: {SECONDS / benchmark.stats.stats.median:.0f} x real time")
    happy = found["ours"]["prob_face_happiness"]
    assert len(happy) == SECONDS * fps
    assert happy.notna().mean() > 0.97
    theirs = np.mean([row[4] for row in found["theirs"]])
    assert happy.mean() == pytest.approx(theirs, abs=0.05)
    if fps > 1:
        assert ratio >= 5


def test_a_camera(benchmark):
    """Read a frame of 640 x 480, from the bytes of a JPEG to probabilities."""
    frames = [cv2.imencode(".jpg", scene(place)[..., ::-1])[1].tobytes() for place in walk(100, 110.0)]
    live, seconds = VideoAffect(ImageAffect(), CascadeDetector()).live(), []

    def watch():
        seconds.clear()
        for data in frames:
            start = perf_counter()
            found = live(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))
            seconds.append(perf_counter() - start)
            assert found is not None

    benchmark.pedantic(watch, rounds=3, warmup_rounds=1)
    median = float(np.median(seconds))
    benchmark.extra_info |= {"milliseconds": 1000 * median, "slowest": 1000 * max(seconds)}
    print(f"\n{1000 * median:.1f} ms a frame, at most {1000 * max(seconds):.1f} ms")
    assert median <= 0.010


def looped(path: Path, to: Path, hours: float) -> Path:
    """Repeat the packets of a clip, with times that go on."""
    import av

    with av.open(str(path)) as file, av.open(str(to), "w") as longer:
        stream = file.streams.video[0]
        copy = longer.add_stream_from_template(stream)
        packets = [packet for packet in file.demux(stream) if packet.dts is not None]
        data = [(bytes(packet), packet.pts, packet.dts, packet.is_keyframe) for packet in packets]
        length = stream.duration
        for turn in range(round(hours * 3600 / SECONDS)):
            for content, pts, dts, key in data:
                packet = av.Packet(content)
                packet.pts, packet.dts, packet.duration = pts + turn * length, dts + turn * length, length // len(data)
                packet.time_base, packet.stream, packet.is_keyframe = stream.time_base, copy, key
                longer.mux(packet)
    return to


def test_two_hours(benchmark, clip, tmp_path):
    """Watch two hours in a process of its own."""
    path = looped(clip, tmp_path / "long.mp4", 2.0)
    measured = tmp_path / "measured"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, str(path), str(measured)]
    benchmark.pedantic(lambda: subprocess.run(command, env=environment, check=True), rounds=1)
    seconds, before, peak, rows = map(float, measured.read_text().split())
    benchmark.extra_info |= {"before_mib": before, "peak_mib": peak, "times_real_time": 7200 / seconds}
    print(f"\ntwo hours: {seconds:.0f} s, {7200 / seconds:.0f} x real time, {before:.0f} MiB, then {peak:.0f}")
    assert rows == 36_000
    assert peak - before <= MIB


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    video, measured = sys.argv[1:]
    affect = VideoAffect()
    affect([(0.0, scene((250, 150, 110, 110)))])  # loads what is loaded late
    start, before = perf_counter(), peak_memory()
    table = affect(video)
    Path(measured).write_text(f"{perf_counter() - start} {before} {peak_memory()} {len(table)}")
