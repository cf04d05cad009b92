"""From a chat model and a reward model to an aligned policy: GRPO or RLOO on single turns.

    accelerate launch examples/align_policy.py --config examples/configs/align_default.yaml \
        --reward.model runs/sample/reward_model

Every turn of the assistant in the corpus that answers something gives a prompt, and the reward model rewards what the
policy says in its place. What a run leaves in `output_dir`:

    sft_policy/    the policy fine-tuned on the sessions first, if there is a section `sft`
    policy/        the aligned policy, as one model or as an adapter (`merge: false`), with its card
    policy_history.json, metrics.json    what training logged, and the policy before and after on held-out dialogues

Every setting stands in the YAML file, and the command line overrides it: `--seed 1 --grpo.beta 0.1`. The sections
`model`, `sft`, `grpo` and `rloo` are TRL's own ModelConfig, SFTConfig, GRPOConfig and RLOOConfig; which of the last
two there is decides the method. `--resume` goes on with a run that was stopped, and keeps what is finished.
"""

import json
import math
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import PeftConfig
from transformers import TrainerCallback, set_seed
from trl import GRPOConfig, ModelConfig, RLOOConfig, SFTConfig, get_peft_config
from trl.import_utils import is_vllm_available

from geli_hf.alignment import (
    AdaptiveKL,
    GeliReward,
    PolicyError,
    ReferenceLikelihood,
    StopAtKL,
    align,
    check_policy,
    compare_policies,
    dialogue_prompts,
    is_adapter,
    judge_by_reward,
    load_policy,
    load_policy_tokenizer,
    sft,
    write_policy,
)
from geli_hf.alignment.trainers import check_kl_weight, check_prompts
from geli_hf.cache import whole
from geli_hf.data import load_sessions, read_report
from geli_hf.evaluation.comparison import policy_table
from geli_hf.hub.callbacks import ModelCardCallback, save_training_card
from geli_hf.hub.cards import made, name_of, policy_card, save_card, source_of
from geli_hf.metrics.table import as_json
from geli_hf.models.geli_reward.modeling_geli import GeliRewardModel
from geli_hf.models.loading import is_attribution
from geli_hf.sessions import SessionError, split_sessions
from geli_hf.settings import SettingsError, build, parse_settings
from geli_hf.training.checkpoints import write_by_one, write_history
from geli_hf.training.script import begin, fit_to_cpu, kept, processes

METHODS = {"grpo": GRPOConfig, "rloo": RLOOConfig}


@dataclass
class RunSettings:
    output_dir: str = field(metadata={"help": "Where everything goes."})
    data_dir: str | None = field(default=None, metadata={"help": "Where the corpus lies."})
    seed: int = field(default=0, metadata={"help": "Seed of the split, of training and of generation."})
    merge: bool = field(default=True, metadata={"help": "Merge the adapter that was trained into the policy."})
    resume: bool = field(default=False, metadata={"help": "Go on with the run in output_dir; keep what is finished."})


@dataclass
class DataSettings:
    corpus: str = field(default="sample", metadata={"help": "Name or path, see geli_hf.data.load_sessions."})
    options: dict = field(default_factory=dict, metadata={"help": "Options of the corpus's reader."})
    context_messages: int = field(default=6, metadata={"help": "Messages of a dialogue that a reply may depend on."})
    window_messages: int = field(default=8, metadata={"help": "Sessions are fine-tuned on in pieces of so many."})
    eval_share: float = field(default=0.1, metadata={"help": "Share of conversations to compare the policies on."})
    replies: int = field(default=200, metadata={"help": "Dialogues of these that both answer."})


@dataclass
class RewardSettings:
    model: str = field(metadata={"help": "Reward model, by folder or name on the Hub."})
    options: dict = field(
        default_factory=lambda: {"length_neutral": True}, metadata={"help": "Of geli_hf.alignment.GeliReward."}
    )
    likelihood: float = field(
        default=0.0, metadata={"help": "Weight of a reply's log-likelihood before RL, see ReferenceLikelihood."}
    )


@dataclass
class KlSettings:
    target: float | None = field(
        default=None, metadata={"help": "Nats per reply, held by changing beta. Default: no."}
    )
    horizon: int = field(default=10_000, metadata={"help": "Replies in which beta changes by a factor e^.2 or less."})
    limit: float | None = field(
        default=10.0, metadata={"help": "Nats per reply at which training stops; null: never."}
    )


