"""The small policy that comes with the package, and the reward model that aligned it.

    python examples/train_policy.py --config examples/configs/policy.yaml --data.topical_chat DATA/topical_chat

Seven stages, three of which come again in every round. Each leaves folders or files in `output_dir`, and what a round
but the last leaves lies in a folder of its own there, `round1/`:

    pretrain  a language model from scratch, on pieces of generated sessions and on Topical-Chat   -> short/
    lengthen  the same, on longer pieces, so that it is at home in longer dialogues                -> base/
    sft       the same, fine-tuned on the agent's turns                                            -> policy/
    talk      with people of the sample, who rate each session and show their faces                -> talks.jsonl
    reward    a reward model that begins as that policy, of these sessions and others              -> policy_reward/
    align     an adapter of the policy, by GRPO against it; the truth chooses the checkpoint       -> policy_adapter/
    evaluate  all three on held-out dialogues, judged by the truth       -> figures.json, and a card in each folder

What GRPO finds out is how to please the reward model, also where that is wrong. So replies are also rewarded for how
likely the fine-tuned policy finds them (`policy.likelihood`). And from the second round on the policy that was aligned
last does the talking, its ratings correct the reward model, and the policy is aligned anew.

Weights are written in bfloat16, and every stage goes on from what was written: what is measured is what ships. Every
setting stands in the YAML file, and the command line overrides it. A run that was stopped goes on with `--resume`.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml
from datasets import Dataset, Features, List, Value, concatenate_datasets
from huggingface_hub import ModelCard
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments, set_seed
from transformers.trainer_utils import sort_checkpoints

from geli_hf.alignment import (
    GeliReward,
    ReferenceLikelihood,
    SessionRollouts,
    SimulatedPeople,
    align,
    dialogue_prompts,
    generate_replies,
    load_policy,
    pretrain,
    sft,
    sft_rows,
    small_policy,
)
from geli_hf.cache import whole
from geli_hf.data import load_sessions
from geli_hf.data.rows import write_jsonl
from geli_hf.evaluation.comparison import JudgedReply, PolicyComparison
from geli_hf.evaluation.judges.judge import TruthJudge
from geli_hf.hub.cards import Measured, fill, made, policy_card, save_card
from geli_hf.metrics.metrics import Interval, bootstrap, within_session_spearman
from geli_hf.metrics.table import COLUMNS
from geli_hf.models.features import score_cached
from geli_hf.models.geli_reward.modeling_geli import GeliRewardModel
from geli_hf.sessions import SessionError, session_features, split_sessions
from geli_hf.settings import SettingsError, build, claim, parse_settings
from geli_hf.simulator.corpus import true_turn_value
from geli_hf.simulator.oracle import VALUES
from geli_hf.simulator.people import converse, draw_traits
from geli_hf.training import GeliRewardArguments, GeliRewardTrainer
from geli_hf.training.checkpoints import run_training, write_by_one, write_history

STAGES = ("pretrain", "lengthen", "sft", "talk", "reward", "align", "evaluate")
IN_ROUNDS = STAGES[3:6]
# Streams of random numbers, apart from those of geli_hf.data.write_sample (0 to 2).
PRETRAIN, SFT, LENGTHEN, TALK = 3, 4, 5, 6
HELD_OUT = 1000  # on top of the seed: of the corpus that nothing learns from
TRAINED_ON = ("train", "eval")
RATED = session_features(feedback=["affect"], turn_rating=True)
MESSAGES = Features({"messages": List({"role": Value("string"), "content": Value("string")})})


@dataclass
class RunSettings:
    output_dir: str = field(metadata={"help": "Where everything goes."})
    stages: list[str] = field(default_factory=lambda: list(STAGES), metadata={"help": "Which stages to run."})
    seed: int = field(default=0, metadata={"help": "Seed of the sessions, of training and of generation."})
    resume: bool = field(default=False, metadata={"help": "Go on with the run in output_dir; keep what is finished."})


@dataclass
class DataSettings:
    sessions: int = field(default=100_000, metadata={"help": "Generated sessions to learn the language from."})
    long_sessions: int = field(default=6_000, metadata={"help": "Others, to get used to longer dialogues with."})
    sft_sessions: int = field(default=4_000, metadata={"help": "Others, whose agent's turns are learned."})
    topical_chat: str | None = field(default=None, metadata={"help": "Folder of Topical-Chat; without it, none."})
    passes: int = field(default=1, metadata={"help": "How often Topical-Chat is read, each time from both sides."})
    vocabulary_sessions: int = field(default=2_000, metadata={"help": "Sessions that the tokenizer learns from."})
    pieces: list[int] = field(
        default_factory=lambda: [4, 4, 6],
        metadata={"help": "Messages of the piece that is taken of each generated session, by turns; even."},
    )
    long_pieces: list[int] = field(
        default_factory=lambda: [6, 16],
        metadata={"help": "The same for all that follows pretraining. The longest is what the policy reads at once."},
    )

    @property
    def window(self) -> int:
        """Longest dialogue that the policy is made for, in messages."""
        return max(self.long_pieces)


@dataclass
class TalkSettings:
    sessions: int = field(default=4_000, metadata={"help": "That the policy talks, each with somebody else."})
    turns: int = field(default=6, metadata={"help": "Of the policy in each."})
    temperature: float = field(default=0.8, metadata={"help": "At which it is sampled."})
    max_new_tokens: int = field(default=40, metadata={"help": "Longest reply, in tokens."})
    batch_size: int = field(default=256, metadata={"help": "Sessions that go on at once."})


@dataclass
class RewardSettings:
    conversations: list[int] = field(
        default_factory=lambda: [1600, 1600],
        metadata={
            "help": "Rated conversations of the sample to learn from, for each round; as many rounds there are."
        },
    )
    test_conversations: int = field(default=300, metadata={"help": "Others, which all figures are measured on."})
    eval_share: float = field(default=0.1, metadata={"help": "Share of the first to watch the training on."})
    config: dict = field(default_factory=dict, metadata={"help": "Fields of GeliRewardConfig, on the policy's base."})
    training: dict = field(default_factory=dict, metadata={"help": "GeliRewardArguments."})
    further: dict = field(default_factory=dict, metadata={"help": "Those that differ from the second round on."})


@dataclass
class EvaluateSettings:
    replies: int = field(default=1000, metadata={"help": "Held-out dialogues that both policies answer."})
    compared: int = field(default=480, metadata={"help": "Others, which the checkpoint is chosen on."})
    shown: int = field(default=10, metadata={"help": "Of each corpus so many of the first replies are in the card."})
    pieces: int = field(default=400, metadata={"help": "Held-out pieces of each corpus to read for the perplexity."})
    max_new_tokens: int = field(default=48, metadata={"help": "Longest reply, in tokens."})
    temperature: float = field(default=0.7, metadata={"help": "At which replies are sampled."})


@dataclass
class PolicySettings:
    hidden_size: int = field(default=128, metadata={"help": "Width of the policy, a multiple of 32."})
    layers: int = field(default=4, metadata={"help": "Its layers."})
    vocab_size: int = field(default=2560, metadata={"help": "Of its tokenizer."})
    lora: dict = field(default_factory=lambda: {"r": 16, "lora_alpha": 32}, metadata={"help": "peft.LoraConfig."})
    length_neutral: bool = field(default=True, metadata={"help": "Reward nobody for talking more or less."})
    likelihood: float = field(default=0.0, metadata={"help": "Reward of a nat of a reply's likelihood before RL."})


def main(argv: list[str]) -> None:
    from trl import GRPOConfig, SFTConfig

    sections = {
        "data": DataSettings,
        "policy": PolicySettings,
        "pretrain": TrainingArguments,
        "lengthen": TrainingArguments,
        "sft": SFTConfig,
        "talk": TalkSettings,
        "reward": RewardSettings,
        "grpo": GRPOConfig,
        "evaluate": EvaluateSettings,
    }
    settings = parse_settings(argv, RunSettings, sections)
    run = build(RunSettings, settings[""])
    if unknown := set(run.stages) - set(STAGES):
        raise SettingsError(f"stages: expected some of {', '.join(STAGES)}, found {', '.join(sorted(unknown))}")
    if not 0 <= (weight := build(PolicySettings, settings["policy"]).likelihood) < math.inf:
        raise SettingsError(f"policy.likelihood: expected a number, 0 or more, found {weight}")
    output = Path(run.output_dir)
    # What it was begun with counts, but not how far it was to go, nor where Topical-Chat lies.
    lasting = {name: {k: v for k, v in part.items() if name or k == "seed"} for name, part in settings.items()}
    lasting["data"].pop("topical_chat", None)
    rounds = rounds_of(build(RewardSettings, settings["reward"]), output)
    claim(output, lasting, run.resume)
    set_seed(run.seed)
    each = (pretrain_stage, lengthen_stage, sft_stage, talk_stage, reward_stage, align_stage, evaluate_stage)
    stages = dict(zip(STAGES, each))
    plan = [(name, None) for name in STAGES if name not in IN_ROUNDS]
    plan[-1:-1] = [(name, part) for part in rounds for name in IN_ROUNDS]
    for name, part in plan:
        if name in run.stages:
            print(f"\nStage {name}{f', {part.folder}' if part else ''}: {stages[name].__doc__}", flush=True)
            stages[name](settings, output, run, *([part] if part else []))


@dataclass(frozen=True)
class Round:
    """
    Args:
        number: from 0.
        folder: where it keeps what it makes.
        before: those that came before it.
    """

    number: int
    folder: Path
    before: tuple[Round, ...]


def rounds_of(reward: RewardSettings, output: Path) -> list[Round]:
    if not reward.conversations:
        raise SettingsError("reward.conversations: expected a number for each round, found none")
    last, rounds = len(reward.conversations) - 1, []
    for number in range(last + 1):
        folder = output if number == last else output / f"round{number + 1}"
        rounds.append(Round(number, folder, tuple(rounds)))
    return rounds


def arguments(cls: type, settings: dict, stage: str, output: Path, run: RunSettings):
    """Arguments of a trainer: what all stages share, unless the section has others."""
    common = {
        "seed": run.seed,
        "report_to": "none",
        "output_dir": str(output / "checkpoints" / stage),
        "use_cpu": not torch.accelerator.is_available(),
        "dataloader_pin_memory": torch.accelerator.is_available(),
    }
    return build(cls, common | settings[stage])


# ------------------------------------------------------------------------------------------------ sessions


def generate(stream: int, seed: int, pieces: list[int], indices: list[int]) -> Iterator[dict]:
    """A piece of a conversation of two simulated people for each index.

    A piece that is no beginning begins with the user; one that is may begin with either. People are drawn anew for
    each conversation, whose words depend on seed, stream and index alone.
    """
    for index in indices:
        rng = np.random.default_rng([seed, stream, index])
        said = converse([draw_traits(rng), draw_traits(rng)], rng)
        length = min(pieces[index % len(pieces)], len(said))
        first = int(rng.integers(len(said) - length + 1))
        user = said[first].speaker if first else int(rng.integers(2))
        yield {
            "messages": [
                {"role": "user" if message.speaker == user else "assistant", "content": message.text}
                for message in said[first : first + length]
            ]
        }


def generated_sessions(stream: int, count: int, pieces: list[int], output: Path, run: RunSettings) -> Dataset:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Dataset.from_generator(
        generate,
        features=MESSAGES,
        cache_dir=str(output / "checkpoints" / "sessions"),
        gen_kwargs={"stream": stream, "seed": run.seed, "pieces": tuple(pieces), "indices": list(range(count))},
        num_proc=min(cores, count),
    )


def topical_chat(data: DataSettings) -> Dataset | None:
    """Both validation parts, every conversation from either side; the test parts are for the evaluation."""
    if data.topical_chat is None:
        return None
    sessions = load_sessions("topical_chat", data_dir=data.topical_chat, split=["valid_freq", "valid_rare"])
    return sessions.select_columns("messages").cast(MESSAGES)


def mixed(generated: Dataset, data: DataSettings, passes: int) -> Dataset:
    real = topical_chat(data)
    return generated if real is None else concatenate_datasets([generated, *[real] * passes])


# ------------------------------------------------------------------------------------------------ policy


def pretrain_stage(settings: dict, output: Path, run: RunSettings) -> None:
    """a language model from scratch, on generated sessions and Topical-Chat"""
    if (output / "short").exists():
        return kept(output / "short")
    data, policy = build(DataSettings, settings["data"]), build(PolicySettings, settings["policy"])
    generated = generated_sessions(PRETRAIN, data.sessions, data.pieces, output, run)
    few = generated.select(range(min(data.vocabulary_sessions, len(generated))))
    shape = {"hidden_size": policy.hidden_size, "layers": policy.layers, "vocab_size": policy.vocab_size}
    model, tokenizer = small_policy(mixed(few, data, 1), seed=run.seed, **shape)
    read(model, tokenizer, mixed(generated, data, data.passes), "pretrain", max(data.pieces), settings, output, run)
    write_by_one(output / "short", partial(save, model, tokenizer))


def lengthen_stage(settings: dict, output: Path, run: RunSettings) -> None:
    """the same, on longer pieces"""
    if (output / "base").exists():
        return kept(output / "base")
    data = build(DataSettings, settings["data"])
    generated = generated_sessions(LENGTHEN, data.long_sessions, data.long_pieces, output, run)
    model, tokenizer = load_policy(output / "short", dtype=torch.float32)
    read(model, tokenizer, mixed(generated, data, 1), "lengthen", data.window, settings, output, run)
    write_by_one(output / "base", partial(save, model, tokenizer))


def read(model, tokenizer, sessions: Dataset, stage: str, window: int, settings: dict, output: Path, run: RunSettings):
    """Train the model on everybody's words."""
    args = arguments(TrainingArguments, settings, stage, output, run)
    trainer = pretrain(model, tokenizer, sessions, args, window_messages=window, resume=run.resume)
    write_history(trainer, output / f"{stage}_history.json")


