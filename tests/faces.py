"""A face that is free to use, and tiny classifiers of faces, for the tests.

The face is scikit-image's `astronaut`: Eileen Collins, photographed by NASA, in the public domain.
"""

from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from skimage import data

from geli_hf import FacialAffectConfig, FacialAffectImageProcessor, FacialAffectModel
from geli_hf.affect.faces import Box

ASTRONAUT_BOX = Box(174, 66, 99, 99)  # what the cascade of scikit-image's wheel finds in OpenCV
SEVEN = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")

TRANSCRIPT = """WEBVTT

00:00.000 --> 00:00.900
Robot: I taught my vacuum cleaner to sing, and now it never stops.

00:01.000 --> 00:01.900
Anna: Oh dear.

00:02.000 --> 00:02.900
Robot: The neighbours have begun to dance.
"""


def astronaut() -> Image.Image:
    return Image.fromarray(data.astronaut())


def grey_astronaut() -> np.ndarray:
    return np.asarray(astronaut().convert("L"))


def affect_model(labels=SEVEN, *, seed: int = 0, **config) -> FacialAffectModel:
    torch.manual_seed(seed)
    config = {"hidden_sizes": [8, 8, 8], "id2label": dict(enumerate(labels))} | config
    model = FacialAffectModel(FacialAffectConfig(**config)).eval()
    # Wide enough that the answers to pictures differ.
    torch.nn.init.normal_(list(model.parameters())[-2], std=1.0)
    return model


def affect_checkpoint(folder: Path, *, scale: float = 0.9, shift: float = 0.05, **config) -> Path:
    model = affect_model(**config)
    model.save_pretrained(folder)
    side = model.config.image_size
    FacialAffectImageProcessor({"height": side, "width": side}, scale, shift).save_pretrained(folder)
    return folder


def film(path: Path, *, seconds: float = 3.0, gone: float = 2.0, rate: int = 10) -> Path:
    """A face in the picture until `gone` seconds, then a wall."""
    face, wall = grey_astronaut()[:256, 64:384], np.full((256, 320), 128, np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 320, 256, "yuv420p"
        for number in range(int(seconds * rate)):
            image = face if number / rate < gone else wall
            frame = av.VideoFrame.from_ndarray(np.repeat(image[..., None], 3, 2), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
