"""From rated sessions to an aligned policy.

    accelerate launch examples/train_geli.py --config examples/configs/sample.yaml

Three stages, each of which leaves folders or files in `output_dir`:

    reward    a reward for every turn, learned from session scores and listeners' reactions   -> reward_model/, and by
              hindsight what explains recorded sessions                                       -> attribution/
    policy    a chat model, fine-tuned on the sessions, then aligned with that reward         -> sft_policy/, policy/
    evaluate  both on held-out conversations, beside baselines          -> metrics.json, report.md and its pictures

Every setting stands in the YAML file, and the command line overrides it: `--seed 1 --reward.li_weight 0.3`.
"""

import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from huggingface_hub import ModelCard
from transformers import TrainingArguments, set_seed
from transformers.utils import logging

from geli_hf.data import load_sessions, read_report
from geli_hf.evaluation.comparison import PolicyComparison
from geli_hf.evaluation.report import THIS_MODEL, write_report
from geli_hf.hub.callbacks import ModelCardCallback
from geli_hf.hub.cards import SOURCES, made, name_of, policy_card, reward_model_card, save_card, source_of
from geli_hf.hub.folders import model_push
from geli_hf.hub.push import send
from geli_hf.metrics import TURN_BASELINES, evaluate_rewards
from geli_hf.metrics.table import markdown_table
from geli_hf.models.attribution import HindsightAttribution
from geli_hf.models.features import cached_turn_features, score_cached
from geli_hf.models.geli_reward.modeling_geli import GeliRewardModel
from geli_hf.sessions import SessionError, add_signal, feedback_names, split_sessions
from geli_hf.settings import SettingsError, build, parse_settings
from geli_hf.training import (
    PAPER,
    GeliRewardArguments,
    GeliRewardTrainer,
    cached_reaction_features,
    fit_hindsight,
    shuffle_feedback,
)
from geli_hf.training.checkpoints import run_training, write_by_one, write_history
from geli_hf.training.script import begin, fit_to_cpu, kept

logger = logging.get_logger("geli_hf.train_geli")

STAGES = ("reward", "policy", "evaluate")
TRAINERS = ("reward", "pretrain", "sft", "grpo")  # sections that are arguments of a trainer
HINDSIGHT = "hindsight"  # the recommended preset, and the name of the signal that its teachers give
TEACHER = "its teacher, who sees the reaction"
PRESETS = {
    HINDSIGHT: {"model": {}, "training": {}},
    "geli": {"model": {}, "training": {}},
    "paper": PAPER,
}


@dataclass
class RunSettings:
    output_dir: str = field(metadata={"help": "Where everything goes."})
    data_dir: str | None = field(default=None, metadata={"help": "Where the corpus lies."})
    stages: list[str] = field(default_factory=lambda: list(STAGES), metadata={"help": "Which stages to run."})
    seed: int = field(default=0, metadata={"help": "Seed of the split, of training and of generation."})
    resume: bool = field(default=False, metadata={"help": "Go on with the run in output_dir; keep what is finished."})
    license: str | None = field(default=None, metadata={"help": "Of the models, for their cards; unset: not told."})
    push_to_hub: str | None = field(default=None, metadata={"help": "Namespace on the Hub to push the models to."})


@dataclass
class DataSettings:
    corpus: str = field(default="sample", metadata={"help": "Name or path, see geli_hf.data.load_sessions."})
    options: dict = field(default_factory=dict, metadata={"help": "Options of the corpus's reader."})
    test_options: dict | None = field(default=None, metadata={"help": "Its options for a test set of its own."})
    eval_share: float = field(default=0.15, metadata={"help": "Share of conversations to choose the checkpoint on."})
    test_share: float = field(default=0.2, metadata={"help": "Share to evaluate on, without test_options."})