@dataclass
class Run:
    """Everything that the stages need, read and found to fit together before the first of them begins."""

    settings: dict
    run: RunSettings
    data: DataSettings
    model: ModelConfig
    reward: RewardSettings
    callbacks: list[TrainerCallback]
    method: str
    arguments: GRPOConfig | RLOOConfig
    sft: SFTConfig | None

    @property
    def output(self) -> Path:
        return Path(self.run.output_dir)

    @property
    def model_kwargs(self) -> dict:
        named = {"attn_implementation": self.model.attn_implementation} if self.model.attn_implementation else {}
        return {"dtype": self.model.dtype, "trust_remote_code": self.arguments.trust_remote_code} | named

    @property
    def revision(self) -> dict:
        return {"revision": self.model.model_revision}

    def lora(self) -> PeftConfig | None:
        return get_peft_config(self.model)  # a new one for each use: PEFT writes into it


def main(argv: list[str]) -> None:
    begun = time.monotonic()
    state = processes()
    run = read(argv)
    sessions = load(run)
    prompts = {
        part: dialogue_prompts(rows, context_messages=run.data.context_messages) for part, rows in sessions.items()
    }
    try:
        check_prompts(prompts["train"], run.arguments)
    except ValueError as error:
        raise SettingsError(f"data: {error}") from error
    if not len(prompts["eval"]):
        raise SettingsError("data.eval_share: the sessions that were held out have no turn that answers anything")
    reward = open_reward(run.reward)
    begin(run.output, run.settings, run.run.resume, lasting=["seed", "merge"])
    set_seed(run.run.seed)

    state.print("\nStage sft: the policy before alignment", flush=True)
    before = policy_before(run, sessions["train"])
    state.print(f"\nStage {run.method}: {before} learns to please {run.reward.model}", flush=True)
    align_once(run, before, reward, prompts["train"])
    state.print("\nStage card: both on held-out dialogues", flush=True)
    if state.is_main_process:
        write_card(run, before, reward.model, sessions, argv, begun)
    state.wait_for_everyone()
    state.destroy_process_group()


# ------------------------------------------------------------------------------------------------ what was asked for


def read(argv: list[str]) -> Run:
    """The settings, as classes that have accepted them."""
    ours = {"data": DataSettings, "reward": RewardSettings, "kl": KlSettings}
    settings = parse_settings(argv, RunSettings, ours | {"model": ModelConfig, "sft": SFTConfig} | METHODS)
    given = [name for name in METHODS if settings[name]]
    if len(given) != 1:
        found = " and ".join(given) or "neither"
        raise SettingsError(
            f"expected one of the sections {' and '.join(METHODS)}, which decides the method; found {found}"
        )
    [method] = given
    run = build(RunSettings, settings[""])
    data, reward, kl = (build(cls, settings[name]) for name, cls in ours.items())
    model = build(ModelConfig, settings["model"])
    if model.model_name_or_path is None:
        raise SettingsError("not given: model.model_name_or_path, the policy to align")
    if model.load_in_4bit or model.load_in_8bit:
        raise SettingsError(
            "model: adapters are merged between the stages, which quantised weights can't be exactly; "
            "leave load_in_4bit and load_in_8bit out, and try dtype: bfloat16"
        )
    if not (run.merge or model.use_peft):
        raise SettingsError(
            "merge: false keeps the adapter apart, but model.use_peft is not set, so there will be none"
        )

    trainers = {"sft": SFTConfig, method: METHODS[method]} if settings["sft"] else {method: METHODS[method]}
    wanted = {name: trainer_settings(name, settings[name], run) for name in trainers}
    if not torch.cuda.is_available():
        fit_to_cpu(wanted, trainers)
    arguments = {name: build(cls, wanted[name]) for name, cls in trainers.items()}
    for name in ("bf16", "fp16") if "sft" in arguments else ():
        found = [getattr(each, name) for each in arguments.values()]
        if found[0] != found[1]:
            raise SettingsError(
                f"sft.{name} and {method}.{name}: expected the same, since both train in one process, "
                f"found {found[0]} and {found[1]}"
            )
    try:
        check_kl_weight(arguments[method].beta, f"{method}.beta")
        where = {"revision": model.model_revision, "trust_remote_code": arguments[method].trust_remote_code}
        check_policy(model.model_name_or_path, **where)
        load_policy_tokenizer(model.model_name_or_path, **where)
    except PolicyError as error:
        raise SettingsError(f"model.model_name_or_path: {error}") from error
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if arguments[method].use_vllm and not is_vllm_available():
        raise SettingsError(f"{method}.use_vllm: vllm is not installed here; install it, or leave the setting out")
    try:
        callbacks = [StopAtKL(math.inf if kl.limit is None else kl.limit)]  # without one `align` adds its own
        if kl.target is not None:
            callbacks.append(AdaptiveKL(arguments[method].beta, kl.target, kl.horizon))
    except ValueError as error:
        raise SettingsError(f"kl: {error}") from error
    return Run(settings, run, data, model, reward, callbacks, method, arguments[method], arguments.get("sft"))


