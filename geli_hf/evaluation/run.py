"""Evaluation of a run's reward model, with its teacher, GELI and its ablations, and trivial baselines beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from transformers.utils import logging

from ..metrics import TURN_BASELINES, evaluate_rewards
from ..models.attribution import HindsightAttribution
from ..models.features import score_cached
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import feedback_names
from ..settings import SettingsError, build
from ..training import GeliRewardArguments
from ..training.pipeline import Parts, RewardModelSettings, ablations, train_geli
from ..training.script import is_finished
from .methods.comparison import mean_signal
from .methods.folds import Encoded
from .report import THIS_MODEL

logger = logging.get_logger(__name__)

TEACHER = "its teacher, who sees the reaction"
Rewards = dict[str, list[list[float]]]


def load_run_model(output: Path) -> GeliRewardModel:
    """Load the reward model of a run onto the process's device.

    Raises:
        SettingsError: the run has none yet.
    """
    if not (output / "reward_model").exists():
        raise SettingsError(f"stages: {output} holds no reward_model; run stage reward first")
    return GeliRewardModel.from_pretrained(output / "reward_model").to(PartialState().device)


def is_evaluated(output: Path) -> bool:
    """Return True, and print it, if the run's report is newer than its models."""
    report, models = output / "report.md", (output / "reward_model", output / "policy")
    written = [path.stat().st_mtime_ns for path in models if path.exists()]
    return report.exists() and max(written, default=0) < report.stat().st_mtime_ns and is_finished(report)


def evaluate_run(
    output: Path, model: RewardModelSettings, reward: Mapping[str, Any], parts: Parts, *, resume: bool = False
) -> tuple[Rewards, dict[str, dict[str, Any]]]:
    """Evaluate the reward model of a run on its test sessions. All processes of a run have to call it.

    Args:
        output: folder of the run. What is trained for comparison lies in `checkpoints/compare` until the end.
        model: the section `model`.
        reward: settings of the reward model's trainer.
        parts: "train", "eval" and "test", Session rows.
        resume: go on from the last checkpoints.

    Returns:
        By the name of the method, this model first, its turn rewards of the test sessions and the figures of
        `evaluate_rewards`; both empty but in the first process.

    Raises:
        SettingsError: the run has no reward model yet.
    """
    test, main = parts["test"], PartialState().is_main_process
    compared = output / "checkpoints" / "compare"
    args = build(GeliRewardArguments, {**reward, "output_dir": str(compared)})
    options = args.feature_options()

    def score(each: GeliRewardModel) -> list[dict]:
        if args.freeze_backbone:
            return score_cached(each, test, **options)
        return each.score_sessions(test)

    reward_model = load_run_model(output)
    scores = {THIS_MODEL: score(reward_model)} if main else {}
    if main and (output / "attribution").exists():
        teacher = HindsightAttribution.from_pretrained(output / "attribution")
        teacher.model.to(PartialState().device)
        scores[TEACHER] = teacher.score_sessions(test, features=Encoded(teacher.model, test, **options).features)
    for name, sessions, changes in ablations(model, args, parts) if model.compare else ():
        folder = str(compared / re.sub(r"\W+", "_", name))
        other, _ = train_geli(model, {**reward, "output_dir": folder, **changes}, sessions, resume=resume)
        if main:
            scores[name] = score(other)
    if not main:
        return {}, {}
    rewards = {name: [row["turn_rewards"] for row in rows] for name, rows in scores.items()}
    predicted = {name: [row["score"] for row in rows] for name, rows in scores.items()}
    for name, baseline in TURN_BASELINES.items():
        try:
            rewards[name] = baseline(test)
        except ImportError as error:
            logger.warning(f"not evaluated: {error}")
    mean, threshold = float(np.mean(parts["train"]["score"])), {}
    if args.li in feedback_names(test):
        threshold = {"feedback": args.li, "feedback_threshold": mean_signal(parts["train"], args.li)}
    return rewards, {
        name: evaluate_rewards(test, each, predicted.get(name), mean, **threshold) for name, each in rewards.items()
    }
