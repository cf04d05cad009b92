"""Credit for each turn against one reward per session, with the sample's people, where the truth is known.

    python examples/recipes/turn_credit.py

The same policy (the one that comes with the package, before its alignment) is trained with the same prompts, sessions
and steps, once for each way to give credit and each seed. Only the learning rate differs: each way has the one of
`--learning-rates` that did best for it on `--pilot-seeds`, which count nothing afterwards. The figure is the true
value of the turns, whatever the reward is: the oracle's values (`--reward true`), or those of a reward model (a
folder), which is what users have. A finished training is kept, so that a stopped experiment goes on. Writes
`records.json`, `turn_credit.md` and `turn_credit.png`.

With `--run RUN`, a folder of `train_real_policy.py`, SmolLM2 talks with a second SmolLM2 in the user's role, both
fine-tuned. It learns from that run's reward model, and the figure is the reward of that run's judge:

    python examples/recipes/turn_credit.py --run RUN --arms session "turn, gamma 0.5" --seeds 0 1 2 --steps 10 \
        --turns 3 --groups 1 --learning-rates 1.5e-4 --output-dir results/turn_credit_real
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from matplotlib.figure import Figure
from transformers import PreTrainedModel, set_seed
from trl import GRPOConfig

from geli_hf import GeliRewardModel, load_sessions
from geli_hf.alignment import (
    GeliSessionReward,
    ModelPartner,
    SessionGRPOTrainer,
    SessionRollouts,
    SimulatedPeople,
    dialogue_prompts,
    load_policy,
    load_policy_tokenizer,
)
from geli_hf.alignment.partners import Partner
from geli_hf.alignment.policy import load_adapter
from geli_hf.alignment.shipped import POLICY
from geli_hf.sessions import Message
from geli_hf.simulator.dialogues import draw_opening
from geli_hf.training.script import run_main

CONTROL = "session"
ARMS = {  # how credit is given, and the discount
    CONTROL: ("session", 1.0),
    "turn, gamma 0": ("turn", 0.0),
    "turn, gamma 0.5": ("turn", 0.5),
    "turn, gamma 1": ("turn", 1.0),
}
COLOURS = {CONTROL: "#7d7d7d", "turn, gamma 0": "#2f6c9f", "turn, gamma 0.5": "#3f8f5f", "turn, gamma 1": "#b5523b"}
GROUP, SMOOTH, LAST, BOOTSTRAPS = 8, 7, 10, 2000  # sessions of a group; steps of the moving average, and at the end


@dataclass
class World:
    """The policy's partner, and the reward and value of their sessions."""

    policy: str | PreTrainedModel
    tokenizer_of: str
    partner: Partner
    reward: Callable
    openings: list[list[Message]]
    reply: int  # longest, in tokens
    per_turn: int  # tokens of a turn with its answer


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, default=POLICY, help="a policy that speaks the sample's language")
    parser.add_argument("--reward", default="true", help="'true', or the folder of a reward model")
    parser.add_argument("--run", type=Path, help="folder of train_real_policy.py, in place of --policy and --reward")
    parser.add_argument(
        "--chitchat", help="folder of Chit-Chat's dataset.json (default: the package chitchat-dataset)"
    )
    parser.add_argument("--output-dir", type=Path, default=Path("runs/turn_credit"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--pilot-seeds", type=int, nargs="+", default=[100])
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--turns", type=int, default=6, help="of the policy in a session")
    parser.add_argument("--groups", type=int, default=2, help=f"of {GROUP} sessions, in a step")
    parser.add_argument("--temperature", type=float, default=0.7)
    options = parser.parse_args(argv)

    chosen = {arm: best_learning_rate(options, arm) for arm in options.arms}
    records = []
    for seed in options.seeds:
        records += [run(options, arm, seed, chosen[arm]) for arm in options.arms]
        report(options, records)  # after every seed, since the next ones take a while


def best_learning_rate(options: argparse.Namespace, arm: str) -> float:
    def last(rate: float) -> float:
        runs = [run(options, arm, seed, rate) for seed in options.pilot_seeds]
        return float(np.mean([record["value"][-LAST:] for record in runs]))

    rates = options.learning_rates
    return max(rates, key=last) if len(rates) > 1 else rates[0]


def run(options: argparse.Namespace, arm: str, seed: int, learning_rate: float) -> dict:
    """Return the record of one training, from its file if there is one."""
    name = arm.replace(", ", "-").replace(" ", "-")
    file = options.output_dir / "runs" / f"{name}-rate-{learning_rate:g}-seed-{seed}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(train(options, arm, seed, learning_rate)), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def train(options: argparse.Namespace, arm: str, seed: int, learning_rate: float) -> dict:
    """Train once, and record the true values and the log step by step, of sessions talked before each update."""
    set_seed(seed)
    credit, gamma = ARMS[arm]
    world = (real_world if options.run else simulated_world)(options, seed)
    sessions = options.groups * GROUP
    trainer = SessionGRPOTrainer(
        world.policy,
        world.reward,
        SessionRollouts(world.partner, turns=options.turns, max_new_tokens=world.reply),
        GRPOConfig(
            str(options.output_dir / "checkpoints"),
            max_steps=options.steps,
            learning_rate=learning_rate,
            lr_scheduler_type="constant",
            per_device_train_batch_size=sessions,
            num_generations=GROUP,
            temperature=options.temperature,
            max_completion_length=options.turns * world.per_turn,
            logging_steps=1,
            save_strategy="no",
            seed=seed,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            activation_checkpointing=False,
            bf16=False,
        ),
        gamma=gamma,
        credit=credit,
        train_dataset=Dataset.from_dict({"prompt": world.openings}),
        processing_class=load_policy_tokenizer(world.tokenizer_of),
    )
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "session/value" in entry]
    names = {name: f"session/{name}" for name in ("value", "recognised", "turn_reward", "turns")}
    names |= {"tokens": "completions/mean_length", "entropy": "entropy"}
    record = {"arm": arm, "seed": seed, "learning_rate": learning_rate, "sessions_per_step": sessions}
    curves = {name: [round(entry[key], 5) for entry in steps] for name, key in names.items() if key in steps[0]}
    return record | curves


def simulated_world(options: argparse.Namespace, seed: int) -> World:
    """The sample's people, whose grammar knows the true value of a turn."""
    reward: Callable = true_values
    if options.reward != "true":
        reward = GeliSessionReward(GeliRewardModel.from_pretrained(options.reward))
    openings = [draw_opening([seed, 7, index]) for index in range(options.steps * options.groups)]
    policy = str(options.policy)
    return World(policy, policy, SimulatedPeople(seed), reward, openings, reply=24, per_turn=56)


def real_world(options: argparse.Namespace, seed: int) -> World:
    """SmolLM2 with SmolLM2, a reward model of one half of the speakers, and a judge of the other."""
    adapter = options.run / "sft_adapter"
    partner, reward, judge = real_models(options.run, options.temperature)

    def judged(rollouts) -> list[list[float]]:
        for rollout, values in zip(rollouts, judge(rollouts)):
            rollout.observed["value"] = values
        return reward(rollouts)

    prompts = dialogue_prompts(load_sessions("chitchat", half="mixed"), context_messages=2)
    openings = prompts.filter(lambda position: position <= 2, input_columns="position").shuffle(seed=seed)
    openings = openings.select(range(options.steps * options.groups))["prompt"][:]
    policy = load_adapter(adapter, trainable=True, dtype=torch.bfloat16)
    return World(policy, str(adapter), partner, judged, openings, reply=32, per_turn=80)


@cache
def real_models(run: Path, temperature: float) -> tuple[ModelPartner, GeliSessionReward, GeliSessionReward]:
    speaker = load_policy(run / "sft_adapter", dtype=torch.bfloat16)
    partner = ModelPartner(*speaker, persona="", max_new_tokens=32, temperature=temperature)
    reward, judge = (GeliSessionReward(GeliRewardModel.from_pretrained(run / name)) for name in ("reward", "gold"))
    return partner, reward, judge


def true_values(rollouts) -> list[list[float]]:
    return [rollout.observed["value"] for rollout in rollouts]


def curves(records: list[dict], arm: str) -> tuple[list[int], np.ndarray]:
    """Return the seeds, and the true values (seeds, steps) as a moving average of the last `SMOOTH` steps."""
    chosen = [record for record in records if record["arm"] == arm]
    values = np.array([record["value"] for record in chosen])
    sums, stop = np.cumsum(np.pad(values, ((0, 0), (1, 0))), 1), np.arange(1, values.shape[1] + 1)
    start = np.maximum(0, stop - SMOOTH)
    return [record["seed"] for record in chosen], (sums[:, stop] - sums[:, start]) / (stop - start)


def samples_to(curve: np.ndarray, threshold: float, sessions: int) -> float:
    """Count the sessions until the curve (steps,) first reaches the threshold; infinite if it never does."""
    reached = np.flatnonzero(curve >= threshold)
    return float((reached[0] + 1) * sessions) if len(reached) else np.inf


def compare(records: list[dict]) -> dict[str, dict]:
    """Compare the arms by their gain and by the samples to the control's last level and half of its gain."""
    names = [arm for arm in ARMS if any(record["arm"] == arm for record in records)]
    by_arm = {arm: dict(zip(*curves(records, arm))) for arm in names}
    seeds = sorted(set.intersection(*map(set, by_arm.values())))
    sessions = records[0]["sessions_per_step"]
    stacked = {arm: np.array([curve[seed] for seed in seeds]) for arm, curve in by_arm.items()}
    rng = np.random.default_rng(0)
    draws = [np.arange(len(seeds)), *rng.integers(len(seeds), size=(BOOTSTRAPS, len(seeds)))]
    drawn: dict[str, list] = {arm: [] for arm in names}
    for draw in draws:
        mean = {arm: stacked[arm][draw].mean(0) for arm in names}
        begin = np.mean([mean[arm][SMOOTH - 1] for arm in names])  # the same policy in all arms
        level = mean[CONTROL][-LAST:].mean()
        for arm in names:
            last = mean[arm][-LAST:].mean()
            needed, control = (
                [samples_to(mean[each], goal, sessions) for goal in (level, (begin + level) / 2)]
                for each in (arm, CONTROL)
            )
            share = [mine / theirs for mine, theirs in zip(needed, control)]
            drawn[arm].append((last, last - level, *needed, *share))
    fields = ("last", "over_control", "samples", "samples_half", "share", "share_half")
    result = {}
    for arm in names:
        table = np.array(drawn[arm])
        low, high = np.quantile(table[1:], [0.025, 0.975], axis=0, method="nearest")
        result[arm] = {name: np.array([table[0], low, high])[:, i].tolist() for i, name in enumerate(fields)}
        result[arm]["seeds"] = seeds
    return result


def report(options: argparse.Namespace, records: list[dict]) -> None:
    rows = compare(records)
    figure = "the judge's reward of a turn" if options.run else "true value of a turn"
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    record = {"settings": settings, "comparison": rows, "runs": records}
    (options.output_dir / "records.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    lines = [
        f"| credit | {figure} at the end | over the control | sessions to the control's last level | "
        "as a share of the control's | to half of its gain | as a share |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for arm, row in rows.items():
        cells = [
            "{:+.3f} [{:+.3f}, {:+.3f}]".format(*row["last"]),
            "" if arm == CONTROL else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*row["over_control"]),
            "{:.0f} [{:.0f}, {:.0f}]".format(*row["samples"]),
            "" if arm == CONTROL else "{:.2f} [{:.2f}, {:.2f}]".format(*row["share"]),
            "{:.0f} [{:.0f}, {:.0f}]".format(*row["samples_half"]),
            "" if arm == CONTROL else "{:.2f} [{:.2f}, {:.2f}]".format(*row["share_half"]),
        ]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    seeds = len(next(iter(rows.values()))["seeds"])
    reward = "true turn values" if options.reward == "true" and not options.run else "a reward model"
    lines += [
        "",
        f"{seeds} seeds, {options.steps} steps of {options.groups} groups of {GROUP} sessions, each with "
        f"{options.turns} turns; "
        f"reward: {reward}. 95 % bootstrap intervals over seeds, of the mean curve (moving average of {SMOOTH} steps; "
        f"the last level over {LAST}).",
    ]
    (options.output_dir / "turn_credit.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plot(options, records, list(rows), figure)


def plot(options: argparse.Namespace, records: list[dict], arms: list[str], label: str) -> None:
    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for arm in arms:
        _, values = curves(records, arm)
        x = (np.arange(values.shape[1]) + 1) * records[0]["sessions_per_step"]
        mean, seeds = values.mean(0), len(values)
        axes.plot(x, mean, color=COLOURS[arm], label=f"credit to the {arm}")
        if seeds > 1:
            spread = 1.96 * values.std(0, ddof=1) / np.sqrt(seeds)
            axes.fill_between(x, mean - spread, mean + spread, color=COLOURS[arm], alpha=0.15, linewidth=0)
    axes.set(xlabel="sessions talked", ylabel=label)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.output_dir / "turn_credit.png")


if __name__ == "__main__":
    run_main(main)
