"""Detectors of faces, and the errors that name a missing package or file."""

import sys

import cv2
import numpy as np
import pytest
from clips import astronaut, background, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from geli_hf.affect import detect as detection
from geli_hf.affect.detect import CascadeDetector, YuNetDetector
from geli_hf.affect.faces import Box, square_crop


def grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


@pytest.fixture(scope="module")
def cascade() -> CascadeDetector:
    return CascadeDetector()


def test_the_astronaut(cascade):
    [box] = cascade.detect(grey(astronaut()))
    for x, y in ((202, 100), (247, 98), (222, 146)):  # eyes and mouth
        assert box.x < x < box.x + box.width
        assert box.y < y < box.y + box.height
    assert 80 < box.width == box.height < 130


@pytest.mark.parametrize("side", [30, 50, 120, 240])
def test_faces_of_every_size(cascade, side):
    [box] = cascade.detect(grey(scene((200, 150, side, side))))
    assert box.x + box.width / 2 == pytest.approx(200 + side / 2, abs=0.15 * side)
    assert box.y + box.height / 2 == pytest.approx(150 + side / 2, abs=0.15 * side)
    assert box.width == pytest.approx(side, rel=0.3)


def test_only_faces_of_the_sizes_that_are_asked_for(cascade):
    two = grey(scene((60, 150, 60, 60), (350, 150, 140, 140)))
    assert len(cascade.detect(two)) == 2
    [small] = cascade.detect(two, (40, 90))
    [large] = cascade.detect(two, (100, 200))
    assert small.x < 200 < large.x
    assert not cascade.detect(two, (200, 300))


def nothing():
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(0, 255, 640), np.linspace(0, 255, 480))
    yield from (np.full((480, 640), value) for value in (0, 128, 255))
    yield from (across, down, (across + down) / 2)
    yield from (rng.integers(0, 256, (480, 640)) for _ in range(3))
    yield from (cv2.GaussianBlur(rng.integers(0, 256, (480, 640)).astype(np.float32), (0, 0), s) for s in (2, 8))
    yield 255 * ((across // 16 + down // 16) % 2)
    yield grey(background(640, 480))
    yield grey(astronaut())[260:]  # her suit


def test_pictures_without_a_face(cascade):
    for number, picture in enumerate(nothing()):
        assert cascade.detect(picture.astype(np.uint8)) == [], number


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60))
def test_pictures_too_small_for_a_face(cascade, width, height):
    picture = np.zeros((height, width), np.uint8)
    assert cascade.detect(picture) == []
    assert cascade.detect(picture, (30, 50)) == []


def test_missing_packages_are_named(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(detection, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r"scikit-image.*geli-hf\[faces\]"):
            CascadeDetector()
    with monkeypatch.context() as patch:
        patch.delattr(cv2, "CascadeClassifier")
        with pytest.raises(ImportError, match=r"CascadeClassifier.*geli-hf\[faces\]"):
            CascadeDetector()
    monkeypatch.setitem(sys.modules, "cv2", None)
    for need in (CascadeDetector, lambda: YuNetDetector("yunet.onnx"), lambda: square_crop(None, None, side=8)):
        with pytest.raises(ImportError, match=r"OpenCV.*geli-hf\[faces\]"):
            need()


@pytest.mark.parametrize("content", [None, b"", b"no model", bytes(1000)])
def test_yunet_without_its_file(tmp_path, content):
    path = tmp_path / "yunet.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileNotFoundError if content is None else ValueError, match=r"yunet\.onnx"):
        YuNetDetector(path)


def test_the_net_of_yunet(tmp_path, monkeypatch):
    """A net that finds two faces wherever it looks, as OpenCV gives them: box, five points, confidence."""

    class Net:
        def __init__(self, path, config, size, confidence):
            self.size = size

        def setInputSize(self, size):
            self.size = size

        def detect(self, image):
            assert image.shape == (*self.size[::-1], 3)
            faces = [[1, 2, 30, 40, *range(10), 0.9], [3, 4, 90, 95, *range(10), 0.8]]
            return 1, (np.array(faces, np.float32) if image.any() else None)

    monkeypatch.setattr(cv2, "FaceDetectorYN", type("", (), {"create": Net}))
    path = tmp_path / "yunet.onnx"
    path.write_bytes(b"one")
    detector = YuNetDetector(path)
    picture = np.ones((48, 64), np.uint8)
    assert detector.detect(picture) == [Box(1, 2, 30, 40), Box(3, 4, 90, 95)]
    assert detector.detect(picture, (20, 60)) == [Box(1, 2, 30, 40)]
    assert detector.detect(0 * picture) == []
    path.write_bytes(b"two")
    assert detector.fingerprint != YuNetDetector(path).fingerprint


def test_a_real_picture(cascade, shared_data):
    """Four of five people; dark sunglasses hide the fifth from it."""
    boxes = cascade.detect(cv2.imread(str(shared_data / "media" / "multi_face.jpg"), cv2.IMREAD_GRAYSCALE))
    seen = [(308, 233, 123), (432, 210, 97), (518, 307, 120), (674, 291, 123)]
    assert len(boxes) == len(seen)
    for box, (x, y, side) in zip(sorted(boxes), seen):
        assert box == pytest.approx((x, y, side, side), abs=6)
