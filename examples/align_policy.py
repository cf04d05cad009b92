"""From a chat model and a reward model to an aligned policy: GRPO or RLOO on single turns.

    accelerate launch examples/align_policy.py --config examples/configs/align_default.yaml \
        --reward.model runs/sample/reward_model

Every turn of the assistant in the corpus that answers something gives a prompt, and the reward model rewards what the
policy says in its place. A run leaves in `output_dir`:

    sft_policy/    the policy fine-tuned on the sessions first, if there is a section `sft`
    policy/        the aligned policy, as one model or as an adapter (`merge: false`), with its card
    policy_history.json, metrics.json    the log of training, and the policy before and after on held-out dialogues

Every setting stands in the YAML file, and the command line overrides it: `--seed 1 --grpo.beta 0.1`. The sections
`model`, `sft`, `grpo` and `rloo` are TRL's own ModelConfig, SFTConfig, GRPOConfig and RLOOConfig; which of the last
two there is decides the method. `--resume` goes on with a run that was stopped, and keeps what is finished.
"""

import json
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from transformers import set_seed
from trl import GRPOConfig, ModelConfig, RLOOConfig, SFTConfig, get_peft_config
from trl.import_utils import is_vllm_available

from geli_hf.alignment import ReferenceLikelihood, check_policy, dialogue_prompts, load_policy
from geli_hf.alignment.pipeline import KlSettings, RewardSettings, align_once, final_kl, fine_tune_once
from geli_hf.cache import atomic_path
from geli_hf.data.parts import load_corpus
from geli_hf.evaluation.comparison import compare_policies, judge_by_reward, policy_table
from geli_hf.evaluation.policies import Sampling
from geli_hf.hub.callbacks import ModelCardCallback
from geli_hf.hub.run_cards import describe_run, write_alignment_card
from geli_hf.metrics.table import as_json
from geli_hf.sessions import split_sessions
from geli_hf.settings import SettingsError, build, parse_settings
from geli_hf.training.script import fit_to_cpu, is_finished, run_main, setting_errors, start_processes, start_run

METHODS = {"grpo": GRPOConfig, "rloo": RLOOConfig}


@dataclass
class RunSettings:
    output_dir: str
    data_dir: str | None = None  # folder of the corpus
    seed: int = 0  # of the split, of training and of generation
    merge: bool = True  # merge the adapter that was trained into the policy
    resume: bool = False  # go on with the run in output_dir
    report_to: str = "none"  # tracker of all trainers' curves: trackio, wandb, tensorboard, ...


@dataclass
class DataSettings:
    corpus: str = "sample"  # name or path
    options: dict = field(default_factory=dict)  # of its reader
    context_messages: int = 6  # longest prompt
    window_messages: int = 8  # longest piece of a session to fine-tune on
    eval_share: float = 0.1  # of the conversations, to compare the policies on
    replies: int = 200  # dialogues of these that both policies answer


OURS = {"data": DataSettings, "model": ModelConfig, "reward": RewardSettings, "kl": KlSettings}


