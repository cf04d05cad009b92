"""`geli evaluate-policy`: what a policy gained by alignment, judged by something other than its own reward."""

import argparse
from pathlib import Path
from typing import TextIO

from datasets import Dataset
from transformers.utils import logging

from ..data import load_sessions
from ..evaluation.judges.judge import Judge, RatingJudge, TruthJudge, same_model
from ..evaluation.judges.llm import LlmJudge
from ..evaluation.policies import Sampling, evaluate_policies
from ..evaluation.policy_report import policy_markdown, write_policy_evaluation
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..models.loading import open_model
from ..sessions import assistant_turns
from ..settings import json_object
from .decompose import open_backend

logger = logging.get_logger(__name__)


def evaluate_policy(arguments: argparse.Namespace, out: TextIO) -> None:
    """Run the command; the text goes to `out`. What is wrong with the arguments is said before a policy is loaded."""
    output = None if arguments.output is None else Path(arguments.output)
    if output is not None and output.exists() and not output.is_dir():
        raise NotADirectoryError(f"--output: {output} is a file; name a folder, and it is made")
    aligned = [name.rstrip("/") or name for name in arguments.aligned]
    if len(set(aligned)) < len(aligned):
        raise ValueError("ALIGNED: a policy is named twice")
    if not 0 < arguments.validation_share < 1:
        raise ValueError(f"--validation-share: expected a share between 0 and 1, found {arguments.validation_share:g}")
    if not arguments.temperature >= 0:
        raise ValueError(f"--temperature: expected 0 or more, found {arguments.temperature:g}")
    sessions = _sessions(arguments)
    judge = _judge(arguments, sessions)
    reward, warnings = None, []
    if arguments.reward is not None:
        reward = open_model(arguments.reward)
        if not isinstance(reward, GeliRewardModel):
            raise ValueError(f"--reward: {arguments.reward} is an attribution, and no reward of a policy")
        if isinstance(judge, RatingJudge) and same_model(judge.model, reward):
            warnings.append(
                "The judge is the very reward model that the policy was trained to please: this proves nothing."
            )
    for warning in warnings:
        logger.warning(warning)
    sampling = Sampling(
        arguments.replies,
        arguments.context_messages,
        arguments.max_new_tokens,
        arguments.temperature,
        arguments.seed,
        arguments.batch_size,
    )
    evaluation = evaluate_policies(
        arguments.base.rstrip("/") or arguments.base,
        aligned,
        sessions,
        judge,
        reward=reward,
        sampling=sampling,
        validation_share=arguments.validation_share,
    )
    text = policy_markdown(evaluation, sampling, warnings)
    out.write(text)
    if output is not None:
        write_policy_evaluation(output, evaluation, text)


def _sessions(arguments: argparse.Namespace) -> Dataset:
    options = json_object(arguments.options, "--options")
    try:
        sessions = load_sessions(arguments.sessions, data_dir=arguments.data_dir, **options)
    except TypeError as error:  # an option that there is not, or that can't have this value
        raise ValueError(f"--options: {error}") from error
    if not any(turn for messages in sessions["messages"] for turn in assistant_turns(messages)):
        raise ValueError(
            f"--sessions: {arguments.sessions} holds no dialogue to go on with: no turn of the assistant answers "
            "something"
        )
    return sessions


def _judge(arguments: argparse.Namespace, sessions: Dataset) -> Judge:
    name = arguments.judge or ("truth" if arguments.sessions == "sample" else None)
    if name is None:
        raise ValueError(
            "--judge: say who judges: a folder of `geli train-judge`, or llm with --llm-model; the reward that the "
            "policy was trained for is no judge of it"
        )
    asked = (arguments.llm_model, arguments.base_url, arguments.provider, arguments.token_env)
    if name != "llm":
        if any(each is not None for each in asked):
            raise ValueError("--llm-model and what goes with it are for --judge llm")
        if name == "truth":
            judge = TruthJudge()
            judge.check(sessions["messages"][:50])
            return judge
        return RatingJudge(name.rstrip("/") or name)
    if arguments.llm_model is None:
        raise ValueError("--llm-model: name the model that is to judge")
    return LlmJudge(open_backend(arguments, arguments.llm_model), arguments.llm_model)
