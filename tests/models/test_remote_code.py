"""The code that travels with a checkpoint, in a process where `geli_hf` is not installed."""

import json
import os
import subprocess
import sys

import pytest
import torch
from faces import SEVEN, affect_checkpoint, astronaut
from fresh import WITHOUT_GELI_HF
from tiny import reward_model, talk

from geli_hf import FacialAffectModel, GeliRewardModel

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
    """Two checkpoints and a classifier of faces, and what became of them in a process without the package."""
    folder = tmp_path_factory.mktemp("elsewhere")
    affect_checkpoint(folder / "affect", temperature=1.5, log_prior_shift=[0.1 * i for i in range(7)])
    astronaut().crop((174, 66, 273, 165)).save(folder / "face.png")
    models = {name: reward_model(name, context_messages=4) for name in ("bert", "llama")}
    for name, model in models.items():
        model.save_pretrained(folder / name)
    found, faces = python_without_the_package(
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
    reward = pipeline("turn-rewards", model=name, trust_remote_code=True, device="cpu")
    found[name]["turn-rewards"] = [turns[-1]["reward"] for turns in reward(dialogues)]
    found[name]["pipeline"] = [row["score"] for row in classify(texts)]
try:
    AutoModel.from_pretrained("bert", trust_remote_code=False)
except ValueError as error:
    found["without trust"] = str(error)

from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.image_utils import load_image
model = AutoModelForImageClassification.from_pretrained("affect", trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained("affect", trust_remote_code=True)
for part in (model, processor):
    assert type(part).__module__.startswith("transformers_modules"), type(part)
assert not model.training
logits = model(**processor(load_image("face.png"), return_tensors="pt")).logits[0]
faces = {{"auto classes": logits.softmax(-1).tolist()}}
model.save_pretrained("affect-again")
processor.save_pretrained("affect-again")
for name in ("affect", "affect-again"):
    rows = pipeline("image-classification", model=name, trust_remote_code=True, device="cpu")("face.png", top_k=7)
    faces[name] = [{{row["label"]: row["score"] for row in rows}}[model.config.id2label[i]] for i in range(7)]
print(json.dumps([found, faces]))
""",
        folder,
    )
    return models, folder, found, faces


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_every_door_gives_the_same_scores(name, elsewhere):
    models, _, found, _ = elsewhere
    expected = models[name].score_messages(DIALOGUES).tolist()
    assert set(found[name]) == {
        "AutoModel",
        "AutoModelForSequenceClassification",
        "score_sessions",
        "again",
        "pipeline",
        "turn-rewards",
    }
    for way, rewards in found[name].items():
        assert rewards == pytest.approx(expected, rel=1e-4, abs=1e-5), way


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_what_was_saved_there_is_the_same_and_loads_here(name, elsewhere):
    models, folder, _, _ = elsewhere
    files = {file.name for file in (folder / name).iterdir()}
    assert files == {file.name for file in (folder / f"{name}-again").iterdir() if file.name != "__pycache__"}
    for file in files - {"tokenizer_config.json", "tokenizer.json"}:
        assert (folder / f"{name}-again" / file).read_bytes() == (folder / name / file).read_bytes(), file
    read = [json.loads((folder / saved / "tokenizer.json").read_text()) for saved in (name, f"{name}-again")]
    state = {"padding": None, "truncation": None}  # of the last call, which a tokenizer saves too
    assert read[0] | state == read[1] | state
    again = GeliRewardModel.from_pretrained(folder / f"{name}-again")
    weights = models[name].state_dict()
    assert all(torch.equal(weight, weights[key]) for key, weight in again.state_dict().items())
    assert again.tokenize(DIALOGUES)["input_ids"].tolist() == models[name].tokenize(DIALOGUES)["input_ids"].tolist()


def test_nothing_is_run_without_trust(elsewhere):
    _, _, found, _ = elsewhere
    assert "trust_remote_code=True" in found["without trust"]


def test_a_face_is_read_there_as_here(elsewhere):
    from transformers import pipeline

    _, folder, _, found = elsewhere
    here = pipeline("image-classification", model=str(folder / "affect"), device="cpu")
    rows = {row["label"]: row["score"] for row in here(str(folder / "face.png"), top_k=7)}
    for way, probabilities in found.items():
        assert probabilities == pytest.approx([rows[label] for label in SEVEN], rel=1e-4), way


def test_the_classifier_saved_there_is_the_same_and_loads_here(elsewhere):
    _, folder, _, _ = elsewhere
    files = {file.name for file in (folder / "affect").iterdir()}
    assert files == {file.name for file in (folder / "affect-again").iterdir() if file.name != "__pycache__"}
    for file in files:
        assert (folder / "affect-again" / file).read_bytes() == (folder / "affect" / file).read_bytes(), file
    again = FacialAffectModel.from_pretrained(folder / "affect-again")
    assert again.config.temperature == 1.5
