"""`geli evaluate-policy`: the gain of a policy by alignment, by a judge that is not its reward."""

import argparse
from dataclasses import fields
from math import inf
from typing import TextIO

from .common import (
    SESSIONS,
    add_backend,
    add_corpus,
    add_sampling,
    backend_of,
    compute_options,
    count,
    load_corpus,
    model_name,
    report_folder,
)


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "evaluate-policy",
        help="measure what a policy gained by alignment, by a judge that is not its reward",
        description="Let a policy before and after alignment answer the same held-out dialogues, and a judge say "
        "which replies are better. Of several aligned policies, such as the checkpoints of a run, the judge chooses "
        "one on half of the conversations, and the report is on the rest.",
    )
    add = parser.add_argument
    add("base", metavar="BASE", help="policy before alignment: a folder, or a name on the Hub")
    add("aligned", metavar="ALIGNED", nargs="+", help="policies after it, adapters and checkpoints too")
    add("--sessions", required=True, help=f"{SESSIONS}, that no policy has learned from")
    add_corpus(parser)
    add("--judge", help="truth (of the sample, and its default), a folder of `geli train-judge`, or llm")
    add("--reward", metavar="MODEL", help="the reward model of the policy's training, to show beside the judge")
    add("--replies", type=count, default=400, help="dialogues that each policy answers (default: 400)")
    add_sampling(parser)
    add("--max-kl", type=float, default=inf, help="choose within so many nats per reply of the base (default: any)")
    add("--llm-model", metavar="NAME", help="the language model of --judge llm, as `geli decompose` takes it")
    add_backend(parser)
    add("-o", "--output", metavar="FOLDER", help="folder for the text, all figures, the pictures and the replies")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, out: TextIO) -> None:
    from transformers.utils import logging

    from ..evaluation.judges.judge import RatingJudge, same_model
    from ..evaluation.policies import Sampling, evaluate_policies
    from ..evaluation.policy_report import policy_markdown, write_policy_evaluation
    from ..models.geli_reward.modeling_geli import GeliRewardModel
    from ..models.loading import open_model

    output = report_folder(arguments.output)
    aligned = list(map(model_name, arguments.aligned))
    if len(set(aligned)) < len(aligned):
        raise ValueError("ALIGNED: a policy is named twice")
    sessions = load_corpus(arguments)
    judge = _open_judge(arguments, sessions)
    reward, warnings = None, []
    if arguments.reward is not None:
        reward = open_model(arguments.reward, **compute_options(arguments))
        if not isinstance(reward, GeliRewardModel):
            raise ValueError(f"--reward: {arguments.reward} is an attribution, and no reward of a policy")
        if isinstance(judge, RatingJudge) and same_model(judge.model, reward):
            warnings.append(
                "The judge is the very reward model that the policy was trained to please: this proves nothing."
            )
            logging.get_logger(__name__).warning(warnings[0])
    sampling = Sampling(**{field.name: getattr(arguments, field.name) for field in fields(Sampling)})
    evaluation = evaluate_policies(
        model_name(arguments.base),
        aligned,
        sessions,
        judge,
        reward=reward,
        sampling=sampling,
        max_kl=arguments.max_kl,
        **compute_options(arguments),
    )
    text = policy_markdown(evaluation, sampling, warnings)
    out.write(text)
    if output is not None:
        write_policy_evaluation(output, evaluation, text)


def _open_judge(arguments: argparse.Namespace, sessions):
    """Open the judge of replies, which has to know sessions like these."""
    from ..evaluation.judges.judge import RatingJudge, TruthJudge
    from ..evaluation.judges.llm import LlmJudge

    name = arguments.judge or ("truth" if arguments.sessions == "sample" else None)
    if name is None:
        raise ValueError("--judge: give a folder of `geli train-judge`, or llm with --llm-model")
    if (name == "llm") != (arguments.llm_model is not None):
        raise ValueError("--llm-model: --judge llm needs the name of a model, and no other judge takes one")
    if name == "llm":
        return LlmJudge(backend_of(arguments, arguments.llm_model), arguments.llm_model)
    if name == "truth":
        judge = TruthJudge()
        judge.check(sessions["messages"][:50])
        return judge
    return RatingJudge(model_name(name), **compute_options(arguments))
