"""Values of turns from a language model or a hindsight teacher, distilled into a reward model."""

import json
import re

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from chat_server import ChatServer
from tiny import backbone
from toy import GOOD, toy_sessions

from geli_hf import GeliRewardModel, add_signal
from geli_hf.llm import Endpoint, LlmDecomposer
from geli_hf.metrics.metrics import within_session_spearman
from geli_hf.training import fit_hindsight


def judge(body: dict) -> str:
    """A model that sees which turns are good, and says nothing useful of one session in eight."""
    question = body["messages"][0]["content"]
    lines = re.findall(r"^\[(\d+)\] Agent: (.*)$", question, re.MULTILINE)
    if len(question) % 8 == 0:
        return "I can't say."
    return json.dumps({number: 7 if GOOD in words else 3 for number, words in lines})


@pytest.fixture
def decomposed(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with ChatServer(answer=judge) as server:
        endpoint = Endpoint("judge", base_url=server.url)
        decomposer = LlmDecomposer(endpoint, attempts=1, scale=(1, 9), cache_dir=tmp_path / "answers")
        train, report = decomposer.decompose(toy_sessions(120, seed=2))
        held_out, _ = decomposer.decompose(toy_sessions(40, seed=3))
    assert 5 < report.failures < 40
    return train, held_out


def test_a_reward_model_learns_what_the_language_model_said(trainer, decomposed):
    train, held_out = decomposed
    torch.manual_seed(0)
    model = GeliRewardModel.from_backbone(backbone("bert"))
    trained = trainer(
        model, train=train, held_out=held_out, li="llm", li_weight=1, num_train_epochs=12, learning_rate=2e-2
    )
    trained.train()
    metrics = trained.evaluate()
    assert metrics["eval_within_session_spearman"] > 0.7  # with the truth, which neither model was shown

    # The loss is the mean squared error against the answers, in deviations of those it was trained on; a session
    # without answers counts nothing, and neither does any score.
    said = np.concatenate([row["llm"] for row in train["feedback"]])
    mean, deviation = np.nanmean(said), np.nanstd(said)
    errors = []
    for rewards, row in zip(model.score_sessions(held_out), held_out["feedback"]):
        wanted = (np.array(row["llm"]) - mean) / deviation
        errors.append(np.mean((np.array(rewards["turn_rewards"]) - wanted) ** 2))
    assert np.isnan(errors).any()
    assert metrics["eval_loss"] == pytest.approx(np.nanmean(errors), abs=1e-4)
    assert metrics["eval_loss"] < 0.5


def test_a_model_of_any_kind_learns_what_a_teacher_saw_in_hindsight(trainer):
    """The student's step by gradient: another head, and a backbone that learns too."""
    train, held_out = toy_sessions(120, seed=2), toy_sessions(40, seed=3)
    fit = fit_hindsight(GeliRewardModel.from_backbone(backbone("bert")), train)
    torch.manual_seed(0)
    model = GeliRewardModel.from_backbone(backbone("bert"), head="mlp")
    before = model.model.encoder.layer[0].attention.self.query.weight.detach().clone()
    taught = trainer(
        model,
        train=add_signal(train, "hindsight", fit.targets),
        held_out=None,
        li="hindsight",
        li_weight=1,
        freeze_backbone=False,
        num_train_epochs=8,
        learning_rate=1e-3,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
    )
    taught.train()
    assert not torch.equal(before, model.model.encoder.layer[0].attention.self.query.weight)
    scored = [row["turn_rewards"] for row in model.score_sessions(held_out)]
    assert within_session_spearman(scored, held_out["turn_rating"]) > 0.7
