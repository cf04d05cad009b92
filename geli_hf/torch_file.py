"""A pickled module of `torch.save`, read without unpickling it.

To unpickle a file is to call whatever it names. So here a pickle is never loaded: its opcodes are walked through by a
machine that knows those few that a head of two layers needs, in which a name stays a string, an object is what was
said of it, and weights are cut out of the archive's bytes. Everything else is refused.
"""

import io
import math
import pickletools
import reprlib
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import torch

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
short = _short.repr


class Archive:
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
            raise ValueError(f"found the members {short(names)}, expected one NAME/data.pkl, and no name twice")
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
class Layer:
    """A module: its kind, and the attributes that the pickle gives it."""

    kind: str
    state: dict | None = field(default=None, repr=False)


_MARK = _Name("mark")


class Pickle:
    """Walks through the pickle of an archive, of protocol 2 as `torch.save` writes it."""

    def __init__(self, archive: Archive):
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
                    raise ValueError(f"found items {short(items)}, expected names and values for a dict")
                target.update(zip(keys, items[1::2]))
                push(target)
            case "GLOBAL":
                push(self._name(argument))
            case "BINPERSID":
                push(self._storage(pop()))
            case "NEWOBJ" | "REDUCE":
                arguments, name = pop(), pop()
                if type(name) is not _Name or type(arguments) is not tuple:
                    raise ValueError(f"found a call of {short(name)}, expected a name and a tuple of arguments")
                push((self._layer if opcode == "NEWOBJ" else self._value)(name.text, arguments))
            case "BUILD":
                state, layer = pop(), pop()
                if type(layer) is not Layer or layer.state is not None or type(state) is not dict:
                    found = f"{short(layer)} with {short(state)}"
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
            found = short(text.replace(" ", "."))
            raise ValueError(f"found the name {found}, expected a class of __main__ or one of {known}")
        return _Name(text)

    @staticmethod
    def _layer(name: str, arguments: tuple) -> Layer:
        if arguments or not (name in LAYERS or name.startswith("__main__ ")):
            raise ValueError(f"{_call(name, arguments)}, expected a layer made without arguments")
        return Layer(LAYERS.get(name, name))

    def _storage(self, pid) -> _Storage:
        match pid:
            case "storage", _Name(text=kind), str(key), str(), int(size) if (
                kind in STORAGES and key.isdecimal() and size > 0
            ):
                dtype = STORAGES[kind]
            case _:
                expected = f"('storage', one of {', '.join(STORAGES)}, number, device, number of elements)"
                raise ValueError(f"found the storage {short(pid)}, expected {expected}")
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
            found = f"shape {short(shape)} with strides {short(stride)} from element {offset}"
            raise ValueError(
                f"found a tensor of {found}, expected one or two dimensions, contiguous, within the {len(values)} "
                "elements of its storage"
            )
        return values[offset : offset + math.prod(shape)].view(shape)


def _call(name: str, arguments: tuple) -> str:
    return f"found a call of {short(name.replace(' ', '.'))} with {short(arguments)}"
