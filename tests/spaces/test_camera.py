"""The face before the camera: numbers for each turn, and no picture."""

import base64
import io
import math

import numpy as np
import pytest
from camera_clip import not_smiling, smiling, write_clip
from PIL import Image
from talks import dialogue

from geli_hf.affect.emotions import EMOTIONS
from geli_hf.affect.frames import grey
from geli_hf.demo.camera import REACTION_SECONDS, STORED_SECONDS, FaceReader, Watch, read_frame
from geli_hf.demo.conversation import Turn

EMPTY_ROOM = np.full((120, 160, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def faces():
    return FaceReader()


def watch_of(smiles: dict[float, float]) -> Watch:
    """Return a watch that has seen these smiles, by their times; NaN for no face."""
    emotions = [[smile if name == "happiness" else (1 - smile) / 7 for name in EMOTIONS] for smile in smiles.values()]
    return Watch(seconds=list(smiles), emotions=list(np.array(emotions, np.float32)))


def test_a_reply_gets_the_face_from_its_appearance_until_the_answer():
    turns = dialogue("hi", "hello", "how", "well").turns  # replies at 1 s and 3 s, the second message at 2 s
    late = 3 + REACTION_SECONDS + 1
    watch = watch_of({0.5: 1.0, 1.2: 0.9, 1.6: 0.7, 1.8: math.nan, 2.5: 0.1, 3.5: 0.1, late: 1.0})
    feedback = watch.feedback(turns)
    assert feedback["affect_mean"] == pytest.approx([0.8, 0.1])
    assert feedback["affect"] == [1.0, 0.0]
    after = dialogue("hi", "hello", "how", "well", "so", "yes").turns
    assert math.isnan(watch_of({1.5: 0.9}).feedback(after)["affect_mean"][2])


@pytest.mark.parametrize("at", [1.0, math.nan])  # the second was loaded, and nobody watched it
def test_without_a_face_during_any_turn_there_is_no_feedback(at):
    turns = [Turn("user", "hi", at=0.0), Turn("assistant", "hello", at=at)]
    watch = watch_of({1.5: math.nan if at == 1 else 0.9})
    assert watch.feedback(turns) == Watch().feedback(turns) == {}
    assert np.isnan(watch.signals(turns)["affect"]).all()


def test_the_shipped_classifier_tells_a_smile(faces):
    serious, smile = (Watch().see(faces, picture, 0.0) for picture in (not_smiling(), smiling()))
    assert serious < 0.4
    assert smile > 0.8


def test_only_numbers_are_stored_and_forgotten_after_an_hour(faces):
    watch = Watch()
    assert watch.see(faces, smiling(), 0.0) > 0.8
    assert math.isnan(watch.see(faces, EMPTY_ROOM, 1.0))
    assert [each.shape for each in watch.emotions] == [(8,), (8,)]
    watch.see(faces, EMPTY_ROOM, STORED_SECONDS + 0.5)
    assert watch.seconds == [1.0, STORED_SECONDS + 0.5]
    other = Watch()
    assert other.see(faces, smiling(), 0.0) > 0.8
    assert other.track is not watch.track


def test_a_video_is_read_up_to_a_length(faces, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", seconds=1.5).read_bytes()
    table = faces.read_video(io.BytesIO(clip))
    smile = table["prob_face_happiness"]
    assert smile[table["time"] < 1.3].max() < 0.4
    assert smile[table["time"] > 1.7].min() > 0.7
    with pytest.raises(ValueError, match=r"0\.01 minutes"):
        faces.read_video(io.BytesIO(clip), minutes=0.01)


def data_url(picture: np.ndarray, kind: str) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_a_frame_is_read_as_its_luma(kind):
    frame = read_frame(data_url(smiling(), kind))
    assert frame.dtype == np.uint8
    assert np.abs(frame.astype(int) - grey(smiling())).mean() < 2.5  # the codec's loss


def test_only_a_picture_in_the_frame_itself_is_opened(tmp_path):
    file = tmp_path / "picture.png"
    Image.fromarray(smiling()).save(file)
    large = data_url(np.zeros((4000, 4000), np.uint8), "png")
    wrong = [file.as_uri(), str(file), None, 7, "data:image/png;base64,AAAA", "data:image/png", "data:image/png;,é"]
    for frame in [{}, {"path": str(file)}, [str(file)], *wrong, large]:
        assert read_frame(frame) is None
