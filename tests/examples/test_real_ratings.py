"""From real ratings to a report, on a few conversations, with a tiny backbone."""

import json
import sys
from functools import partial
from types import SimpleNamespace

import pytest
from datasets import Dataset
from PIL import Image
from scripts import EXAMPLES, as_module
from shown import shown
from tiny import reward_model, session

from geli_hf import GeliRewardModel
from geli_hf.models.geli_reward.joined_geli import is_head

pytest.importorskip("chitchat_dataset")
pytest.importorskip("vaderSentiment")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    script = as_module(EXAMPLES / "real_ratings.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GELI_HF_CACHE", str(folder / "cache"))
        patch.setattr(script, "GeliRewardModel", SimpleNamespace(from_backbone=partial(reward_model, "bert")))
        patch.setattr(script, "train_fit", partial(script.train_fit, steps=20))
        few = folder / "contrast.jsonl"
        few.write_text("\n".join(script.CONTRAST.read_text(encoding="utf-8").splitlines()[::14]), encoding="utf-8")
        patch.setattr(script, "CONTRAST", few)
        few = ["--output_dir", str(folder / "run"), "--conversations", "70", "--fit_turns", "100"]
        script.main([*shown("real_ratings"), *few])
    return folder / "run"


def test_the_report_has_every_part(ran):
    report = (ran / "report.md").read_text(encoding="utf-8")
    titles = [line.removeprefix("## ") for line in report.splitlines() if line.startswith("## ")]
    assert report.startswith("# A reward for every turn, from 98 rated sessions\n\n## 28 sessions")
    assert len(titles) == 6
    for picture in ("session.png", "learning_curve.png"):
        assert picture in report
        assert min(Image.open(ran / picture).size) > 200


def test_the_figures_are_of_held_out_sessions_and_the_contrast_set(ran):
    figures = json.loads((ran / "figures.json").read_text(encoding="utf-8"))
    assert figures["sessions"] == {"train": 98, "eval": 14, "test": 28}
    assert sum(figures["contrast"]["dialogues"].values()) == 12
    assert {"other", "salad", "echo"} <= set(figures["fit"]["auc"])
    assert len(figures["agreement"]) == 5


def test_the_model_has_rewards_of_every_rating_and_a_guard(ran):
    model = GeliRewardModel.from_pretrained(ran / "reward_model")
    assert set(model.config.ratings) == {"witty", "upbeat", "interesting"}
    assert model.fit is not None
    assert model.config.fit_weight > 0  # the range of the rewards
    assert model.config.residual_std > 0


def test_its_head_is_shipped_with_figures_and_a_card(ran, tmp_path, monkeypatch):
    script = as_module(EXAMPLES / "recipes" / "ship_reward.py")
    rated = [session(8, seed=seed) | {"conversation_id": str(seed)} for seed in range(30)]
    rated = Dataset.from_list([row | {"turn_rating": [1.0, 2.0, 3.0, 4.0]} for row in rated])
    monkeypatch.setattr(script, "load_sessions", lambda *args, **options: rated)
    monkeypatch.setattr(script, "SESSIONS", len(rated))
    monkeypatch.setattr(script, "FOLDER", tmp_path / "reward")
    monkeypatch.setattr(script, "PAGE", tmp_path / "reward.md")
    words = shown("ship_reward")
    monkeypatch.setattr(sys, "argv", ["ship_reward", str(ran), *words[1:]])
    script.main()
    assert is_head(tmp_path / "reward")
    card = (tmp_path / "reward.md").read_text(encoding="utf-8")
    assert card == (tmp_path / "reward/README.md").read_text(encoding="utf-8")
    assert "98 sessions of Chit-Chat" in card
    assert "fitting answer above a foil: salad" in card


def test_too_few_conversations_are_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        as_module(EXAMPLES / "real_ratings.py").main(["--conversations", "3"])
    assert "--conversations" in capsys.readouterr().err