def sft_stage(settings: dict, output: Path, run: RunSettings) -> None:
    """the same, fine-tuned on the agent's turns"""
    from trl import SFTConfig

    if (output / "policy").exists():
        return kept(output / "policy")
    data = build(DataSettings, settings["data"])
    model, tokenizer = load_policy(output / "base", dtype=torch.float32)
    trainer = sft(
        model,
        tokenizer,
        mixed(generated_sessions(SFT, data.sft_sessions, data.long_pieces, output, run), data, 1),
        arguments(SFTConfig, settings, "sft", output, run),
        window_messages=data.window,
        resume=run.resume,
    )
    write_history(trainer, output / "sft_history.json")
    write_by_one(output / "policy", partial(save, model, tokenizer))


# ------------------------------------------------------------------------------------------------ reward


def talk_stage(settings: dict, output: Path, run: RunSettings, part: Round) -> None:
    """the policy talks with people of the sample, who rate each session and show their faces"""
    target = part.folder / "talks.jsonl"
    if target.exists():
        return kept(target)
    part.folder.mkdir(exist_ok=True)
    talk = build(TalkSettings, settings["talk"])
    model, tokenizer = load_policy(output / "policy", dtype=torch.float32)
    if part.before:
        model.load_adapter(part.before[-1].folder / "policy_adapter")
    set_seed(run.seed + part.number)
    people = SimulatedPeople(run.seed)
    rollouts = SessionRollouts(people, turns=talk.turns, max_new_tokens=talk.max_new_tokens)
    sampling = GenerationConfig(do_sample=True, temperature=talk.temperature, top_k=0)
    rows = []
    first = part.number * talk.sessions
    for begin in tqdm(range(first, first + talk.sessions, talk.batch_size), desc="Talking", unit="batch"):
        numbers = range(begin, min(begin + talk.batch_size, first + talk.sessions))
        prompts = [[{"role": "user", "content": opening([run.seed, TALK, number])}] for number in numbers]
        for number, rollout in zip(
            numbers, rollouts.play(model, tokenizer, prompts, list(numbers), generation_config=sampling)
        ):
            if not all(message["content"].strip() for message in rollout.messages):
                continue  # silence is no message, so this is no session
            name = f"talk-{number}"
            rows.append(
                {
                    "session_id": name,
                    "conversation_id": name,
                    "rater_id": name,
                    "messages": rollout.messages,
                    "score": people.rate(rollout.messages, number),
                    "feedback": {"affect": rollout.observed["affect"]},
                    "turn_rating": rollout.observed["value"],
                }
            )
    if silent := talk.sessions - len(rows):
        print(f"Left out {silent} of {talk.sessions} sessions, in which the policy once said nothing", flush=True)
    write_jsonl(rows, target)


