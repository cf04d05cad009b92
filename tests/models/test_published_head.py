"""The published GELI head becomes a reward model, and nothing that its file names is run.

Every hostile file is also unpickled as `torch.load` would, which does what it was made for: so the tests would notice.
"""

import copyreg
import io
import pickle
import struct
import sys
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import backbone, published_head, talk
from transformers import AutoTokenizer, BartConfig, BartModel

import geli_hf.models.published_head
from geli_hf import PAPER, GeliRewardModel, convert_head
from geli_hf.cli import main
from geli_hf.models.published_head import read_published_head


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Path, torch.nn.Module]:
    """A file as the published one, for hidden states of size 32, and the module that it holds."""
    path = tmp_path_factory.mktemp("published") / "reward1_any-name-1"
    return path, published_head(path)


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def rewritten(published, tmp_path):
    """Write the published file with other members, and get its path. `None` leaves a member out."""

    def write(changes: dict[str, bytes | None], prepare=lambda archive: None, compression=zipfile.ZIP_STORED) -> Path:
        path = tmp_path / "head"
        folder = f"{published[0].name}/"
        contents = members(published[0]) | {folder + name: content for name, content in changes.items()}
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in contents.items():
                if content is not None:
                    archive.writestr(name, content)
            prepare(archive)
        return path

    return write


@pytest.fixture
def pickled(published) -> bytes:
    return members(published[0])[f"{published[0].name}/data.pkl"]


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new, 1)


