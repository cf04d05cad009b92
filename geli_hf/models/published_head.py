"""The published GELI head as a reward model. Its file is read by torch's restricted unpickler, which runs nothing."""

import io
import os
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .geli_reward.modeling_geli import GeliRewardModel

PUBLISHED_BACKBONE = "facebook/bart-large"
PUBLISHED_MODEL: dict[str, Any] = {  # fields of `GeliRewardConfig` in the published recipe
    "head": "mlp",
    "head_hidden_size": 128,
    "head_dropout": 0.2,
    "pooling": "last",
    "layers": "last",
    "context_messages": 20,
    "aggregation": "sum",
}
LARGEST_FILE = 8 * 2**20  # bytes; the published file has half a MiB


class _Layer:
    """A stand-in for a layer's class: it keeps the attributes that the file lists and computes nothing."""


# Classes that the published pickle names, the module's own last: it was defined in the authors' script. Torch's
# unpickler makes objects of the stand-ins in their place, and refuses every other name but those of tensors.
LAYERS = {
    name: type(name.rpartition(".")[2], (_Layer,), {})
    for name in (
        "torch.nn.modules.linear.Linear",
        "torch.nn.modules.activation.ReLU",
        "torch.nn.modules.activation.Tanh",
        "torch.nn.modules.dropout.Dropout",
        "__main__.reward_function",
    )
}


@dataclass
class PublishedHead:
    """Weights of the published head, tanh(w2 relu(W1 x + b1) + b2).

    Args:
        fc1: `weight` W1 `(width, hidden_size)` and `bias` b1 `(width,)`, float32.
        fc2: `weight` w2 `(1, width)` and `bias` b2 `(1,)`, float32.
        dropout: probability of the dropout in training.
    """

    fc1: dict[str, torch.Tensor]
    fc2: dict[str, torch.Tensor]
    dropout: float


def convert_head(path: str | os.PathLike, backbone: str = PUBLISHED_BACKBONE) -> GeliRewardModel:
    """Make a reward model of the published GELI head (EMNLP 2024, arXiv 2403.11330) and an encoder of your choice.

    The file lacks parts of the published system, so the result differs from it:

    - The published encoder was fine-tuned too, and is not in the file. The rewards are those of the head on another
      encoder.
    - The published text was " User: ..." and " AI: ..." with one end token before the turn to reward. Here role tokens
      open each message, and an end token closes it.
    - The order of the layers is code. It is taken from the published scripts, without their dropout after the last
      layer, which is a defect.
    - Rewards of training turns are not in the file either, so `model.percentile` is NaN.

    The licence of the head is its authors' (CC BY-NC-SA 4.0).

    Args:
        path: the published file, as `torch.save` wrote it.
        backbone: encoder on the Hub or on disk, with the hidden size that the head reads (1024).

    Returns:
        The reward model, in evaluation mode.

    Raises:
        ValueError: the file does not hold such a head, or the backbone does not fit it.
        OSError: there is no such file, or no such backbone.
    """
    head = read_published_head(path)
    width, size = head.fc1["weight"].shape
    settings = PUBLISHED_MODEL | {"head_hidden_size": width, "head_dropout": head.dropout}
    # The published score is multiplied by ten, and not centred.
    model = GeliRewardModel.from_backbone(backbone, **settings, score_mean=0.0, score_std=0.1)
    found = model.config.get_text_config().hidden_size
    if model.config.causal or found != size:
        raise ValueError(
            f"backbone: the head in {path} reads hidden states of size {size} of an encoder; {backbone} is "
            f"{'a decoder' if model.config.causal else 'an encoder'} of size {found}. Choose another, such as "
            f"{PUBLISHED_BACKBONE} for 1024"
        )
    model.score.dense.load_state_dict(head.fc1)
    model.score.out.load_state_dict(head.fc2)
    return model


def read_published_head(path: str | os.PathLike) -> PublishedHead:
    """Read the weights of the published GELI head from the file in which `torch.save` pickled it.

    Raises:
        ValueError: the file holds anything else.
        OSError: there is no such file.
    """
    size = Path(path).stat().st_size
    try:
        if size > LARGEST_FILE:
            raise ValueError("a larger file")
        content = Path(path).read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.testzip() is not None:  # torch does not compare checksums
                raise ValueError("a damaged file")
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in LAYERS.items()]):
            module = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return _head_of(module)
    # A broken or hostile file leads the reader into errors of any kind, whose texts suggest to trust it.
    except Exception as error:
        raise ValueError(
            f"{path}: this is not the published GELI head, a zip archive as torch.save writes it "
            f"({type(error).__name__}). Nothing in it was run. Get the file again from its authors, and do not load "
            "this one with weights_only=False"
        ) from None


def _head_of(module: _Layer) -> PublishedHead:
    layers = vars(module)["_modules"]
    kinds = Counter(type(layer).__name__ for layer in layers.values())
    [dropout] = [vars(layer)["p"] for layer in layers.values() if type(layer).__name__ == "Dropout"]
    parameters = [vars(layers[name])["_parameters"] for name in ("fc1", "fc2")]
    fc1, fc2 = ({name: value.detach().float() for name, value in weights.items()} for weights in parameters)
    width, size = fc1["weight"].shape
    shapes = [{name: tuple(value.shape) for name, value in weights.items()} for weights in (fc1, fc2)]
    if not (
        kinds == Counter(["Linear", "Linear", "ReLU", "Tanh", "Dropout"])
        and shapes == [{"weight": (width, size), "bias": (width,)}, {"weight": (1, width), "bias": (1,)}]
        and all(value.isfinite().all() for weights in (fc1, fc2) for value in weights.values())
        and 0 <= dropout < 1
    ):
        raise ValueError("layers, shapes or numbers that are not those of the published head")
    return PublishedHead(fc1, fc2, float(dropout))