def opening(seed: list[int]) -> str:
    """The first message of somebody who begins a conversation."""
    rng = np.random.default_rng(seed)
    return converse([draw_traits(rng), draw_traits(rng)], rng)[0].text


def reward_stage(settings: dict, output: Path, run: RunSettings, part: Round) -> None:
    """a reward model that begins as the policy, from ratings and faces; in later rounds it learns more"""
    target = part.folder / "policy_reward"
    if target.exists():
        return kept(target)
    reward = build(RewardSettings, settings["reward"])
    sessions = rated_sessions(reward, run, part.number)
    talks = [rated_talks(reward, each.folder, run) for each in (*part.before, part)]
    parts = {name: concatenate_datasets([sessions[name], *(rows[name] for rows in talks)]) for name in TRAINED_ON}
    args = {"seed": run.seed, "report_to": "none", "use_cpu": not torch.accelerator.is_available()}
    args |= {"output_dir": str(part.folder / "checkpoints" / "reward"), "freeze_backbone": False} | reward.training
    if part.before:
        model = GeliRewardModel.from_pretrained(part.before[-1].folder / "policy_reward", dtype=torch.float32)
        args |= reward.further
    else:
        model = GeliRewardModel.from_backbone(str(output / "policy"), **reward.config)
    trainer = GeliRewardTrainer(model, build(GeliRewardArguments, args), *parts.values())
    run_training(trainer, run.resume)
    write_history(trainer, part.folder / "reward_history.json")
    learned_from = {"sessions": sizes(sessions), "talks": [sizes(rows) for rows in talks]}
    write_by_one(
        part.folder / "reward_data.json", lambda path: path.write_text(json.dumps(learned_from, indent=1) + "\n")
    )
    write_by_one(target, partial(save_reward_model, model))


