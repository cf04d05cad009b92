"""The published GELI head as a reward model, read without running anything that its file names.

The authors published their head as a pickled `nn.Module`, and to unpickle a file is to call whatever it names. So
here a pickle is never loaded: its opcodes are walked through by a machine that knows those few that such a file needs,
in which a name stays a string, an object is what was said of it, and weights are cut out of the archive's bytes. What
is not exactly that head is refused.
"""

import io
import math
import os
import pickletools
import reprlib
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoConfig

from .modeling_geli import GeliRewardModel
from .training.arguments import PAPER

PUBLISHED_BACKBONE = "facebook/bart-large"

# The published file has half a MiB, 2 KiB of which are its pickle.
LARGEST_FILE, LARGEST_PICKLE = 8 * 2**20, 64 * 2**10

# Names that the pickle may hold, as its opcodes write them, besides that of the module's class, which was defined in
# the authors' script: "__main__" and a name. They are compared and never looked up.
LAYERS = {
    "torch.nn.modules.linear Linear": "Linear",
    "torch.nn.modules.activation ReLU": "ReLU",
    "torch.nn.modules.activation Tanh": "Tanh",
    "torch.nn.modules.dropout Dropout": "Dropout",
}
# Storages whose numbers float32, the type of every head here, holds without loss.
STORAGES = {
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
}
CALLABLES = (
    "collections OrderedDict",
    "__builtin__ set",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
NAMES = (*CALLABLES, *LAYERS, *STORAGES)

_short = reprlib.Repr()  # what a file holds can be nested without end, an error message can't
_short.maxlevel, _short.maxdict, _short.maxstring, _short.maxother = 2, 8, 80, 80


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
        raise OSError(f"backbone: no model {backbone!r}, neither as a folder nor on the Hub: {error}") from None
    fitting = f"choose an encoder with hidden states of size {size}, such as {PUBLISHED_BACKBONE} for 1024"
    if found != size:
        raise ValueError(
            f"backbone: the head in {path} reads hidden states of size {size}, those of {backbone} have size {found}; "
            f"{fitting}"
        )
    settings = PAPER["model"] | {"head_hidden_size": len(head.fc1["weight"]), "head_dropout": head.dropout}
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
        archive = _Archive(Path(path))
        return _head(_Pickle(archive).read())
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}. Nothing in it was run. Only the published GELI head can be converted, a zip archive as "
            "torch.save writes it; fetch it anew from its authors, and don't open this file with torch.load"
        ) from None


class _Archive:
    """The zip archive of `torch.save`: `NAME/data.pkl`, the storages `NAME/data/KEY`, `NAME/version`, ..."""

    def __init__(self, path: Path):
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"found {path.stat().st_size:,} bytes, expected a head of half a million")
        content = path.read_bytes()
        if not content.startswith(b"PK"):  # the format of torch before 1.6 among others
            raise ValueError(f"found a file that begins with {content[:24]!r}, expected a zip archive")
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except Exception as error:  # broken bytes lead zipfile into errors of many kinds
            raise ValueError(f"found a broken zip archive ({str(error)[:200]})") from None
        # No member is read twice, so all of them together can't be longer than the file, whatever they claim.
        self._unread = len(content)
        names = self._zip.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1 or len(set(names)) < len(names):
            raise ValueError(f"found the members {_short.repr(names)}, expected one NAME/data.pkl, and no name twice")
        self._folder = pickles[0].removesuffix("data.pkl")
        self._names = {name.removeprefix(self._folder) for name in names if name.startswith(self._folder)}
        version = self.read("version", 2)
        if version != b"3\n":
            raise ValueError(f"version: found {version!r}, expected b'3\\n'")
        if "byteorder" in self._names:  # which older versions of torch did not write
            order = self.read("byteorder", len(sys.byteorder))
            if order != sys.byteorder.encode():
                raise ValueError(f"byteorder: found {order!r}, expected that of this machine, {sys.byteorder!r}")

    def size(self, name: str) -> int:
        """Bytes that a member claims to have."""
        if name not in self._names:
            raise ValueError(f"found no member NAME/{name[:80]}, which its pickle needs or any archive has")
        return self._zip.getinfo(self._folder + name).file_size

    def read(self, name: str, size: int) -> bytes:
        """A member of exactly that many bytes."""
        if self.size(name) != size:
            raise ValueError(f"{name}: found {self.size(name)} bytes, expected {size}")
        info = self._zip.getinfo(self._folder + name)
        self._unread -= size
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != size or self._unread < 0:
            raise ValueError(
                f"{name}: found {size} bytes in {info.compress_size} of the archive, expected no compression, and "
                "members that together are no longer than the file"
            )
        try:
            return self._zip.read(info)  # compares the checksum, too
        except Exception as error:
            raise ValueError(f"{name}: found a broken member ({str(error)[:200]})") from None


@dataclass(frozen=True)
class _Name:
    """A class or function that the pickle names."""

    text: str


