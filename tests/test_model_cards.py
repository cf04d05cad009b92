"""The templates of model cards: front matter that the Hub takes, and snippets that run once they are filled in."""

import re
from pathlib import Path

import pytest
from faces import affect_checkpoint, astronaut
from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, meta
from tiny import reward_model, session
from transformers.pipelines import PIPELINE_REGISTRY

from geli_hf.alignment import small_policy

FOLDER = Path(__file__).parents[1] / "model_cards"
FILLED = {
    "license": "apache-2.0",
    "language": "en",
    "base_model": "sentence-transformers/all-MiniLM-L6-v2",
    "reward_model": "owner/reward",
    "training_data": "The sample corpus.",
    "held_out": "120 sessions",
    "rating": "overall affect, 1 to 9.",
    "method": "rloo",
    "recipe": "`owner/base` was aligned by RLOO for 60 steps.",
    "judge": "the sample's own truth",
    "figures": "| | a |\n| --- | --- |\n| model | .3 |",
    "learnt": "9 pictures",
    "calibrated": "8 pictures",
    "net": "a net",
    "seeds": 3,
    "chosen_seed": 1,
    "scale": 0.8,
    "shift": 0.05,
    "recall": "| | b |\n| --- | --- |\n| fear | .1 |",
    "robustness": "| | c |\n| --- | --- |\n| dark | .9 |",
    "sizes": "A million weights.",
    "perplexity": "| | d |\n| --- | --- |\n| aligned | 4 |",
    "alignment": "| | a |\n| --- | --- |\n| model | .3 |",
    "acts": "| | e |\n| --- | --- |\n| answer | .5 |",
    "replies": "- *Hello.*<br>aligned: Hi.",
}
CARDS = ("reward_model", "policy", "small_policy", "facial_affect")
FROM_SCRATCH = ("facial_affect", "small_policy")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("repositories")
    reward_model("bert").save_pretrained(folder / "reward_model")
    for part in small_policy([session(8)], hidden_size=32, layers=1, vocab_size=300):
        for name in ("policy", "small_policy"):
            part.save_pretrained(folder / name)
    affect_checkpoint(folder / "facial_affect")
    return {name: str(folder / name) for name in CARDS}


def fill(name: str, repo_id: str) -> ModelCard:
    path = str(FOLDER / f"{name}.md")
    return ModelCard.from_template(ModelCardData(), template_path=path, repo_id=repo_id, **FILLED)


def test_no_template_goes_untested():
    assert {path.stem for path in FOLDER.glob("*.md")} == set(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_a_template_is_a_card_and_names_what_it_wants(name):
    card = ModelCard.load(FOLDER / f"{name}.md")
    assert card.data.library_name == "transformers"
    environment = Environment()
    wanted = meta.find_undeclared_variables(environment.parse(card.content))
    assert wanted <= {*FILLED, "repo_id"}
    [comment] = re.findall(r"\{#(.*?)#\}", card.content, re.DOTALL)
    assert set(re.findall(r"(\w+)=\.\.\.", comment)) == wanted


@pytest.mark.parametrize("name", CARDS)
def test_a_filled_card_has_valid_metadata_and_no_gaps(name):
    card = fill(name, "owner/model")
    assert not re.search(r"\{[{%#]|[}%#]\}", card.content)
    data = card.data.to_dict()
    assert data["license"] == "apache-2.0"
    if name != "facial_affect":  # which has no words
        assert data["language"] == "en"
    if name not in FROM_SCRATCH:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", data["base_model"])
    assert data["pipeline_tag"] in PIPELINE_REGISTRY.get_supported_tasks()
    assert all(isinstance(tag, str) for tag in data["tags"])
    assert len(set(data["tags"])) == len(data["tags"])
    # Written out and read again, it is the same: the Hub reads the YAML, not our object.
    assert ModelCard(str(card)).data.to_dict() == data
    sections = re.findall(r"^## (.+)$", card.text, re.MULTILINE)
    assert sections == ["How to use it", "Training data", "Evaluation", "Limits and intended use"]
    assert card.text.strip().startswith("# owner/model\n")
    assert FILLED["figures"] in card.text


@pytest.mark.parametrize("name", CARDS)
def test_the_snippet_runs(name, repositories, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    astronaut().crop((174, 66, 273, 165)).save("face.jpg")
    [code] = re.findall(r"^```python\n(.*?)^```$", fill(name, repositories[name]).text, re.DOTALL | re.MULTILINE)
    names = {}
    exec(compile(code, f"{name}.md", "exec"), names)
    printed = capsys.readouterr().out
    if name == "reward_model":
        assert len(names["session"]["turn_rewards"]) == 1
        assert str(names["session"]["score"]) in printed
    elif name == "facial_affect":
        assert len(re.findall(r"^\w+: [01]\.\d\d$", printed, re.MULTILINE)) == 5
    else:
        assert isinstance(names["reply"]["generated_text"], str)
