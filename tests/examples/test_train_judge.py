"""The recipe of a judge whose backbone learns, on a tiny backbone."""

import numpy as np
import pytest
import torch
from scripts import RECIPES, as_module
from shown import shown
from tiny import backbone
from toy import toy_sessions

from geli_hf import GeliRewardModel
from geli_hf.data.rows import write_jsonl
from geli_hf.evaluation.judges.ratings import JudgeReport


def test_the_judge_is_a_merged_reward_model_with_a_report(tmp_path):
    script, sessions = as_module(RECIPES / "train_judge.py"), toy_sessions(60)
    write_jsonl(sessions, tmp_path / "rated.jsonl")
    words = shown("train_judge")
    assert words[:2] == ["topical_chat", "--data_dir"]
    assert words[3] == "--options"
    assert words[5::2] == ["--backbone", "--output"]
    given = [str(tmp_path / "rated.jsonl"), "--epochs", "1", "--backbone", backbone("llama")]
    script.main([*given, "--output", str(tmp_path / "judge")])
    report = JudgeReport.read(str(tmp_path / "judge"))
    assert (report.sessions, report.held_out) == (24, 12)
    judge = GeliRewardModel.from_pretrained(tmp_path / "judge")
    assert not any("lora" in name for name, _ in judge.named_parameters())
    before = GeliRewardModel.from_backbone(backbone("llama"), dtype=torch.bfloat16).model.layers[0].state_dict()
    after = judge.model.layers[0].state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def lengthened(row: dict, index: int) -> dict:
    messages = [dict(message) for message in row["messages"]]
    for place, message in enumerate(messages):
        message["content"] += " well" * ((index + place) % 5)
    return {"messages": messages}


def test_the_signal_is_free_of_length_and_of_the_session():
    script, sessions = as_module(RECIPES / "train_judge.py"), toy_sessions(12).map(lengthened, with_indices=True)
    rows = script.with_signal(sessions)
    products = 0.0
    for messages, feedback in zip(rows["messages"], rows["feedback"]):
        words = np.log([len(message["content"].split()) for message in messages if message["role"] == "assistant"])
        signal = np.array(feedback[script.SIGNAL])
        assert np.mean(signal) == pytest.approx(0, abs=1e-9)
        assert words.std() > 0
        products += signal @ (words - words.mean())
    assert products == pytest.approx(0, abs=1e-6)
