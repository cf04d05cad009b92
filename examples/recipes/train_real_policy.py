"""SmolLM2 aligned with real ratings: the adapters that come with the package, and what they are judged by.

    python examples/recipes/train_real_policy.py --config examples/configs/real_policy.yaml --data.topical_chat DATA

Chit-Chat's speakers are in two halves, which no conversation of the stages below crosses:

    reward  a reward model of the conversations within half A, over MiniLM             -> reward/
    gold    another of those within half B, over SmolLM2's first layers, which judges  -> gold/
    sft     an adapter of SmolLM2-135M-Instruct, fine-tuned on well-rated conversations -> sft_adapter/
            between the halves, without those that hold private data
    align   the same adapter, trained on by GRPO against `reward`                      -> policy_adapter/

`evaluate_real_policy.py` then judges them by `gold`, on conversations between the halves that were left out of all
stages. Every stage goes on from what was written; `--policy.adapter FOLDER` begins the last with another adapter,
such as that of an earlier run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from peft import LoraConfig
from transformers import set_seed
from trl import GRPOConfig, SFTConfig

from geli_hf import GeliRewardModel, fit_hindsight, load_sessions, split_sessions
from geli_hf.affect import add_reactions
from geli_hf.alignment import GeliReward, ReferenceLikelihood, align, dialogue_prompts, load_policy, save_policy, sft
from geli_hf.alignment.default import DEFAULT_POLICY
from geli_hf.alignment.sampling import sample_replies
from geli_hf.data.chitchat import RATINGS
from geli_hf.data.private import private_kinds
from geli_hf.evaluation.methods.folds import Encoded
from geli_hf.evaluation.report import write_text
from geli_hf.metrics.metrics import session_spearman_interval
from geli_hf.models.features import score_cached
from geli_hf.settings import SettingsError, build, parse_settings
from geli_hf.training.checkpoints import write_by_one, write_history
from geli_hf.training.fit import train_fit
from geli_hf.training.script import fit_to_cpu, is_finished, run_main, start_run

CORPORA = ("chitchat", "topical_chat")
STAGES = {"reward": "reward", "gold": "gold", "sft": "sft_adapter", "align": "policy_adapter"}
SIGNALS = ("reply_delay", "answer_length", "laughter", "thanks", "complaint", "question", "asked_again", "sentiment")


@dataclass
class RunSettings:
    output_dir: str
    stages: list[str] = field(default_factory=lambda: list(STAGES))
    seed: int = 0
    resume: bool = False  # go on with the run in output_dir


@dataclass
class DataSettings:
    chitchat: str | None = None  # folder of Chit-Chat's dataset.json; unset: the package chitchat-dataset
    topical_chat: str | None = None  # folder of Topical-Chat, whose valid parts give prompts
    min_score: float = 8.0  # of the conversations to fine-tune on
    eval_share: float = 0.15  # of the conversations between the halves, for evaluation alone
    context_messages: int = 4  # longest prompt
    prompt_words: int = 100  # longest prompt to align with; a step with long ones takes several times as long
    window_messages: int = 8  # longest piece to fine-tune on
    fit_turns: int = 8_000  # real turns that teach the reward fit
    gold_fit_turns: int = 4_000  # the same of the judge, whose backbone is slower
    # Of the guard, whose doubts then vary among replies as much as what the ratings teach; by the rule of the reward
    # that ships it would be 7 to 9, and a judge would hardly hear the ratings.
    fit_weight: float = 2.0
    gold_layers: int = 6  # of the base, which the judge reads with


@dataclass
class PolicySettings:
    base: str = DEFAULT_POLICY
    lora: dict = field(default_factory=lambda: {"r": 16, "lora_alpha": 32})
    likelihood: float = 0.05  # reward of a nat of a reply's likelihood under the fine-tuned policy
    adapter: str | None = None  # to begin the alignment with; unset: sft_adapter
    length: float = 4.0  # weight of the penalty that holds the mean length of replies, see HeldLength


OURS = {"data": DataSettings, "policy": PolicySettings}
TRAINERS = {"sft": SFTConfig, "grpo": GRPOConfig}


def main(argv: list[str]) -> None:
    settings = parse_settings(argv, RunSettings, OURS | TRAINERS)
    recipe = Recipe(settings)
    if unknown := set(recipe.run.stages) - set(STAGES):
        raise SettingsError(f"stages: expected some of {', '.join(STAGES)}, found {', '.join(sorted(unknown))}")
    # The places of the corpora may change when a run is resumed.
    fixed = settings | {"data": {name: value for name, value in settings["data"].items() if name not in CORPORA}}
    start_run(recipe.output, fixed, recipe.run.resume, lasting=["seed"])
    for name, target in STAGES.items():
        if name in recipe.run.stages and not is_finished(recipe.output / target):
            print(f"\nStage {name}: {getattr(recipe, name).__doc__}", flush=True)
            set_seed(recipe.run.seed)
            getattr(recipe, name)(recipe.output / target)


class Recipe:
    def __init__(self, settings: dict[str, dict]):
        self.settings = settings
        self.run = build(RunSettings, settings[""])
        self.output, self.seed = Path(self.run.output_dir), self.run.seed
        self.data, self.policy = (build(cls, settings[name]) for name, cls in OURS.items())

    def reward(self, target: Path) -> None:
        """a reward model of half A, which the policy learns from"""
        others = [self.topical_chat()] if self.data.topical_chat else []
        self.fit(target, "a", None, self.data.fit_turns, others)

    def gold(self, target: Path) -> None:
        """a reward model of half B over another backbone, which judges"""
        backbone = self.output / "gold_backbone"
        if not backbone.exists():
            model, tokenizer = load_policy(self.policy.base, dtype=torch.bfloat16)
            model.model.layers = model.model.layers[: self.data.gold_layers]
            model.config.num_hidden_layers = len(model.model.layers)
            write_by_one(backbone, lambda folder: [part.save_pretrained(folder) for part in (model, tokenizer)])
        self.fit(target, "b", str(backbone), self.data.gold_fit_turns)

    def sft(self, target: Path) -> None:
        """an adapter, fine-tuned on well-rated conversations"""
        sessions = self.between_halves("train")
        good = [
            score >= self.data.min_score and not private_kinds(messages)
            for score, messages in zip(sessions["score"], sessions["messages"])
        ]
        sessions = sessions.select(np.flatnonzero(good))
        print(f"{len(sessions)} of {len(good)} sessions: rated {self.data.min_score:g} or more, without private data")
        model, tokenizer = load_policy(self.policy.base, dtype=torch.bfloat16)
        lora = LoraConfig(**{"target_modules": "all-linear", "task_type": "CAUSAL_LM"} | self.policy.lora)
        how = {"window_messages": self.data.window_messages, "peft_config": lora, "resume": self.run.resume}
        trainer = sft(model, tokenizer, sessions, self.arguments("sft"), **how)
        write_history(trainer, self.output / "sft_history.json")
        save_policy(trainer, target, merge=False)

    def align(self, target: Path) -> None:
        """the adapter, trained on by GRPO"""
        sessions = [self.between_halves("train").select_columns(["session_id", "conversation_id", "messages"])]
        if self.data.topical_chat:
            sessions.append(self.topical_chat().select_columns(["session_id", "conversation_id", "messages"]))
        prompts = dialogue_prompts(concatenate_datasets(sessions), context_messages=self.data.context_messages)
        prompts = prompts.filter(self.is_short, input_columns="prompt", desc="Leaving out long prompts")
        fine_tuned = load_policy(self.output / "sft_adapter", dtype=torch.bfloat16)
        likelihood = (
            ReferenceLikelihood(*fine_tuned, weight=self.policy.likelihood) if self.policy.likelihood else None
        )
        begin, args = self.policy.adapter or self.output / "sft_adapter", self.arguments("grpo")
        limits = {"max_new_tokens": args.max_completion_length, "temperature": args.temperature}
        asked = prompts.shuffle(seed=self.seed).select(range(min(96, len(prompts))))["prompt"][:]
        before = sample_replies(*fine_tuned, asked, seed=self.seed, **limits, batch_size=16, progress=True)
        held = HeldLength([len(reply.token_ids) for reply in before], self.policy.length)
        reward = [GeliReward(self.output / "reward", likelihood=likelihood), held]
        args.model_init_kwargs = {"dtype": torch.bfloat16}
        how = {"reference": self.output / "sft_adapter", "resume": self.run.resume}
        trainer = align(begin, reward, prompts, args, None, **how)
        write_history(trainer, self.output / "policy_history.json")
        save_policy(trainer, target, merge=False)

    def fit(self, target: Path, half: str, backbone: str | None, turns: int, others: Sequence[Dataset] = ()) -> None:
        """Fit a reward model to a half of the speakers; turns of other corpora teach fit too."""
        sessions = add_reactions(self.chitchat(half), SIGNALS)
        sessions = sessions.add_column("row", np.arange(len(sessions)))
        parts = split_sessions(sessions, {"train": 0.85, "eval": 0.15}, seed=self.seed)
        # Reading a large model's weights in bfloat16 is faster than converting them in every pass.
        dtype = None if backbone is None else torch.bfloat16
        guard = {"fit_hidden_size": 64, "fit_weight": self.data.fit_weight}
        model = GeliRewardModel.from_backbone(backbone, dtype=dtype, context_messages=1, **guard)
        columns = ["conversation_id", "messages"]
        taught = concatenate_datasets([part.select_columns(columns) for part in (parts["train"], *others)])
        autocast = torch.bfloat16 if dtype is None else torch.float32
        how = {"turns": turns, "seed": self.seed, "dtype": autocast}
        fit = train_fit(model, taught, parts["eval"].select_columns(columns), **how)
        encoded = Encoded(model, sessions, dtype=autocast)
        features = {name: encoded.select(np.array(part["row"])) for name, part in parts.items()}
        hindsight = fit_hindsight(model, parts["train"], ratings=RATINGS, seed=self.seed, features=features["train"])
        test = parts["eval"]
        scored = score_cached(model, test, features=features["eval"]["turns"])
        pairs = {
            "predicted": [session["score"] for session in scored],
            "number of messages": [len(messages) for messages in test["messages"]],
        }
        ids = test["conversation_id"][:]
        lines = [f"{len(parts['train'])} sessions, {len(test)} for these figures (Spearman with the rating):"]
        for name, values in pairs.items():
            lines.append(f"{name}: {session_spearman_interval(values, test['score'][:], ids, seed=self.seed)}")
        report = "\n\n".join([*lines, str(fit), str(hindsight.report)])
        print(report, flush=True)
        write_text(self.output / f"{target.name}.md", report + "\n")
        write_by_one(target, model.save_pretrained)

    def chitchat(self, half: str) -> Dataset:
        return load_sessions("chitchat", data_dir=self.data.chitchat, half=half)

    def topical_chat(self) -> Dataset:
        return load_sessions("topical_chat", data_dir=self.data.topical_chat, split=["valid_freq", "valid_rare"])

    def between_halves(self, part: str) -> Dataset:
        shares = {"train": 1 - self.data.eval_share, "eval": self.data.eval_share}
        return split_sessions(self.chitchat("mixed"), shares, seed=self.seed)[part]

    def is_short(self, prompt: list[dict]) -> bool:
        return sum(len(message["content"].split()) for message in prompt) <= self.data.prompt_words

    def arguments(self, name: str):
        common = {"seed": self.seed, "report_to": "none", "activation_checkpointing": torch.cuda.is_available()}
        common["output_dir"] = str(self.output / "checkpoints" / name)
        given = {name: common | self.settings[name]}
        fit_to_cpu(given, [name])
        return build(TRAINERS[name], given[name])


class HeldLength:
    """A reward that holds the mean log length of a batch's replies, and leaves each of them free.

    It is the gradient of the penalty `weight * count / 2 * (mean - target) ** 2` on the mean. Without it the length
    drifts, though `GeliReward` takes the regression on it out of the rewards: all replies change together when the
    probability of the end does, so chance moves length first.
    """

    def __init__(self, lengths: Sequence[int], weight: float):
        self.target, self.weight = np.log(lengths).mean(), weight
        self.__name__ = "length"  # logged by TRL
        print(f"Replies of the fine-tuned policy have {np.exp(self.target):.1f} tokens (geometric mean)", flush=True)

    def __call__(self, completion_ids: Sequence[Sequence[int]], **kwargs) -> list[float]:
        logs = np.log([max(1, len(ids)) for ids in completion_ids])
        return (self.weight * (self.target - logs.mean()) * (logs - self.target)).tolist()


if __name__ == "__main__":
    run_main(main)
