"""A reward with its guard settings: saved, loaded, overridden, damaged, pushed."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny import backbone
from tiny import reward_model as tiny_reward_model

from geli_hf import GeliRewardModel
from geli_hf.alignment import GeliReward, ReferenceLikelihood, load_policy
from geli_hf.alignment.pipeline import RewardSettings
from geli_hf.models.attribution import HindsightAttribution
from geli_hf.models.geli_reward.joined_geli import save_head

ASKED = [{"role": "user", "content": "What do you cook?"}]
SAID = [[{"role": "assistant", "content": text}] for text in ("Soup, mostly.", "Okay.", "Okay. Okay. Okay.")]
OTHERS = {"length_neutral": False, "repetition_penalty": 0.25, "normalise": True, "clip": 2.5, "name": "warmth"}
DEFAULTS = {"length_neutral": True, "repetition_penalty": 1.0, "normalise": False, "clip": None, "name": "geli"}


def settings(reward: GeliReward) -> dict:
    return {name: getattr(reward, "__name__" if name == "name" else name) for name in DEFAULTS}


@pytest.fixture
def folder(reward_model, tmp_path):
    GeliReward(reward_model, **OTHERS).save_pretrained(tmp_path / "reward")
    return tmp_path / "reward"


def test_settings_and_rewards_are_those_that_were_saved(folder, reward_model):
    assert json.loads((folder / "geli_reward.json").read_text()) == OTHERS
    again = GeliReward.from_pretrained(folder)
    assert settings(again) == OTHERS
    assert again([ASKED] * 3, SAID) == pytest.approx(GeliReward(reward_model, **OTHERS)([ASKED] * 3, SAID), abs=1e-6)
    # The model alone is a plain one.
    model = GeliRewardModel.from_pretrained(folder)
    torch.testing.assert_close(model.score_messages([ASKED + SAID[0]]), reward_model.score_messages([ASKED + SAID[0]]))


def test_overrides_win(folder, policy_folder):
    likelihood = ReferenceLikelihood(*load_policy(policy_folder))
    again = GeliReward.from_pretrained(str(folder), clip=None, name="other", likelihood=likelihood)
    assert settings(again) == OTHERS | {"clip": None, "name": "other"}
    assert again.likelihood is likelihood
    assert GeliReward.from_pretrained(folder, dtype="bfloat16").model.model.dtype == torch.bfloat16
    with pytest.raises(TypeError, match="length_natural"):
        GeliReward.from_pretrained(folder, length_natural=True)


def test_what_is_not_in_the_file_has_the_default(folder):
    (folder / "geli_reward.json").write_text('{"clip": 3}')
    assert settings(GeliReward.from_pretrained(folder)) == DEFAULTS | {"clip": 3}
    (folder / "geli_reward.json").unlink()
    assert settings(GeliReward.from_pretrained(folder)) == DEFAULTS


def test_a_head_without_its_backbone_has_settings_too(tmp_path):
    model = tiny_reward_model("bert", context_messages=1)
    save_head(model, tmp_path, backbone("bert"))
    assert settings(GeliReward.from_pretrained(tmp_path)) == DEFAULTS
    (tmp_path / "geli_reward.json").write_text(json.dumps({"length_neutral": False}))
    reward = GeliReward.from_pretrained(tmp_path)
    assert settings(reward) == DEFAULTS | {"length_neutral": False}
    assert reward.turn_rewards([ASKED], SAID[:1]) == pytest.approx(model.score_messages([ASKED + SAID[0]]).tolist())
    reward.save_pretrained(tmp_path / "whole")  # with the backbone
    again = GeliReward.from_pretrained(tmp_path / "whole")
    assert again.turn_rewards([ASKED], SAID[:1]) == pytest.approx(reward.turn_rewards([ASKED], SAID[:1]), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"length_natural": true}', "length_natural"),
        ('{"length_neutral": "yes"}', "length_neutral"),
        ('{"repetition_penalty": null}', "repetition_penalty"),
        ('{"repetition_penalty": true}', "repetition_penalty"),
        ('{"clip": [1]}', "clip"),
        ('{"name": 3}', "name"),
        ("[1]", "geli_reward.json"),
        ("{", "geli_reward.json"),
    ],
)
def test_a_damaged_file_is_named(folder, text, named):
    (folder / "geli_reward.json").write_text(text)
    with pytest.raises(ValueError, match=rf"{folder}.geli_reward.json: .*{named if named in text else ''}"):
        GeliReward.from_pretrained(folder)


def test_other_models_are_refused(tmp_path, policy_folder):
    attribution = HindsightAttribution(tiny_reward_model("bert"), np.zeros(32), np.zeros(32), {})
    attribution.save_pretrained(tmp_path / "attribution")
    with pytest.raises(ValueError, match="attribution"):
        GeliReward.from_pretrained(tmp_path / "attribution")
    with pytest.raises(ValueError, match="no reward model"):
        GeliReward.from_pretrained(policy_folder)
    with pytest.raises(OSError, match="nowhere"):
        GeliReward.from_pretrained(tmp_path / "nowhere")


def test_a_run_takes_the_saved_settings_unless_it_has_others(folder):
    assert settings(RewardSettings(str(folder)).load()) == OTHERS
    assert settings(RewardSettings(str(folder), {"clip": 1.0}).load()) == OTHERS | {"clip": 1.0}


def test_a_copy_of_the_folder_is_enough(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(folder)
    assert settings(GeliReward.from_pretrained(tmp_path / "copy")) == OTHERS
