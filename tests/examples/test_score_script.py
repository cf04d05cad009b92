"""Scoring of a dialogue and of typed sessions."""

from pathlib import Path

from PIL import Image
from scripts import EXAMPLES, as_module
from shown import shown
from tiny import reward_model


def test_a_dialogue_and_sessions_are_drawn_with_a_reward_for_every_turn(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model = reward_model("bert", context_messages=1)
    model.config.reward_quantiles = [-1.0, 0.0, 1.0]
    model.save_pretrained("reward_model")
    score = as_module(EXAMPLES / "score.py")
    monkeypatch.setattr(score, "READ", 3)
    score.main([*shown("score"), "--model", "reward_model"])
    printed = capsys.readouterr().out
    [dialogue] = model.score_sessions([{"messages": score.DIALOGUE}])
    assert f"{dialogue['turn_rewards'][1]:+.2f}  assistant: Okay." in printed
    assert printed.count("predicted score") == 2
    assert min(Image.open(Path("runs/score/session.png")).size) > 300
