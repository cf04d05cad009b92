"""What of a face is kept: a number for each reply, of the time in which it was on the screen."""

import base64
import io
import json
import math

import numpy as np
import pytest
from camera_clip import not_smiling, smiling
from PIL import Image
from talks import lengths, mean, talked

from geli_hf.affect import face_classifier, face_detector
from geli_hf.affect.faces import Box
from geli_hf.demo.camera import LOOKED_AT, FaceReader, Watch, luma, picture_of
from geli_hf.demo.conversation import conversation_of, snapshot
from geli_hf.demo.limits import Limits, Visit


class Detector:
    """Finds one face unless the picture is black, and a smaller one beside it."""

    fingerprint = "test"

    def detect(self, image, size=None):
        return [Box(0, 0, 10, 10), Box(20, 20, 40, 40)] if image.any() else []


class Classifier:
    """Calls the brightness of a face its happiness."""

    fingerprint = "test"

    def crop(self, image, box):
        assert box.width == 40  # the greater face
        return image

    def classify(self, crops):
        result = np.zeros((len(crops), 8), np.float32)
        result[:, 4] = crops.mean((1, 2)) / 255
        result[:, 5] = 1 - result[:, 4]
        return result


def frame(smile: float) -> np.ndarray:
    return np.full((60, 60), round(255 * smile), np.uint8)


def test_each_reply_gets_the_face_from_when_it_was_there_until_the_answer():
    conversation = talked("hi", "hello", "how", "well")  # replies at 1 s and 3 s, the second message at 2 s
    reader, watch = FaceReader(Detector(), Classifier()), Watch()
    for second, smile in [
        (0.5, 1.0),
        (1.2, 0.9),
        (1.6, 0.7),
        (1.8, 0.0),
        (2.5, 0.1),
        (3.5, 0.2),
        (3 + LOOKED_AT + 1, 1.0),
    ]:
        watch.see(reader, frame(smile), second)
    feedback = watch.feedback(conversation)
    assert feedback["affect_mean"] == pytest.approx([0.8, 0.2], abs=0.01)  # the black frame shows no face
    assert feedback["affect"] == [1.0, 0.0]


def test_where_no_face_was_seen_there_is_no_feedback():
    reader, watch = FaceReader(Detector(), Classifier()), Watch()
    conversation = talked("hi", "hello")
    assert watch.feedback(conversation) == {}
    face = watch.see(reader, frame(0.0), 1.5)
    assert face.box is None
    assert math.isnan(face.smile)
    assert watch.feedback(conversation) == {}
    watch.see(reader, frame(0.9), 1.6)
    assert watch.feedback(conversation)["affect"] == [1.0]
    later = talked("hi", "hello", "how", "well", "so")
    assert math.isnan(watch.feedback(later)["affect"][1])


def test_nobody_watched_what_was_loaded():
    reader, watch = FaceReader(Detector(), Classifier()), Watch()
    watch.see(reader, frame(0.9), 1.5)
    loaded = conversation_of(
        json.loads(snapshot(talked("hi", "hello")))["row"], most_messages=9, most_characters=99
    ).scored(lengths, mean)
    assert watch.feedback(loaded) == {}


def test_no_picture_is_kept():
    watch = Watch()
    watch.see(FaceReader(Detector(), Classifier()), frame(0.9), 1.5)
    assert [emotions.shape for emotions in watch.emotions] == [(8,)]


def test_the_shipped_classifier_tells_a_smile_in_colour():
    reader, watch = FaceReader(face_detector(), face_classifier()), Watch()
    smile, none = (watch.see(reader, picture(), 0.0).smile for picture in (smiling, not_smiling))
    assert smile > 0.8
    assert none < 0.4


def data_url(picture: np.ndarray, kind: str) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_a_frame_is_read_as_its_luma(kind):
    found = picture_of({"path": None, "url": data_url(smiling(), kind)})
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - luma(smiling())).mean() < 2.5  # the codec's loss


def test_nothing_but_a_picture_in_the_frame_itself_is_opened(tmp_path):
    file = tmp_path / "picture.png"
    Image.fromarray(smiling()).save(file)
    large = data_url(np.zeros((4000, 4000), np.uint8), "png")
    wrong = [
        file.as_uri(),
        str(file),
        None,
        7,
        "data:image/png;base64,AAAA",
        "data:image/png",
        "data:image/png;,é",
        large,
    ]
    for frame in [None, {}, {"path": str(file)}, *({"url": url, "path": str(file)} for url in wrong)]:
        assert picture_of(frame) is None


def test_limits_say_what_is_too_much():
    limits = Limits(characters=10, messages=4, minutes=5)
    assert limits.problem("hello", 2, 1) == ""
    assert "11 characters" in limits.problem("x" * 11, 0, 0)
    assert "4 messages" in limits.problem("hello", 3, 0)
    assert "5 minutes" in limits.problem("hello", 0, 6)
    assert limits.problem("  ", 0, 0)


def test_so_many_replies_a_minute():
    limits, visit = Limits(per_minute=3), Visit()
    assert [visit.too_often(limits, second) for second in (0, 1, 2, 3)] == [False, False, False, True]
    assert not visit.too_often(limits, 61)
    assert visit.too_often(limits, 61)


def test_what_begins_later_is_the_latest_and_is_not_stopped():
    visit = Visit()
    first = visit.begin()
    visit.stopped = True
    assert visit.begin() > first
    assert not visit.stopped