def trainer_settings(name: str, given: dict, run: RunSettings) -> dict:
    """Settings of a trainer of TRL, with ours where nothing is said."""
    gpu = torch.cuda.is_available()
    common = {"seed": run.seed, "report_to": "none", "bf16": True, "activation_checkpointing": gpu}
    if name in METHODS:
        common["use_vllm"] = gpu and is_vllm_available()
    return common | given | {"output_dir": str(Path(run.output_dir) / "checkpoints" / name)}


def load(run: Run) -> dict[str, Dataset]:
    """Sessions to learn from and to compare the policies on; no conversation is in both."""
    data, shares = run.data, {"train": 1 - run.data.eval_share, "eval": run.data.eval_share}
    try:
        with PartialState().main_process_first():
            sessions = load_sessions(data.corpus, data_dir=run.run.data_dir, **data.options)
            PartialState().print(f"{data.corpus} {data.options or ''}\n{read_report(sessions)}")
            return split_sessions(sessions, shares, seed=run.run.seed)
    except (TypeError, ValueError) as error:  # an option that does not exist, or that can't have this value
        raise SettingsError(f"data: {error}") from error


def open_reward(settings: RewardSettings) -> GeliReward:
    if not 0 <= settings.likelihood < math.inf:
        raise SettingsError(f"reward.likelihood: expected a number, 0 or more, found {settings.likelihood}")
    try:
        if is_attribution(settings.model, "reward.model"):
            raise SettingsError(
                f"reward.model: {settings.model} is an attribution, which has seen the listener's reaction to a turn; "
                "there is none to what a policy says. Give the reward model that was fitted with it"
            )
        model = GeliRewardModel.from_pretrained(settings.model).to(PartialState().device)
    except (OSError, ValueError) as error:  # which name the setting
        raise SettingsError(str(error)) from error
    try:
        model.tokenizer  # noqa: B018  (read when it is first asked for: one that is missing is missed now)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"reward.model: {settings.model}: no tokenizer can be read there; save the model again with "
            "save_pretrained, which writes its tokenizer too"
        ) from error
    try:
        return GeliReward(model, **settings.options)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"reward.options: {error}") from error


# ------------------------------------------------------------------------------------------------ stages


def policy_before(run: Run, sessions: Dataset) -> str:
    """Folder or name of the policy that is aligned, and that the KL penalty holds it to."""
    name, target = run.model.model_name_or_path, run.output / "sft_policy"
    if run.sft is None and not is_adapter(name, **run.revision):
        # Absolute, because an adapter that is kept apart names it.
        return str(Path(name).resolve()) if Path(name).exists() else name
    if target.exists():
        kept(target)
        return str(target.resolve())
    model, tokenizer = load_policy(name, **run.model_kwargs, **run.revision)
    if run.sft is None:  # an adapter: merged, it is the policy that alignment begins with

        def write(folder: Path) -> None:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

        write_by_one(target, write)
    else:
        pieces = {"window_messages": run.data.window_messages, "peft_config": run.lora(), "resume": run.run.resume}
        trainer = sft(model, tokenizer, sessions, run.sft, callbacks=[ModelCardCallback()], **pieces)
        write_policy(trainer, target)
        save_training_card(trainer, target)
    return str(target.resolve())