def sizes(parts: dict[str, Dataset]) -> dict[str, int]:
    return {name: len(rows) for name, rows in parts.items()}


def rated_sessions(reward: RewardSettings, run: RunSettings, number: int = 0) -> dict[str, Dataset]:
    """Sessions of the sample: in every round others to learn from and to watch the training on; others yet to measure
    on, the same in all."""
    sessions = load_sessions("sample", conversations=reward.conversations[number], seed=run.seed + number)
    test = load_sessions("sample", conversations=reward.test_conversations, seed=run.seed + HELD_OUT)
    shares = {"train": 1 - reward.eval_share, "eval": reward.eval_share}
    parts = split_sessions(sessions, shares, seed=run.seed) | {"test": test}
    return {part: alike(rows) for part, rows in parts.items()}


def rated_talks(reward: RewardSettings, folder: Path, run: RunSettings) -> dict[str, Dataset]:
    """The policy's own sessions of a round, for the same three purposes."""
    shares = {"train": 1 - 2 * reward.eval_share, "eval": reward.eval_share, "test": reward.eval_share}
    parts = split_sessions(load_sessions(folder / "talks.jsonl"), shares, seed=run.seed)
    return {part: alike(rows) for part, rows in parts.items()}


def alike(sessions: Dataset) -> Dataset:
    """With the columns and the signal that talks have."""
    return sessions.map(
        lambda row: {"feedback": {"affect": row["feedback"]["affect"]}},
        remove_columns=[name for name in sessions.column_names if name not in RATED],
        features=RATED,
    )


def within_session(model: GeliRewardModel, sessions: Dataset) -> float:
    rewards = [row["turn_rewards"] for row in score_cached(model, sessions)]
    return within_session_spearman(rewards, sessions["turn_rating"][:])


def save_reward_model(model: GeliRewardModel, folder: Path) -> None:
    """Without the code, which the package has and `geli push` adds."""
    model.to(torch.bfloat16).save_pretrained(folder)
    for code in folder.glob("*.py"):
        code.unlink()


# ------------------------------------------------------------------------------------------------ alignment


def align_stage(settings: dict, output: Path, run: RunSettings, part: Round) -> None:
    """an adapter of the policy, by GRPO"""
    from peft import LoraConfig
    from trl import GRPOConfig

    target = part.folder / "policy_adapter"
    if target.exists():
        return kept(target)
    policy, data = build(PolicySettings, settings["policy"]), build(DataSettings, settings["data"])
    sessions = rated_sessions(build(RewardSettings, settings["reward"]), run)
    args = arguments(GRPOConfig, settings, "grpo", part.folder, run)
    likelihood = None
    if policy.likelihood:
        reference = load_policy(output / "policy", dtype=torch.float32)
        likelihood = ReferenceLikelihood(*reference, weight=policy.likelihood, batch_size=64)
    trainer = align(
        output / "policy",
        GeliReward(
            GeliRewardModel.from_pretrained(part.folder / "policy_reward", dtype=torch.float32),
            likelihood=likelihood,
            length_neutral=policy.length_neutral,
        ),
        # Longer ones take three times as long.
        dialogue_prompts(sessions["train"], context_messages=max(data.pieces)),
        args,
        LoraConfig(**{"target_modules": "all-linear", "task_type": "CAUSAL_LM"} | policy.lora),
        resume=run.resume,
    )
    write_history(trainer, part.folder / "align_history.json")
    best, figures = choose(sort_checkpoints(args.output_dir), sessions["eval"], settings, output, run)
    print(f"Checkpoints, by the truth: {figures}", flush=True)
    write_by_one(
        part.folder / "align_figures.json", lambda path: path.write_text(json.dumps(figures, indent=1) + "\n")
    )
    set_peft_model_state_dict(trainer.model, load_peft_weights(best, device="cpu"))
    write_by_one(target, partial(save_adapter, trainer.model))


