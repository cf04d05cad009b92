"""Training of the classifier of faces: its data, its augmentation and its calibration."""

import itertools

import datasets
import numpy as np
import pytest
import torch
from faces import SEVEN, grey_astronaut
from PIL import Image

from geli_hf import FacialAffectConfig, FacialAffectImageProcessor
from geli_hf.affect.faces import Box, square_crop
from geli_hf.models.facial_affect.image_processing_affect import standardise
from geli_hf.training.affect import AffectRecipe, Augmenter, LabelledFaces, calibrate, load_faces

WHOLE = Box(0, 0, 1, 1)


def write_faces(path, *persons: str, label=None, **columns):
    image = Image.fromarray(np.full((20, 20), 128, np.uint8))
    columns = {"image": [image] * len(persons), "label": [3] * len(persons), "person": persons} | columns
    table = datasets.Dataset.from_dict({name: list(values) for name, values in columns.items() if values is not None})
    table = table.cast_column("image", datasets.Image())
    table = table.cast_column("label", label or datasets.ClassLabel(names=list(SEVEN)))
    table.to_parquet(path)
    return str(path)


def test_faces_of_each_part(tmp_path):
    paths = {"train": write_faces(tmp_path / "a", "p1", "p2"), "test": write_faces(tmp_path / "b", "p3")}
    parts, names = load_faces(paths, side=10, box=[0.1, 0, 0.9, 0.9])
    assert names == list(SEVEN)
    assert parts["train"].pictures.shape == (2, 10, 10)
    assert parts["train"].labels.tolist() == [3, 3]
    assert parts["test"].persons.tolist() == ["p3"]
    assert parts["test"].box == Box(1, 0, 9, 9)


def test_broken_data_is_named(tmp_path):
    train = write_faces(tmp_path / "train", "p1", "p2")
    broken = {
        "person 'p2' is in train and test": write_faces(tmp_path / "both", "p2", "p3"),
        "nowhere": "nowhere",
        r"columns\b.*lacks the columns person": write_faces(tmp_path / "columns", "p3", person=None),
        r"kind\b.*ClassLabel": write_faces(tmp_path / "kind", "p3", label=datasets.Value("int64")),
        r"names\b.*ClassLabel": write_faces(tmp_path / "names", "p3", label=datasets.ClassLabel(names=SEVEN[:5])),
    }
    for message, test in broken.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load_faces({"train": train, "test": test}, side=10, box=WHOLE)
    other = write_faces(tmp_path / "other", "p3", label=datasets.ClassLabel(names=["a", "b", "c", "d"]))
    with pytest.raises(ValueError, match="emotions"):
        load_faces({"train": other}, side=10, box=WHOLE)


def test_calibration_corrects_the_prior_and_the_temperature():
    """Scores that are three times too wide, of labels that training drew equally often."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.choice(2, 4000, p=[0.8, 0.2]))
    evidence = torch.from_numpy(rng.normal(0, 1, (4000, 2))).float()
    evidence[torch.arange(4000), labels] += 1  # for two unit normals, its log likelihood ratio

    class Model(torch.nn.Module):
        config = FacialAffectConfig(id2label={0: "neutral", 1: "happiness"}, image_size=2)
        seen = 0

        def forward(self, pixels):
            self.seen += len(pixels)
            scores = 3 * evidence[self.seen - len(pixels) : self.seen]
            return type("Output", (), {"logits": scores})

    pictures = torch.zeros(4000, 2, 2, dtype=torch.uint8)
    faces = LabelledFaces(pictures, labels, np.arange(4000).astype(str), Box(0, 0, 2, 2))
    model = Model()
    calibrate(model, faces, FacialAffectImageProcessor(), torch.tensor([0.5, 0.5]))
    assert model.config.temperature == pytest.approx(3, rel=0.1)
    assert np.diff(model.config.log_prior_shift)[0] == pytest.approx(np.log(0.2 / 0.8), abs=0.1)


def test_augmented_faces_lie_where_faces_are_read():
    """Without any change, a training face is nearer to the one that is read later than to any beside it."""
    face = torch.from_numpy(np.array(Image.fromarray(grey_astronaut()[60:170, 170:280]).resize((80, 80))))
    faces = LabelledFaces(face[None], torch.tensor([3]), np.array(["a"]), Box(4, 0, 72, 72))
    processor = FacialAffectImageProcessor(scale=0.8, shift=0.05)
    still = AffectRecipe(rotation=0, zoom=0, shift=0, blurred=0, gamma=0, light=0, noise=0)
    torch.manual_seed(0)
    many = Augmenter(faces, processor, still)([0] * 8)["pixel_values"]
    distances = {}
    for right, down, larger in itertools.product((-2, 0, 2), (-2, 0, 2), (-4, 0, 4)):
        box = Box(4 + right - larger / 2, down - larger / 2, 72 + larger, 72 + larger)
        read = torch.from_numpy(square_crop(face.numpy(), box, scale=0.8, shift=0.05, side=48))[None]
        expected = standardise(read)[0]
        distances[right, down, larger] = min((many[0] - x).abs().mean() for x in (expected, expected.flip(-1)))
    assert min(distances, key=distances.get) == (0, 0, 0)
    assert not torch.equal(many.std(0), torch.zeros_like(many[0]))  # some are mirrored
    moved = Augmenter(faces, processor, AffectRecipe())([0] * 8)["pixel_values"]
    assert (moved[0] - moved[1]).abs().mean() > 0.1
