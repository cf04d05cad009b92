"""The loop written out by hand learns what the trainer learns."""

import pytest
import torch
from scripts import EXAMPLES, as_module
from shown import shown
from tiny import backbone
from toy import toy_sessions

from geli_hf import GeliRewardArguments, GeliRewardModel, GeliRewardTrainer

loop = as_module(EXAMPLES / "train_loop.py")


@pytest.mark.parametrize("li_weight", [0.0, 0.3])
def test_the_loop_gives_the_trainers_weights(li_weight, tmp_path, monkeypatch):
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    sessions = toy_sessions(21)
    args = GeliRewardArguments(
        str(tmp_path),
        li_weight=li_weight,
        num_train_epochs=3,
        per_device_train_batch_size=4,
        learning_rate=0.02,
        seed=5,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        use_cpu=True,
        report_to="none",
    )
    trained, by_hand = (GeliRewardModel.from_backbone(backbone("bert"), context_messages=1) for _ in range(2))
    trainer = GeliRewardTrainer(trained, args, sessions)
    trainer.train()
    history = loop.train(by_hand, sessions, args)
    assert len(history) == 3
    assert history[-1] < history[0]
    expected = trained.score.state_dict()
    assert expected["out.weight"].abs().max() > 0.01
    for name, weight in by_hand.score.state_dict().items():
        torch.testing.assert_close(weight, expected[name], atol=1e-5, rtol=0)
    for name in ("score_mean", "score_std", "reward_quantiles"):
        assert getattr(by_hand.config, name) == pytest.approx(getattr(trained.config, name), abs=1e-5)


def test_a_run_saves_a_reward_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("geli_hf.models.geli_reward.modeling_geli.default_backbone", lambda: backbone("bert"))
    assert not shown("train_loop")  # it takes no options
    loop.main(conversations=10, folder=str(tmp_path / "model"))
    assert "epoch 20  loss" in capsys.readouterr().out
    [row] = GeliRewardModel.from_pretrained(tmp_path / "model").score_sessions(toy_sessions(1))
    assert len(row["turn_rewards"]) > 1
