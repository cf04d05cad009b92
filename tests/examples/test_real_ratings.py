"""From real ratings to a report, on a few conversations, with a tiny backbone."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
from PIL import Image
from scripts import EXAMPLES, as_module
from tiny import reward_model

from geli_hf import GeliRewardModel

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
        script.main(["--output_dir", str(folder / "run"), "--conversations", "70", "--fit_turns", "100"])
    return folder / "run"


def test_the_report_has_every_part(ran):
    report = (ran / "report.md").read_text(encoding="utf-8")
    titles = [line.removeprefix("## ") for line in report.splitlines() if line.startswith("## ")]
    assert titles[0] == "A reward for every turn, from 98 rated sessions"
    assert len(titles) == 7
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