def main(argv: list[str]) -> None:
    begun, state = time.monotonic(), start_processes()
    settings = parse_settings(argv, RunSettings, OURS | {"sft": SFTConfig} | METHODS)
    methods = [name for name in METHODS if settings[name]]
    if len(methods) != 1:
        raise SettingsError(f"expected one of the sections grpo and rloo, found {' and '.join(methods) or 'none'}")
    run, method = build(RunSettings, settings[""]), methods[0]
    data, model, reward, kl = (build(cls, settings[name]) for name, cls in OURS.items())
    args = arguments(METHODS[method], method, settings, run)
    sft_args = arguments(SFTConfig, "sft", settings, run) if settings["sft"] else None
    if not args.beta > 0:
        raise SettingsError(f"{method}.beta: expected a positive weight of the KL penalty, found {args.beta}")
    with setting_errors("model.model_name_or_path"):
        where = {"revision": model.model_revision, "trust_remote_code": args.trust_remote_code}
        check_policy(model.model_name_or_path, **where)
    with setting_errors("data"):
        sessions = load_corpus(data.corpus, data.options, run.data_dir, rated=False)
        parts = split_sessions(sessions, {"train": 1 - data.eval_share, "eval": data.eval_share}, seed=run.seed)
        prompts = dialogue_prompts(parts["train"], context_messages=data.context_messages)
        if not (len(prompts) and len(dialogue_prompts(parts["eval"]))):
            raise ValueError("prompts: found none: no turn of the assistant answers anything in these sessions")
    with setting_errors("reward"):
        turn_reward = reward.load()
    with setting_errors("kl"):
        callbacks = kl.callbacks(args.beta)
    output = Path(run.output_dir)
    start_run(output, settings, run.resume, lasting=["seed", "merge"])
    set_seed(run.seed)

    loading = {"dtype": model.dtype} | where
    if model.attn_implementation:
        loading["attn_implementation"] = model.attn_implementation
    state.print("\nStage sft: the policy before alignment", flush=True)
    how = {"window_messages": data.window_messages, "peft_config": get_peft_config(model), "resume": run.resume}
    how["callbacks"] = [ModelCardCallback()]
    before = fine_tune_once(output, model.model_name_or_path, parts["train"], sft_args, **how, **loading)
    if before != model.model_name_or_path:
        del loading["revision"]

    state.print(f"\nStage {method}: {before} learns to please {reward.model}", flush=True)
    if reward.likelihood:
        policy, tokenizer = load_policy(before, **loading)
        how = {"weight": reward.likelihood, "chat_template_kwargs": args.chat_template_kwargs}
        turn_reward.likelihood = ReferenceLikelihood(policy, tokenizer, **how)
    args.model_init_kwargs = loading | (args.model_init_kwargs or {})
    how = {"callbacks": [*callbacks, ModelCardCallback()], "merge": run.merge, "resume": run.resume}
    align_once(output, before, turn_reward, prompts, args, get_peft_config(model), **how)

    state.print("\nStage card: both on held-out dialogues", flush=True)
    if state.is_main_process and not is_finished(output / "metrics.json"):
        judge = partial(judge_by_reward, turn_reward.model)
        asked = Sampling(data.replies, data.context_messages, args.max_completion_length, args.temperature, run.seed)
        comparison = compare_policies(before, output / "policy", parts["eval"], judge, sampling=asked, **loading)
        figures = comparison.figures() | final_kl(output / "policy_history.json")
        command, sizes = ["python", "examples/align_policy.py", *argv], {"sessions": len(parts["train"])}
        facts = describe_run(command, settings, corpus=data.corpus, seconds=time.monotonic() - begun, **sizes)
        about = {"base_model": model.model_name_or_path, "method": method, "reward_model": reward.model}
        about |= {"fine_tuned": sft_args is not None, "test": data.corpus, "dialogues": len(comparison.dialogues)}
        write_alignment_card(output, facts, figures, **about)
        with atomic_path(output / "metrics.json") as partial_file:
            partial_file.write_text(json.dumps(as_json(figures | {"made": facts["made"]}), indent=1), encoding="utf-8")
        print(f"{policy_table(figures)}\n\nWritten: {output / 'policy'} and its card")
    state.wait_for_everyone()
    state.destroy_process_group()


def arguments(cls: type, name: str, settings: dict[str, dict], run: RunSettings):
    """Build the arguments of a trainer of TRL, with defaults of our own."""
    gpu = torch.cuda.is_available()
    common = {"seed": run.seed, "report_to": run.report_to, "bf16": True, "activation_checkpointing": gpu}
    if name in METHODS:
        common["use_vllm"] = gpu and is_vllm_available()
    given = {name: common | settings[name] | {"output_dir": str(Path(run.output_dir) / "checkpoints" / name)}}
    fit_to_cpu(given, [name])
    return build(cls, given[name])


if __name__ == "__main__":
    run_main(main)
