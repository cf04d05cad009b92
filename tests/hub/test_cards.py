"""Cards: filled from what runs leave, as the Hub takes them, with snippets that run; and what people wrote in them."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Dataset
from faces import affect_checkpoint, astronaut
from huggingface_hub import ModelCard
from jinja2 import Environment, meta
from loopback_hub import cards as hub_rules
from peft import LoraConfig, get_peft_model
from tiny import reward_model, session
from transformers.pipelines import PIPELINE_REGISTRY

from geli_hf import FacialAffectConfig, HindsightAttribution
from geli_hf.alignment import small_policy
from geli_hf.data.rows import write_jsonl
from geli_hf.hub import cards
from geli_hf.hub.cards.base import TEMPLATES
from geli_hf.hub.cards.update import FRONT_MATTER, GENERATED
from geli_hf.metrics.metrics import Interval
from geli_hf.sessions import session_features

MADE = cards.describe_origin(["geli", "make"], settings={"seed": 3, "where": "/home/me/data"}, seconds=90)
TOLD = {
    "training_data": "12 sessions of the sample.",
    "rating": "overall affect, 1 to 9.",
    "recipe": None,
    "made": MADE,
    "held_out": "120 sessions",
    "figures_table": "| | a |\n| --- | --- |\n| model | .3 |",
    "ratings": "`kind`, `witty`",
    "guard": True,
    "signals": "`smile`",
    "adapter": False,
    "base": "`owner/base`",
    "limits": None,
    "reward_model": "owner/reward",
    "method": "rloo",
    "judge": "the sample's own truth",
    "learnt": "9 pictures",
    "calibrated": "8 pictures",
    "config": FacialAffectConfig(xception_sizes=[8, 16]),
    "negatives": "| against | AUC |",
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
    "source": "A file of its owner.",
    "raters": "Nothing tells who rated.",
    "columns": "| column | |\n| --- | --- |\n| `score` | the rating |",
}
MODELS = ("reward_model", "attribution", "policy", "small_policy", "facial_affect")
CARDS = (*MODELS, "dataset")
RESULTS = [cards.Measured("Within-session Spearman", "spearmanr", Interval(0.41, 0.38, 0.44))]
SAMPLE = {"type": "sample", "name": "the sample, held out"}


def render_card(name: str, repo_id: str = "owner/model", **more):
    metadata = {"license": "apache-2.0", "language": "en", "base_model": "owner/base"}
    return cards.render_card(name, repo_id, metadata=metadata, **TOLD | more)


def errors(card, repo_type: str = "model") -> list[str]:
    """Return the reasons for which the Hub would refuse the card."""
    return hub_rules.validate(str(card), repo_type)[0]


def test_no_template_goes_untested():
    assert {path.stem for path in TEMPLATES.glob("[!_]*.md")} == set(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_a_template_asks_for_nothing_unknown(name):
    text = (TEMPLATES / f"{name}.md").read_text(encoding="utf-8")
    assert meta.find_undeclared_variables(Environment().parse(text)) <= {*TOLD, "repo_id"}


@pytest.mark.parametrize("name", CARDS)
def test_a_rendered_card_is_valid_and_has_no_gaps(name):
    kind = "dataset" if name == "dataset" else "model"
    card = render_card(name, figures=RESULTS if kind == "model" and name != "attribution" else (), measured_on=SAMPLE)
    assert errors(card, kind) == []
    text = card.text.replace("{{The geli-hf authors}}", "")  # BibTeX
    assert not re.search(r"\{[{%#]|[}%#]\}", text)
    data = card.data.to_dict()
    assert (data["license"], data["language"], data["base_model"]) == ("apache-2.0", "en", "owner/base")
    if "pipeline_tag" in data:
        assert data["pipeline_tag"] in PIPELINE_REGISTRY.get_supported_tasks()
    # Written out and read again, it is the same: the Hub reads the YAML, not our object.
    assert type(card)(str(card)).data.to_dict() == data
    sections = re.findall(r"^## (.+)$", card.text, re.MULTILINE)
    assert sections[0] == "How to use it"
    assert sections[-2:] == ["Limits and intended use", "Citation"]
    assert "\n# owner/model\n" in card.text
    for cited in ("2403.11330", "2505.15922", "geli-hf: one rating in"):
        assert cited in card.text
    assert len(GENERATED.findall(card.text)) == card.text.count("<!-- generated: ")


def test_figures_are_in_the_front_matter_with_their_intervals():
    data = yaml.safe_load(
        hub_rules.front_matter(str(render_card("reward_model", figures=RESULTS, measured_on=SAMPLE)))
    )
    [model] = data["model-index"]
    [result] = model["results"]
    assert result["dataset"] == SAMPLE
    [metric] = result["metrics"]
    assert metric["type"] == "spearmanr"
    assert metric["value"] == 0.41
    assert metric["args"] == {"interval": [0.38, 0.44], "level": 0.95}
    assert "0.380 to 0.440" in metric["name"]


def test_a_card_tells_ratings_and_guard():
    config = reward_model(
        "bert", interactions=True, ratings={"witty": [3.0, 0.5]}, fit_hidden_size=4, fit_weight=1.0
    ).config
    card = cards.reward_model_card("owner/reward", config=config)
    assert errors(card) == []
    assert "`witty`" in card.text
    assert "guard" in card.text
    plain = cards.reward_model_card("owner/reward", config=reward_model("bert").config).text
    assert "use_ratings" not in plain
    assert "guard" not in plain
    # What an adapter's code makes has a head of the same shape; the guard is no part of an adapter.
    adapter = cards.reward_model_card("owner/reward", config=config, adapter=True).text
    assert "interactions=True" in adapter
    assert "ratings={'witty': [3.0, 0.5]}" in adapter
    assert "fit_hidden_size" not in adapter
    assert "guard" not in adapter


def test_how_it_was_made_names_no_folder_and_no_token():
    made = cards.describe_origin(
        ["train", "--data", "/home/me/secret/talks.jsonl", "--hub_token", "hf_abcdefgh", "--out=/home/me/run"],
        settings={"sft": {"hub_token": "hf_abcdefgh", "path": "/home/me/x", "max_new_tokens": 4}},
        seconds=90,
    )
    assert made["command"] == "train --data talks.jsonl --hub_token 'hf_***' --out=run"
    assert yaml.safe_load(made["settings"]) == {"sft": {"hub_token": "hf_***", "path": "x", "max_new_tokens": 4}}
    assert made["minutes"] == 1.5
    assert re.search(r"geli-hf \d+\.\d+\.\d+, torch \d", made["versions"])


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("repositories")
    model = reward_model("bert")
    model.save_pretrained(folder / "reward_model")
    HindsightAttribution(model, np.zeros(32), np.ones(32), signals={}).save_pretrained(folder / "attribution")
    policy, tokenizer = small_policy([session(8)], hidden_size=32, layers=1, vocab_size=300)
    for part in (policy, tokenizer):
        for name in ("policy", "small_policy"):
            part.save_pretrained(folder / name)
    model.save_pretrained(folder / "policy_reward")
    policy.name_or_path = "policy"
    get_peft_model(policy, LoraConfig(task_type="CAUSAL_LM")).save_pretrained(folder / "policy_adapter")
    affect_checkpoint(folder / "facial_affect")
    rows = Dataset.from_list([session(4, score=3.0) | {"rater_id": "r"}], features=session_features())
    write_jsonl(rows, folder / "dataset" / "train.jsonl")
    astronaut().save(folder / "picture.jpg")
    astronaut().crop((174, 66, 273, 165)).save(folder / "face.jpg")
    return folder


@pytest.mark.parametrize("name", [*CARDS, "policy_adapter"])
def test_every_block_of_code_runs(name, repositories, capsys, monkeypatch):
    monkeypatch.chdir(repositories)
    monkeypatch.setenv("GELI_HF_CACHE", str(repositories / "cache"))
    text = render_card("policy", name, adapter=True).text if name == "policy_adapter" else render_card(name, name).text
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    # The command that made it is the run's own, its settings are YAML, and the citation is for BibTeX.
    assert {language for language, _ in blocks} <= {"python", "bash", "yaml", "bibtex"}
    names = {}
    for code in [code for language, code in blocks if language == "python"]:
        exec(compile(code, f"{name}.md", "exec"), names)
    printed = capsys.readouterr().out
    if name == "reward_model":
        assert len(names["session"]["turn_rewards"]) == 1
        assert str(names["session"]["score"]) in printed
    elif name == "attribution":
        assert set(names["session"]["parts"]) == {"turn", "reaction"}
    elif name == "facial_affect":
        assert len(re.findall(r"^\w+: [01]\.\d\d$", printed, re.MULTILINE)) == 5
        assert names["probabilities"].shape == (1, 8)
    elif name == "dataset":
        assert printed.startswith("1 {'role': 'user'")
    else:
        assert isinstance(names["reply"], str if name == "small_policy" else dict)


# ------------------------------------------------------------------------------------------------ what people wrote


def test_the_card_of_sessions_tells_their_columns_and_sizes():
    rows = Dataset.from_list([session(4, score=3.0) | {"rater_id": "r"}], features=session_features())
    card = cards.dataset_card({"train": rows}, "org/talks", source="Ours.", raters="Hashed.", license="cc-by-4.0")
    assert errors(card, "dataset") == []
    assert card.data.license == "cc-by-4.0"
    assert card.data.language is None  # nobody said it
    assert "| `train` | 1 | 1 |" in card.text
    assert all(f"| `{name}` | " in card.text for name in rows.column_names)


def test_a_persons_words_are_kept_and_figures_are_new(tmp_path):
    cards.save_card(render_card("reward_model", figures=RESULTS, measured_on=SAMPLE), tmp_path)
    path = tmp_path / "README.md"
    text = path.read_text(encoding="utf-8")
    text = text.replace("license: apache-2.0", "license: mit\nthumbnail: nice.png")
    text = text.replace("# owner/model\n", "# Our reward\n\nRead our blog.\n")
    text = text.replace("- **It can be gamed.**", "- **We saw it gamed.**")
    text = re.sub(r"<!-- generated: citation -->.*<!-- /generated: citation -->", "Ask us.", text, flags=re.DOTALL)
    other = {
        "task": {"type": "x"},
        "dataset": {"type": "ours", "name": "Ours"},
        "metrics": [{"type": "f", "value": 1}],
    }
    front = yaml.safe_load(hub_rules.front_matter(text))
    front["model-index"][0]["results"].append(other)
    text = FRONT_MATTER.sub(f"---\n{yaml.safe_dump(front)}---\n", text, count=1)
    path.write_text(text, encoding="utf-8")

    better = [cards.Measured("Within-session Spearman", "spearmanr", Interval(0.5, 0.4, 0.6))]
    table = {"figures_table": "| | a |\n| --- | --- |\n| model | .5 |"}
    cards.save_card(render_card("reward_model", figures=better, measured_on=SAMPLE, **table), tmp_path)
    card = ModelCard.load(path)
    assert errors(card) == []
    for kept in ("# Our reward\n\nRead our blog.", "We saw it gamed", "Ask us."):
        assert kept in card.text
    assert "| model | .5 |" in card.text
    assert "| model | .3 |" not in card.text
    assert "bibtex" not in card.text
    data = card.data.to_dict()
    assert (data["license"], data["thumbnail"]) == ("mit", "nice.png")
    new, others = data["model-index"][0]["results"]
    assert new["metrics"][0]["value"] == 0.5
    assert others == other
    # And again: nothing more changes.
    again = path.read_text(encoding="utf-8")
    cards.save_card(render_card("reward_model", figures=better, measured_on=SAMPLE, **table), tmp_path)
    assert path.read_text(encoding="utf-8") == again


def test_a_card_without_marks_is_a_persons_own(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n", encoding="utf-8")
    cards.save_card(render_card("policy"), tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "---\nlicense: mit\n---\n# Mine\n"


def test_the_forms_of_trainers_are_replaced(tmp_path):
    (tmp_path / "README.md").write_text("---\ntags:\n- generated_from_trainer\n---\n# run\n", encoding="utf-8")
    cards.save_card(render_card("policy"), tmp_path)
    assert "# owner/model" in (tmp_path / "README.md").read_text(encoding="utf-8")
    policy, _ = small_policy([session(8)], hidden_size=32, layers=1, vocab_size=300)
    get_peft_model(policy, LoraConfig(task_type="CAUSAL_LM")).save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "README.md").exists()
    assert cards.read_own_card(tmp_path / "adapter") is None


@pytest.mark.parametrize(
    "broken",
    ["license: [mit", "a: b: c", "- mit"],
)
def test_a_card_with_broken_front_matter_is_kept_and_named(tmp_path, broken, caplog):
    text = f"---\n{broken}\n---\n{render_card('policy').text}"
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert cards.save_card(render_card("policy"), tmp_path) == text
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text
    assert str(tmp_path / "README.md") in caplog.text


def test_a_card_gets_the_name_of_its_repository():
    card = cards.for_repo(
        str(render_card("reward_model", "runs/x/reward_model", figures=RESULTS, measured_on=SAMPLE)), "org/r"
    )
    assert "runs/x" not in card
    assert 'from_pretrained("org/r", trust_remote_code=True)' in card
    assert ModelCard(card).data.model_name == "org/r"
    assert cards.for_repo("# Mine\n", "org/r") == "# Mine\n"
