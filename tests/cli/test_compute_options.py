"""`--device`, `--dtype` and `--batch-size` of every command that runs a model."""

import json

import numpy as np
import pytest
import torch
from policy_fixtures import policy_folder, reward_model, sessions  # noqa: F401
from tiny import backbone
from tiny import reward_model as tiny_reward_model
from toy import toy_sessions

from geli_hf import GeliRewardModel
from geli_hf.affect import face_classifier
from geli_hf.cli import COMMANDS, main
from geli_hf.data.rows import write_jsonl
from geli_hf.evaluation.policies import open_policy
from geli_hf.llm.local import LocalModel
from geli_hf.models.attribution import HindsightAttribution
from geli_hf.models.loading import open_model

ALL = {"--device", "--dtype", "--batch-size"}
TAKEN = {
    "score": ALL,
    "evaluate": ALL,
    "learning-curve": ALL,
    "train-judge": ALL,
    "evaluate-policy": ALL,
    "pairs": ALL,
    "decompose": ALL - {"--batch-size"},
    "annotate-video": {"--device"},
    "convert-head": set(),  # it runs nothing
    "push": set(),
    "import": set(),
    "serve": ALL - {"--batch-size"},
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    model = tiny_reward_model("bert", context_messages=1, score_mean=5.0, score_std=2.0)
    model.save_pretrained(folder / "reward")
    HindsightAttribution(model, np.zeros(32), np.ones(32), {}).save_pretrained(folder / "attribution")
    write_jsonl(toy_sessions(84), folder / "sessions.jsonl")
    return folder


@pytest.fixture
def opened(monkeypatch):
    """The calls that open a model in these modules, with their arguments."""
    calls = []

    def spy(name, **how):
        calls.append(how)
        return open_model(name, **how)

    for module in ("models.loading", "evaluation.rewards", "evaluation.judges.judge"):
        monkeypatch.setattr(f"geli_hf.{module}.open_model", spy)
    return calls


@pytest.fixture
def geli(models, monkeypatch, capsys):
    def run(*argv: str) -> str:
        monkeypatch.chdir(models)
        main(list(argv))
        return capsys.readouterr().out

    return run


def test_every_command_is_listed():
    assert len(TAKEN) == len(COMMANDS)


@pytest.mark.parametrize("command", TAKEN)
def test_a_command_has_the_options(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    help_text = capsys.readouterr().out
    assert {option for option in ALL if f" {option} " in help_text} == TAKEN[command]


@pytest.mark.parametrize(
    ("option", "value"), [("--device", "toaster"), ("--device", "cuda:99"), ("--dtype", "int8"), ("--batch-size", "0")]
)
def test_errors_name_the_option(option, value, geli, capsys):
    with pytest.raises(SystemExit) as caught:
        geli("score", "sessions.jsonl", option, value)
    assert caught.value.code == 2
    assert f"argument {option}: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["reward", "attribution"])
def test_a_model_is_opened_with_a_dtype_for_its_backbone_alone(name, models):
    opened = open_model(str(models / name), device="cpu", dtype="bfloat16")
    model = opened if isinstance(opened, GeliRewardModel) else opened.model
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.score.parameters()} == {torch.float32}
    assert model.device.type == "cpu"


def test_score(geli, opened):
    def rewards(*options: str) -> list[float]:
        lines = geli("score", "sessions.jsonl", "--model", "reward", "--limit", "5", *options).splitlines()
        return [reward for line in lines for reward in json.loads(line)["turn_rewards"]]

    exact = rewards("--device", "cpu", "--batch-size", "1")
    assert exact == pytest.approx(rewards("--dtype", "float32"), abs=1e-5)
    rounded = rewards("--dtype", "bfloat16")
    assert rounded != pytest.approx(exact, abs=1e-5)
    assert np.corrcoef(exact, rounded)[0, 1] > 0.9
    assert opened == [{"device": "cpu"}, {"dtype": "float32"}, {"dtype": "bfloat16"}]


def test_evaluate(geli, opened, monkeypatch):
    sizes, scores = [], GeliRewardModel.iter_scores
    monkeypatch.setattr(
        GeliRewardModel,
        "iter_scores",
        lambda self, rows, *, batch_size: sizes.append(batch_size) or scores(self, rows, batch_size=batch_size),
    )
    options = ["--device", "cpu", "--dtype", "bfloat16", "--batch-size", "7"]
    geli("evaluate", "sessions.jsonl", "--model", "reward", "attribution", *options)
    assert sizes == [7, 7]
    assert opened == [{"device": "cpu", "dtype": "bfloat16"}] * 2


def test_new_reward_models(geli, monkeypatch, tmp_path):
    sizes, encode = [], GeliRewardModel.encode_turns

    def spy(self, input_ids, *args, **kwargs):
        sizes.append((len(input_ids), self.model.dtype))
        return encode(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(GeliRewardModel, "encode_turns", spy)
    options = ["--backbone", backbone("bert"), "--device", "cpu", "--batch-size", "9"]
    geli("learning-curve", "sessions.jsonl", *options, "--dtype", "bfloat16")
    assert sizes[0] == (9, torch.bfloat16)
    sizes.clear()
    geli("train-judge", "sessions.jsonl", *options, "-o", str(tmp_path / "judge"))
    assert sizes[0] == (9, torch.float32)
    assert sum(size for size, _ in sizes) == 84  # each session once
    geli("train-judge", "sessions.jsonl", *options, "--dtype", "bfloat16", "-o", str(tmp_path / "rounded"))
    again = GeliRewardModel.from_pretrained(tmp_path / "rounded")
    assert (again.model.dtype, again.score.out.weight.dtype) == (torch.bfloat16, torch.float32)


def test_evaluate_policy(geli, opened, monkeypatch, policy_folder, models):
    policies = []

    def spy(name, **how):
        policies.append(how)
        return open_policy(name, **how)

    monkeypatch.setattr("geli_hf.evaluation.policies.open_policy", spy)
    options = ["--device", "cpu", "--dtype", "bfloat16", "--replies", "4", "--max-new-tokens", "4"]
    names = ["--judge", "reward", "--reward", "reward", "--sessions", "sessions.jsonl"]
    geli("evaluate-policy", str(policy_folder), str(policy_folder), *names, *options)
    assert policies == opened == [{"device": "cpu", "dtype": "bfloat16"}] * 2


def test_decompose(geli, policy_folder, monkeypatch):
    made = []

    def spy(*args, **how):
        made.append(LocalModel(*args, **how))
        return made[-1]

    monkeypatch.setattr("geli_hf.llm.LocalModel", spy, raising=False)
    options = ["--device", "cpu", "--dtype", "bfloat16", "--dry-run"]
    geli("decompose", "sessions.jsonl", "--model", str(policy_folder), *options)
    [local] = made
    assert local.identity["dtype"] == "bfloat16"
    assert (local.device, local._loaded[1].dtype) == ("cpu", torch.bfloat16)
    for option in (["--device", "cpu"], ["--dtype", "float32"]):
        with pytest.raises(SystemExit, match="--device, --dtype: "):
            geli("decompose", "s.jsonl", "--model", "m", "--base-url", "http://localhost:1/v1", "--dry-run", *option)


def test_deepface_takes_no_other_device():
    with pytest.raises(ValueError, match="device: "):
        face_classifier("deepface", device="meta")
