"""A listener's face at 5 frames a second, against a loop over `DeepFace.analyze` on the same frames.

DeepFace's default detector wants OpenCV's Haar cascades, which it downloads. Where they are in its home already
(`$DEEPFACE_HOME/.deepface/weights`), it is measured with them. Without them, scikit-image's cascade lies in the place
of both, of the face and of the eyes: the one that `CascadeDetector` reads, and a quicker one. The emotion model has
random weights, so what is compared is where the two see the face.
"""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from geli_hf.affect import DeepFaceAffect, VideoAffect
from geli_hf.affect.detect import cascade_xml
from geli_hf.affect.video import BOX_COLUMNS

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from emotion_weights import write_weights

av = pytest.importorskip("av")
pytest.importorskip("deepface.modules.detection", exc_type=ImportError)
astronaut = pytest.importorskip("skimage.data").astronaut

FPS, SECONDS, WIDTH, HEIGHT = 25, 6, 640, 480
HOME = Path(os.environ.get("DEEPFACE_HOME", Path.home())) / ".deepface" / "weights"
LEAST = {"LBP": 10, "Haar": 20}
HAAR = ("haarcascade_frontalface_default.xml", "haarcascade_eye.xml")


@pytest.fixture(scope="module", autouse=True)
def one_thread_of_opencv():
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Film a face of about 100 pixels that moves about: 640 x 480, 25 frames a second, 6 seconds."""
    path = tmp_path_factory.mktemp("clip") / "face.mp4"
    picture = np.pad(astronaut(), ((150, 150), (250, 250), (0, 0)), mode="edge")
    with av.open(str(path), "w") as file:
        stream = file.add_stream("h264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FPS * SECONDS):
            angle = 2 * np.pi * number / FPS / 4
            x, y = round(180 + 120 * np.sin(angle)), round(110 + 60 * np.sin(2 * angle))
            frame = av.VideoFrame.from_ndarray(picture[y : y + HEIGHT, x : x + WIDTH], format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


@pytest.fixture(scope="module", params=["LBP", "Haar"])
def deepface(request, tmp_path_factory):
    """Make DeepFace's affect in a home with everything that it would download."""
    home = tmp_path_factory.mktemp("home")
    write_weights(home)
    for name in HAAR:
        if request.param == "LBP":
            (home / ".deepface" / "weights" / name).write_text(cascade_xml())
        elif (HOME / name).is_file():
            shutil.copy(HOME / name, home / ".deepface" / "weights")
        else:
            pytest.skip(f"{HOME / name}: not there")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFACE_HOME", str(home))
        affect = DeepFaceAffect()  # imports DeepFace
        sys.modules["deepface.DeepFace"].modeling.cached_models["face_detector"].clear()
        yield affect, request.param


def frames_of(path: Path) -> list[np.ndarray]:
    """Read every fifth frame, BGR, as a script around DeepFace does with OpenCV."""
    import cv2

    capture, frames = cv2.VideoCapture(str(path)), []
    while capture.grab():
        if capture.get(cv2.CAP_PROP_POS_FRAMES) % 5 == 1:
            frames.append(capture.retrieve()[1])
    capture.release()
    return frames


@pytest.mark.parametrize("classifier", ["its own", "DeepFace's"])
def test_a_clip(pair, clip, deepface, classifier):
    from deepface import DeepFace

    through_deepface, cascade = deepface
    affect, found = VideoAffect(through_deepface if classifier == "DeepFace's" else None, fps=5), {}

    def ours():
        found["ours"] = affect(clip)[BOX_COLUMNS].to_numpy()

    def analyze():
        answers = [DeepFace.analyze(frame, actions=["emotion"], enforce_detection=False) for frame in frames_of(clip)]
        regions = [max(faces, key=lambda face: face["region"]["w"])["region"] for faces in answers]
        found["theirs"] = np.array([[region[side] for side in "xywh"] for region in regions])

    ratio = pair(ours, analyze, rounds=3)
    mine, theirs = (boxes[:, :2] + boxes[:, 2:] / 2 for boxes in (found["ours"], found["theirs"]))
    assert len(mine) == len(theirs) == 5 * SECONDS
    assert (np.hypot(*(mine - theirs).T) < 15).mean() > 0.95  # pixels between the middles of a face of 100
    assert ratio >= LEAST[cascade]