def choose(
    checkpoints: list[str], sessions: Dataset, settings: dict, output: Path, run: RunSettings
) -> tuple[str, dict]:
    """The checkpoint whose replies are the truest, of those that are recognised as often as the fine-tuned policy's.

    The reward can't tell: it goes on rising when they no longer get better.
    """
    asked, data = build(EvaluateSettings, settings["evaluate"]), build(DataSettings, settings["data"])
    prompts = dialogue_prompts(sessions, context_messages=data.window).shuffle(seed=run.seed)
    prompts = prompts.select(range(min(asked.compared, len(prompts))))
    dialogues = dialogues_of(prompts, sessions)

    def replies(adapter: str | None = None) -> list[str]:
        model, tokenizer = load_policy(output / "policy", dtype=torch.float32)
        if adapter is not None:
            model.load_adapter(adapter)
        return answers(model, tokenizer, prompts, asked, run)

    before = replies()
    found = {
        name: TruthJudge().compare(dialogues, before, replies(name), prompts["conversation_id"][:])
        for name in checkpoints
    }
    recognised = {name: np.mean([reply.recognised for reply in each.after]) for name, each in found.items()}
    before_recognised = np.mean([reply.recognised for reply in found[checkpoints[0]].before])
    sound = [name for name in checkpoints if recognised[name] >= before_recognised]
    best = max(sound or checkpoints, key=lambda name: found[name].mean_win)
    return best, {
        "chosen": steps(best),
        "replies": len(prompts),
        "win_rates": {steps(name): each.mean_win for name, each in found.items()},
        "recognised": {steps(name): float(share) for name, share in recognised.items()},
        "recognised_before": float(before_recognised),
    }


def steps(checkpoint: str) -> int:
    return int(checkpoint.rpartition("-")[2])


def save_adapter(model: PeftModel, folder: Path) -> None:
    for config in model.peft_config.values():
        config.base_model_name_or_path = "policy"  # the folder beside it, wherever both lie
    model.to(torch.bfloat16).save_pretrained(folder, save_embedding_layers=False)


# ------------------------------------------------------------------------------------------------ evaluation


def evaluate_stage(settings: dict, output: Path, run: RunSettings) -> None:
    """all three on held-out dialogues"""
    from trl import SFTConfig

    if (output / "figures.json").exists():
        return kept(output / "figures.json")
    data, asked = build(DataSettings, settings["data"]), build(EvaluateSettings, settings["evaluate"])
    sessions = {"sample": rated_sessions(build(RewardSettings, settings["reward"]), run)["test"]}
    if data.topical_chat is not None:
        sessions["topical_chat"] = load_sessions("topical_chat", data_dir=data.topical_chat, split="test_freq")

    speakers = {name: load_policy(output / name, dtype=torch.float32) for name in ("base", "policy")}
    speakers["aligned"] = load_policy(output / "policy", dtype=torch.float32)
    speakers["aligned"][0].load_adapter(output / "policy_adapter")
    pieces = {
        corpus: sft_rows(rows, window_messages=data.window).shuffle(seed=run.seed)["messages"][: asked.pieces]
        for corpus, rows in sessions.items()
    }
    figures: dict = {
        "data": {
            "generated": data.sessions,
            "pieces": list(data.pieces),
            "lengthened": data.long_sessions,
            "long_pieces": list(data.long_pieces),
            "sft": data.sft_sessions,
            "sft_epochs": arguments(SFTConfig, settings, "sft", output, run).num_train_epochs,
            "topical_chat": len(topical_chat(data) or ()),
            "passes": data.passes,
            "test_conversations": len(set(sessions["sample"]["conversation_id"])),
        },
        "asked": {"replies": asked.replies, "temperature": asked.temperature, "seed": run.seed},
        "parameters": sum(weight.numel() for weight in speakers["policy"][0].parameters()),
        "perplexity": {
            name: {corpus: perplexity(*speaker, rows) for corpus, rows in pieces.items()}
            for name, speaker in speakers.items()
        },
        "reward": rewards_of(build(RewardSettings, settings["reward"]), output, run),
    }

    replies = {}
    for corpus, rows in sessions.items():
        prompts = dialogue_prompts(rows, context_messages=data.window).shuffle(seed=run.seed)
        prompts = prompts.select(range(min(asked.replies if corpus == "sample" else asked.shown, len(prompts))))
        said = {name: answers(*speakers[name], prompts, asked, run) for name in ("policy", "aligned")}
        replies[corpus] = [
            {"before": prompt[-1]["content"], "fine-tuned": one, "aligned": other}
            for prompt, one, other in zip(prompts["prompt"], said["policy"], said["aligned"])
        ][: asked.shown]
        if corpus == "sample":
            figures["alignment"] = gained(rows, prompts, said, speakers, asked.temperature)
    figures["checkpoints"] = json.loads((output / "align_figures.json").read_text())
    figures["replies"] = replies
    figures["made"] = made(
        ["python", "examples/train_policy.py", *sys.argv[1:]],
        settings={name: part for name, part in settings.items() if name and part},
    )
    with whole(output / "figures.json") as path:
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for folder, card in cards(json.loads((output / "figures.json").read_text(encoding="utf-8")), output).items():
        save_card(card, output / folder)


