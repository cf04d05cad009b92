"""`push_to_hub` of models and trainers: one commit, with the project's card, in which people's words stay."""

import numpy as np
import pytest
import torch
from huggingface_hub import CommitOperationAdd, ModelCard
from loopback_hub import cards as hub_rules
from safetensors.torch import load
from tiny import TRAVELLING_FILES, backbone, reward_model

from geli_hf import GeliRewardModel, HindsightAttribution
from geli_hf.hub import cards
from geli_hf.hub.cards.update import is_form
from geli_hf.hub.folders import open_folder
from geli_hf.models.geli_reward.joined_geli import save_head

pytestmark = pytest.mark.usefixtures("here")
BY_HAND = "Read our blog.\n"


def repo_of(hub, name: str):
    return hub.store.repos["model", name]


def files(hub, name: str) -> set[str]:
    return set(repo_of(hub, name).at("main").files)


def commits(hub, name: str) -> list[str]:
    repo = repo_of(hub, name)
    return [commit.title for commit in reversed(repo.history(repo.at("main")))]


def card_of(hub, name: str) -> ModelCard:
    text = hub.store.read(repo_of(hub, name), "README.md").decode()
    assert hub_rules.validate(text, "model") == ([], [])
    assert not is_form(text)
    assert f"<!-- geli: {name} -->" in text
    assert f"\n# {name}\n" in text
    return ModelCard(text)


def write_by_hand(owner, hub, name: str) -> None:
    text = card_of(hub, name).content
    text = text.replace("## How to use it", f"{BY_HAND}\n## How to use it").replace(
        "library_name:", "license: mit\nlibrary_name:"
    )
    owner.create_commit(name, [CommitOperationAdd("README.md", text.encode())], commit_message="Update README.md")


@pytest.fixture
def model() -> GeliRewardModel:
    return reward_model("bert", score_mean=5.5, score_std=1.25)


def test_a_reward_model_goes_with_its_card_and_its_code_in_one_commit(model, hub):
    commit = model.push_to_hub("reward", tags=["ours"])  # as everywhere, the owner may be left out
    assert commit.oid == repo_of(hub, "owner/reward").at("main").oid
    assert commits(hub, "owner/reward") == ["initial commit", "geli push: reward model"]
    assert files(hub, "owner/reward") > TRAVELLING_FILES
    card = card_of(hub, "owner/reward")
    assert card.data.tags == ["reward-model", "dialogue", "return-decomposition", "geli", "ours"]
    assert "its mean was 5.5, and its standard deviation 1.25." in card.text
    assert "There are no figures yet" in card.text
    assert model.push_to_hub("owner/reward", tags=["ours"]).oid == commit.oid  # nothing new


def test_a_joined_model_is_pushed_whole(hub, tmp_path):
    """A head in a folder names its backbone; on the Hub all of it lies in one place."""
    model = reward_model("bert", ratings={"witty": [3.0, 0.5]}, fit_hidden_size=4, fit_weight=1.0)
    save_head(model, tmp_path, backbone("bert"))
    joined = GeliRewardModel.from_pretrained(tmp_path)
    joined.push_to_hub("owner/reward")
    assert files(hub, "owner/reward") > TRAVELLING_FILES | {"model.safetensors", "config.json", "tokenizer.json"}
    assert not files(hub, "owner/reward") & {"head.safetensors", "backbone.json"}
    weights = load(hub.store.read(repo_of(hub, "owner/reward"), "model.safetensors"))
    expected = model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    card = card_of(hub, "owner/reward")
    assert "`witty`" in card.text
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):  # of the head alone, by the command
        open_folder(tmp_path)


def test_a_persons_words_on_the_hub_stay(model, hub, owner):
    model.push_to_hub("owner/reward")
    write_by_hand(owner, hub, "owner/reward")
    model.config.score_mean = 6.0
    model.push_to_hub("owner/reward", commit_message="A better one", commit_description="It is.")
    assert commits(hub, "owner/reward")[2:] == ["Update README.md", "A better one"]
    card = card_of(hub, "owner/reward")
    assert BY_HAND in card.text
    assert card.data.license == "mit"
    assert "its mean was 6," in card.text


def test_the_card_of_its_folder_goes_along_while_the_weights_are_those(model, hub, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    told = cards.reward_model_card("runs/it", config=model.config, training_data="12 sessions of ours.", license="mit")
    cards.save_card(told, tmp_path / "saved")
    loaded = GeliRewardModel.from_pretrained(tmp_path / "saved")
    loaded.push_to_hub("owner/reward")
    card = card_of(hub, "owner/reward")
    assert card.data.license == "mit"
    assert "12 sessions of ours." in card.text
    assert "runs/it" not in card.content
    with torch.no_grad():
        loaded.score.out.weight += 1
    loaded.push_to_hub("owner/another")
    assert "12 sessions of ours." not in card_of(hub, "owner/another").text


def test_an_attribution_goes_with_its_card(model, hub):
    HindsightAttribution(model, np.zeros(32), np.ones(32), signals={}).push_to_hub("owner/teacher")
    assert commits(hub, "owner/teacher") == ["initial commit", "geli push: attribution"]
    assert "**no reward for a policy**" in card_of(hub, "owner/teacher").text
    with pytest.raises(ValueError, match="another kind of model"):
        model.push_to_hub("owner/teacher")


def test_a_token_that_was_given_is_used_and_not_told(model, hub):
    with pytest.raises(OSError, match="403") as refused:
        model.push_to_hub("owner/reward", token="hf_reader")
    assert "hf_reader" not in str(refused.value)
    assert not hub.store.repos
