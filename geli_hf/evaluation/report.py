"""Report of a training run: metrics.json, pictures, report.md, and a summary of a few lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..cache import write_text
from ..metrics import plots
from ..metrics.metrics import spearman_per_session
from ..metrics.table import COLUMNS, as_json, markdown_table
from ..models.geli_reward.modeling_geli import GeliRewardModel
from .comparison import PolicyComparison, policy_table

THIS_MODEL = "this reward model"
EXAMPLES = 4
CONVERSATIONS_NEEDED = 20  # below, a bootstrap over conversations is not reliable
WITHIN_SESSIONS = (
    "Within-session figures compare turns of the same session, so who rates high does not matter to them. A good "
    "local difference by itself proves nothing: a reward that copies the signal has one."
)


def write_report(
    folder: Path,
    settings: Mapping[str, Any],
    sizes: Mapping[str, int],
    test: Dataset,
    model: GeliRewardModel,
    rewards: Mapping[str, Sequence[Sequence[float]]],
    rows: Mapping[str, Mapping[str, Any]],
    comparison: PolicyComparison | None,
    notes: Sequence[str] = (),
) -> None:
    """Write figures, pictures and texts of a run into its folder, `report.md` last.

    Args:
        folder: of the run.
        settings: of the run.
        sizes: number of sessions in each part of the data.
        test: held-out Session rows.
        model: the reward model.
        rewards: turn rewards of the test sessions by the name of the method, `THIS_MODEL` first.
        rows: figures of each method, see `evaluate_rewards`.
        comparison: replies of the policy before and after alignment, if there is a policy.
        notes: paragraphs on what the figures mean.
    """
    own_rewards = rewards[THIS_MODEL]
    policy = comparison.figures() if comparison else None
    metrics = {"settings": settings, "sessions": sizes, "reward": rows, "policy": policy}
    write_text(folder / "metrics.json", json.dumps(as_json(metrics), indent=1))
    values: dict[str, dict] = {}  # behind the intervals, to pool several runs
    pictures = {"session.png": "A held-out session, and the reward of each turn"}
    shown = telling_sessions(own_rewards)[0]
    plots.plot_session(test[shown], own_rewards[shown], folder / "session.png", model.config.reward_quantiles)
    if "turn_rating" in test.column_names:
        within = {name: spearman_per_session(turns, test["turn_rating"]) for name, turns in rewards.items()}
        values["within_session_spearman"] = {"conversation_id": test["conversation_id"][:], **within}
        intervals = {name: row["within_session_spearman"] for name, row in rows.items()}
        plots.plot_comparison(intervals, folder / "methods.png")
        pictures["methods.png"] = "Within-session Spearman of each method"
    if comparison:
        before, after = ([reply.value for reply in side] for side in (comparison.before, comparison.after))
        values["policy"] = {"conversation_id": list(comparison.conversation_ids), "before": before, "after": after}
    write_text(folder / "values.json", json.dumps(as_json(values)))
    write_text(folder / "summary.txt", _summary(folder, rows, policy, notes))
    policy_parts = []
    if comparison:
        policy_parts = [
            "## The policy",
            f"Replies to {len(comparison.dialogues)} held-out dialogues, judged by {policy['judge']}.",
            policy_table(policy),
            "Some of them, drawn at random:",
            *example_replies(comparison, EXAMPLES),
        ]
    parts = [
        f"# {folder.name}: one rating in, a reward for every turn out",
        ", ".join(f"{count} sessions to {part}" for part, count in sizes.items()) + ".",
        *notes,
        "## The reward model",
        markdown_table(rows),
        f"Intervals are 95 % bootstrap intervals over conversations. {WITHIN_SESSIONS} The row *next-turn sentiment* "
        "sees the listener's reaction, which the reward of a policy may not.",
        *policy_parts,
        "## Pictures",
        *(f"{title}:\n\n![{title}]({name})" for name, title in pictures.items()),
    ]
    write_text(folder / "report.md", "\n\n".join(parts) + "\n")


def telling_sessions(rewards: Sequence[Sequence[float]]) -> list[int]:
    """Order sessions for a picture: those of ordinary length first, and of these first those whose rewards vary most.

    Args:
        rewards: one array (turns,) per session.
    """
    lengths = np.array([len(turns) for turns in rewards])
    ordinary = np.abs(lengths - np.median(lengths)) <= 2
    spread = np.where(ordinary, [np.std(turns) for turns in rewards], -1)
    return np.argsort(-spread, kind="stable").tolist()


def example_replies(comparison: PolicyComparison, count: int) -> list[str]:
    """Format replies before and after alignment to some dialogues, drawn at random, as Markdown quotes."""
    order = np.random.default_rng(0).permutation(len(comparison.dialogues))[:count]
    examples = []
    for index in order:
        lines = [f"> **User:** {_one_line(comparison.dialogues[index][-1]['content'])}"]
        for title, reply in (("Before", comparison.before[index]), ("After", comparison.after[index])):
            value = "" if np.isnan(reply.value) else f" ({reply.value:+.2f})"
            lines.append(f"> **{title}{value}:** {_one_line(reply.text)}")
        examples.append("  \n".join(lines))
    return examples


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "(nothing)"


def _summary(
    folder: Path, rows: Mapping[str, Mapping[str, Any]], policy: Mapping[str, Any] | None, notes: Sequence[str]
) -> str:
    columns = {key: COLUMNS[key] for key in ("within_session_spearman", "global_loss", "global_loss_floor")}
    parts = ["", markdown_table(rows, columns=columns)]
    if policy:
        parts += [f"Replies of the policy, judged by {policy['judge']}:", "", policy_table(policy), ""]
    parts += [
        *(f"{note}\n" for note in notes),
        f"Read {folder}/report.md. Then try:",
        f"  geli score sample --model {folder}/reward_model --format table",
        f"  geli evaluate YOUR_SESSIONS.jsonl --model {folder}/reward_model",
    ]
    return "\n".join(parts) + "\n"