def rewards_of(reward: RewardSettings, output: Path, run: RunSettings) -> dict:
    """How well the reward model of each round orders the turns of the sample and of every round's talks."""
    rounds = rounds_of(reward, output)
    found = [json.loads((each.folder / "reward_data.json").read_text()) for each in rounds]
    talks = {f"talks{number}": rated_talks(reward, each.folder, run)["test"] for number, each in enumerate(rounds, 1)}
    held_out = {"sample": rated_sessions(reward, run)["test"]} | talks
    models = (GeliRewardModel.from_pretrained(each.folder / "policy_reward", dtype=torch.float32) for each in rounds)
    return {
        "sessions": [each["sessions"] for each in found],
        "talks": found[-1]["talks"],
        "rounds": [{name: within_session(model, rows) for name, rows in held_out.items()} for model in models],
    }


def answers(model, tokenizer, prompts: Dataset, asked: EvaluateSettings, run: RunSettings) -> list[str]:
    how = {"max_new_tokens": asked.max_new_tokens, "temperature": asked.temperature, "seed": run.seed}
    return generate_replies(model, tokenizer, prompts["prompt"][:], **how, progress=True)


def dialogues_of(prompts: Dataset, sessions: Dataset) -> list[list[dict]]:
    """All that was said before the reply that each prompt asks for."""
    messages = dict(zip(sessions["session_id"], sessions["messages"]))
    return [messages[row["session_id"]][: row["position"]] for row in prompts]


def gained(sessions: Dataset, prompts: Dataset, said: dict[str, list], speakers: dict, temperature: float) -> dict:
    """What the truth says of the replies before and after alignment, and how far these moved."""
    dialogues = dialogues_of(prompts, sessions)
    conversations = prompts["conversation_id"][:]
    truths = {
        name: [
            true_turn_value([*dialogue, {"role": "assistant", "content": reply}])
            for dialogue, reply in zip(dialogues, texts)
        ]
        for name, texts in said.items()
    }
    judged = {
        name: [JudgedReply(text, truth.value, truth.recognised) for text, truth in zip(said[name], truths[name])]
        for name in said
    }
    figures = PolicyComparison(dialogues, judged["policy"], judged["aligned"], conversations, True).figures()
    before, after = (np.array([truth.value for truth in truths[name]]) for name in ("policy", "aligned"))
    figures["win_rate"] = bootstrap((after > before) + (after == before) / 2, conversations)
    figures["ties"] = float(np.mean(after == before))

    completed = [
        [*prompt, {"role": "assistant", "content": reply}] for prompt, reply in zip(prompts["prompt"], said["aligned"])
    ]
    aligned, reference = (
        np.array([turns[-1].sum() for turns in turn_log_probs(*speakers[name], completed, temperature)])
        for name in ("aligned", "policy")
    )
    figures["kl"] = bootstrap(aligned - reference, conversations)
    for side, name in (("before", "policy"), ("after", "aligned")):
        figures[side] |= {f"distinct_{n}": distinct(said[name], n) for n in (1, 2, 3)}
        acts = Counter(truth.act for truth in truths[name])
        figures[side]["acts"] = {act: count / len(prompts) for act, count in acts.most_common()}
    return figures


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dialogues: list) -> dict[str, float]:
    """Of the agent's turns with their ends, per token and per word; words stand between spaces."""
    log_probs = np.concatenate([np.concatenate(turns) for turns in turn_log_probs(model, tokenizer, dialogues)])
    words = sum(len(m["content"].split()) for messages in dialogues for m in messages if m["role"] == "assistant")
    return {
        "per_token": float(np.exp(-log_probs.mean())),
        "per_word": float(np.exp(-log_probs.sum() / words)),
        "tokens": len(log_probs),
        "words": words,
    }


@torch.inference_mode()
def turn_log_probs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dialogues: list,
    temperature: float = 1.0,
    batch_size: int = 32,
) -> list[list[np.ndarray]]:
    """Of each dialogue, for each turn of the agent the log-probabilities of its tokens, the end included."""
    model.eval()
    result = []
    for first in range(0, len(dialogues), batch_size):
        encoded = tokenizer.apply_chat_template(
            [list(messages) for messages in dialogues[first : first + batch_size]],
            return_assistant_tokens_mask=True,
            return_dict=True,
            padding=True,
            tokenizer_kwargs={"padding_side": "right"},
        )
        ids, attention = torch.tensor(encoded["input_ids"]), torch.tensor(encoded["attention_mask"])
        logits = model(input_ids=ids, attention_mask=attention).logits[:, :-1] / temperature
        chosen = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0].double().numpy()
        spoken = np.array(encoded["assistant_masks"])[:, 1:] == 1
        for values, mask in zip(chosen, spoken):
            edges = np.flatnonzero(np.diff(np.r_[0, mask, 0]))
            result.append([values[start:stop] for start, stop in edges.reshape(-1, 2)])
    return result