def problem(path: Path) -> str:
    """What is said of a file that is refused."""
    with pytest.raises(ValueError) as caught:
        read_published_head(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "Nothing in it was run" in message
    assert len(message) < 2000
    return message


# ------------------------------------------------------------------------------------------------ what comes out


def plain(module: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    """The head's formula, without a layer of torch."""
    hidden = (features @ module.fc1.weight.T + module.fc1.bias).clamp(min=0)
    return torch.tanh(hidden @ module.fc2.weight[0] + module.fc2.bias)


@torch.no_grad()
def test_the_head_computes_what_the_published_one_does(published):
    path, module = published
    model = convert_head(path, backbone("bart"))
    features = torch.randn(7, 5, 32, generator=torch.Generator().manual_seed(1)) * 3
    rewards = model.score(features)
    assert rewards.shape == (7, 5)
    assert rewards.std() > 0.1
    torch.testing.assert_close(rewards, plain(module, features), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(rewards, module(features).squeeze(-1), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_turn_is_rewarded_by_the_encoder_state_at_its_end(published):
    path, module = published
    model = convert_head(path, backbone("bart"))
    messages = talk(5, words=3, first="assistant")
    [scored] = model.score_sessions([{"messages": messages}])
    assert scored["cropped"] is False
    expected = []
    for turn in (0, 2, 4):
        text = model.tokenizer.apply_chat_template(messages[: turn + 1], tokenize=False)
        ids = model.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        assert ids[0, -1] == model.config.text_config.eos_token_id
        expected.append(plain(module, model.model(ids).last_hidden_state[0, -1]).item())
    assert scored["turn_rewards"] == pytest.approx(expected, abs=1e-5)
    assert len({round(reward, 3) for reward in expected}) == 3
    # Rewards add up to ten times the score.
    assert scored["score"] == pytest.approx(sum(expected) / 10, abs=1e-5)


def test_the_configuration_is_that_of_the_paper(tmp_path):
    published_head(tmp_path / "head")
    config = convert_head(str(tmp_path / "head"), backbone("bart")).config
    assert {name: getattr(config, name) for name in PAPER["model"]} == PAPER["model"]
    assert (config.score_mean, config.score_std, config.causal) == (0.0, 0.1, False)
    assert (config.pooling, config.context_messages, config.head_dropout) == ("last", 20, 0.2)

    def other_dropout(module):
        module.dropout.p = 0.4

    published_head(tmp_path / "other", change=other_dropout)
    assert convert_head(tmp_path / "other", backbone("bart")).config.head_dropout == 0.4


def test_dropout_is_between_the_layers_and_not_after_the_last(published):
    model = convert_head(published[0], backbone("bart"))
    assert not model.training
    model.score.train()
    with torch.no_grad():
        rewards = model.score(torch.ones(4000, 32))
    assert rewards.unique().numel() > 1000
    assert (rewards == 0).sum() == 0  # dropped after the last layer, a fifth of them would be tanh(0)


def test_numbers_of_less_precision(tmp_path):
    module = published_head(tmp_path / "head", change=lambda module: module.bfloat16())
    head = read_published_head(tmp_path / "head")
    assert head.fc1["weight"].dtype == torch.float32
    assert torch.equal(head.fc1["weight"], module.fc1.weight.float())


def test_a_storage_that_two_tensors_share(tmp_path):
    """Each is then a view of its own part."""

    def share(module):
        both = torch.randn(256)
        module.fc1.bias.data, module.fc2.weight.data = both[:128], both[128:].view(1, 128)

    module = published_head(tmp_path / "head", change=share)
    head = read_published_head(tmp_path / "head")
    assert torch.equal(head.fc1["bias"], module.fc1.bias)
    assert torch.equal(head.fc2["weight"], module.fc2.weight)


def test_the_published_file(shared_data, tmp_path):
    path = shared_data / "reference_head" / "reward1_eager-glade-5"
    head = read_published_head(path)
    assert {name: tuple(value.shape) for name, value in head.fc1.items()} == {"weight": (128, 1024), "bias": (128,)}
    assert {name: tuple(value.shape) for name, value in head.fc2.items()} == {"weight": (1, 128), "bias": (1,)}
    assert head.dropout == 0.2
    # The numbers as they lie in the archive.
    storages = [np.frombuffer(members(path)[f"{path.name}/data/{key}"], "<f4") for key in range(4)]
    weights = storages[0].reshape(128, 1024), storages[1], storages[2].reshape(1, 128), storages[3]

    config = BartConfig.from_pretrained(backbone("bart"), d_model=1024, encoder_layers=1, decoder_layers=1)
    torch.manual_seed(0)
    BartModel(config).save_pretrained(tmp_path / "bart")
    AutoTokenizer.from_pretrained(backbone("bart")).save_pretrained(tmp_path / "bart")
    model = convert_head(path, str(tmp_path / "bart"))
    messages = talk(4, words=3)
    ids = model.tokenize([messages])["input_ids"]
    with torch.no_grad():
        state = model.model(ids).last_hidden_state[0, -1].numpy()
    expected = np.tanh(weights[2] @ np.maximum(weights[0] @ state + weights[1], 0) + weights[3])
    assert model.score_messages([messages]).numpy() == pytest.approx(expected, abs=1e-5)


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def geli(capsys):
    def run(*argv) -> str:
        capsys.readouterr()
        main(["convert-head", *map(str, argv)])
        return capsys.readouterr().out

    return run


@pytest.fixture
def failure(geli):
    def run(*argv) -> str:
        with pytest.raises(SystemExit) as caught:
            geli(*argv)
        return caught.value.code

    return run


def test_the_command_writes_a_reward_model(published, geli, tmp_path):
    output = tmp_path / "new" / "model"
    said = geli(published[0], "--backbone", backbone("bart"), "--output", output)
    assert said.startswith(f"{output}: the published head on {backbone('bart')}")
    assert [path.name for path in output.parent.iterdir()] == ["model"]
    loaded = GeliRewardModel.from_pretrained(output)
    expected = convert_head(published[0], backbone("bart")).score_messages([talk(4, words=3)])
    torch.testing.assert_close(loaded.score_messages([talk(4, words=3)]), expected, atol=1e-6, rtol=1e-5)
    assert "<|assistant|>" in loaded.tokenizer.chat_template


def test_it_writes_into_an_empty_folder_and_no_other(published, geli, failure, tmp_path):
    (tmp_path / "empty").mkdir()
    geli(published[0], "--backbone", backbone("bart"), "--output", tmp_path / "empty")
    for taken in (tmp_path / "empty", published[0]):
        before = taken.stat().st_mtime_ns
        message = failure(published[0], "--backbone", backbone("bart"), "--output", taken)
        assert message == f"geli convert-head: --output: {taken} holds something; choose an empty or a new folder"
        assert taken.stat().st_mtime_ns == before


def test_it_leaves_nothing_where_it_fails(published, failure, tmp_path, monkeypatch):
    folder = tmp_path / "models"
    message = failure(published[0], "--backbone", backbone("gpt2"), "--output", folder / "model")
    assert message.startswith("geli convert-head: backbone: ")

    def full(self, target, **kwargs):
        Path(target).mkdir()
        Path(target, "config.json").write_text("{")
        raise OSError("no space left on device")

    monkeypatch.setattr(GeliRewardModel, "save_pretrained", full)
    message = failure(published[0], "--backbone", backbone("bart"), "--output", folder / "model")
    assert message == "geli convert-head: no space left on device"
    assert not list(folder.iterdir())


def test_what_it_cannot_bring_along_is_in_its_help(geli, capsys):
    with pytest.raises(SystemExit):
        main(["convert-head", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for part in ("encoder was trained too, and is not in the file", "text format", "CC BY-NC-SA 4.0"):
        assert part in said


def test_the_default_backbone_is_that_of_the_function(capsys):
    with pytest.raises(SystemExit):
        main(["convert-head", "--help"])
    assert f"(default: {geli_hf.models.published_head.PUBLISHED_BACKBONE})" in " ".join(
        capsys.readouterr().out.split()
    )


# ------------------------------------------------------------------------------------------------ backbones


def test_a_backbone_of_another_size(tmp_path):
    published_head(tmp_path / "head", hidden_size=48)
    with pytest.raises(ValueError) as caught:
        convert_head(tmp_path / "head", backbone("bart"))
    assert str(caught.value).startswith(
        f"backbone: the head in {tmp_path}/head reads hidden states of size 48, those of {backbone('bart')} have size "
        "32; choose an encoder with hidden states of size 48"
    )


def test_a_decoder(published):
    with pytest.raises(ValueError, match=r"was trained on an encoder, .* is a decoder; choose an encoder"):
        convert_head(published[0], backbone("llama"))


def test_other_encoders(published):
    assert convert_head(published[0], backbone("bert")).score_messages([talk(2)]).isfinite().all()


def test_a_backbone_that_is_not_there(published, tmp_path):
    for name in (f"{tmp_path}/none", "nobody/none"):
        with pytest.raises(OSError, match=f"backbone: no model '{name}'"):
            convert_head(published[0], name)


# ------------------------------------------------------------------------------------------------ hostile pickles


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def call(module: str, name: str, *arguments: str | bytes) -> bytes:
    """Opcodes that call a function with texts, or with what other opcodes leave."""
    given = b"".join(value if isinstance(value, bytes) else text(value) for value in arguments)
    return f"c{module}\n{name}\n".encode() + b"(" + given + b"tR"


def touch(marker: Path) -> str:
    return f"touch '{marker}'"


def write(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()"


EXTENSION = 77  # of copyreg, registered by the test
SYSTEM = b"cos\nsystem\n"
# Opcodes that touch a file when they are unpickled, and what is said of them.
HOSTILE = {
    "a function": (lambda m: call("os", "system", touch(m)), "os.system"),
    "its other name": (lambda m: call("posix", "system", touch(m)), "posix.system"),
    "a name from the stack": (lambda m: text("os") + text("system") + b"\x93" + text(touch(m)) + b"\x85R", "STACK_"),
    "eval": (lambda m: call("__builtin__", "eval", write(m)), "__builtin__.eval"),
    "exec": (lambda m: call("builtins", "exec", write(m)), "builtins.exec"),
    "an instance": (lambda m: b"(" + text(touch(m)) + b"ios\nsystem\n", "INST"),
    "an object": (lambda m: b"(" + SYSTEM + text(touch(m)) + b"o", "os.system"),
    "getattr": (
        lambda m: (
            call("__builtin__", "getattr", call("__builtin__", "__import__", "os"), "system")
            + text(touch(m))
            + b"\x85R"
        ),
        "__builtin__.getattr",
    ),
    "another function of an allowed module": (
        lambda m: call("torch._utils", "_import_dotted_name", "os.system") + text(touch(m)) + b"\x85R",
        "torch._utils._import_dotted_name",
    ),
    "an allowed function around one that is not": (
        lambda m: call("collections", "OrderedDict", call("os", "system", touch(m))),
        "os.system",
    ),
    "a pickle in the pickle": (
        lambda m: (lambda inner: call("pickle", "loads", b"B" + struct.pack("<I", len(inner)) + inner))(
            b"\x80\x02" + call("os", "system", touch(m)) + b"."
        ),
        "pickle.loads",
    ),
    "an extension": (lambda m: struct.pack("<BB", 0x82, EXTENSION) + text(touch(m)) + b"\x85R", "EXT1"),
    "a function of the script": (lambda m: call("__main__", "trap", str(m)), "a call of '__main__.trap'"),
    "a class of the script with arguments": (
        lambda m: b"c__main__\nTrap\n" + text(str(m)) + b"\x85\x81",
        "expected a layer made without arguments",
    ),
    "the state of a class of the script": (
        lambda m: b"c__main__\nTrap\n" + text(str(m)) + b"\x85\x81}" + text("x") + b"Nsb",
        "expected a layer made without arguments",
    ),
}


class Trap:
    """Leaves a trace where something makes one, or sets its state."""

    def __new__(cls, marker: str = ""):
        if marker:
            Path(marker).touch()
        return super().__new__(cls)

    def __setstate__(self, state):
        Path(state["marker"]).touch()


@pytest.fixture
def traps(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "trap", lambda marker: Path(marker).touch(), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "Trap", Trap, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "reward_function", torch.nn.Module, raising=False)
    copyreg.add_extension("os", "system", EXTENSION)
    yield
    copyreg.remove_extension("os", "system", EXTENSION)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_and_not_run(name, rewritten, pickled, traps, tmp_path):
    marker = tmp_path / "marker"
    opcodes, found = HOSTILE[name]
    # Before the head itself, and dropped again: all else is as it should be.
    path = rewritten({"data.pkl": pickled[:2] + opcodes(marker) + b"0" + pickled[2:]})
    message = problem(path)
    assert found in message
    assert "data.pkl, " in message
    with pytest.raises(ValueError, match="Nothing in it was run"):
        convert_head(path, backbone("bart"))
    assert not marker.exists()
    with suppress(Exception):
        torch.load(path, weights_only=False)
    assert marker.exists()


def test_a_dotted_name_of_an_allowed_module(rewritten, pickled, traps, tmp_path):
    marker = tmp_path / "marker"
    opcodes = text("torch.serialization") + text("os.system") + b"\x93" + text(touch(marker)) + b"\x85R0"
    path = rewritten({"data.pkl": b"\x80\x04" + opcodes + pickled[2:]})
    assert "found protocol 4, expected 2" in problem(path)
    assert not marker.exists()
    with suppress(Exception):
        torch.load(path, weights_only=False)
    assert marker.exists()


def test_the_class_of_the_script_is_not_looked_up(rewritten, pickled, traps, published, tmp_path):
    """The module's own class may have any name, and hooks for unpickling: it stays a name."""
    marker = tmp_path / "marker"
    content = replaced(pickled, b"c__main__\nreward_function\n", b"c__main__\nTrap\n")
    content = replaced(content, text("training"), text("marker") + text(str(marker)) + text("training"))
    path = rewritten({"data.pkl": content})
    head = read_published_head(path)
    assert torch.equal(head.fc2["weight"], published[1].fc2.weight)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()


# Opcodes in front of the head's that harm nobody, but that no such file needs.
ODD = {
    "a dict with content": (call("collections", "OrderedDict", b"(t"), "a call of 'collections.OrderedDict'"),
    "a set with content": (call("__builtin__", "set", b"(" + text("x") + b"t"), "a call of '__builtin__.set'"),
    "a call of a layer": (call("torch.nn.modules.linear", "Linear", "x"), "expected an empty container"),
    "a call of a text": (text("os.system") + b")R", "a call of 'os.system'"),
    "a call without a tuple": (b"ccollections\nOrderedDict\n]R", "a tuple of arguments"),
    "a tensor of nothing": (call("torch._utils", "_rebuild_tensor_v2"), "expected an empty container"),
    "a parameter of a text": (
        call("torch._utils", "_rebuild_parameter", "x", b"\x88", b"}"),
        "expected an empty container",
    ),
    "a new dict": (b"ccollections\nOrderedDict\n)\x81", "expected a layer made without arguments"),
    "a storage that is a text": (text("0") + b"Q", "the storage '0'"),
    "a persistent id in text": (b"P0\n", "PERSID"),
    "a module by persistent id": (b"(" + text("module") + text("os") + text("") + text("") + b"tQ", "the storage ("),
    "a storage of an allowed name": (
        b"(" + text("storage") + b"ccollections\nOrderedDict\n" + text("0") + text("cpu") + b"K\x01tQ",
        "the storage (",
    ),
    "a storage of a text": (
        b"(" + text("storage") + text("torch FloatStorage") + text("0") + text("cpu") + b"K\x01tQ",
        "the storage (",
    ),
    "a storage elsewhere": (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("../version") + text("cpu") + b"K\x01tQ",
        "the storage (",
    ),
    "a storage without elements": (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x00tQ",
        "the storage (",
    ),
    "a state that is no dict": (b"c__main__\nx\n)\x81N}" + text("x") + b"Ns\x86b", "SETITEM"),
    "a state for slots": (b"c__main__\nx\n)\x81N}\x86b", "expected a new layer with a dict"),
    "a second state": (b"c__main__\nx\n)\x81}b}b", "expected a new layer with a dict"),
    "a state of a dict": (b"}}b", "expected a new layer with a dict"),
    "a state of a name": (b"c__main__\nx\n}b", "expected a new layer with a dict"),
    "items of a layer": (b"c__main__\nx\n)\x81(" + text("x") + b"Nu", "for a dict"),
    "a name that is no text": (b"}(K\x01Nu", "for a dict"),
    "a name without a value": (b"}(" + text("x") + b"u", "for a dict"),
    "an object that was not there": (b"h\xee", "object 238"),
    "something dropped": (b"N0", "POP"),
    "too little on the stack": (b"R", "nothing on the stack"),
    "a mark in the way": (b"N(\x85", "nothing on the stack"),
    "no mark": (b"Nt", "no mark"),
    "too much on the stack": (b"N", "more than one object"),
    "a number in text": (b"I1\n", "INT"),
    "a name that is no name": (b"c\n\n", "the name"),
    "an opcode that is none": (b"\xff", "unknown"),
    "a very long text": (b"X\xff\xff\xff\x7fx", "expected 2147483647 bytes"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_pickle_is_refused(name, rewritten, pickled):
    opcodes, found = ODD[name]
    assert found in problem(rewritten({"data.pkl": pickled[:2] + opcodes + pickled[2:]}))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda content: content[:-1], "pickle exhausted before seeing STOP"),
        (lambda content: content + b".", "or bytes after it"),
        (lambda content: content[:2] + b".", "more than one object"),
        (lambda content: b"", "pickle exhausted"),
        (lambda content: content + b"x" * 2**16, "expected 65536 at most"),
        (lambda content: b"\x80\x02N.", "the module: found None"),
        (lambda content: b"\x80\x02c__main__\nx\n)\x81.", "expected a layer with its attributes"),
        (lambda content: b"\x80\x02c__main__\nx\n)\x81}b.", "found no _modules"),
    ],
)
def test_a_pickle_of_something_else(rewritten, pickled, change, found):
    assert found in problem(rewritten({"data.pkl": change(pickled)}))


def test_a_memo_index_costs_no_memory(rewritten, pickled, published):
    """pickle's own reader would make room for four thousand million objects."""
    first = pickled.index(b"q\x00")
    path = rewritten({"data.pkl": pickled[:first] + b"r\xff\xff\xff\xff" + pickled[first:]})
    assert torch.equal(read_published_head(path).fc1["bias"], published[1].fc1.bias)


def test_long_and_nested_tuples_are_refused_in_few_words(rewritten, pickled):
    """Each tuple holds the one before twice, so that to write it out would take 2^1000 words."""
    nest = b"N" + b"q\xfeh\xfe\x86" * 1000
    assert "for a dict" in problem(rewritten({"data.pkl": pickled[:2] + b"}(" + nest + b"Nu" + pickled[2:]}))
    many = b"".join(b"(" + b"K\x01" * 15_000 + b"t" for _ in range(2))
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n" + text("0")
    tensor += text("cpu") + SIZE + b"tQK\x00" + many + b"\x89}tR"
    assert "shape (1, 1, 1, 1, 1, 1, ...)" in problem(rewritten({"data.pkl": pickled[:2] + tensor + pickled[2:]}))
    deep = b")" + b"\x85" * 50_000
    assert "for a dict" in problem(rewritten({"data.pkl": pickled[:2] + b"}(" + deep + b"Nu" + pickled[2:]}))


# ------------------------------------------------------------------------------------------------ false claims

SIZE, SHAPE, STRIDES = b"M\x00\x10", b"QK\x00K\x80K \x86", b"K K\x01\x86"  # of fc1.weight: 4096, 0 (128, 32), (32, 1)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (SIZE, b"J\xff\xff\xff\x7f", "data/0: found 16384 bytes, expected 8589934588"),
        (SIZE, b"J\xff\xff\xff\xff", "the storage ('storage'"),
        (SIZE, b"M\x00\x08", "data/0: found 16384 bytes, expected 8192"),
        (SHAPE, b"QK\x01K\x80K \x86", "of shape (128, 32) with strides (32, 1) from element 1"),
        (SHAPE, b"QJ\xff\xff\xff\xffK\x80K \x86", "from element -1"),
        (SHAPE, b"QK\x00K\x81K \x86", "of shape (129, 32)"),
        (SHAPE, b"QK\x00J\xff\xff\xff\x7fK \x86", "of shape (2147483647, 32)"),
        (SHAPE, b"QK\x00J\xff\xff\xff\xffK \x86", "of shape (-1, 32)"),
        (SHAPE, b"QK\x00K\x00K \x86", "of shape (0, 32)"),
        (SHAPE, b"QK\x00K\x80K\x20K\x01\x87", "of shape (128, 32, 1)"),
        (SHAPE, b"QK\x00N\x85", "of shape (None,)"),
        (SHAPE, b"QNK\x80K \x86", "a call of"),
        (STRIDES, b"K\x00K\x01\x86", "with strides (0, 1)"),
        (STRIDES, b"K\x01K\x80\x86", "with strides (1, 128)"),
        (STRIDES, b"J\xff\xff\xff\xffK\x01\x86", "with strides (-1, 1)"),
        (b"ctorch\nFloatStorage\n", b"ctorch\nHalfStorage\n", "data/0: found 16384 bytes, expected 8192"),
        (b"ctorch\nFloatStorage\n", b"ctorch\nLongStorage\n", "the name 'torch.LongStorage'"),
        (text("1"), text("0"), "found storage 0 as 128 torch.float32, and before as 4096 torch.float32"),
        (text("3"), text("1"), "found storage 1 as 1 torch.float32, and before as 128 torch.float32"),
        (b"G\x3f\xc9\x99\x99\x99\x99\x99\x9a", b"G\x3f\xf0" + bytes(6), "Dropout: found the probability 1.0"),
        (b"G\x3f\xc9\x99\x99\x99\x99\x99\x9a", text("x"), "Dropout: found the probability 'x'"),
    ],
)
def test_a_pickle_that_claims_what_is_not_so(rewritten, pickled, old, new, found):
    assert found in problem(rewritten({"data.pkl": replaced(pickled, old, new)}))


def test_a_huge_claim_takes_no_memory(rewritten, pickled):
    """Pickle and directory of the archive agree on a gigabyte that is not there."""

    def claim(archive):
        [info] = [info for info in archive.filelist if info.filename.endswith("/data/0")]
        info.file_size = info.compress_size = 4 * 250_000_000

    path = rewritten({"data.pkl": replaced(pickled, SIZE, b"J" + struct.pack("<i", 250_000_000))}, claim)
    tracemalloc.start()
    try:
        message = problem(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "data/0: found 1000000000 bytes in 1000000000 of the archive" in message
    assert peak < 2**20


def test_members_that_are_laid_over_each_other(rewritten, pickled):
    """Many small claims on the same bytes are refused as one large one is."""

    def overlay(archive):
        [info] = [info for info in archive.filelist if info.filename.endswith("/data/0")]
        for other in archive.filelist:
            if other.filename.endswith(("/data/1", "/data/2")):
                other.file_size = other.compress_size = info.file_size
                other.CRC, other.header_offset = info.CRC, info.header_offset

    content = pickled
    for key in ("1", "2"):
        at = content.index(text(key))
        size = content.index(b"K\x80", at)
        content = content[:size] + SIZE + content[size + 2 :]
    message = problem(rewritten({"data.pkl": content}, overlay))
    assert "no longer than the file" in message or "broken member" in message


# ------------------------------------------------------------------------------------------------ broken archives


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("data/0", None, "found no member NAME/data/0"),
        ("data/3", b"", "data/3: found 0 bytes, expected 4"),
        ("data/2", bytes(511), "data/2: found 511 bytes, expected 512"),
        ("data.pkl", None, "expected one NAME/data.pkl"),
        ("version", None, "found no member NAME/version"),
        ("version", b"9\n", "version: found b'9\\n'"),
        ("byteorder", b"native", "byteorder: found b'native', expected that of this machine"),
        ("more/data.pkl", b"\x80\x02N.", "expected one NAME/data.pkl"),
    ],
)
def test_an_archive_that_lacks_something(rewritten, name, content, found):
    assert found in problem(rewritten({name: content}))


def test_an_archive_of_a_machine_with_another_order_of_bytes(rewritten):
    other = {"little": b"big", "big": b"little"}[sys.byteorder]
    assert "byteorder: found" in problem(rewritten({"byteorder": other}))


def test_an_archive_without_order_of_bytes_is_one_of_an_older_torch(rewritten, published):
    head = read_published_head(rewritten({"byteorder": None}))
    assert torch.equal(head.fc2["bias"], published[1].fc2.bias)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_compressed_archive(rewritten, compression):
    assert "expected no compression" in problem(rewritten({}, compression=compression))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice(rewritten):
    again = lambda archive: archive.writestr("reward1_any-name-1/data/0", bytes(16384))  # noqa: E731
    assert "no name twice" in problem(rewritten({}, again))


def test_a_changed_weight(published, tmp_path):
    content = bytearray(published[0].read_bytes())
    at = content.index(members(published[0])["reward1_any-name-1/data/0"])
    content[at] ^= 1
    (tmp_path / "head").write_bytes(content)
    assert "data/0: found a broken member (Bad CRC-32" in problem(tmp_path / "head")


def test_a_member_that_lies_nowhere(rewritten):
    def misplace(archive):
        archive.filelist[3].header_offset = 2**63 - 1

    assert "broken" in problem(rewritten({}, misplace))


def test_an_encrypted_member(rewritten):
    def encrypt(archive):
        archive.filelist[0].flag_bits |= 1

    assert "data.pkl: found a broken member" in problem(rewritten({}, encrypt))


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file(published, tmp_path, share):
    content = published[0].read_bytes()
    (tmp_path / "head").write_bytes(content[: int(share * len(content))])
    problem(tmp_path / "head")


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
def test_what_is_no_archive(tmp_path):
    buffer = io.BytesIO()
    published_head(buffer, _use_new_zipfile_serialization=False)
    for content in (buffer.getvalue(), pickle.dumps({"a": 1}), b"version https://git-lfs.github.com/spec/v1\n"):
        (tmp_path / "head").write_bytes(content)
        assert f"begins with {content[:24]!r}, expected a zip archive" in problem(tmp_path / "head")


def test_a_file_of_something_larger(published, monkeypatch):
    monkeypatch.setattr("geli_hf.torch_file.LARGEST_FILE", published[0].stat().st_size - 1)
    assert "bytes, expected a head of half a million" in problem(published[0])


def test_a_file_that_is_not_there(failure, tmp_path):
    for path in (tmp_path / "none", tmp_path):
        assert str(path) in failure(path, "--output", tmp_path / "model")


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_is_changed_in_a_file_it_is_read_rightly_or_refused(published, tmp_path_factory, data):
    content = bytearray(published[0].read_bytes())
    weights = members(published[0])["reward1_any-name-1/data/0"]
    start = content.index(weights)
    # Not the weights, which a checksum guards.
    places = st.integers(0, len(content) - len(weights) - 1).map(lambda at: at if at < start else at + len(weights))
    for at in data.draw(st.lists(places, min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("changed") / "head"
    path.write_bytes(content)
    with suppress(ValueError):
        assert torch.equal(read_published_head(path).fc1["weight"], published[1].fc1.weight)


@pytest.mark.filterwarnings("ignore:.*invalid escape sequence")  # pickletools, about an opcode that is refused
@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_is_changed_in_a_pickle_it_is_read_or_refused(published, tmp_path_factory, data):
    contents = members(published[0])
    content = bytearray(contents["reward1_any-name-1/data.pkl"])
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("changed") / "head"
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in (contents | {"reward1_any-name-1/data.pkl": bytes(content)}).items():
            archive.writestr(name, member)
    with suppress(ValueError):
        head = read_published_head(path)
        assert torch.equal(head.fc1["weight"], published[1].fc1.weight)


# ------------------------------------------------------------------------------------------------ other modules


def change(**attributes):
    def apply(module):
        for name, value in attributes.items():
            setattr(module, name, value)

    return apply


def nan(module):
    module.fc1.weight.data[3, 4] = torch.nan


def hook(module):
    module.fc1.register_forward_hook(torch.relu)


def buffer(module):
    module.fc2.register_buffer("shift", torch.ones(1))


def transposed(module):
    module.fc1.weight.data = torch.zeros(32, 128).T


@pytest.mark.parametrize(
    ("apply", "found"),
    [
        (change(fc3=torch.nn.Linear(1, 1)), "found the layers {"),
        (change(dropout=torch.nn.Tanh()), "found the layers {"),
        (change(dropout2=torch.nn.Dropout(0.5)), "found the layers {"),
        (change(Relu=torch.nn.GELU()), "the name 'torch.nn.modules.activation.GELU'"),
        (change(fc1=torch.nn.Linear(32, 64)), "of shapes [(64, 32), (64,), (1, 128), (1,)]"),
        (change(fc2=torch.nn.Linear(128, 2)), "of shapes [(128, 32), (128,), (2, 128), (2,)]"),
        (change(fc1=torch.nn.Linear(32, 128, bias=False)), "fc1: found the parameters"),
        (change(scale=torch.nn.Parameter(torch.ones(1))), "SETITEM"),
        (change(scale=torch.ones(1)), "the module: found tensor([1.]) as 'scale'"),
        (change(rate=[1]), "APPEND"),
        (change(fc1=torch.nn.Linear(32, 128, dtype=torch.float64)), "the name 'torch.DoubleStorage'"),
        (nan, "fc1: found weights that are not finite"),
        (hook, "the name '__builtin__.getattr'"),
        (buffer, "SETITEM"),
        (transposed, "with strides (1, 128)"),
    ],
)
def test_a_module_that_is_another_head(tmp_path, apply, found):
    published_head(tmp_path / "head", change=apply)
    assert found in problem(tmp_path / "head")


def test_weights_without_a_module(tmp_path):
    torch.save({"fc1.weight": torch.ones(128, 32)}, tmp_path / "head")
    problem(tmp_path / "head")
