"""The code that travels with a checkpoint, in a process where `geli_hf` is not installed."""

import json
import os
import subprocess
import sys

import pytest
import torch
from tiny import reward_model, talk

from geli_hf import GeliRewardModel

# The package is hidden even where it is installed: nothing else of the interpreter is changed.
WITHOUT_GELI_HF = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "geli_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
try:
    import geli_hf
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("geli_hf can be imported")
import json
"""
DIALOGUES = [talk(6), talk(61, seed=1), talk(3, seed=2, first="assistant")]


def python_without_the_package(code: str, folder) -> dict:
    """Run code in a fresh process that has no `geli_hf`; the one line it prints is JSON."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_GELI_HF + code],
        capture_output=True,
        text=True,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"HF_HOME": str(folder / "hf_home"), "HF_MODULES_CACHE": str(folder / "modules")},
    )
    assert done.returncode == 0, done.stderr
    assert "[y/N]" not in done.stdout, "transformers asked whether to trust the code: " + done.stdout
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Two checkpoints, and what became of them in a process without the package."""
    folder = tmp_path_factory.mktemp("elsewhere")
    models = {name: reward_model(name, context_messages=4) for name in ("bert", "llama")}
    for name, model in models.items():
        model.save_pretrained(folder / name)
    found = python_without_the_package(
        f"""
from transformers import AutoModel, AutoModelForSequenceClassification, pipeline
dialogues, found = {DIALOGUES!r}, {{}}
for name in ("bert", "llama"):
    found[name] = {{}}
    for door in (AutoModel, AutoModelForSequenceClassification):
        model = door.from_pretrained(name, trust_remote_code=True)
        assert type(model).__name__ == "GeliRewardModel" and type(model).__module__.startswith("transformers_modules")
        assert not model.training
        found[name][door.__name__] = model.score_messages(dialogues).tolist()
    rows = model.score_sessions([dict(messages=messages) for messages in dialogues])
    found[name]["score_sessions"] = [row["turn_rewards"][-1] for row in rows]
    model.save_pretrained(name + "-again")
    again = AutoModelForSequenceClassification.from_pretrained(name + "-again", trust_remote_code=True)
    assert all(bool((a == b).all()) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
    found[name]["again"] = again.score_messages(dialogues).tolist()
    classify = pipeline("text-classification", model=name + "-again", trust_remote_code=True, device="cpu")
    texts = model.tokenizer.apply_chat_template(dialogues, tokenize=False)
    found[name]["pipeline"] = [row["score"] for row in classify(texts)]
try:
    AutoModel.from_pretrained("bert", trust_remote_code=False)
except ValueError as error:
    found["without trust"] = str(error)
print(json.dumps(found))
""",
        folder,
    )
    return models, folder, found


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_every_door_gives_the_same_scores(name, elsewhere):
    models, _, found = elsewhere
    expected = models[name].score_messages(DIALOGUES).tolist()
    assert set(found[name]) == {
        "AutoModel",
        "AutoModelForSequenceClassification",
        "score_sessions",
        "again",
        "pipeline",
    }
    for way, rewards in found[name].items():
        assert rewards == pytest.approx(expected, rel=1e-4, abs=1e-5), way


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_what_was_saved_there_is_the_same_and_loads_here(name, elsewhere):
    models, folder, _ = elsewhere
    files = {file.name for file in (folder / name).iterdir()}
    assert files == {file.name for file in (folder / f"{name}-again").iterdir() if file.name != "__pycache__"}
    for file in files - {"tokenizer_config.json"}:
        assert (folder / f"{name}-again" / file).read_bytes() == (folder / name / file).read_bytes(), file
    again = GeliRewardModel.from_pretrained(folder / f"{name}-again")
    weights = models[name].state_dict()
    assert all(torch.equal(weight, weights[key]) for key, weight in again.state_dict().items())
    assert again.tokenize(DIALOGUES)["input_ids"].tolist() == models[name].tokenize(DIALOGUES)["input_ids"].tolist()


def test_nothing_is_run_without_trust(elsewhere):
    _, _, found = elsewhere
    assert "trust_remote_code=True" in found["without trust"]
