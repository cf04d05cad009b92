"""The published GELI head becomes a reward model, and nothing that its file names is run.

Every hostile file is also unpickled by `torch.load(weights_only=False)`, to show that it does what it was made for.
"""

import pickle
import struct
import sys
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

    def write(changes: dict[str, bytes | None]) -> Path:
        path = tmp_path / "head"
        folder = f"{published[0].name}/"
        contents = members(published[0]) | {folder + name: content for name, content in changes.items()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in contents.items():
                if content is not None:
                    archive.writestr(name, content)
        return path

    return write


@pytest.fixture
def pickled(published) -> bytes:
    return members(published[0])[f"{published[0].name}/data.pkl"]


def assert_refused(path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        read_published_head(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 1000


# ------------------------------------------------------------------------------------------------ conversion


def formula(module: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    """The head's formula, without a layer of torch."""
    hidden = (features @ module.fc1.weight.T + module.fc1.bias).clamp(min=0)
    return torch.tanh(hidden @ module.fc2.weight[0] + module.fc2.bias)


@torch.no_grad()
def test_the_head_computes_the_published_rewards(published):
    path, module = published
    model = convert_head(path, backbone("bart"))
    features = torch.randn(7, 5, 32, generator=torch.Generator().manual_seed(1)) * 3
    rewards = model.score(features)
    assert rewards.std() > 0.1
    torch.testing.assert_close(rewards, formula(module, features), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(rewards, module(features).squeeze(-1), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_turn_is_rewarded_by_the_encoder_state_at_its_end(published):
    path, module = published
    model = convert_head(path, backbone("bart"))
    messages = talk(5, words=3, first="assistant")
    [scored] = model.score_sessions([{"messages": messages}])
    expected = []
    for turn in (0, 2, 4):
        text = model.tokenizer.apply_chat_template(messages[: turn + 1], tokenize=False)
        ids = model.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        assert ids[0, -1] == model.config.text_config.eos_token_id
        expected.append(formula(module, model.model(ids).last_hidden_state[0, -1]).item())
    assert scored["turn_rewards"] == pytest.approx(expected, abs=1e-5)
    assert len({round(reward, 3) for reward in expected}) == 3
    # Rewards add up to ten times the score.
    assert scored["score"] == pytest.approx(sum(expected) / 10, abs=1e-5)


def test_the_configuration_is_that_of_the_paper(tmp_path):
    published_head(tmp_path / "head")
    config = convert_head(str(tmp_path / "head"), backbone("bart")).config
    assert {name: getattr(config, name) for name in PAPER["model"]} == PAPER["model"]
    assert (config.score_mean, config.score_std, config.causal) == (0.0, 0.1, False)
    published_head(tmp_path / "other", change=lambda module: setattr(module.dropout, "p", 0.4))
    assert convert_head(tmp_path / "other", backbone("bart")).config.head_dropout == 0.4


def test_dropout_is_between_the_layers_and_not_after_the_last(published):
    model = convert_head(published[0], backbone("bart"))
    assert not model.training
    model.score.train()
    with torch.no_grad():
        rewards = model.score(torch.ones(4000, 32))
    assert rewards.unique().numel() > 1000
    assert (rewards == 0).sum() == 0  # dropped after the last layer, a fifth of them would be tanh(0)


def share_storage(module):
    both = torch.randn(256)
    module.fc1.bias.data, module.fc2.weight.data = both[:128], both[128:].view(1, 128)


@pytest.mark.parametrize("change", [lambda module: module.bfloat16(), share_storage], ids=["bfloat16", "one storage"])
def test_other_storages_are_read_as_float32(tmp_path, change):
    module = published_head(tmp_path / "head", change=change)
    head = read_published_head(tmp_path / "head")
    for found, layer in ((head.fc1, module.fc1), (head.fc2, module.fc2)):
        assert torch.equal(found["weight"], layer.weight.float())
        assert torch.equal(found["bias"], layer.bias.float())


def test_the_published_file(shared_data, tmp_path):
    path = shared_data / "reference_head" / "reward1_eager-glade-5"
    assert read_published_head(path).dropout == 0.2
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
    assert str(output) in geli(published[0], "--backbone", backbone("bart"), "--output", output)
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
        assert f"--output: {taken}" in failure(published[0], "--backbone", backbone("bart"), "--output", taken)
        assert taken.stat().st_mtime_ns == before


def test_it_leaves_nothing_where_it_fails(published, failure, tmp_path, monkeypatch):
    folder = tmp_path / "models"
    assert "backbone: " in failure(published[0], "--backbone", backbone("gpt2"), "--output", folder / "model")

    def full(self, target, **kwargs):
        Path(target).mkdir()
        Path(target, "config.json").write_text("{")
        raise OSError("no space left on device")

    monkeypatch.setattr(GeliRewardModel, "save_pretrained", full)
    message = failure(published[0], "--backbone", backbone("bart"), "--output", folder / "model")
    assert "no space left on device" in message
    assert not list(folder.iterdir())


# ------------------------------------------------------------------------------------------------ backbones


def test_a_backbone_of_another_size(tmp_path):
    published_head(tmp_path / "head", hidden_size=48)
    with pytest.raises(ValueError, match=r"^backbone: .* size 48 .* size 32"):
        convert_head(tmp_path / "head", backbone("bart"))


def test_a_decoder(published):
    with pytest.raises(ValueError, match=r"^backbone: .* decoder"):
        convert_head(published[0], backbone("llama"))


def test_other_encoders(published):
    assert convert_head(published[0], backbone("bert")).score_messages([talk(2)]).isfinite().all()


def test_a_backbone_that_does_not_exist(published, tmp_path):
    with pytest.raises(OSError, match=f"{tmp_path}/none"):
        convert_head(published[0], f"{tmp_path}/none")


# ------------------------------------------------------------------------------------------------ hostile pickles


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def call(module: str, name: str, *arguments: str | bytes) -> bytes:
    """Opcodes that call a function with texts, or with the results of other opcodes."""
    given = b"".join(value if isinstance(value, bytes) else text(value) for value in arguments)
    return f"c{module}\n{name}\n".encode() + b"(" + given + b"tR"


def touch(marker: Path) -> str:
    return f"touch '{marker}'"


# Opcodes that create a file when they are unpickled.
HOSTILE = {
    "a function": lambda m: call("os", "system", touch(m)),
    "an instance": lambda m: b"(" + text(touch(m)) + b"ios\nsystem\n",
    "another function of an allowed module": lambda m: (
        call("torch._utils", "_import_dotted_name", "os.system") + text(touch(m)) + b"\x85R"
    ),
    "a pickle in the pickle": lambda m: (
        lambda inner: call("pickle", "loads", b"B" + struct.pack("<I", len(inner)) + inner)
    )(b"\x80\x02" + call("os", "system", touch(m)) + b"."),
    "a class of the script with arguments": lambda m: b"c__main__\nTrap\n" + text(str(m)) + b"\x85\x81",
    "the head's class with arguments": lambda m: b"c__main__\nreward_function\n" + text(str(m)) + b"\x85\x81",
}


class Trap:
    """A class that creates a file when it is instantiated with a path, or gets a state."""

    def __new__(cls, marker: str = ""):
        if marker:
            Path(marker).touch()
        return super().__new__(cls)

    def __setstate__(self, state):
        Path(state["marker"]).touch()


@pytest.fixture
def traps(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "Trap", Trap, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "reward_function", Trap, raising=False)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_and_not_run(name, rewritten, pickled, traps, tmp_path):
    marker = tmp_path / "marker"
    # Before the head itself, and dropped again: all else is as it should be.
    path = rewritten({"data.pkl": pickled[:2] + HOSTILE[name](marker) + b"0" + pickled[2:]})
    assert_refused(path)
    with pytest.raises(ValueError):
        convert_head(path, backbone("bart"))
    assert not marker.exists()
    with suppress(Exception):
        torch.load(path, weights_only=False)
    assert marker.exists()


def test_the_class_of_the_script_is_not_imported(rewritten, pickled, traps, published, tmp_path):
    """It may have hooks for unpickling: a stand-in takes its place."""
    marker = tmp_path / "marker"
    assert text("training") in pickled
    content = pickled.replace(text("training"), text("marker") + text(str(marker)) + text("training"), 1)
    path = rewritten({"data.pkl": content})
    assert torch.equal(read_published_head(path).fc2["weight"], published[1].fc2.weight)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_torch_knows_no_more_names_afterwards(published):
    before = set(torch.serialization.get_safe_globals())
    read_published_head(published[0])
    assert set(torch.serialization.get_safe_globals()) == before


# ------------------------------------------------------------------------------------------------ broken files

SIZE, SHAPE, STRIDES = b"M\x00\x10", b"QK\x00K\x80K \x86", b"K K\x01\x86"  # of fc1.weight: 4096, 0 (128, 32), (32, 1)
PROBABILITY = b"G\x3f\xc9\x99\x99\x99\x99\x99\x9a"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (SIZE, b"M\x00\x08"),
        (SHAPE, b"QK\x01K\x80K \x86"),
        (SHAPE, b"QK\x00K\x81K \x86"),
        (SHAPE, b"QK\x00K\x80K\x20K\x01\x87"),
        (STRIDES, b"J\xff\xff\xff\xffK\x01\x86"),
        (b"ctorch\nFloatStorage\n", b"ctorch\nHalfStorage\n"),
        (PROBABILITY, b"G\x3f\xf0" + bytes(6)),
    ],
)
def test_a_pickle_with_false_sizes_is_refused(rewritten, pickled, old, new):
    assert old in pickled
    assert_refused(rewritten({"data.pkl": pickled.replace(old, new, 1)}))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data/0", None),
        ("data/3", b""),
        ("data.pkl", None),
        ("data.pkl", b"\x80\x02N."),
        ("data.pkl", b"\x80\x02c__main__\nreward_function\n)\x81."),
        ("byteorder", b"native"),
    ],
)
def test_an_archive_with_another_member_is_refused(rewritten, name, content):
    assert_refused(rewritten({name: content}))


def test_a_changed_weight(published, tmp_path):
    content = bytearray(published[0].read_bytes())
    at = content.index(members(published[0])["reward1_any-name-1/data/0"])
    content[at] ^= 1
    (tmp_path / "head").write_bytes(content)
    assert_refused(tmp_path / "head")


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_truncated_file(published, tmp_path, share):
    content = published[0].read_bytes()
    (tmp_path / "head").write_bytes(content[: int(share * len(content))])
    assert_refused(tmp_path / "head")


@pytest.mark.parametrize("content", [pickle.dumps({"a": 1}), b"version https://git-lfs.github.com/spec/v1\n"])
def test_other_files(tmp_path, content):
    (tmp_path / "head").write_bytes(content)
    assert_refused(tmp_path / "head")


def test_a_file_of_something_larger(published, monkeypatch):
    monkeypatch.setattr("geli_hf.models.published_head.LARGEST_FILE", published[0].stat().st_size - 1)
    assert_refused(published[0])


def test_a_file_that_does_not_exist(failure, tmp_path):
    for path in (tmp_path / "none", tmp_path):
        assert str(path) in failure(path, "--output", tmp_path / "model")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_with_changed_bytes_is_read_correctly_or_refused(published, tmp_path_factory, data):
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


@pytest.mark.parametrize(
    "apply",
    [
        change(fc3=torch.nn.Linear(1, 1)),
        change(dropout=torch.nn.Tanh()),
        change(dropout2=torch.nn.Dropout(0.5)),
        change(Relu=torch.nn.GELU()),
        change(fc1=torch.nn.Linear(32, 64)),
        change(fc2=torch.nn.Linear(128, 2)),
        change(fc1=torch.nn.Linear(32, 128, bias=False)),
        nan,
        hook,
    ],
)
def test_a_module_that_is_another_head(tmp_path, apply):
    published_head(tmp_path / "head", change=apply)
    assert_refused(tmp_path / "head")


def test_weights_without_a_module(tmp_path):
    torch.save({"fc1.weight": torch.ones(128, 32)}, tmp_path / "head")
    assert_refused(tmp_path / "head")
