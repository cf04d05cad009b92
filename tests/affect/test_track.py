"""One face from frame to frame."""

import cv2
import numpy as np
import pytest
from clips import background, scene, walk

from geli_hf.affect.detect import CascadeDetector
from geli_hf.affect.faces import Box
from geli_hf.affect.track import SCAN_EVERY, SCANS, FaceTrack

LEFT, RIGHT = (100.0, 150.0, 90.0, 90.0), (430.0, 160.0, 110.0, 110.0)


def grey(*faces) -> np.ndarray:
    return cv2.cvtColor(scene(*faces), cv2.COLOR_RGB2GRAY)


def is_at(box: Box | None, place) -> bool:
    """Tell whether both have about the same middle and size."""
    if box is None:
        return False
    x, y, side, _ = place
    off = np.hypot(box.x + box.width / 2 - x - side / 2, box.y + box.height / 2 - y - side / 2)
    return off < 0.2 * side and abs(box.width - side) < 0.35 * side


class Counting(CascadeDetector):
    """Counts the pixels that it looks at."""

    pixels = 0

    def detect(self, image, size=None):
        self.pixels += image.size
        return super().detect(image, size)


def follow(track: FaceTrack, *faces, frames: int = 1) -> Box | None:
    for _ in range(frames):
        box = track(grey(*faces))
    return box


@pytest.fixture
def track() -> FaceTrack:
    return FaceTrack(CascadeDetector(), patience=5)


@pytest.mark.parametrize("side", [45, 90, 180])
def test_follows_a_face_that_moves(side):
    detector = Counting()
    track = FaceTrack(detector)
    places = walk(50, side)
    seen = [is_at(track(grey(place)), place) for place in places]
    assert sum(seen) >= 49
    assert seen[0]
    assert detector.pixels < 0.25 * 50 * 640 * 480


def test_a_fast_one_too(track):
    """That leaps by its own width."""
    for number in range(8):
        place = (60 + 60 * number, 170, 90, 90)
        assert is_at(follow(track, place), place)


@pytest.mark.parametrize(("face", "expected"), [("largest", RIGHT), ("left", LEFT), ("right", RIGHT)])
def test_which_face(face, expected):
    track = FaceTrack(CascadeDetector(), face)
    for _ in range(2 * SCAN_EVERY + 3):
        assert is_at(track(grey(LEFT, RIGHT)), expected)


@pytest.mark.parametrize(("face", "other"), [("left", RIGHT), ("right", LEFT)])
def test_no_face_in_that_place(face, other):
    track = FaceTrack(CascadeDetector(), face)
    for _ in range(SCAN_EVERY + 2):
        assert track(grey(other)) is None


@pytest.mark.parametrize("face", ["", "Left"])
def test_no_such_face(face):
    with pytest.raises(ValueError, match="face"):
        FaceTrack(CascadeDetector(), face)


def test_a_face_that_becomes_too_small_is_lost(track):
    sides = [60 * 0.9**step for step in range(16)]  # down to 12 pixels
    seen = [track(grey((300, 200, side, side))) is not None for side in sides]
    assert all(seen[:4])
    assert not any(seen[-3:])


@pytest.mark.parametrize(
    ("faces", "face", "crowded"),
    [((LEFT, RIGHT), "largest", True), ((LEFT, RIGHT), "left", False), ((RIGHT,), "largest", False)],
)
def test_two_faces_of_about_one_size_are_counted(faces, face, crowded):
    track = FaceTrack(CascadeDetector(), face)
    follow(track, *faces, frames=2 * SCAN_EVERY + 1)
    assert track.scans >= 3
    assert track.crowded == (track.scans if crowded else 0)


def test_leaves_and_comes_back(track):
    assert is_at(follow(track, LEFT, frames=3), LEFT)
    assert follow(track, frames=4) is None
    assert is_at(follow(track, LEFT), LEFT)
    assert follow(track, frames=7) is None
    assert is_at(follow(track, RIGHT, frames=2), RIGHT)  # after so long a time anywhere


def test_a_small_face_comes_back(track):
    small = (310, 205, 55, 55)
    assert is_at(follow(track, small, frames=3), small)
    assert follow(track, frames=12) is None
    assert is_at(follow(track, (400, 100, 55, 55), frames=SCAN_EVERY), (400, 100, 55, 55))


def test_a_bystander_does_not_take_over(track):
    """Neither somebody somewhat larger, nor whoever is there while the face is away for a moment."""
    assert is_at(follow(track, LEFT, frames=3), LEFT)
    assert is_at(follow(track, LEFT, RIGHT, frames=5 * SCAN_EVERY), LEFT)
    assert follow(track, RIGHT, frames=4) is None
    assert is_at(follow(track, LEFT, RIGHT, frames=2), LEFT)
    assert is_at(follow(track, RIGHT, frames=10), RIGHT)  # she has gone


def test_a_much_larger_face_that_stays_takes_over(track):
    large = (380, 140, 160, 160)
    assert is_at(follow(track, LEFT, frames=2), LEFT)
    assert is_at(follow(track, LEFT, large, frames=SCAN_EVERY), LEFT)
    assert is_at(follow(track, LEFT, frames=SCAN_EVERY), LEFT)  # it passed by
    assert is_at(follow(track, LEFT, large, frames=SCAN_EVERY), LEFT)
    assert is_at(follow(track, LEFT, large, frames=SCANS * SCAN_EVERY), large)


def test_a_face_of_the_other_half_does_not_take_over():
    track = FaceTrack(CascadeDetector(), "left")
    large = (380, 140, 160, 160)
    assert is_at(follow(track, LEFT, large, frames=5 * SCAN_EVERY), LEFT)


def test_nothing_in_a_wall_and_in_noise():
    rng = np.random.default_rng(0)
    track = FaceTrack(CascadeDetector())
    for number in range(2 * SCAN_EVERY):
        noise = rng.integers(0, 256, (480, 640)).astype(np.uint8)
        assert track(noise if number % 2 else cv2.cvtColor(background(640, 480), cv2.COLOR_RGB2GRAY)) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (20, 20), (100, 30), (2000, 24)])
def test_pictures_may_change_their_size(track, shape):
    """A camera may change what it gives."""
    assert is_at(follow(track, RIGHT, frames=2), RIGHT)
    assert track(np.zeros(shape, np.uint8)) is None
    assert is_at(follow(track, RIGHT, frames=2), RIGHT)
