"""From rated sessions to an aligned policy.

    accelerate launch examples/train_geli.py --config examples/configs/sample.yaml

Three stages, each of which leaves folders or files in `output_dir`:

    reward    a reward for every turn, learned from session scores and listeners' reactions   -> reward_model/, and by
              hindsight an explanation of recorded sessions                                   -> attribution/
    policy    a chat model, fine-tuned on the sessions, then aligned with that reward         -> sft_policy/, policy/
    evaluate  both on held-out conversations, beside baselines          -> metrics.json, report.md and its pictures

Every setting stands in the YAML file, and the command line overrides it: `--seed 1 --reward.li_weight 0.3`. `--resume`
goes on with a run that was stopped. The sections `reward`, `sft` and `grpo` are the arguments of trainers.
"""

import shutil
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from datasets import Dataset
from transformers import set_seed

from geli_hf import GeliRewardModel
from geli_hf.alignment.pipeline import TRAINERS, PolicySettings, train_policy
from geli_hf.alignment.shipped import ORIGIN
from geli_hf.data.parts import DataSettings, load_parts
from geli_hf.evaluation.comparison import PolicyComparison, compare_policies, judge_by_reward
from geli_hf.evaluation.judges.judge import judge_by_truth
from geli_hf.evaluation.policies import Sampling
from geli_hf.evaluation.report import write_report
from geli_hf.evaluation.run import evaluate_run, is_evaluated, load_run_model
from geli_hf.hub.callbacks import ModelCardCallback
from geli_hf.hub.run_cards import FOLDERS, describe_run, write_run_cards
from geli_hf.settings import SettingsError, build, parse_settings
from geli_hf.training import GeliRewardArguments
from geli_hf.training.pipeline import RewardModelSettings, train_reward_model, trainer_settings
from geli_hf.training.script import fit_to_cpu, run_main, setting_errors, start_run

STAGES = ("reward", "policy", "evaluate")
SIMULATED = (
    "The sessions are simulated, in a world whose truth is known. The figures show that the method and its code work; "
    "they tell nothing of people."
)


@dataclass
class RunSettings:
    output_dir: str
    data_dir: str | None = None  # folder of the corpus
    stages: list[str] = field(default_factory=lambda: list(STAGES))
    seed: int = 0  # of the split, of training and of generation
    resume: bool = False  # go on with the run in output_dir
    report_to: str = "none"  # tracker of all trainers' curves: trackio, wandb, tensorboard, ...


SECTIONS = {
    "data": DataSettings,
    "model": RewardModelSettings,
    "reward": GeliRewardArguments,
    "policy": PolicySettings,
    **TRAINERS,
}


def main(argv: list[str]) -> None:
    begun = time.monotonic()
    settings = parse_settings(argv, RunSettings, SECTIONS)
    run = build(RunSettings, settings[""])
    if unknown := set(run.stages) - set(STAGES):
        raise SettingsError(f"stages: expected some of {', '.join(STAGES)}, found {', '.join(sorted(unknown))}")
    output = Path(run.output_dir)
    state = start_run(output, settings, run.resume, lasting=["seed"])
    set_seed(run.seed)
    for name in ("reward", *TRAINERS):
        settings[name] = {"report_to": run.report_to} | settings[name]
    fit_to_cpu(settings, ("reward", *TRAINERS))
    data, model, policy = (build(SECTIONS[name], settings[name]) for name in ("data", "model", "policy"))
    reward = trainer_settings(model, settings["reward"], run.seed)
    with setting_errors("data"):
        parts = load_parts(data, run.data_dir, seed=run.seed)
    train, test = parts["train"], parts["test"]
    about = {"corpus": data.corpus, "test": test, "base_policy": policy.model_name_or_path}
    missing = [name for name in FOLDERS if not (output / name / "README.md").exists()]

    def facts() -> dict:
        seconds = time.monotonic() - begun
        command = ["python", "examples/train_geli.py", *argv]
        return describe_run(command, settings, corpus=data.corpus, sessions=len(train), seconds=seconds)

    if "reward" in run.stages:
        state.print("\nStage reward: a reward for every turn, from scores and listeners' reactions", flush=True)
        train_reward_model(model, reward, parts, output, callbacks=[ModelCardCallback()], resume=run.resume)
    if "policy" in run.stages:
        state.print("\nStage policy: a chat model, fine-tuned on the sessions, then aligned", flush=True)
        how = {"callbacks": [ModelCardCallback()], "seed": run.seed, "resume": run.resume}
        train_policy(policy, settings, load_run_model(output), train, output, **how)
    if state.is_main_process:
        write_run_cards(output, missing, facts(), **about)
    state.wait_for_everyone()
    if "evaluate" in run.stages and not is_evaluated(output):
        state.print("\nStage evaluate: both on held-out conversations, beside baselines", flush=True)
        rewards, rows = evaluate_run(output, model, reward, parts, resume=run.resume)
        if state.is_main_process:
            reward_model = load_run_model(output)
            comparison = compare(output, policy, reward_model, test, run.seed, true=data.corpus == "sample")
            # The report comes last: it is current as long as it is newer than the models' folders.
            write_run_cards(output, FOLDERS, facts(), rows=rows, comparison=comparison, **about)
            sizes = {name: len(sessions) for name, sessions in parts.items()}
            notes = [SIMULATED] if data.corpus == "sample" else []
            notes += [f"The policy: {ORIGIN}"] if comparison and not policy.model_name_or_path else []
            write_report(output, settings, sizes, test, reward_model, rewards, rows, comparison, notes)
            shutil.rmtree(output / "checkpoints" / "compare", ignore_errors=True)
            print((output / "summary.txt").read_text(encoding="utf-8"))
    state.wait_for_everyone()
    state.destroy_process_group()


def compare(
    output: Path, policy: PolicySettings, reward_model: GeliRewardModel, test: Dataset, seed: int, *, true: bool
) -> PolicyComparison | None:
    """Compare the policy before and after alignment; where nobody knows the truth, its own reward model judges."""
    if not (output / "policy").exists():
        return None
    return compare_policies(
        output / "sft_policy",
        output / "policy",
        test,
        judge_by_truth if true else partial(judge_by_reward, reward_model),
        true=true,
        sampling=Sampling(policy.replies, policy.context_messages, policy.max_new_tokens, policy.temperature, seed),
    )


if __name__ == "__main__":
    run_main(main)