def distinct(texts: list[str], n: int) -> float:
    """Share of different ones among all n-grams of the texts' words (Li et al., 2016, arXiv 1510.03055)."""
    grams = [
        gram for words in (text.lower().split() for text in texts) for gram in zip(*(words[k:] for k in range(n)))
    ]
    return len(set(grams)) / max(1, len(grams))


# ------------------------------------------------------------------------------------------------ cards

CORPORA = {"sample": "the sample", "topical_chat": "Topical-Chat (`test_freq`)"}
STAGE_OF = {"base": "pretrained", "policy": "fine-tuned", "aligned": "aligned"}
SOURCE = (
    "Topical-Chat (Gopalakrishnan et al., Interspeech 2019; Community Data License Agreement, Sharing 1.0), parts "
    "`valid_freq` and `valid_rare`"
)


def of_alignment(told: dict | None) -> dict | None:
    """How the whole was made, with the settings of the alignment alone."""
    if not told:
        return None
    settings = yaml.safe_load(told["settings"])
    own = {name: settings[name] for name in ("policy", "grpo") if name in settings}
    return told | {"settings": yaml.safe_dump(own, sort_keys=False).strip()}


def cards(figures: dict, folder: Path) -> dict[str, ModelCard]:
    """The card of each of the three folders, from the figures of a run and what lies in `folder` beside them."""
    data, found = figures["data"], figures["reward"]
    rated, talked = ([each["train"] for each in found[name]] for name in ("sessions", "talks"))
    low, high = min(data["pieces"]), max(data["pieces"])
    read = f"pieces of {low} to {high} messages of {data['generated']:,} generated sessions of the sample"
    longer = f"pieces of up to {max(data['long_pieces'])} messages of {data['lengthened']:,} others"
    longer += " and of Topical-Chat" if data["topical_chat"] else ""
    learnt = f"{data['sft']:,} other generated sessions"
    if data["topical_chat"]:
        often = "once" if data["passes"] == 1 else f"{data['passes']} times"
        read += (
            f", and {often} on the {data['topical_chat']:,} sessions (every conversation from both sides) of {SOURCE}"
        )
        learnt += " and the same sessions of Topical-Chat"
    common = {"metadata": {"license": "apache-2.0", "language": "en"}, "made": figures.get("made")}
    on = {"type": "sample", "name": "held-out dialogues of the sample corpus"}
    gained = figures["alignment"]
    policy = fill(
        "small_policy",
        "policy",
        **common,
        figures=[Measured("Win rate of the aligned policy, by the sample's truth", "win_rate", gained["win_rate"])],
        measured_on=on,
        sizes=f"The policy has {figures['parameters'] / 1e6:.1f} million weights, in bfloat16.",
        training_data=(
            f"Pretrained on {read}: everybody's words; then on {longer}, so that it is at home in longer "
            f"dialogues. Fine-tuned for {data['sft_epochs']:g} epochs on the agent's turns of {learnt}. Aligned with "
            f"prompts from {rated[0]:,} rated sessions of the sample, which the reward model was learned from "
            "too. The sample is made by the package; no test part of a corpus was learned from."
        ),
        perplexity=perplexity_table(figures),
        alignment=alignment_table(figures),
        acts=acts_table(figures),
        replies=replies_list(figures),
    )
    reward = fill(
        "reward_model",
        "policy_reward",
        **common,
        figures=[Measured(COLUMNS["within_session_spearman"], "spearmanr", found["rounds"][-1]["sample"])],
        measured_on=on,
        training_data=(
            f"{sum(rated):,} sessions of the sample corpus, which the package makes, and {sum(talked):,} that the "
            f"small policy talked with the people of that corpus: {talked[0]:,} before it was aligned"
            + "".join(f", {count:,} after round {number}" for number, count in enumerate(talked[1:], 1))
            + ". The backbone began as the small policy. All weights were trained, on the ratings of the sessions "
            "(RRD) and at once on the listeners' simulated faces, where it was found out how much of a reward shows "
            "(`li_slope`)" + ("; later rounds went on with new sessions and all talks." if talked[1:] else ".")
        ),
        rating="the simulated partner's overall affect, 1 to 9.",
        held_out=(
            f"{found['sessions'][-1]['test']:,} sessions of {data['test_conversations']} held-out conversations of "
            f"the sample, and {' and '.join(str(each['test']) for each in found['talks'])} held-out ones of the policy"
        ),
        figures_table=reward_table(figures),
    )
    lora = json.loads((folder / "policy_adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    adapter = policy_card(
        "policy_adapter",
        base_model="policy",
        adapter=True,
        method="grpo",
        reward_model="policy_reward",
        training_data=(
            f"Prompts from {rated[0]:,} rated sessions of the sample corpus, which the reward model was learned "
            "from too. The sample is made by the package: simulated people, whose words are nobody's (Apache 2.0). "
            f"What the policy under it has read{f', {SOURCE} among it' if data['topical_chat'] else ''}, its own card "
            "tells."
        ),
        recipe=(
            f"LoRA of rank {lora['r']} (alpha {lora['lora_alpha']}, dropout {lora['lora_dropout']:g}) on "
            f"{', '.join(f'`{name}`' for name in sorted(lora['target_modules']))} of the policy in the folder "
            "`policy`, in bfloat16, trained by GRPO. The command makes all three folders; of its settings these are "
            "the adapter's."
        ),
        made=of_alignment(figures.get("made")),
        comparison=gained,
        table=alignment_table(figures),
        held_out=f"{figures['asked']['replies']:,} held-out dialogues of the sample",
        measured_on=on,
        limits=(
            "**For the offline demo and for tests**: the policy under it is very small, knows what the sample's "
            "simulated people talk about and nothing else, and is not for real use. What was gained was measured in "
            "the world that the reward was learned in, and says nothing of people."
        ),
        **common["metadata"],
    )
    return {"policy": policy, "policy_adapter": adapter, "policy_reward": reward}


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def perplexity_table(figures: dict) -> str:
    rows = [
        [STAGE_OF[name], CORPORA[corpus], f"{each['per_token']:.2f}", f"{each['per_word']:.2f}", f"{each['words']:,}"]
        for corpus in CORPORA
        for name, read in figures["perplexity"].items()
        if (each := read.get(corpus))
    ]
    return table(["the policy", "turns of", "per token", "per word", "words read"], rows)


def alignment_table(figures: dict) -> str:
    found = figures["alignment"]
    sides = [found["before"], found["after"]]
    rows = [["true value", *(str(Interval(*side["value"])) for side in sides)]]
    rows.append(["recognised by the grammar", *(f"{side['recognised']:.1%}" for side in sides)])
    rows.append(["words", *(f"{side['words']:.1f}" for side in sides)])
    rows.append(["different replies", *(f"{side['distinct']:.1%}" for side in sides)])
    rows += [[f"distinct-{n}", *(f"{side[f'distinct_{n}']:.3f}" for side in sides)] for n in (1, 2, 3)]
    asked, checkpoints = figures["asked"], figures["checkpoints"]
    compared = ", ".join(
        f"{step} steps {wins:.3f} ({checkpoints['recognised'][step]:.1%})"
        for step, wins in checkpoints["win_rates"].items()
    )
    chosen = (
        f"\n\nThe adapter is that of {checkpoints['chosen']} steps of GRPO. Of those whose replies were recognised as "
        f"often as before ({checkpoints['recognised_before']:.1%}), if there were any, it had the highest win rate in "
        f"{checkpoints['replies']:,} replies to other dialogues: {compared}"
    )
    return (
        table(["a reply", "fine-tuned", "aligned"], rows)
        + f"\n\nOf {asked['replies']:,} pairs of replies the aligned one is better in "
        + f"{Interval(*found['win_rate'])} (ties, {found['ties']:.1%}, count half). The true value rises by "
        + f"{Interval(*found['difference'])}, at {found['length_ratio']:.2f} of the length, and the policy moved by "
        + f"{Interval(*found['kl'])} nats a reply (KL divergence from the fine-tuned one, at the temperature of "
        + f"{asked['temperature']} that replies were sampled at). Intervals are 95 % bootstrap intervals over "
        + "conversations; distinct-n is the share of different n-grams of words among all."
        + f"{chosen}."
    )


def acts_table(figures: dict) -> str:
    sides = [figures["alignment"][side]["acts"] for side in ("before", "after")]
    names = sorted(set().union(*sides), key=lambda act: (-max(side.get(act, 0.0) for side in sides), act))
    rows = [
        [act.replace("_", " "), f"{VALUES[act]:+.1f}", *(f"{side.get(act, 0.0):.1%}" for side in sides)]
        for act in names
        if max(side.get(act, 0.0) for side in sides) >= 0.01
    ]
    return table(["act", "worth", "fine-tuned", "aligned"], rows)


def replies_list(figures: dict) -> str:
    lines = []
    for corpus, rows in figures["replies"].items():
        lines.append(f"From {CORPORA[corpus]}:\n")
        for row in rows:
            said = {name: " ".join(text.split()) for name, text in row.items()}
            lines.append(f"- *{said['before']}*<br>fine-tuned: {said['fine-tuned']}<br>aligned: {said['aligned']}")
        lines.append("")
    return "\n".join(lines).strip()


def reward_table(figures: dict) -> str:
    found, last = figures["reward"], len(figures["reward"]["rounds"])
    columns = {"sample": "the sample's people", "talks1": "the fine-tuned policy"}
    columns |= {f"talks{number + 1}": f"as aligned in round {number}" for number in range(1, last)}
    models = {f"after round {number}": each for number, each in enumerate(found["rounds"], 1)}
    models["this model"] = models.pop(f"after round {last}")
    rows = [
        [name, *(f"{each[column]:.3f}" if column in each else "" for column in columns)]
        for name, each in reversed(models.items())
    ]
    return table(["within-session Spearman with the truth", *columns.values()], rows)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    model.config.use_cache = True  # the Trainer has switched it off
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def kept(target: Path) -> None:
    print(f"{target} is there already and is kept")


def keep_freed_memory() -> None:
    """Every token of a batch of replies makes a cache of many megabytes anew. glibc would give the old one back each
    time and fetch the new one page by page, for a quarter of the time that the policy talks."""
    if platform.libc_ver()[0] == "glibc":
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
            ctypes.CDLL(None).mallopt(parameter, 2**31 - 1)


if __name__ == "__main__":
    keep_freed_memory()
    try:
        main(sys.argv[1:])
    except (SettingsError, SessionError, FileNotFoundError) as error:
        sys.exit(f"train_policy: {error}")
