"""From pictures of every kind to the input of the classifier of facial affect."""

import numpy as np
import torch
from faces import ASTRONAUT_BOX, astronaut
from PIL import Image

from geli_hf import FacialAffectImageProcessor

PROCESSOR = FacialAffectImageProcessor()


def values(images) -> torch.Tensor:
    return PROCESSOR(images, return_tensors="pt")["pixel_values"]


def face() -> Image.Image:
    x, y, width, height = ASTRONAUT_BOX
    return astronaut().crop((x, y, x + width, y + height))


def test_grey_and_colour_arrays_and_images_are_one_picture():
    colour = np.array(face())
    expected = values(face())
    assert expected.shape == (1, 1, 48, 48)
    for same in (colour, face().convert("L"), [face()]):
        torch.testing.assert_close(values(same), expected)
    assert torch.equal(values(np.asarray(face().convert("L"))), values(face().convert("L")))


def test_every_picture_is_standardised_by_itself():
    grey = np.asarray(face().convert("L").resize((48, 48)))
    dark = (grey // 4).astype(np.uint8)
    both = values([grey, dark])
    expected = (grey - grey.mean()) / grey.std(ddof=1)
    np.testing.assert_allclose(both[0, 0], expected, atol=1e-5)
    assert both.mean((1, 2, 3)).abs().max() < 1e-5
    assert (both.std((1, 2, 3)) - 1).abs().max() < 1e-5
    assert (both[0] - both[1]).abs().mean() < 0.05  # light does not matter
    assert torch.equal(values(np.full((48, 48), 7, np.uint8)), torch.zeros(1, 1, 48, 48))


def test_of_a_picture_that_is_not_square_the_middle_is_taken():
    wide = np.zeros((48, 100), np.uint8)
    wide[:, 26:74] = np.asarray(face().convert("L").resize((48, 48)))
    assert torch.equal(values(wide), values(wide[:, 26:74]))


def test_it_is_read_as_it_was_saved(tmp_path):
    FacialAffectImageProcessor({"height": 32, "width": 32}, 0.8, 0.1).save_pretrained(tmp_path)
    again = FacialAffectImageProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == {"size": {"height": 32, "width": 32}, "scale": 0.8, "shift": 0.1}
    assert again(face(), return_tensors="pt")["pixel_values"].shape == (1, 1, 32, 32)
