"""The public API as its users write it, for the type checker (`make types`); nothing here is run.

What a function returns is what its annotation says: `assert_type` fails where it is Any.
"""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOConfig

from geli_hf import (
    PAPER,
    FacialAffectConfig,
    GeliRewardArguments,
    GeliRewardConfig,
    GeliRewardModel,
    GeliRewardTrainer,
    HindsightAttribution,
    ImageAffect,
    SessionError,
    add_signal,
    convert_head,
    fit_hindsight,
    load_sessions,
    read_report,
    session_features,
    split_sessions,
    validate_sessions,
)
from geli_hf.affect import VideoAffect, affect_of_turns, read_transcript, session_of_recording
from geli_hf.affect.transcripts import Transcript
from geli_hf.alignment import (
    GeliReward,
    GeliSessionReward,
    ReferenceLikelihood,
    SessionGRPOTrainer,
    SessionRollouts,
    SimulatedPeople,
    align,
    default_policy,
    dialogue_prompts,
    load_policy,
    shipped_policy,
    shipped_reward_model,
)
from geli_hf.data.reading import ReadReport
from geli_hf.decomposition import geli_loss, li_loss, rrd_loss
from geli_hf.evaluation.comparison import PolicyComparison, compare_policies
from geli_hf.llm import Endpoint, LlmDecomposer
from geli_hf.metrics import Interval, bootstrap, evaluate_rewards, markdown_table
from geli_hf.training.hindsight import Hindsight


def sessions() -> dict[str, Dataset]:
    rows = load_sessions("sample", seed=1)
    assert_type(rows, Dataset)
    assert_type(read_report(rows), ReadReport)
    assert_type(add_signal(rows, "smile", [[0.5]]), Dataset)
    validate_sessions(rows)
    session_features()
    try:
        parts = split_sessions(rows, {"train": 0.8, "test": 0.2})
    except SessionError as error:
        raise SystemExit(str(error)) from error
    assert_type(parts, dict[str, Dataset])
    return parts


def rewards(parts: dict[str, Dataset]) -> GeliRewardModel:
    model = GeliRewardModel.from_backbone("folder", context_messages=1)
    assert_type(model, GeliRewardModel)
    assert_type(model.score_sessions(parts["test"]), list[dict])
    assert_type(model.percentile(0.5), float)
    fit = fit_hindsight(model, parts["train"], parts["test"])
    assert_type(fit, Hindsight)
    assert_type(fit.attribution, HindsightAttribution)
    arguments = GeliRewardArguments("out", li="affect", li_weight=0.3, num_train_epochs=1)
    GeliRewardTrainer(model, arguments, parts["train"], parts["test"]).train()
    GeliRewardConfig(head="linear")
    assert_type(convert_head(Path("head.pt")), GeliRewardModel)
    assert_type(PAPER, dict[str, dict[str, Any]])
    return model


def losses(rewards: torch.Tensor, mask: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    loss = geli_loss(rrd_loss(rewards, mask, score), li_loss(rewards, mask, rewards), 0.3)
    assert_type(loss, torch.Tensor)
    return loss


def policy(model: GeliRewardModel, parts: dict[str, Dataset]) -> PolicyComparison:
    prompts = dialogue_prompts(parts["train"], context_messages=4)
    assert_type(prompts, Dataset)
    chat, tokenizer = shipped_policy(aligned=False)
    assert_type(default_policy(), tuple[PreTrainedModel, PreTrainedTokenizerBase])
    assert_type(chat, PreTrainedModel)
    assert_type(tokenizer, PreTrainedTokenizerBase)
    assert_type(shipped_reward_model(), GeliRewardModel)
    reward = GeliReward(model, likelihood=ReferenceLikelihood(*load_policy("folder")))
    align("folder", reward, prompts, GRPOConfig("out"), None)
    rollouts = SessionRollouts(SimulatedPeople(), turns=4)
    SessionGRPOTrainer("folder", GeliSessionReward(model), rollouts, GRPOConfig("out"), train_dataset=prompts)
    raise NotImplementedError(compare_policies)


def figures(parts: dict[str, Dataset], model: GeliRewardModel) -> str:
    found = bootstrap(np.zeros(3), ["a", "b", "c"])
    assert_type(found, Interval)
    scored = model.score_sessions(parts["test"])
    row = evaluate_rewards(
        parts["test"], [row["turn_rewards"] for row in scored], [row["score"] for row in scored], 0.0
    )
    text = markdown_table({"this model": row})
    assert_type(text, str)
    return text


def signals() -> dict[str, Any]:
    transcript = read_transcript("recording.vtt")
    assert_type(transcript, Transcript)
    table = VideoAffect(fps=5)("recording.mp4")
    session = session_of_recording(table, transcript, listener="Anna")
    ImageAffect()
    FacialAffectConfig()
    LlmDecomposer(Endpoint("model", base_url="http://localhost:8000/v1"))
    affect_of_turns(*[np.zeros(3)] * 4)
    return dict(session)