@dataclass
class ModelSettings:
    backbone: str | None = field(default=None, metadata={"help": "Name or path; default all-MiniLM-L6-v2."})
    preset: str = field(
        default=HINDSIGHT,
        metadata={"help": "hindsight; geli: as the section `reward` says; or paper: the published recipe."},
    )
    signals: list[str] | None = field(
        default=None, metadata={"help": "What hindsight may trust, by name in `feedback`; all that there is if unset."}
    )
    config: dict = field(default_factory=dict, metadata={"help": "Fields of GeliRewardConfig."})
    lora: dict | None = field(default=None, metadata={"help": "peft.LoraConfig, with reward.freeze_backbone false."})
    li_stage: dict | None = field(
        default=None, metadata={"help": "Settings of a first stage on the Local Implicit loss alone, as published."}
    )
    compare: bool = field(
        default=True,
        metadata={"help": "Evaluate GELI, RRD alone, LI alone and GELI with shuffled LI too, as `reward` says."},
    )


@dataclass
class PolicySettings:
    model_name_or_path: str | None = field(default=None, metadata={"help": "Default: a small one, made from scratch."})
    small: dict = field(default_factory=dict, metadata={"help": "Options of geli_hf.alignment.small_policy."})
    window_messages: int = field(default=8, metadata={"help": "Sessions are fine-tuned on in pieces of so many."})
    context_messages: int = field(default=6, metadata={"help": "Messages of a dialogue that a reply may depend on."})
    lora: dict = field(default_factory=lambda: {"r": 16, "lora_alpha": 32}, metadata={"help": "peft.LoraConfig."})
    length_neutral: bool = field(default=True, metadata={"help": "Reward nobody for talking more or less."})
    replies: int = field(default=400, metadata={"help": "Held-out dialogues that both policies answer."})
    max_new_tokens: int = field(default=40, metadata={"help": "Longest of these replies, in tokens."})
    temperature: float = field(default=0.8, metadata={"help": "At which these replies are sampled."})


def main(argv: list[str]) -> None:
    begun = time.monotonic()
    from trl import GRPOConfig, SFTConfig

    sections = {
        "data": DataSettings,
        "model": ModelSettings,
        "reward": GeliRewardArguments,
        "policy": PolicySettings,
        "pretrain": TrainingArguments,
        "sft": SFTConfig,
        "grpo": GRPOConfig,
    }
    settings = parse_settings(argv, RunSettings, sections)
    run = build(RunSettings, settings[""])
    if unknown := set(run.stages) - set(STAGES):
        raise SettingsError(f"stages: expected some of {', '.join(STAGES)}, found {', '.join(sorted(unknown))}")
    output = Path(run.output_dir)
    state = begin(output, settings, run.resume, lasting=["seed"])
    set_seed(run.seed)
    if not torch.cuda.is_available():
        fit_to_cpu(settings, TRAINERS)
    data = build(DataSettings, settings["data"])
    try:
        sessions = load_parts(data, run)
    except (TypeError, ValueError) as error:  # an option that does not exist, or that can't have this value
        raise SettingsError(f"data: {error}") from error

    def told() -> dict:
        """What all cards of this run say."""
        given = {name: part for name, part in settings.items() if name and part}
        command = ["python", "examples/train_geli.py", *argv]
        return {
            "training_data": f"{len(sessions['train']):,} sessions of the corpus `{name_of(data.corpus)}`. "
            f"{source_of(data.corpus)}",
            "made": made(command, settings=given, seconds=time.monotonic() - begun),
            "license": run.license,
            "language": "en" if data.corpus in SOURCES else None,
        }

    stages = dict(zip(STAGES, (reward_stage, policy_stage, evaluate_stage)))
    for name in (name for name in STAGES if name in run.stages):
        state.print(f"\nStage {name}: {stages[name].__doc__}", flush=True)
        stages[name](settings, sessions, output, run, told)
    if run.push_to_hub and state.is_main_process:
        push(output, run.push_to_hub)
    state.wait_for_everyone()
    state.destroy_process_group()


