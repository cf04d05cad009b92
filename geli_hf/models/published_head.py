"""The published GELI head as a reward model, read without running anything that its file names (`torch_file`)."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig

from ..cache import offline_hint
from ..torch_file import Archive, Layer, Pickle, short
from .geli_reward.modeling_geli import GeliRewardModel

PUBLISHED_BACKBONE = "facebook/bart-large"
PUBLISHED_MODEL = {  # fields of `GeliRewardConfig` in the published recipe
    "head": "mlp",
    "head_hidden_size": 128,
    "head_dropout": 0.2,
    "pooling": "last",
    "layers": "last",
    "context_messages": 20,
    "aggregation": "sum",
}


@dataclass
class PublishedHead:
    """tanh(w2 relu(W1 x + b1) + b2).

    Args:
        fc1: `weight` W1 `(width, hidden_size)` and `bias` b1 `(width,)`, float32.
        fc2: `weight` w2 `(1, width)` and `bias` b2 `(1,)`, float32.
        dropout: probability of the dropout that it was trained with.
    """

    fc1: dict[str, torch.Tensor]
    fc2: dict[str, torch.Tensor]
    dropout: float


def convert_head(path: str | os.PathLike, backbone: str = PUBLISHED_BACKBONE) -> GeliRewardModel:
    """A reward model with the published GELI head (EMNLP 2024, arXiv 2403.11330) on an encoder of your choice.

    Nothing that the file names is run. What the file does not hold can't be converted:

    - The published encoder was trained too, and is no part of the file. The rewards are those of the head on another
      encoder, and not those of the published system.
    - The published text was " User: ..." and " AI: ..." with one end token before the turn to reward. Here role tokens
      open each message, and an end token closes it.
    - The order of the layers is code. It is taken from the published scripts, without their dropout after the last
      layer, which is a defect.
    - Rewards of training turns, so `model.percentile` is NaN.

    The licence of the head is its authors' (CC BY-NC-SA 4.0).

    Args:
        path: the published file, as `torch.save` wrote it.
        backbone: encoder on the Hub or on disk, with the hidden size that the head reads (1024).

    Raises:
        ValueError: the file is anything but such a head, or the backbone does not fit it.
        OSError: there is no such file, or no such backbone.
    """
    head = read_published_head(path)
    size = head.fc1["weight"].shape[1]
    try:
        found = getattr(AutoConfig.from_pretrained(backbone), "hidden_size", None)
    except (OSError, ValueError) as error:
        hint = offline_hint(backbone)
        raise OSError(f"backbone: no model {backbone!r}, neither as a folder nor on the Hub: {error}{hint}") from None
    fitting = f"choose an encoder with hidden states of size {size}, such as {PUBLISHED_BACKBONE} for 1024"
    if found != size:
        raise ValueError(
            f"backbone: the head in {path} reads hidden states of size {size}, those of {backbone} have size {found}; "
            f"{fitting}"
        )
    settings = PUBLISHED_MODEL | {"head_hidden_size": len(head.fc1["weight"]), "head_dropout": head.dropout}
    # The published score is multiplied by ten, and not centred.
    model = GeliRewardModel.from_backbone(backbone, **settings, score_mean=0.0, score_std=0.1)
    if model.config.causal:
        raise ValueError(f"backbone: the head in {path} was trained on an encoder, {backbone} is a decoder; {fitting}")
    model.score.dense.load_state_dict(head.fc1)
    model.score.out.load_state_dict(head.fc2)
    return model


def read_published_head(path: str | os.PathLike) -> PublishedHead:
    """The weights of the published GELI head, from the file in which `torch.save` pickled it.

    Raises:
        ValueError: the file is anything else. The message says what was found, and what was expected.
    """
    try:
        archive = Archive(Path(path))
        return _head(Pickle(archive).read())
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}. Nothing in it was run. Only the published GELI head can be converted, a zip archive as "
            "torch.save writes it; fetch it anew from its authors, and don't open this file with torch.load"
        ) from None


def _head(module) -> PublishedHead:
    """The weights of a module that has the layers of the published head, and nothing else."""
    layers = _attributes(module, "the module", "_modules")["_modules"]
    kinds = {name: getattr(layer, "kind", type(layer).__name__) for name, layer in layers.items()}
    expected = ["Dropout", "Linear", "Linear", "ReLU", "Tanh"]
    if sorted(kinds.values()) != expected or [kinds.get("fc1"), kinds.get("fc2")] != ["Linear", "Linear"]:
        raise ValueError(f"found the layers {short(kinds)}, expected {', '.join(expected)}, with fc1 and fc2")
    fc1, fc2 = (_linear(layers[name], name) for name in ("fc1", "fc2"))
    width, size = fc1["weight"].shape if fc1["weight"].dim() == 2 else (0, 0)
    shapes = [tuple(weights[name].shape) for weights in (fc1, fc2) for name in ("weight", "bias")]
    if shapes != [(width, size), (width,), (1, width), (1,)]:
        names = "fc1.weight, fc1.bias, fc2.weight, fc2.bias"
        raise ValueError(f"found {names} of shapes {shapes}, expected (128, 1024), (128,), (1, 128), (1,) or alike")
    attributes = {kind: _attributes(layers[name], kind) for name, kind in kinds.items() if kind != "Linear"}
    p = attributes["Dropout"].get("p")
    if type(p) not in (int, float) or not 0 <= p < 1:
        raise ValueError(f"Dropout: found the probability {short(p)}, expected a number from 0 to below 1")
    return PublishedHead(fc1, fc2, float(p))


def _linear(layer: Layer, name: str) -> dict[str, torch.Tensor]:
    parameters = _attributes(layer, name, "_parameters")["_parameters"]
    if sorted(parameters) != ["bias", "weight"] or not all(torch.is_tensor(value) for value in parameters.values()):
        raise ValueError(f"{name}: found the parameters {short(parameters)}, expected a weight and a bias")
    parameters = {key: value.float() for key, value in parameters.items()}
    if not all(torch.isfinite(value).all() for value in parameters.values()):
        raise ValueError(f"{name}: found weights that are not finite")
    return parameters


def _attributes(layer, where: str, filled: str | None = None) -> dict:
    """Attributes of a layer: none but `filled` holds anything (hooks, buffers) that could change what it computes."""
    if type(layer) is not Layer or layer.state is None:
        raise ValueError(f"{where}: found {short(layer)}, expected a layer with its attributes")
    for name, value in layer.state.items():
        container = isinstance(value, (dict, list, tuple, set))
        if name == filled:
            fits = type(value) is dict
        else:
            fits = not value if container else value is None or isinstance(value, (bool, int, float, str))
        if not fits:
            raise ValueError(f"{where}: found {short(value)} as {name[:80]!r}, expected nothing of the kind")
    if filled and filled not in layer.state:
        raise ValueError(f"{where}: found no {filled}")
    return layer.state
