"""Random weights in the shape of DeepFace's emotion model, for its engines that are installed with it."""

from pathlib import Path

import torch
from torch import nn


def write_weights(home: Path, seed: int = 0) -> dict[str, Path]:
    """Write the same weights for `onnx` and `pytorch` to where DeepFace looks for them in its home."""
    from deepface.models.demography.pytorch.Emotion import EmotionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EmotionModel()
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):  # else every face would get nearly the same answer
                nn.init.kaiming_normal_(layer.weight)
    folder = home / ".deepface" / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"facial_expression_model_weights.{end}" for name, end in ENDS.items()}
    torch.save(model.state_dict(), paths["pytorch"])
    paths["onnx"].write_bytes(onnx_graph(model.state_dict()))
    return paths


ENDS = {"pytorch": "pth", "onnx": "onnx"}


def onnx_graph(weights: dict[str, torch.Tensor]) -> bytes:
    """Write what torch.onnx.export would, if the package onnx were installed: (n, 48, 48, 1) to (n, 7)."""
    nodes, now = [], "faces"

    def add(operator: str, *tensors: str, **attributes: int | list[int]) -> None:
        nonlocal now
        then = f"{operator}_{len(nodes)}"
        names = [_field(1, name) for name in (now, *tensors)]
        nodes.append(b"".join([*names, _field(2, then), _field(4, operator), *map(_attribute, attributes.items())]))
        now = then

    def layer(operator: str, name: str, **attributes: int | list[int]) -> None:
        add(operator, f"{name}.weight", f"{name}.bias", **attributes)
        add("Relu")

    add("Transpose", perm=[0, 3, 1, 2])
    layer("Conv", "conv_1")
    add("MaxPool", kernel_shape=[5, 5], strides=[2, 2])
    for first in (2, 4):
        layer("Conv", f"conv_{first}")
        layer("Conv", f"conv_{first + 1}")
        add("AveragePool", kernel_shape=[3, 3], strides=[2, 2])
    add("Flatten")
    layer("Gemm", "fc_1", transB=1)
    layer("Gemm", "fc_2", transB=1)
    add("Gemm", "fc_3.weight", "fc_3.bias", transB=1)
    add("Softmax")
    graph = [*(_field(1, node) for node in nodes), _field(2, "emotions")]
    for name, weight in weights.items():
        dims = b"".join(_field(1, length) for length in weight.shape)
        graph.append(_field(5, dims + _field(2, 1) + _field(8, name) + _field(9, weight.numpy().tobytes())))
    graph += [_field(11, _value("faces", ["n", 48, 48, 1])), _field(12, _value(now, ["n", 7]))]
    return _field(1, 8) + _field(7, b"".join(graph)) + _field(8, _field(2, 13))


def _value(name: str, shape: list[int | str]) -> bytes:
    dims = b"".join(_field(1, _field(2 if isinstance(length, str) else 1, length)) for length in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dims)))


def _attribute(item: tuple[str, int | list[int]]) -> bytes:
    name, value = item
    if isinstance(value, int):
        return _field(5, _field(1, name) + _field(3, value) + _field(20, 2))
    return _field(5, _field(1, name) + b"".join(_field(8, number) for number in value) + _field(20, 7))


def _field(number: int, value: int | str | bytes) -> bytes:
    """One field of a message in Protocol Buffers' wire format."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])