def load_parts(data: DataSettings, run: RunSettings) -> dict[str, Dataset]:
    """Sessions to train on, to choose the checkpoint on, and to evaluate on; no conversation is in two of them."""

    def load(options: dict) -> Dataset:
        sessions = load_sessions(data.corpus, data_dir=run.data_dir, **options)
        PartialState().print(f"{data.corpus} {options or ''}\n{read_report(sessions)}")
        return sessions.filter(lambda score: score == score, input_columns="score", desc="Keeping rated sessions")

    with PartialState().main_process_first():
        sessions = load(data.options)
        if data.test_options is None:
            shares = {"train": 1 - data.eval_share - data.test_share, "eval": data.eval_share, "test": data.test_share}
            return split_sessions(sessions, shares, seed=run.seed)
        parts = split_sessions(sessions, {"train": 1 - data.eval_share, "eval": data.eval_share}, seed=run.seed)
        return parts | {"test": load(data.options | data.test_options)}


# ------------------------------------------------------------------------------------------------ reward


def reward_stage(
    settings: dict, sessions: dict[str, Dataset], output: Path, run: RunSettings, told: Callable[[], dict]
) -> None:
    """a reward for every turn, from session scores and listeners' reactions"""
    target = output / "reward_model"
    if target.exists():
        return kept(target)
    if preset(settings) == HINDSIGHT:
        model, trainer = look_back(settings, sessions, output, run, told)
    else:
        model, trainer = train_reward(settings, sessions, output / "checkpoints" / "reward", run)
    if trainer is not None:
        write_history(trainer, output / "reward_history.json")
    write_by_one(target, with_card(model, reward_card(model, target, told)))


def with_card(model: GeliRewardModel | HindsightAttribution, card: ModelCard) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        save_card(card, folder)

    return write


def reward_card(model: GeliRewardModel, folder: Path, told: Callable[[], dict], **more) -> ModelCard:
    config = model.config
    scale = f"its mean was {config.score_mean:.3g}, and its standard deviation {config.score_std:.3g}."
    return reward_model_card(
        name_of(folder), base_model=config.text_config._name_or_path, rating=scale, **told(), **more
    )


def look_back(
    settings: dict, sessions: dict[str, Dataset], output: Path, run: RunSettings, told: Callable[[], dict]
) -> tuple[GeliRewardModel, GeliRewardTrainer | None]:
    """Hindsight: who sees the reaction explains the sessions, and teaches the model that does not.

    Where more than a linear head is to learn (`model.lora`, or `reward.freeze_backbone: false`), it is trained.
    """
    model_settings = build(ModelSettings, settings["model"])
    if model_settings.li_stage is not None:
        raise SettingsError("model.li_stage: hindsight has no such stage; choose the preset geli or paper for it")
    args = build(GeliRewardArguments, reward_settings(settings, output / "checkpoints" / "reward", run))
    with PartialState().main_process_first():  # who encodes, for all
        try:
            fit = fit_hindsight(
                new_model(model_settings).to(PartialState().device),
                sessions["train"],
                sessions["eval"],
                signals=model_settings.signals,
                seed=run.seed,
                **features_from(args),
            )
        except ValueError as error:  # SessionError too
            raise SettingsError(f"model.preset: hindsight can't be fitted: {error}") from error
    PartialState().print(fit.report)
    write_by_one(output / "hindsight.txt", lambda partial: partial.write_text(f"{fit.report}\n"))
    card = reward_card(fit.attribution.model, output / "attribution", told, signals=fit.attribution.signals)
    write_by_one(output / "attribution", with_card(fit.attribution, card))
    if args.freeze_backbone and model_settings.lora is None:
        return fit.reward_model, None
    explained = [row["turn_rewards"] for row in fit.attribution.score_sessions(sessions["eval"])]
    taught = {
        "train": add_signal(sessions["train"], HINDSIGHT, fit.targets),
        "eval": add_signal(sessions["eval"], HINDSIGHT, explained),
    }
    args.li, args.li_weight = HINDSIGHT, 1.0
    return train_once(fit.reward_model, args, taught, adapter(model_settings), run.resume)


