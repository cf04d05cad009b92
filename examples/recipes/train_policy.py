"""The small policy that comes with the package, the reward model that aligned it, and the adapter of the alignment.

    python examples/recipes/train_policy.py --config examples/configs/policy.yaml --data.topical_chat DATA/topical_chat

Six stages, each of which leaves a folder or file in `output_dir`:

    pretrain  a language model from scratch, on pieces of generated sessions and on Topical-Chat   -> short/
    lengthen  the same, on longer pieces, so that it is at home in longer dialogues                -> base/
    sft       the same, fine-tuned on the agent's turns                                            -> policy/
    talk      with people of the sample, who rate each session and show their faces                -> talks.jsonl
    reward    a reward model that begins as that policy, of these sessions and others              -> policy_reward/
    align     an adapter of the policy, by GRPO against it; the truth chooses the checkpoint       -> policy_adapter/

`evaluate_policy.py` then measures all three, and `policy_cards.py` writes their cards. GRPO also finds replies that
the reward model likes by mistake: so replies are also rewarded for how likely the fine-tuned policy finds them
(`policy.likelihood`). Weights are written in bfloat16, and every stage goes on from what was written.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from peft import LoraConfig, load_peft_weights, set_peft_model_state_dict
from tqdm import tqdm
from transformers import GenerationConfig, TrainingArguments, set_seed
from transformers.trainer_utils import sort_checkpoints
from trl import GRPOConfig, SFTConfig

from geli_hf import GeliRewardArguments, GeliRewardModel, GeliRewardTrainer, load_sessions, split_sessions
from geli_hf.alignment import (
    GeliReward,
    ReferenceLikelihood,
    SessionRollouts,
    SimulatedPeople,
    align,
    dialogue_prompts,
    load_policy,
    pretrain,
    sft,
    small_policy,
)
from geli_hf.data.rows import write_jsonl
from geli_hf.evaluation.judges.judge import TruthJudge
from geli_hf.evaluation.policies import Sampling, evaluate_policies
from geli_hf.sessions import session_features
from geli_hf.settings import SettingsError, build, parse_settings
from geli_hf.simulator.dialogues import draw_opening, draw_pieces
from geli_hf.training.checkpoints import run_training, write_by_one, write_history
from geli_hf.training.script import is_finished, run_main, start_run

STAGES = {"pretrain": "short", "lengthen": "base", "sft": "policy"}  # and what each leaves
STAGES |= {"talk": "talks.jsonl", "reward": "policy_reward", "align": "policy_adapter"}
# Streams of random numbers, apart from those of geli_hf.simulator.corpus.write_sample (0 to 2).
PRETRAIN, SFT, LENGTHEN, TALK = 3, 4, 5, 6
HELD_OUT = 1000  # added to the seed: of the corpus that nothing is trained on
RATED = session_features(feedback=["affect"], turn_rating=True)
MESSAGES = Features({"messages": List({"role": Value("string"), "content": Value("string")})})


@dataclass
class RunSettings:
    output_dir: str
    stages: list[str] = field(default_factory=lambda: list(STAGES))
    seed: int = 0  # of the sessions, of training and of generation
    resume: bool = False  # go on with the run in output_dir


@dataclass
class DataSettings:
    sessions: int = 100_000  # generated ones, to learn the language from
    long_sessions: int = 6_000  # others, to get used to longer dialogues with
    sft_sessions: int = 4_000  # others, whose agent's turns are learned
    topical_chat: str | None = None  # folder of Topical-Chat; without it, none
    passes: int = 1  # over Topical-Chat, each from both sides
    vocabulary_sessions: int = 2_000  # sessions that the tokenizer learns from
    pieces: list[int] = field(default_factory=lambda: [4, 4, 6])  # messages of the generated sessions, by turns; even
    long_pieces: list[int] = field(default_factory=lambda: [6, 16])  # the same after pretraining


@dataclass
class PolicySettings:
    hidden_size: int = 128
    layers: int = 4
    vocab_size: int = 2560
    lora: dict = field(default_factory=lambda: {"r": 16, "lora_alpha": 32})
    likelihood: float = 0.0  # reward of a nat of a reply's likelihood before RL
    compared: int = 480  # dialogues to choose the checkpoint on


@dataclass
class TalkSettings:
    sessions: int = 4_000
    turns: int = 6  # of the policy in each
    temperature: float = 0.8
    max_new_tokens: int = 40
    batch_size: int = 256


@dataclass
class RewardSettings:
    conversations: int = 1600  # rated ones of the sample to train on
    test_conversations: int = 300  # others, for all figures
    eval_share: float = 0.1  # of the first, to watch the training on
    config: dict = field(default_factory=dict)  # fields of GeliRewardConfig
    training: dict = field(default_factory=dict)  # GeliRewardArguments


OURS = {"data": DataSettings, "policy": PolicySettings, "talk": TalkSettings, "reward": RewardSettings}
TRAINERS = {"pretrain": TrainingArguments, "lengthen": TrainingArguments, "sft": SFTConfig, "grpo": GRPOConfig}


def main(argv: list[str]) -> None:
    settings = parse_settings(argv, RunSettings, OURS | TRAINERS)
    recipe = Recipe(settings)
    if unknown := set(recipe.run.stages) - set(STAGES):
        raise SettingsError(f"stages: expected some of {', '.join(STAGES)}, found {', '.join(sorted(unknown))}")
    # The place of Topical-Chat may change when a run is resumed.
    fixed = settings | {"data": {name: value for name, value in settings["data"].items() if name != "topical_chat"}}
    start_run(recipe.output, fixed, recipe.run.resume, lasting=["seed"])
    set_seed(recipe.run.seed)
    for name, target in STAGES.items():
        if name in recipe.run.stages:
            print(f"\nStage {name}: {getattr(recipe, name).__doc__}", flush=True)
            if not is_finished(recipe.output / target):
                getattr(recipe, name)(recipe.output / target)


class Recipe:
    def __init__(self, settings: dict[str, dict]):
        self.settings = settings
        self.run = build(RunSettings, settings[""])
        self.output, self.seed = Path(self.run.output_dir), self.run.seed
        self.data, self.policy, self.talks, self.rated = (build(cls, settings[name]) for name, cls in OURS.items())

    def pretrain(self, target: Path) -> None:
        """a language model from scratch, on generated sessions and Topical-Chat"""
        generated = self.generated(PRETRAIN, self.data.sessions, self.data.pieces)
        few = generated.select(range(min(self.data.vocabulary_sessions, len(generated))))
        shape = {name: getattr(self.policy, name) for name in ("hidden_size", "layers", "vocab_size")}
        model, tokenizer = small_policy(self.mixed(few), seed=self.seed, **shape)
        sessions = self.mixed(generated, self.data.passes)
        self.train("pretrain", pretrain, target, model, tokenizer, sessions, max(self.data.pieces))

    def lengthen(self, target: Path) -> None:
        """the same, on longer pieces"""
        sessions = self.mixed(self.generated(LENGTHEN, self.data.long_sessions, self.data.long_pieces))
        self.train("lengthen", pretrain, target, *self.load("short"), sessions, max(self.data.long_pieces))

    def sft(self, target: Path) -> None:
        """the same, fine-tuned on the agent's turns"""
        sessions = self.mixed(self.generated(SFT, self.data.sft_sessions, self.data.long_pieces))
        self.train("sft", sft, target, *self.load("base"), sessions, max(self.data.long_pieces))

    def talk(self, target: Path) -> None:
        """the policy talks with people of the sample, who rate each session and show their faces"""
        talks, people = self.talks, SimulatedPeople(self.seed)
        model, tokenizer = self.load("policy")
        set_seed(self.seed)
        rollouts = SessionRollouts(people, turns=talks.turns, max_new_tokens=talks.max_new_tokens)
        sampling = GenerationConfig(do_sample=True, temperature=talks.temperature, top_k=0)
        rows = []
        for first in tqdm(range(0, talks.sessions, talks.batch_size), desc="Talking", unit="batch"):
            numbers = list(range(first, min(first + talks.batch_size, talks.sessions)))
            prompts = [draw_opening([self.seed, TALK, number]) for number in numbers]
            played = rollouts.play(model, tokenizer, prompts, numbers, generation_config=sampling)
            for number, rollout in zip(numbers, played):
                if not all(message["content"].strip() for message in rollout.messages):
                    continue  # silence is no message, so this is no session
                row = dict.fromkeys(("session_id", "conversation_id", "rater_id"), f"talk-{number}")
                row |= {"messages": rollout.messages, "score": people.rate(rollout.messages, number)}
                row["feedback"] = {"affect": rollout.observed["affect"]}
                rows.append(row | {"turn_rating": rollout.observed["value"]})
        print(f"{len(rows)} of {talks.sessions} sessions; the policy once said nothing in the others", flush=True)
        write_jsonl(rows, target)

    def reward(self, target: Path) -> None:
        """a reward model that begins as the policy, from ratings and faces"""
        sessions = self.sessions()
        parts = [concatenate_datasets([each[part] for each in sessions.values()]) for part in ("train", "eval")]
        args = {"seed": self.seed, "report_to": "none", "use_cpu": not torch.accelerator.is_available()}
        args |= {"output_dir": str(self.output / "checkpoints" / "reward"), "freeze_backbone": False}
        model = GeliRewardModel.from_backbone(str(self.output / "policy"), **self.rated.config)
        trainer = GeliRewardTrainer(model, build(GeliRewardArguments, args | self.rated.training), *parts)
        run_training(trainer, self.run.resume)
        write_history(trainer, self.output / "reward_history.json")
        sizes = {name: {part: len(rows) for part, rows in each.items()} for name, each in sessions.items()}
        write_json(self.output / "reward_data.json", sizes)
        for name, each in sessions.items():
            write_jsonl(each["test"], self.output / "held_out" / f"{name}.jsonl")

        def save(folder: Path) -> None:
            model.to(torch.bfloat16).save_pretrained(folder)
            for code in folder.glob("*.py"):  # the package has it, and `geli push` adds it
                code.unlink()

        write_by_one(target, save)

    def align(self, target: Path) -> None:
        """an adapter of the policy, by GRPO"""
        likelihood = None
        if self.policy.likelihood:
            likelihood = ReferenceLikelihood(*self.load("policy"), weight=self.policy.likelihood, batch_size=64)
        reward_model = GeliRewardModel.from_pretrained(self.output / "policy_reward", dtype=torch.float32)
        reward = GeliReward(reward_model, likelihood=likelihood)
        sessions, args = self.sessions()["sample"], self.arguments("grpo")
        prompts = dialogue_prompts(sessions["train"], context_messages=max(self.data.pieces))  # longer ones take long
        lora = LoraConfig(**{"target_modules": "all-linear", "task_type": "CAUSAL_LM"} | self.policy.lora)
        trainer = align(self.output / "policy", reward, prompts, args, lora, resume=self.run.resume)
        write_history(trainer, self.output / "align_history.json")
        best, figures = self.choose(sort_checkpoints(args.output_dir), sessions["eval"])
        write_json(self.output / "align_figures.json", figures)
        set_peft_model_state_dict(trainer.model, load_peft_weights(best, device="cpu"))
        for config in trainer.model.peft_config.values():
            config.base_model_name_or_path = "policy"  # the folder beside it, wherever both lie
        adapter = trainer.model.to(torch.bfloat16)
        write_by_one(target, lambda folder: adapter.save_pretrained(folder, save_embedding_layers=False))

    def choose(self, checkpoints: list[str], sessions: Dataset) -> tuple[str, dict]:
        """Choose the checkpoint whose replies win most often, of those recognised as often as before alignment.

        The reward can't tell: it goes on rising when replies no longer get better.
        """
        sampling = Sampling(self.policy.compared, max(self.data.long_pieces), 48, 0.7, self.seed)
        how = {"sampling": sampling, "dtype": torch.float32}
        policy, steps = str(self.output / "policy"), {name: int(name.rpartition("-")[2]) for name in checkpoints}
        rows = {}
        for name in checkpoints:
            rows[name] = evaluate_policies(policy, [name], sessions, TruthJudge(), **how).chosen.figures
        sound = [name for name, row in rows.items() if row["after"]["recognised"] >= row["before"]["recognised"]]
        best = max(sound or checkpoints, key=lambda name: rows[name]["win_rate"].estimate)
        figures = {"chosen": steps[best], "replies": sampling.replies}
        figures["recognised_before"] = rows[best]["before"]["recognised"]
        figures["win_rates"] = {steps[name]: row["win_rate"].estimate for name, row in rows.items()}
        figures["recognised"] = {steps[name]: row["after"]["recognised"] for name, row in rows.items()}
        return best, figures

    def load(self, folder: str):
        return load_policy(self.output / folder, dtype=torch.float32)

    def arguments(self, name: str) -> TrainingArguments:
        accelerator = torch.accelerator.is_available()
        common = {"seed": self.seed, "report_to": "none", "output_dir": str(self.output / "checkpoints" / name)}
        common |= {"use_cpu": not accelerator, "dataloader_pin_memory": accelerator}
        return build(TRAINERS[name], common | self.settings[name])

    def train(self, name: str, train, target: Path, model, tokenizer, sessions: Dataset, window: int) -> None:
        how = {"window_messages": window, "resume": self.run.resume}
        trainer = train(model, tokenizer, sessions, self.arguments(name), **how)
        write_history(trainer, self.output / f"{name}_history.json")
        model.config.use_cache = True  # the Trainer has switched it off
        model.to(torch.bfloat16)
        write_by_one(target, lambda folder: [part.save_pretrained(folder) for part in (model, tokenizer)])

    def generated(self, stream: int, count: int, pieces: list[int]) -> Dataset:
        return Dataset.from_generator(
            draw_pieces,
            features=MESSAGES,
            cache_dir=str(self.output / "checkpoints" / "sessions"),
            gen_kwargs={"seed": (self.seed, stream), "lengths": tuple(pieces), "indices": list(range(count))},
            num_proc=min(os.cpu_count(), count),
        )

    def mixed(self, generated: Dataset, passes: int = 1) -> Dataset:
        """Add both validation parts of Topical-Chat, each conversation from either side; evaluation has the others."""
        if self.data.topical_chat is None:
            return generated
        parts = {"data_dir": self.data.topical_chat, "split": ["valid_freq", "valid_rare"]}
        real = load_sessions("topical_chat", **parts).select_columns("messages").cast(MESSAGES)
        return concatenate_datasets([generated, *[real] * passes])

    def sessions(self) -> dict[str, dict[str, Dataset]]:
        """Load the sample's sessions and the policy's own, each to train, to watch the training and to measure on."""
        rated, share = self.rated, self.rated.eval_share
        sample = load_sessions("sample", conversations=rated.conversations, seed=self.seed)
        parts = {"sample": split_sessions(sample, {"train": 1 - share, "eval": share}, seed=self.seed)}
        held_out = {"conversations": rated.test_conversations, "seed": self.seed + HELD_OUT}
        parts["sample"]["test"] = load_sessions("sample", **held_out)
        talks, shares = load_sessions(self.output / "talks.jsonl"), {"train": 1 - 2 * share}
        parts["talks"] = split_sessions(talks, shares | {"eval": share, "test": share}, seed=self.seed)
        return {name: {part: as_talks(rows) for part, rows in each.items()} for name, each in parts.items()}


def as_talks(sessions: Dataset) -> Dataset:
    """Keep the columns and the signal that the policy's talks have."""
    return sessions.map(
        lambda row: {"feedback": {"affect": row["feedback"]["affect"]}},
        remove_columns=[name for name in sessions.column_names if name not in RATED],
        features=RATED,
    )


def write_json(file: Path, content: dict) -> None:
    write_by_one(file, lambda partial: partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"))


if __name__ == "__main__":
    run_main(main)