@dataclass(frozen=True)
class _Storage:
    """The numbers of a storage, one after the other."""

    values: torch.Tensor = field(repr=False)


@dataclass(eq=False)
class _Layer:
    """A module: its kind, and the attributes that the pickle gives it."""

    kind: str
    state: dict | None = field(default=None, repr=False)


_MARK = _Name("mark")


class _Pickle:
    """Walks through the pickle of an archive, of protocol 2 as `torch.save` writes it."""

    def __init__(self, archive: _Archive):
        self._archive = archive
        self._storages = {}
        self._stack, self._memo = [], {}

    def read(self):
        """The one object that the pickle describes."""
        size = self._archive.size("data.pkl")
        if size > LARGEST_PICKLE:
            raise ValueError(f"data.pkl: found {size} bytes, expected {LARGEST_PICKLE} at most")
        stream = io.BytesIO(self._archive.read("data.pkl", size))
        where = "data.pkl"
        try:
            for opcode, argument, position in pickletools.genops(stream):
                where = f"data.pkl, {opcode.name} at byte {position}"
                self._step(opcode.name, argument)
            if stream.read(1) or len(self._stack) != 1:
                raise ValueError("found more than one object, or bytes after it")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        return self._stack[0]

    def _step(self, opcode: str, argument) -> None:
        push, pop = self._stack.append, self._pop
        match opcode:
            case "PROTO":
                if argument != 2:
                    raise ValueError(f"found protocol {argument}, expected 2")
            case "STOP":
                pass
            case "MARK":
                push(_MARK)
            case "NONE":
                push(None)
            case "NEWTRUE" | "NEWFALSE":
                push(opcode == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "BINFLOAT" | "BINUNICODE":
                push(argument)
            case "EMPTY_TUPLE":
                push(())
            case "EMPTY_LIST":
                push([])
            case "EMPTY_DICT":
                push({})
            case "TUPLE":
                push(tuple(self._pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple([pop() for _ in range(int(opcode[-1]))][::-1]))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = pop()
                push(self._memo[argument])
            case "BINGET" | "LONG_BINGET":
                if argument not in self._memo:
                    raise ValueError(f"found a reference to object {argument}, which has not been there yet")
                push(self._memo[argument])
            case "SETITEMS":
                items = self._pop_to_mark()
                target, keys = pop(), items[::2]
                if type(target) is not dict or len(items) % 2 or not all(isinstance(key, str) for key in keys):
                    raise ValueError(f"found items {_short.repr(items)}, expected names and values for a dict")
                target.update(zip(keys, items[1::2]))
                push(target)
            case "GLOBAL":
                push(self._name(argument))
            case "BINPERSID":
                push(self._storage(pop()))
            case "NEWOBJ" | "REDUCE":
                arguments, name = pop(), pop()
                if type(name) is not _Name or type(arguments) is not tuple:
                    raise ValueError(f"found a call of {_short.repr(name)}, expected a name and a tuple of arguments")
                push((self._layer if opcode == "NEWOBJ" else self._value)(name.text, arguments))
            case "BUILD":
                state, layer = pop(), pop()
                if type(layer) is not _Layer or layer.state is not None or type(state) is not dict:
                    found = f"{_short.repr(layer)} with {_short.repr(state)}"
                    raise ValueError(f"found {found}, expected a new layer with a dict of its attributes")
                layer.state = state
                push(layer)
            case _:
                raise ValueError("found an opcode that such a file does not need")

    def _pop(self):
        if not self._stack or self._stack[-1] is _MARK:
            raise ValueError("found nothing on the stack to work on")
        return self._stack.pop()

    def _pop_to_mark(self) -> list:
        items = []
        while self._stack and self._stack[-1] is not _MARK:
            items.append(self._stack.pop())
        if not self._stack:
            raise ValueError("found no mark on the stack")
        self._stack.pop()
        return items[::-1]

    def _name(self, text: str) -> _Name:
        if text not in NAMES and not text.startswith("__main__ "):
            known = ", ".join(name.replace(" ", ".") for name in NAMES)
            found = _short.repr(text.replace(" ", "."))
            raise ValueError(f"found the name {found}, expected a class of __main__ or one of {known}")
        return _Name(text)

    @staticmethod
    def _layer(name: str, arguments: tuple) -> _Layer:
        if arguments or not (name in LAYERS or name.startswith("__main__ ")):
            raise ValueError(f"{_call(name, arguments)}, expected a layer made without arguments")
        return _Layer(LAYERS.get(name, name))

    def _storage(self, pid) -> _Storage:
        match pid:
            case "storage", _Name(text=kind), str(key), str(), int(size) if (
                kind in STORAGES and key.isdecimal() and size > 0
            ):
                dtype = STORAGES[kind]
            case _:
                expected = f"('storage', one of {', '.join(STORAGES)}, number, device, number of elements)"
                raise ValueError(f"found the storage {_short.repr(pid)}, expected {expected}")
        if key not in self._storages:
            content = self._archive.read(f"data/{key}", size * dtype.itemsize)
            self._storages[key] = _Storage(torch.frombuffer(bytearray(content), dtype=dtype))
        values = self._storages[key].values
        if values.dtype != dtype or len(values) != size:
            raise ValueError(f"found storage {key[:80]} as {size} {dtype}, and before as {len(values)} {values.dtype}")
        return self._storages[key]

    def _value(self, name: str, arguments: tuple):
        """What calling that name would have returned: a container, or a tensor that is a view of its storage."""
        match name, arguments:
            case "collections OrderedDict", ():
                return {}
            case "__builtin__ set", ([],):
                return set()
            case (
                "torch._utils _rebuild_tensor_v2",
                (_Storage(values=values), int(offset), tuple(shape), tuple(stride), bool(), dict(hooks)),
            ) if not hooks:
                return self._tensor(values, offset, shape, stride)
            case "torch._utils _rebuild_parameter", (torch.Tensor() as tensor, bool(), dict(hooks)) if not hooks:
                return tensor
        raise ValueError(
            f"{_call(name, arguments)}, expected an empty container, or a tensor or parameter without hooks"
        )

    @staticmethod
    def _tensor(values: torch.Tensor, offset: int, shape: tuple, stride: tuple) -> torch.Tensor:
        sizes = 1 <= len(shape) <= 2 and all(type(size) is int and size > 0 for size in shape)
        dense = sizes and stride == tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        if not dense or not 0 <= offset <= len(values) - math.prod(shape):
            found = f"shape {_short.repr(shape)} with strides {_short.repr(stride)} from element {offset}"
            raise ValueError(
                f"found a tensor of {found}, expected one or two dimensions, contiguous, within the {len(values)} "
                "elements of its storage"
            )
        return values[offset : offset + math.prod(shape)].view(shape)


def _call(name: str, arguments: tuple) -> str:
    return f"found a call of {_short.repr(name.replace(' ', '.'))} with {_short.repr(arguments)}"


def _head(module) -> PublishedHead:
    """The weights of a module that has the layers of the published head, and nothing else."""
    layers = _attributes(module, "the module", "_modules")["_modules"]
    kinds = {name: getattr(layer, "kind", type(layer).__name__) for name, layer in layers.items()}
    expected = ["Dropout", "Linear", "Linear", "ReLU", "Tanh"]
    if sorted(kinds.values()) != expected or [kinds.get("fc1"), kinds.get("fc2")] != ["Linear", "Linear"]:
        raise ValueError(f"found the layers {_short.repr(kinds)}, expected {', '.join(expected)}, with fc1 and fc2")
    fc1, fc2 = (_linear(layers[name], name) for name in ("fc1", "fc2"))
    width, size = fc1["weight"].shape if fc1["weight"].dim() == 2 else (0, 0)
    shapes = [tuple(weights[name].shape) for weights in (fc1, fc2) for name in ("weight", "bias")]
    if shapes != [(width, size), (width,), (1, width), (1,)]:
        names = "fc1.weight, fc1.bias, fc2.weight, fc2.bias"
        raise ValueError(f"found {names} of shapes {shapes}, expected (128, 1024), (128,), (1, 128), (1,) or alike")
    attributes = {kind: _attributes(layers[name], kind) for name, kind in kinds.items() if kind != "Linear"}
    p = attributes["Dropout"].get("p")
    if type(p) not in (int, float) or not 0 <= p < 1:
        raise ValueError(f"Dropout: found the probability {_short.repr(p)}, expected a number from 0 to below 1")
    return PublishedHead(fc1, fc2, float(p))


def _linear(layer: _Layer, name: str) -> dict[str, torch.Tensor]:
    parameters = _attributes(layer, name, "_parameters")["_parameters"]
    if sorted(parameters) != ["bias", "weight"] or not all(torch.is_tensor(value) for value in parameters.values()):
        raise ValueError(f"{name}: found the parameters {_short.repr(parameters)}, expected a weight and a bias")
    parameters = {key: value.float() for key, value in parameters.items()}
    if not all(torch.isfinite(value).all() for value in parameters.values()):
        raise ValueError(f"{name}: found weights that are not finite")
    return parameters


def _attributes(layer, where: str, filled: str | None = None) -> dict:
    """Attributes of a layer: none but `filled` holds anything (hooks, buffers) that could change what it computes."""
    if type(layer) is not _Layer or layer.state is None:
        raise ValueError(f"{where}: found {_short.repr(layer)}, expected a layer with its attributes")
    for name, value in layer.state.items():
        container = isinstance(value, (dict, list, tuple, set))
        if name == filled:
            fits = type(value) is dict
        else:
            fits = not value if container else value is None or isinstance(value, (bool, int, float, str))
        if not fits:
            raise ValueError(f"{where}: found {_short.repr(value)} as {name[:80]!r}, expected nothing of the kind")
    if filled and filled not in layer.state:
        raise ValueError(f"{where}: found no {filled}")
    return layer.state