def train_reward(
    settings: dict, sessions: dict[str, Dataset], folder: Path, run: RunSettings, **changes
) -> tuple[GeliRewardModel, GeliRewardTrainer]:
    """A reward model by GELI as the settings say, with `changes` to those of the trainer."""
    model_settings = build(ModelSettings, settings["model"])
    wanted = reward_settings(settings, folder, run) | changes
    args = build(GeliRewardArguments, wanted)
    set_seed(run.seed)
    model = new_model(model_settings)
    if model_settings.li_stage is not None and args.li_weight > 0:
        if args.standardise:
            raise SettingsError(
                "model.li_stage: its head reads features as they are, so the second stage can't standardise them; "
                "set reward.standardise to false, as the paper preset does"
            )
        first = Path(f"{folder}_li")
        if not (first / "model").exists():
            alone = wanted | {"li_weight": 1.0, "output_dir": str(first)} | model_settings.li_stage
            train_once(model, build(GeliRewardArguments, alone), sessions, None, run.resume)
            write_by_one(first / "model", model.save_pretrained)
        model = GeliRewardModel.from_pretrained(first / "model")
    return train_once(model, args, sessions, adapter(model_settings), run.resume)


def preset(settings: dict) -> str:
    name = build(ModelSettings, settings["model"]).preset
    if name not in PRESETS:
        raise SettingsError(f"model.preset: expected one of {', '.join(PRESETS)}, found {name!r}")
    return name


def new_model(settings: ModelSettings) -> GeliRewardModel:
    try:
        return GeliRewardModel.from_backbone(settings.backbone, **PRESETS[settings.preset]["model"] | settings.config)
    except (OSError, TypeError, ValueError) as error:
        raise SettingsError(f"model: {error}") from error


def adapter(settings: ModelSettings):
    if settings.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(task_type="SEQ_CLS", **settings.lora)


def features_from(args: GeliRewardArguments) -> dict:
    """Where features of a frozen backbone are kept, and how they are computed."""
    return {"cache_dir": args.features_dir, "dtype": torch.bfloat16 if args.bf16 else torch.float32}


def reward_settings(settings: dict, folder: Path, run: RunSettings) -> dict:
    """Settings of the trainer: the preset's, unless the section `reward` has others."""
    return {"seed": run.seed, "output_dir": str(folder)} | PRESETS[preset(settings)]["training"] | settings["reward"]


def train_once(model, args, sessions, lora, resume) -> tuple[GeliRewardModel, GeliRewardTrainer]:
    callbacks = [ModelCardCallback()]
    trainer = GeliRewardTrainer(
        model, args, sessions["train"], sessions["eval"], peft_config=lora, callbacks=callbacks
    )
    run_training(trainer, resume)
    if lora is not None:
        trainer.accelerator.unwrap_model(trainer.model).merge_and_unload()
    return model, trainer


# ------------------------------------------------------------------------------------------------ policy


def policy_stage(
    settings: dict, sessions: dict[str, Dataset], output: Path, run: RunSettings, told: Callable[[], dict]
) -> None:
    """a chat model, fine-tuned on the sessions, then aligned with the rewards"""
    from peft import LoraConfig
    from trl import GRPOConfig, SFTConfig

    from geli_hf.alignment import (
        GeliReward,
        align,
        dialogue_prompts,
        load_policy,
        pretrain,
        sft,
        small_policy,
        write_policy,
    )

    policy = build(PolicySettings, settings["policy"])

    def arguments(cls: type, stage: str):
        common = {"seed": run.seed, "report_to": "none", "output_dir": str(output / "checkpoints" / stage)}
        return build(cls, common | settings[stage])

    # A new one for each use: PEFT writes into it.
    lora = partial(LoraConfig, **{"target_modules": "all-linear", "task_type": "CAUSAL_LM"} | policy.lora)
    if (output / "sft_policy").exists():
        kept(output / "sft_policy")
    else:
        set_seed(run.seed)
        pieces = {"window_messages": policy.window_messages, "resume": run.resume, "callbacks": [ModelCardCallback()]}
        if policy.model_name_or_path is None:
            # A model made from scratch knows no language: it learns that first, from everybody's words.
            try:
                model, tokenizer = small_policy(sessions["train"], **{"seed": run.seed} | policy.small)
            except (TypeError, ValueError) as error:
                raise SettingsError(f"policy.small: {error}") from error
            pretrain(model, tokenizer, sessions["train"], arguments(TrainingArguments, "pretrain"), **pieces)
        else:
            model, tokenizer = load_policy(policy.model_name_or_path)
            pieces["peft_config"] = lora()
        trainer = sft(model, tokenizer, sessions["train"], arguments(SFTConfig, "sft"), **pieces)
        write_policy(trainer, output / "sft_policy")
        if PartialState().is_main_process:
            save_card(
                policy_card(name_of(output / "sft_policy"), **policy_facts(settings, told)), output / "sft_policy"
            )

    if (output / "policy").exists():
        return kept(output / "policy")
    set_seed(run.seed)
    reward = GeliReward(load_reward_model(output), length_neutral=policy.length_neutral)
    prompts = dialogue_prompts(sessions["train"], context_messages=policy.context_messages)
    how = {"callbacks": [ModelCardCallback()], "resume": run.resume}
    trainer = align(output / "sft_policy", reward, prompts, arguments(GRPOConfig, "grpo"), lora(), **how)
    write_history(trainer, output / "policy_history.json")
    write_policy(trainer, output / "policy")
    if PartialState().is_main_process:
        save_card(aligned_card(settings, output, told), output / "policy")