def align_once(run: Run, before: str, reward: GeliReward, prompts: Dataset) -> None:
    target, args = run.output / "policy", run.arguments
    if target.exists():
        return kept(target)
    own = run.revision if before == run.model.model_name_or_path else {}
    args.model_init_kwargs = run.model_kwargs | own | (args.model_init_kwargs or {})
    if run.reward.likelihood:
        reward.likelihood = ReferenceLikelihood(
            *load_policy(before, **run.model_kwargs, **own),
            weight=run.reward.likelihood,
            chat_template_kwargs=args.chat_template_kwargs,
        )
    callbacks = [*run.callbacks, ModelCardCallback()]
    trainer = align(before, reward, prompts, args, run.lora(), callbacks=callbacks, resume=run.run.resume)
    reward.likelihood = None  # its copy of the policy takes memory
    write_history(trainer, run.output / "policy_history.json")
    write_policy(trainer, target, merge=run.run.merge)


# ------------------------------------------------------------------------------------------------ the card


def write_card(
    run: Run, before: str, model: GeliRewardModel, sessions: dict[str, Dataset], argv: list[str], begun: float
) -> None:
    """What both policies answer to held-out dialogues, in figures, and the card of the aligned one."""
    target = run.output / "metrics.json"
    if target.exists():
        return kept(target)
    comparison = compare_policies(
        before,
        run.output / "policy",
        sessions["eval"],
        partial(judge_by_reward, model),
        true=False,
        replies=run.data.replies,
        context_messages=run.data.context_messages,
        max_new_tokens=run.arguments.max_completion_length,
        temperature=run.arguments.temperature,
        seed=run.run.seed,
        **run.model_kwargs,
    )
    history = json.loads((run.output / "policy_history.json").read_text())
    figures = comparison.figures() | at_the_end(history)
    figures["made"] = made(
        ["python", "examples/align_policy.py", *argv],
        settings={name: part for name, part in run.settings.items() if name and part},
        seconds=time.monotonic() - begun,
    )
    folder, corpus = run.output / "policy", run.data.corpus
    card = policy_card(
        name_of(folder),
        base_model=run.model.model_name_or_path,
        adapter=is_adapter(folder),
        method=run.method,
        reward_model=name_of(run.reward.model),
        training_data=f"{len(sessions['train'])} sessions of the corpus `{name_of(corpus)}`. {source_of(corpus)}",
        recipe=recipe(run, figures),
        made=figures["made"],
        comparison=figures,
        held_out=f"{len(comparison.dialogues)} dialogues of conversations that were not trained on",
        measured_on={"type": Path(corpus).name, "name": f"held-out dialogues of {Path(corpus).name}"},
    )
    save_card(card, folder)
    with whole(target) as path:
        path.write_text(json.dumps(as_json(figures), indent=1))
    print(f"{policy_table(figures)}\n\nWritten: {run.output / 'policy'} and its card")


def at_the_end(history: list[dict]) -> dict:
    """Where training ended: its step, and the KL of a reply in nats, as it was logged last."""
    # What is used more than once is generated in some steps only, and logs in between know no length.
    known = [(entry.get("kl"), entry.get("completions/mean_length")) for entry in reversed(history)]
    kl = next((kl * tokens for kl, tokens in known if None not in (kl, tokens)), None)
    return {"steps": history[-1]["step"] if history else 0, "kl": kl}


def recipe(run: Run, figures: dict) -> str:
    """How the policy was made, in words."""
    stages = ["fine-tuned on the sessions"] if run.sft else []
    stages += [f"aligned by {run.method.upper()} for {figures['steps']} steps"]
    kl = (
        ""
        if figures["kl"] is None
        else f" Its replies ended {figures['kl']:.2g} nats of KL from those before alignment."
    )
    kept = "merged into the weights" if run.run.merge else "kept as an adapter"
    lora = f" An adapter of rank {run.model.lora_r} was trained and is {kept}." if run.model.use_peft else ""
    return (
        f"`{name_of(run.model.model_name_or_path)}` was {', then '.join(stages)}, with seed {run.run.seed}.{lora}{kl} "
        "The settings that were given:"
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (SettingsError, SessionError, FileNotFoundError, MemoryError) as error:
        sys.exit(f"align_policy: {error}")
