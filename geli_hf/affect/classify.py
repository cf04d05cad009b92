"""Reads faces with an image classifier of `transformers`: the one that comes with the package, or any other."""

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from ..models.facial_affect.image_processing_affect import FacialAffectImageProcessor, standardise
from .emotions import EMOTIONS, emotions_of_labels
from .faces import Box, square_crop

SHIPPED = Path(__file__).parents[1] / "weights" / "facial_affect"
# Faces that go through the model at once: enough to be quick, few enough to stay in a CPU's cache.
BATCH = 64
_ABOUT_THE_FILES = {"_name_or_path", "architectures", "auto_map", "dtype", "geli_hf_version", "transformers_version"}


class ImageAffect:
    """A `FaceClassifier` that is an image classifier.

    Args:
        model: folder or name on the Hub of an image classifier whose labels are emotions. It gets the face as a grey
            picture, in three equal channels unless it is a `FacialAffectModel`. Default: the one that comes with the
            package, which needs no network.
        scale, shift: what of a detector's box it wants to see, as in `square_crop`. Default: what its image processor
            says, or the box as it is.
        device: where it runs.

    Raises:
        ValueError: the labels are not emotions.
        OSError: there is no such model.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        scale: float | None = None,
        shift: float | None = None,
        device: str | torch.device = "cpu",
    ):
        path = SHIPPED if model is None else model
        self.processor = AutoImageProcessor.from_pretrained(path)
        self.model = AutoModelForImageClassification.from_pretrained(path, dtype=torch.float32).eval()
        self.model.to(device, memory_format=torch.channels_last)
        self._own = isinstance(self.processor, FacialAffectImageProcessor)
        usual = (self.processor.scale, self.processor.shift) if self._own else (1.0, 0.0)
        self.scale = usual[0] if scale is None else scale
        self.shift = usual[1] if shift is None else shift
        self.side = _side(self.processor)
        labels = self.model.config.id2label
        try:
            self._emotions = emotions_of_labels([labels[index] for index in range(len(labels))])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights, the configuration and the way in which a face is cut out."""
        of = hashlib.blake2b(digest_size=16)
        for name, weight in sorted(self.model.state_dict().items()):
            of.update(name.encode())
            of.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        config = self.model.config.to_dict()
        told = {name: value for name, value in config.items() if name not in _ABOUT_THE_FILES}
        of.update(json.dumps([told, self.processor.to_dict(), self.scale, self.shift], sort_keys=True).encode())
        return of.hexdigest()

    def crop(self, image: np.ndarray, box: Box) -> np.ndarray:
        """(side, side) uint8: the face in the box, as the model wants to see it. See `FaceClassifier`."""
        return square_crop(image, box, scale=self.scale, shift=self.shift, side=self.side)

    @torch.inference_mode()
    def classify(self, crops: np.ndarray) -> np.ndarray:
        """(n, 8) float32: probabilities of (n, side, side) faces. See `FaceClassifier`."""
        result = np.full((len(crops), len(EMOTIONS)), np.nan, np.float32)
        for first in range(0, len(crops), BATCH):
            pixels = self._pixel_values(crops[first : first + BATCH])
            logits = self.model(pixels.to(self.model.device)).logits
            result[first : first + BATCH, self._emotions] = logits.softmax(-1).cpu().numpy()
        return result

    def _pixel_values(self, crops: np.ndarray) -> torch.Tensor:
        if self._own:
            # All that it does with such a picture. torch wants an array that it could write to.
            return standardise(torch.from_numpy(np.require(crops, requirements=["C", "W"])))
        pictures = [np.repeat(crop[..., None], 3, -1) for crop in crops]
        return self.processor(images=pictures, return_tensors="pt")["pixel_values"]


def _side(processor) -> int:
    """Pixels of the square that a processor makes of a picture."""
    size = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    size = dict(size or processor.size)
    sides = [size[name] for name in ("height", "width", "shortest_edge", "longest_edge") if size.get(name)]
    if not sides:
        raise ValueError(f"image processor: expected a size with height and width or shortest_edge, found {size}")
    return sides[0]