def policy_facts(settings: dict, told: Callable[[], dict]) -> dict:
    base = build(PolicySettings, settings["policy"]).model_name_or_path
    return told() | {"base_model": base or "", "method": "sft"}


def aligned_card(settings: dict, output: Path, told: Callable[[], dict], **more) -> ModelCard:
    facts = policy_facts(settings, told) | {"method": "grpo", "reward_model": name_of(output / "reward_model")}
    return policy_card(name_of(output / "policy"), **facts, **more)


# ------------------------------------------------------------------------------------------------ evaluation


def evaluate_stage(
    settings: dict, sessions: dict[str, Dataset], output: Path, run: RunSettings, told: Callable[[], dict]
) -> None:
    """both on held-out conversations, beside baselines"""
    report, models = output / "report.md", (output / "reward_model", output / "policy")
    if report.exists() and all(written(model) < written(report) for model in models if model.exists()):
        return kept(report)
    test = sessions["test"]
    args = build(GeliRewardArguments, reward_settings(settings, output, run))
    model = load_reward_model(output)
    train_mean = float(np.mean(sessions["train"]["score"]))
    signal, usual = None, 0.0
    if args.li in feedback_names(test):
        signal, usual = (
            args.li,
            float(np.nanmean(np.concatenate([row[args.li] for row in sessions["train"]["feedback"]]))),
        )

    def figures(rewards: list, predicted: list | None = None) -> dict:
        return evaluate_rewards(test, rewards, predicted, train_mean, feedback=signal, feedback_threshold=usual)

    def scored(model: GeliRewardModel) -> list[dict]:
        if args.freeze_backbone:
            return score_cached(model, test, **features_from(args))
        return model.score_sessions(test, progress=True)

    main, compared = PartialState().is_main_process, output / "checkpoints" / "compare"
    scores = {THIS_MODEL: scored(model)} if main else {}
    if main and (output / "attribution").exists():
        attribution = HindsightAttribution.from_pretrained(output / "attribution")
        attribution.model.to(PartialState().device)
        features = {
            "turns": cached_turn_features(attribution.model, test, **features_from(args)),
            "reactions": cached_reaction_features(attribution.model, test, **features_from(args)),
        }
        scores[TEACHER] = attribution.score_sessions(test, features=features)
    if build(ModelSettings, settings["model"]).compare:
        for name, parts, changes in comparisons(sessions, args, preset(settings)):
            other, _ = train_reward(settings, parts, compared / re.sub(r"\W+", "_", name), run, **changes)
            if main:
                scores[name] = scored(other)
    if not main:
        return
    rewards = {name: [row["turn_rewards"] for row in rows] for name, rows in scores.items()}
    rows = {name: figures(rewards[name], [row["score"] for row in scores[name]]) for name in scores}
    for name, baseline in TURN_BASELINES.items():
        try:
            rewards[name] = baseline(test)
        except ImportError as error:
            logger.warning(f"not evaluated: {error}")
            continue
        rows[name] = figures(rewards[name])

    comparison = replies_of_both(settings, test, output, model, run.seed) if (output / "policy").exists() else None
    write_cards(settings, output, test, model, rows, comparison, told)
    write_report(
        output, settings, {part: len(each) for part, each in sessions.items()}, test, model, rewards, rows, comparison
    )
    shutil.rmtree(compared, ignore_errors=True)
    print((output / "summary.txt").read_text())


