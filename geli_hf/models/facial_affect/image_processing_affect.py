"""The image processor of the face classifier: from a picture of a face to the model's input.

This file, `configuration_affect.py` and `modeling_affect.py` travel with every checkpoint: of the package, they import
only each other.
"""

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor


class FacialAffectImageProcessor(BaseImageProcessor):
    r"""
    Image processor that makes pictures grey, resizes them and standardises each, so that light and contrast do not
    matter.

    A picture is a face that was cut out: the square around the center of a detector's box, by `scale` and `shift`. Of
    a picture that is not square, the square in the middle is taken.

    Args:
        size (`dict[str, int]`, *optional*, defaults to `{"height": 48, "width": 48}`):
            Size of the model's input, in pixels.
        scale (`float`, *optional*, defaults to 1.0):
            Side of the square, in sides of the detector's box.
        shift (`float`, *optional*, defaults to 0.0):
            Distance of the square's center below that of the box, in sides of the box.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012

    def __init__(self, size: dict[str, int] | None = None, scale: float = 1.0, shift: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.size = {"height": 48, "width": 48} if size is None else dict(size)
        self.scale = scale
        self.shift = shift

    def to_dict(self) -> dict:
        """Return the settings to save. The place of the code is left to the model's configuration: if it stood here
        too, pipelines would look for a video processor, and ask for trust in its code."""
        return {name: value for name, value in super().to_dict().items() if name in ("size", "scale", "shift")}

    def preprocess(self, images, return_tensors: str | None = None) -> BatchFeature:
        """Make the model's input.

        Args:
            images: a picture or a list of pictures: PIL images, or uint8 arrays, (height, width) or
                (height, width, 3).

        Returns:
            `pixel_values` (pictures, 1, height, width), float32, each picture of mean 0 and deviation 1.
        """
        images = images if isinstance(images, (list, tuple)) else [images]
        size = self.size["width"], self.size["height"]
        faces = torch.cat([_grey(image, size) for image in images])
        return BatchFeature({"pixel_values": standardise(faces)}, tensor_type=return_tensors)


def standardise(faces: torch.Tensor) -> torch.Tensor:
    """Standardise faces, (n, height, width), uint8, to (n, 1, height, width), each of mean 0 and deviation 1."""
    values = faces.flatten(1).float()  # several times as fast as over two dimensions
    values = values - values.mean(1, keepdim=True)
    deviation = (values.square().sum(1, keepdim=True) / (values.shape[1] - 1)).sqrt()
    return (values / deviation.clamp(min=1e-3)).view(len(faces), 1, *faces.shape[1:])


def _grey(image, size: tuple[int, int]) -> torch.Tensor:
    """Convert a picture to luma, and its middle to this width and height: (1, height, width), uint8."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    return torch.from_numpy(np.array(ImageOps.fit(image.convert("L"), size, Image.Resampling.BILINEAR)))[None]


__all__ = ["FacialAffectImageProcessor"]
