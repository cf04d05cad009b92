"""Report of `geli evaluate-policy`: tables and examples in Markdown, every figure as JSON, pictures, the replies."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from ..cache import atomic_path, write_text
from ..metrics.plots import plot_over_optimisation
from ..metrics.table import aligned_table, as_json, format_figure
from .comparison import policy_table
from .divergence import ESTIMATOR
from .policies import PolicyEvaluation, Sampling
from .report import CONVERSATIONS_NEEDED, example_replies

EXAMPLES = 8


def policy_markdown(evaluation: PolicyEvaluation, sampling: Sampling, warnings: Sequence[str] = ()) -> str:
    """Write the report of an evaluation in Markdown.

    Args:
        evaluation: see `evaluate_policies`.
        sampling: how replies were sampled.
        warnings: for the top of the report.
    """
    chosen = evaluation.chosen
    figures, comparison = chosen.figures, chosen.comparison
    conversations = len(set(comparison.conversation_ids))
    divergence = "No KL divergence: the two policies choose between different tokens."
    if figures["kl"] is not None:
        divergence = f"KL: **{figures['kl']}** nats per reply. {ESTIMATOR}."
    verdicts = [[question, str(rate)] for question, rate in (figures["verdicts"] or {}).items()]
    intervals = "In brackets 95 % bootstrap intervals over conversations; differences are paired, reply by reply."
    if conversations < CONVERSATIONS_NEEDED:
        intervals += f" Don't rely on the intervals: they stand on {conversations} conversations."
    parts = [
        f"# {chosen.name} beside {evaluation.base}",
        *(f"**{warning}**" for warning in warnings),
        *(_choice(evaluation) if evaluation.candidates else []),
        f"Replies to {len(comparison.dialogues)} held-out dialogues of {conversations} conversations, sampled at "
        f"temperature {sampling.temperature:g} and at most {sampling.max_new_tokens} tokens long, judged by "
        f"**{figures['judge']}**.",
        policy_table(figures),
        divergence,
        *([aligned_table(["", "win rate"], verdicts)] if verdicts else []),
        *chosen.notes,
        f"{intervals} *Distinct-n* is the share of different n-grams among all of a side's; *self-repetition* the "
        "share of a reply's three-word sequences that the agent used before.",
        "## Replies, drawn at random",
        *example_replies(comparison, EXAMPLES),
    ]
    return "\n\n".join(parts) + "\n"


def write_policy_evaluation(folder: str | Path, evaluation: PolicyEvaluation, text: str) -> None:
    """Write `policies.md`, `policies.json` (every figure), `replies.jsonl` and, where one of several policies was
    chosen, `over_optimisation.png`.

    Args:
        folder: to write into.
        evaluation: see `evaluate_policies`.
        text: from `policy_markdown`.
    """
    folder, chosen, comparison = Path(folder), evaluation.chosen, evaluation.chosen.comparison
    candidates = {candidate.name: candidate.figures for candidate in evaluation.candidates}
    record = {
        "base": evaluation.base,
        "chosen": chosen.name,
        "test": {**chosen.figures, "dialogues": len(comparison.dialogues), "notes": chosen.notes},
        "validation": candidates,
        "kl_estimator": ESTIMATOR,
    }
    write_text(folder / "policies.json", json.dumps(as_json(record), indent=1, allow_nan=False) + "\n")
    if diverged := [row for row in candidates.values() if row["kl"] is not None]:
        judged = [(row["kl"].estimate, row["win_rate"]) for row in diverged]
        by_reward = [(row["kl"].estimate, row["reward"]["win_rate"]) for row in diverged if row["reward"]]
        with atomic_path(folder / "over_optimisation.png") as partial:
            plot_over_optimisation(judged, by_reward, partial)
    lines = []
    for conversation, *sides, win in zip(
        comparison.conversation_ids, comparison.before, comparison.after, comparison.wins
    ):
        before, after = ({"text": reply.text, "value": reply.value} for reply in sides)
        row = {"conversation_id": conversation, "before": before, "after": after, "win": win}
        lines.append(json.dumps(as_json(row), ensure_ascii=False) + "\n")
    write_text(folder / "replies.jsonl", "".join(lines))
    write_text(folder / "policies.md", text)


def _choice(evaluation: PolicyEvaluation) -> list[str]:
    """Figures of all candidates on the validation dialogues, and the choice by judge and by reward."""
    keys = ("win_rate", "length_controlled_win_rate", "difference", "kl", "length_ratio")
    rows, by_reward = [], {}
    for candidate in evaluation.candidates:
        figures, reward = candidate.figures, candidate.figures["reward"] or {}
        if reward:
            by_reward[candidate.name] = reward["difference"].estimate
        rows.append([candidate.name, *(format_figure(figures[key]) for key in keys)])
        rows[-1].append(format_figure(reward.get("win_rate")))
    titles = ["", "win rate", "at equal length", "gain in value", "KL", "length ratio", "win rate by the reward"]
    conversations, reason = evaluation.candidates[0].comparison.conversation_ids, "the highest win rate"
    if not math.isinf(evaluation.max_kl):
        bound = f"within {evaluation.max_kl:g} nats"
        diverged = [candidate.figures["kl"] for candidate in evaluation.candidates]
        within = any(kl is not None and kl.estimate <= evaluation.max_kl for kl in diverged)
        reason = f"the highest win rate {bound}" if within else f"the smallest divergence, since none is {bound}"
    text = (
        f"Chosen by the judge on {len(conversations)} dialogues of {len(set(conversations))} other conversations: "
        f"**{evaluation.chosen.name}**, for {reason}."
    )
    if by_reward:
        text += f" The reward that was trained for would have chosen {max(by_reward, key=by_reward.get)}."
    return ["## The choice", aligned_table(titles, rows), text, "## The chosen one"]
