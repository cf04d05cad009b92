"""What a run leaves to read: metrics.json, pictures, report.md, and a summary of a few lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..cache import whole
from ..metrics import plots
from ..metrics.metrics import spearman_per_session
from ..metrics.table import as_json, markdown_table
from ..models.geli_reward.modeling_geli import GeliRewardModel
from .comparison import PolicyComparison, policy_table, share

THIS_MODEL = "this reward model"
EXAMPLES = 4


def write_report(
    folder: Path,
    settings: Mapping[str, Any],
    sizes: Mapping[str, int],
    test: Dataset,
    model: GeliRewardModel,
    rewards: Mapping[str, Sequence[Sequence[float]]],
    rows: Mapping[str, Mapping[str, Any]],
    comparison: PolicyComparison | None,
) -> None:
    """Write everything that there is to see of a run into its folder, `report.md` last.

    Args:
        folder: of the run; `reward_history.json` and `policy_history.json` in it are drawn.
        settings: of the run.
        sizes: sessions in each part of the data.
        test: held-out Session rows.
        model: the reward model.
        rewards: turn rewards of the test sessions by the name of the method, `THIS_MODEL` first.
        rows: figures of each method, see `evaluate_rewards`.
        comparison: replies of the policy before and after, if there is one.
    """
    mine = rewards[THIS_MODEL]
    rated = "turn_rating" in test.column_names
    policy = comparison.figures() if comparison else None
    metrics = {"settings": settings, "sessions": sizes, "reward": rows, "policy": policy}
    _write(folder / "metrics.json", json.dumps(as_json(metrics), indent=1))
    # For figures over several runs: what the intervals were made of.
    values: dict[str, dict] = {}
    if rated:
        each = {name: spearman_per_session(turns, test["turn_rating"]).tolist() for name, turns in rewards.items()}
        values["within_session_spearman"] = {"conversation_id": test["conversation_id"][:], **each}
    if comparison:
        values["policy"] = {"conversation_id": list(comparison.conversation_ids)}
        for side in ("before", "after"):
            values["policy"][side] = [reply.value for reply in getattr(comparison, side)]
    _write(folder / "values.json", json.dumps(as_json(values)))

    pictures = {}
    shown = telling_sessions(mine)[0]
    plots.plot_session(test[shown], mine[shown], folder / "session.png", model.config.reward_quantiles)
    pictures["session.png"] = "A held-out session, and the reward of each turn"
    if rated:
        plots.plot_rewards_against_truth(mine, test["turn_rating"], folder / "rewards_against_truth.png")
        pictures["rewards_against_truth.png"] = "Predicted rewards against the truth"
        within = {name: row["within_session_spearman"] for name, row in rows.items()}
        plots.plot_comparison(within, folder / "methods.png")
        pictures["methods.png"] = "Within-session Spearman of each method"
    if (folder / "reward_history.json").exists():
        plots.plot_training(json.loads((folder / "reward_history.json").read_text()), folder / "training.png")
        pictures["training.png"] = "Training of the reward model"
    if (folder / "policy_history.json").exists():
        plots.plot_alignment(json.loads((folder / "policy_history.json").read_text()), folder / "alignment.png")
        pictures["alignment.png"] = "Alignment of the policy"
    if comparison:
        before, after = ([reply.value for reply in side] for side in (comparison.before, comparison.after))
        plots.plot_replies(before, after, folder / "replies.png", judge=policy["judge"])
        pictures["replies.png"] = f"Value of the policy's replies, judged by {policy['judge']}"

    summary = _summary(folder, rows, policy)
    _write(folder / "summary.txt", summary)
    parts = [
        f"# {folder.name}: one rating in, a reward for every turn out",
        ", ".join(f"{count} sessions to {part}" for part, count in sizes.items()) + ".",
        "## The reward model",
        markdown_table(rows),
        "Intervals are 95 % bootstrap intervals over conversations. Within-session figures compare turns of the same "
        "session, so who rates high does not matter to them; a good local difference by itself proves nothing. The "
        "row *next-turn sentiment* sees the listener's reaction, which the reward of a policy may not.",
        *(_policy_section(policy, comparison) if comparison else []),
        "## Pictures",
        *(f"{title}:\n\n![{title}]({name})" for name, title in pictures.items()),
    ]
    _write(folder / "report.md", "\n\n".join(parts) + "\n")


def _write(file: Path, text: str) -> None:
    with whole(file) as partial:
        partial.write_text(text)


def telling_sessions(rewards: Sequence[Sequence[float]]) -> list[int]:
    """Sessions of ordinary length first, and of these first those whose rewards vary most: there is much to see."""
    lengths = np.array([len(each) for each in rewards])
    ordinary = np.abs(lengths - np.median(lengths)) <= 2
    spread = np.where(ordinary, [np.std(each) for each in rewards], -1)
    return np.argsort(-spread, kind="stable").tolist()


def _policy_section(policy: Mapping[str, Any], comparison: PolicyComparison) -> list[str]:
    gains = np.array([a.value - b.value for a, b in zip(comparison.after, comparison.before)])
    order = np.random.default_rng(0).permutation(len(gains))[:EXAMPLES]
    examples = []
    for index in order:
        heard = comparison.dialogues[index][-1]["content"]
        before, after = comparison.before[index], comparison.after[index]
        examples.append(
            f"> **User:** {_one_line(heard)}  \n> **Before ({before.value:+.2f}):** {_one_line(before.text)}  \n"
            f"> **After ({after.value:+.2f}):** {_one_line(after.text)}"
        )
    return [
        "## The policy",
        f"Replies to {len(gains)} held-out dialogues, judged by {policy['judge']}.",
        policy_table(policy),
        f"{len(examples)} of them, drawn at random:",
        *examples,
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "(nothing)"


def _summary(folder: Path, rows: Mapping[str, Mapping[str, Any]], policy: Mapping[str, Any] | None) -> str:
    width = max(map(len, rows))
    lines = ["", f"{'':{width}}  within-session Spearman    global loss (floor)"]
    for name, row in rows.items():
        loss = row["global_loss"].estimate
        shown = f"{loss:.3f} ({row['global_loss_floor']:.3f})" if loss == loss else "-"
        within = row["within_session_spearman"]
        within = str(within) if within.estimate == within.estimate else "-"
        lines.append(f"{name:{width}}  {within:25}  {shown}")
    if policy:
        before, after = policy["before"], policy["after"]
        lines += [
            "",
            f"A reply of the policy, judged by {policy['judge']}: {before['value'].estimate:.3f} before, "
            f"{after['value'].estimate:.3f} after; difference {policy['difference']},",
            f"at {policy['length_ratio']:.2f} of the length; recognised {share(before['recognised'])} before, "
            f"{share(after['recognised'])} after.",
        ]
    lines += [
        "",
        f"Read {folder}/report.md. Then try:",
        f"  geli score sample --model {folder}/reward_model --format table",
        f"  geli score YOUR_SESSIONS.jsonl --model {folder}/reward_model > rewards.jsonl",
        f"  geli evaluate YOUR_SESSIONS.jsonl --model {folder}/reward_model",
    ]
    return "\n".join(lines) + "\n"
