"""Emotions of faces by an image classifier of `transformers`: the one that comes with the package, or any other."""

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from ..models.facial_affect.image_processing_affect import FacialAffectImageProcessor, standardise
from ..models.geli_reward.joined_geli import weights_digest
from .emotions import EMOTIONS, emotions_of_labels
from .faces import Box, square_crop

SHIPPED = Path(__file__).parents[1] / "weights" / "facial_affect"
LEAST_CONTRAST = 2.0  # deviation of a face's grey levels (0..255), below which light or dark has swallowed it
BATCH = 64  # faces that go through the model at once; more of them leave a CPU's cache
# Fields of a configuration that don't change what the model computes.
_FILE_FIELDS = {"_name_or_path", "architectures", "auto_map", "dtype", "geli_hf_version", "transformers_version"}


class ImageAffect:
    """An image classifier as a `FaceClassifier`.

    It gets the face as a grey picture, in three equal channels unless it is a `FacialAffectModel`.

    Args:
        model: folder or name on the Hub of an image classifier whose labels are emotions. Default: the one that comes
            with the package, which needs no network.
        device: of the classifier.

    Attributes:
        scale, shift (`float`): the part of a detector's box that the model reads, as in `square_crop`; its image
            processor says so, and otherwise it is the box.
        side (`int`): pixels of the square that it reads.

    Raises:
        ValueError: the labels are not emotions.
        OSError: there is no such model.
    """

    def __init__(self, model: str | Path | None = None, *, device: str = "cpu"):
        path = SHIPPED if model is None else model
        self.processor = AutoImageProcessor.from_pretrained(path)
        self.model = AutoModelForImageClassification.from_pretrained(path, dtype=torch.float32).eval()
        self.model.to(device, memory_format=torch.channels_last)
        self._own = isinstance(self.processor, FacialAffectImageProcessor)
        self.scale, self.shift = (self.processor.scale, self.processor.shift) if self._own else (1.0, 0.0)
        self.side = _input_side(self.processor)
        labels = self.model.config.id2label
        try:
            self._emotions = emotions_of_labels([labels[index] for index in range(len(labels))])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights, the configuration and the way in which a face is cut out."""
        config = {name: value for name, value in self.model.config.to_dict().items() if name not in _FILE_FIELDS}
        parts = [weights_digest(self.model), config, self.processor.to_dict(), self.scale, self.shift]
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()

    def crop(self, image: np.ndarray, box: Box) -> np.ndarray:
        """Cut out a face, (side, side) uint8, from a picture of (height, width) uint8. See `FaceClassifier`."""
        return square_crop(image, box, scale=self.scale, shift=self.shift, side=self.side)

    @torch.inference_mode()
    def classify(self, crops: np.ndarray) -> np.ndarray:
        """Compute the emotions of faces, (n, side, side) uint8 to (n, 8) float32. See `FaceClassifier`.

        A face without contrast (see `LEAST_CONTRAST`) is NaN.
        """
        result = np.full((len(crops), len(EMOTIONS)), np.nan, np.float32)
        for first in range(0, len(crops), BATCH):
            pixels = self._pixel_values(crops[first : first + BATCH]).to(self.model.device)
            result[first : first + BATCH, self._emotions] = self.model(pixels).logits.softmax(-1).cpu().numpy()
        result[crops.std((1, 2)) < LEAST_CONTRAST] = np.nan
        return result

    def _pixel_values(self, crops: np.ndarray) -> torch.Tensor:
        if self._own:
            # The image processor does no more with such a picture. torch wants an array that it could write to.
            return standardise(torch.from_numpy(np.require(crops, requirements=["C", "W"])))
        pictures = [np.repeat(crop[..., None], 3, -1) for crop in crops]
        return self.processor(images=pictures, return_tensors="pt")["pixel_values"]


def _input_side(processor) -> int:
    """Return the pixels of the square that a processor makes of a picture."""
    size = dict(processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size)
    return next(side for side in (size.get("height"), size.get("shortest_edge"), size.get("longest_edge")) if side)
