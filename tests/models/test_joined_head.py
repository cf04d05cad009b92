"""A head that is kept without its backbone."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from fresh import in_fresh_process
from safetensors.torch import load_file, save_file
from tiny import reward_model, session, talk
from transformers import AutoModelForSequenceClassification, pipeline

from geli_hf import GeliRewardModel
from geli_hf.models.geli_reward import modeling_geli
from geli_hf.models.geli_reward.joined_geli import BACKBONE_FILE, HEAD_FILE, is_head, save_head, weights_digest
from geli_hf.models.loading import open_model

FILES = {"config.json", HEAD_FILE, BACKBONE_FILE}
ALL = {
    "interactions": True,
    "fit_hidden_size": 6,
    "fit_weight": 1.5,
    "ratings": {"witty": [3.0, 0.5], "boring": [2.0, 1.5]},
    "context_messages": 1,
    "reward_quantiles": [-1.0, 0.0, 1.0],
    "residual_std": 0.5,
    "score_mean": 3.0,
    "score_std": 0.7,
}
SETTINGS = {"all": ALL, "defaults": {"layers": "last", "max_length": 48}, "rudder": {"head": "rudder"}}


def head_of(folder: Path, name: str = "bert", *, backbone: str = "", **config) -> GeliRewardModel:
    """Save a head in the folder, and return its model."""
    model = reward_model(name, **config)
    save_head(model, folder, backbone or tiny.backbone(name))
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    return head_of(folder, **ALL), folder


@pytest.fixture
def head(made, tmp_path) -> Path:
    """A copy of the head, to be damaged."""
    return shutil.copytree(made[1], tmp_path / "head")


@pytest.mark.parametrize("name", ["bert", "llama", "bart"])
@pytest.mark.parametrize("config", SETTINGS.values(), ids=SETTINGS)
def test_it_is_joined_to_the_same_model(name, config, tmp_path):
    model = head_of(tmp_path, name, **config)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert not any(key.startswith("model.") for key in load_file(tmp_path / HEAD_FILE))
    again = GeliRewardModel.from_pretrained(tmp_path)
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    ours, theirs = (each.config.to_dict() for each in (model, again))
    assert {key: value for key, value in theirs.items() if value != ours[key]} == {}
    assert again.score_sessions([session(6)]) == model.score_sessions([session(6)])
    assert not again.training


def test_every_door_opens_it(made):
    model, folder = made
    expected = model.score_messages([talk(6)])
    for door in (GeliRewardModel.from_pretrained, AutoModelForSequenceClassification.from_pretrained, open_model):
        torch.testing.assert_close(door(str(folder)).score_messages([talk(6)]).cpu(), expected)
    again = GeliRewardModel.from_pretrained(folder)
    [text] = again.tokenizer.apply_chat_template([talk(6)], tokenize=False)
    [row] = pipeline("text-classification", model=again, tokenizer=again.tokenizer, device="cpu")(text)
    assert row["score"] == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_the_backbone_gets_the_type_that_is_asked_for(made, dtype):
    for option in ("dtype", "torch_dtype"):
        model = GeliRewardModel.from_pretrained(made[1], **{option: dtype})
        assert {parameter.dtype for parameter in model.model.parameters()} == {torch.bfloat16}
        assert {tensor.dtype for part in (model.score, model.fit) for tensor in part.state_dict().values()} == {
            torch.float32
        }


def test_options_of_other_models_do_no_harm(made):
    model = GeliRewardModel.from_pretrained(
        made[1], revision="main", token=False, dtype="auto", local_files_only=True, trust_remote_code=True
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_default_backbone_is_looked_for_where_it_lies(tmp_path, monkeypatch):
    head_of(tmp_path, backbone=modeling_geli.DEFAULT_BACKBONE)
    monkeypatch.setattr(modeling_geli, "default_backbone", lambda: tiny.backbone("bert"))
    assert GeliRewardModel.from_pretrained(tmp_path).score_messages([talk(4)]).isfinite().all()


# -------------------------------------------------------------------- saved whole


def test_a_joined_model_is_saved_whole(made, tmp_path):
    model, folder = made
    GeliRewardModel.from_pretrained(folder).save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files >= {"config.json", "model.safetensors", "tokenizer.json"} | tiny.TRAVELLING_FILES
    assert not files & {HEAD_FILE, BACKBONE_FILE}
    assert any(key.startswith("model.") for key in load_file(tmp_path / "model.safetensors"))
    again = GeliRewardModel.from_pretrained(tmp_path)
    assert again.score_sessions([session(6)]) == model.score_sessions([session(6)])


def test_a_whole_model_in_the_same_folder_is_the_newer_one(head):
    model = GeliRewardModel.from_pretrained(head)
    with torch.no_grad():
        model.score.out.bias += 1
    model.save_pretrained(head)
    assert not is_head(head)
    again = GeliRewardModel.from_pretrained(head)
    torch.testing.assert_close(again.score.out.bias, model.score.out.bias)


def test_a_head_does_not_go_where_a_whole_model_lies(made, tmp_path):
    model, _ = made
    model.save_pretrained(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(OSError, match=f"{tmp_path}.*whole model"):
        save_head(model, tmp_path, "owner/backbone")
    assert {path.name for path in tmp_path.iterdir()} == before


# -------------------------------------------------------------------- refused


def test_another_backbone_is_refused(head):
    """By its weights, whatever its name is."""
    named = json.loads((head / BACKBONE_FILE).read_text())
    other = head.parent / "other"
    changed = GeliRewardModel.from_backbone(named["backbone"])
    with torch.no_grad():
        changed.model.encoder.layer[0].output.dense.bias[0] += 1e-6
    changed.model.save_pretrained(other)
    changed.tokenizer.save_pretrained(other)
    (head / BACKBONE_FILE).write_text(json.dumps(named | {"backbone": str(other)}))
    found = weights_digest(GeliRewardModel.from_backbone(str(other)).model)
    assert found != named["digest"]
    with pytest.raises(OSError, match=f"{head}.*{named['digest']}.*{found}"):
        GeliRewardModel.from_pretrained(head)


def test_a_backbone_that_is_nowhere_is_named(head):
    named = json.loads((head / BACKBONE_FILE).read_text())
    (head / BACKBONE_FILE).write_text(json.dumps(named | {"backbone": "nobody/backbone"}))
    with pytest.raises(OSError, match=f"{head}.*nobody/backbone"):
        GeliRewardModel.from_pretrained(head)


@pytest.mark.parametrize("size", [0, 5, 0.5])
def test_a_damaged_file_of_weights_is_refused(head, size):
    data = (head / HEAD_FILE).read_bytes()
    (head / HEAD_FILE).write_bytes(data[: size if isinstance(size, int) else int(size * len(data))])
    with pytest.raises(OSError, match=f"{head}.*damaged"):
        GeliRewardModel.from_pretrained(head)


@pytest.mark.parametrize("name", [HEAD_FILE, "config.json"])
def test_a_missing_file_is_named(head, name):
    (head / name).unlink()
    with pytest.raises(OSError, match=name):
        GeliRewardModel.from_pretrained(head)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"name"', '{"backbone": "x"}', '{"digest": "x"}', b"\xff\xfe{"])
def test_a_damaged_name_of_the_backbone_is_refused(head, text):
    (head / BACKBONE_FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(OSError, match=f"{head}.*damaged"):
        GeliRewardModel.from_pretrained(head)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_a_damaged_configuration_is_refused(head, text):
    (head / "config.json").write_text(text)
    with pytest.raises(OSError, match=f"{head}.*damaged"):
        GeliRewardModel.from_pretrained(head)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ratings": {"witty": [3.0, 0.5]}}, "score.out"),
        ({"fit_hidden_size": 8}, "fit.reasons"),
        ({"fit_hidden_size": 0}, "fit.level"),
        ({"head": "mlp", "ratings": {}}, "score.dense"),
        ({"interactions": False}, "score"),
    ],
)
def test_a_configuration_of_another_head_is_refused(head, change, words):
    config = json.loads((head / "config.json").read_text())
    (head / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(OSError, match=f"(?s){head}.*{words}"):
        GeliRewardModel.from_pretrained(head)


def test_a_configuration_of_a_newer_version_is_refused(head):
    config = json.loads((head / "config.json").read_text())
    (head / "config.json").write_text(json.dumps(config | {"geli_hf_version": "99.0"}))
    with pytest.raises(ValueError, match=r"99\.0.*newer"):
        GeliRewardModel.from_pretrained(head)


@pytest.mark.parametrize("change", ["lacks", "has another", "has the backbone's"])
def test_weights_of_other_names_are_refused(head, change):
    weights = load_file(head / HEAD_FILE)
    names = {"lacks": "fit.level", "has another": "score.in.weight", "has the backbone's": "model.pooler.dense.bias"}
    name = names[change]
    if change == "lacks":
        del weights[name]
    else:
        weights[name] = torch.zeros(32)
    save_file(weights, head / HEAD_FILE)
    with pytest.raises(OSError, match=f"{head}.*{name}"):
        GeliRewardModel.from_pretrained(head)


# -------------------------------------------------------------------- the digest


def test_the_digest_is_of_names_types_shapes_and_bytes():
    def module(name="weight", dtype=torch.float32, shape=(2, 3), value=0.0):
        made = torch.nn.Module()
        made.register_parameter(name, torch.nn.Parameter(torch.full(shape, value, dtype=dtype)))
        return made

    digest = weights_digest(module())
    assert weights_digest(module()) == digest
    others = {"name": "bias"}, {"dtype": torch.bfloat16}, {"shape": (3, 2)}, {"value": -0.0}, {"value": 1.0}
    assert len({digest, *(weights_digest(module(**other)) for other in others)}) == 6
    transposed = torch.nn.Module()
    transposed.weight = torch.nn.Parameter(torch.zeros(3, 2).T)
    assert weights_digest(transposed) == digest


def digest_of(backbone):
    from geli_hf import GeliRewardModel
    from geli_hf.models.geli_reward.joined_geli import weights_digest

    return weights_digest(GeliRewardModel.from_backbone(backbone).model)


def test_the_digest_is_the_same_in_another_process(made, tmp_path):
    model, _ = made
    found = in_fresh_process(digest_of, tmp_path, {"OMP_NUM_THREADS": "2"}, backbone=tiny.backbone("bert"))
    assert found == weights_digest(model.model)