def write_cards(
    settings: dict,
    output: Path,
    test: Dataset,
    model: GeliRewardModel,
    rows: dict[str, dict],
    comparison: PolicyComparison | None,
    told: Callable[[], dict],
) -> None:
    """The cards of what was evaluated, with the figures."""
    corpus = build(DataSettings, settings["data"]).corpus
    of = f"`{name_of(corpus)}`"
    on = {"type": Path(corpus).name, "name": f"held-out sessions of {Path(corpus).name}"}
    sessions = f"{len(test):,} sessions of {len(test.unique('conversation_id')):,} held-out conversations of {of}"
    shown = {"table": markdown_table(rows), "held_out": sessions, "measured_on": on}
    save_card(
        reward_card(model, output / "reward_model", told, row=rows[THIS_MODEL], **shown), output / "reward_model"
    )
    if TEACHER in rows:
        attribution = HindsightAttribution.from_pretrained(output / "attribution")
        card = reward_card(
            model, output / "attribution", told, signals=attribution.signals, row=rows[TEACHER], **shown
        )
        save_card(card, output / "attribution")
    if comparison is not None:
        answered = {"held_out": f"{len(comparison.dialogues)} held-out dialogues of {of}", "measured_on": on}
        card = aligned_card(settings, output, told, comparison=comparison.figures(), **answered)
        save_card(card, output / "policy")


def comparisons(sessions: dict[str, Dataset], args: GeliRewardArguments, preset: str):
    """GELI on the same data, and with one thing changed, to see which part of its loss does what."""
    has_signal = args.li_weight > 0 and (preset != HINDSIGHT or args.li in feedback_names(sessions["train"]))
    if preset == HINDSIGHT and has_signal:
        yield "GELI", sessions, {}
    name = "RRD alone, all turns" if (args.ge, args.rrd_turns) == ("rrd", None) else f"{args.ge.upper()} alone"
    yield name, sessions, {"li_weight": 0.0}
    if has_signal:
        yield "LI alone", sessions, {"li_weight": 1.0}
        shuffled = shuffle_feedback(sessions["train"], args.li, seed=args.seed)
        yield "GELI with its LI shuffled", sessions | {"train": shuffled}, {}


def replies_of_both(
    settings: dict, test: Dataset, output: Path, model: GeliRewardModel, seed: int
) -> PolicyComparison:
    """What the fine-tuned and the aligned policy answer to the same held-out dialogues, and what it is worth."""
    from geli_hf.alignment import compare_policies, judge_by_reward
    from geli_hf.evaluation.judges.judge import judge_by_truth

    policy = build(PolicySettings, settings["policy"])
    # Only the sample knows the truth. Elsewhere the reward model judges, whom the policy was trained to please.
    known = settings["data"].get("corpus", "sample") == "sample"
    return compare_policies(
        output / "sft_policy",
        output / "policy",
        test,
        judge_by_truth if known else partial(judge_by_reward, model),
        true=known,
        replies=policy.replies,
        context_messages=policy.context_messages,
        max_new_tokens=policy.max_new_tokens,
        temperature=policy.temperature,
        seed=seed,
    )


def load_reward_model(output: Path) -> GeliRewardModel:
    if not (output / "reward_model").exists():
        raise SettingsError(f"stages: {output} holds no reward_model; run stage reward first")
    return GeliRewardModel.from_pretrained(output / "reward_model").to(PartialState().device)


# ------------------------------------------------------------------------------------------------ the run's folder


def written(path: Path) -> int:
    return path.stat().st_mtime_ns


def push(output: Path, namespace: str) -> None:
    for part, name in {"reward_model": "reward", "attribution": "attribution", "policy": "policy"}.items():
        if (output / part).exists():
            print(send(model_push(output / part, f"{namespace}/{output.name}-geli-{name}")).url)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (SettingsError, SessionError, FileNotFoundError, MemoryError) as error:
        sys.exit(f"train_geli: {error}")
