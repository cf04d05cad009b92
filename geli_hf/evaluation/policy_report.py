"""Report of `geli evaluate-policy`: tables and examples in Markdown, every figure as JSON, pictures, the replies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cache import atomic_path
from ..metrics.intervals import Interval
from ..metrics.plots import plot_comparison, plot_over_optimisation
from ..metrics.table import MISSING, aligned_table, as_json
from .comparison import SAME_LENGTH, share
from .divergence import ESTIMATOR
from .policies import EvaluatedPolicy, PolicyEvaluation, Sampling
from .report import CONVERSATIONS_NEEDED, example_replies, write_text

EXAMPLES = 8


def policy_markdown(evaluation: PolicyEvaluation, sampling: Sampling, warnings: Sequence[str] = ()) -> str:
    """Write the report of an evaluation in Markdown.

    Args:
        evaluation: see `evaluate_policies`.
        sampling: how replies were sampled.
        warnings: for the top of the report.
    """
    chosen = evaluation.chosen
    figures, comparison = chosen.figures(), chosen.comparison
    conversations = len(set(comparison.conversation_ids))
    examples = example_replies(comparison, EXAMPLES)
    verdicts = [[name, _percent(rate)] for name, rate in (figures["verdicts"] or {}).items()]
    parts = [
        f"# {chosen.name} beside {evaluation.base}",
        *(f"**{warning}**" for warning in warnings),
        *(_choice(evaluation) if evaluation.candidates else []),
        f"Replies to {len(comparison.dialogues)} held-out dialogues of {conversations} conversations, sampled at "
        f"temperature {sampling.temperature:g} and at most {sampling.max_new_tokens} tokens long, judged by "
        f"**{figures['judge']}**.",
        _verdict(_short(chosen.name), figures),
        _table(evaluation.base, chosen.name, figures),
        _length(figures),
        _divergence(chosen, figures),
        *([aligned_table(["", "win rate"], verdicts)] if verdicts else []),
        *chosen.notes,
        _explanation(conversations, figures),
        f"## {len(examples)} of the replies, drawn at random",
        *examples,
    ]
    return "\n\n".join(parts) + "\n"


def write_policy_evaluation(folder: str | Path, evaluation: PolicyEvaluation, text: str) -> None:
    """Write `policies.md`, `policies.json` (every figure), `policies.png` (win rates), `replies.jsonl` and, where one
    of several policies was chosen, `over_optimisation.png`.

    Args:
        folder: to write into.
        evaluation: see `evaluate_policies`.
        text: from `policy_markdown`.
    """
    folder, chosen = Path(folder), evaluation.chosen
    figures, comparison = chosen.figures(), chosen.comparison
    candidates = {candidate.name: candidate.figures() for candidate in evaluation.candidates}
    record = {
        "base": evaluation.base,
        "chosen": chosen.name,
        "test": figures | {"dialogues": len(comparison.dialogues), "notes": list(chosen.notes)},
        "validation": candidates,
        "kl_estimator": ESTIMATOR,
    }
    write_text(folder / "policies.json", json.dumps(as_json(record), indent=1, allow_nan=False) + "\n")
    rates = {"win rate": figures["win_rate"], "win rate at equal length": figures["length_controlled_win_rate"]}
    rates |= {name.replace("_", " "): rate for name, rate in (figures["verdicts"] or {}).items()}
    if figures["reward"]:
        rates["win rate by the reward trained for"] = figures["reward"]["win_rate"]
    with atomic_path(folder / "policies.png") as partial:
        plot_comparison(rates, partial, label=f"{_short(chosen.name)} over {_short(evaluation.base)}", reference=0.5)
    if candidates:
        judged, by_reward = {}, {}
        for order, (name, row) in enumerate(candidates.items(), 1):
            place = float(order) if row["kl"] is None else row["kl"].estimate
            judged[name] = place, row["win_rate"]
            if row["reward"]:
                by_reward[name] = place, row["reward"]["win_rate"]
        known = all(row["kl"] is not None for row in candidates.values())
        with atomic_path(folder / "over_optimisation.png") as partial:
            plot_over_optimisation(judged, by_reward, partial, chosen=chosen.name, known=known)
    replies = [
        {
            "conversation_id": conversation,
            "before": {"text": before.text, "value": before.value},
            "after": {"text": after.text, "value": after.value},
            "win": win,
        }
        for conversation, before, after, win in zip(
            comparison.conversation_ids, comparison.before, comparison.after, comparison.wins
        )
    ]
    lines = [json.dumps(as_json(reply), ensure_ascii=False) + "\n" for reply in replies]
    write_text(folder / "replies.jsonl", "".join(lines))
    write_text(folder / "policies.md", text)


def _choice(evaluation: PolicyEvaluation) -> list[str]:
    """Figures of all candidates on the validation dialogues, and the choice by judge and by reward."""
    rows, by_reward = [], {}
    for candidate in evaluation.candidates:
        figures, reward = candidate.figures(), MISSING
        if figures["reward"]:
            by_reward[candidate.name] = figures["reward"]["difference"].estimate
            reward = _percent(figures["reward"]["win_rate"])
        rows.append(
            [
                f"**{candidate.name}**" if candidate.name == evaluation.chosen.name else candidate.name,
                _percent(figures["win_rate"]),
                _percent(figures["length_controlled_win_rate"]),
                _interval(figures["difference"]),
                reward,
                MISSING if figures["kl"] is None else f"{figures['kl'].estimate:.2f}",
                f"{figures['length_ratio']:.2f}",
            ]
        )
    titles = ["", "win rate", "at equal length", "gain in value", "win rate by the reward", "KL", "length ratio"]
    comparison = evaluation.candidates[0].comparison
    text = (
        f"Chosen by the judge on {len(comparison.dialogues)} dialogues of "
        f"{len(set(comparison.conversation_ids))} other conversations: **{evaluation.chosen.name}**, for the highest "
        "win rate."
    )
    if by_reward:
        best = max(by_reward, key=by_reward.get)
        same = best == evaluation.chosen.name
        text += f" The reward that was trained for would have chosen {best}{' too' if same else ''}."
    return ["## The choice", aligned_table(titles, rows), text, "## The chosen one"]


def _verdict(name: str, figures: Mapping[str, Any]) -> str:
    rate, controlled = figures["win_rate"], figures["length_controlled_win_rate"]
    if math.isnan(rate.estimate):
        return "Nothing could be judged."
    verdict = "the judge can't tell the two apart"
    if rate.low > 0.5 or rate.high < 0.5:
        verdict = f"the judge finds {name} {'better' if rate.low > 0.5 else 'worse'}"
    return (
        f"Win rate of {name}: **{_percent(rate)}** (a tie counts half): {verdict}. At equal length, by logistic "
        f"regression on the log length ratio: {_percent(controlled)}."
    )


def _table(base: str, name: str, figures: Mapping[str, Any]) -> str:
    before, after = figures["before"], figures["after"]
    rows = [["value of a reply", *_pair(before["value"], after["value"], figures["difference"])]]
    if reward := figures["reward"]:
        rows.append(["reward that was trained for", *_pair(reward["before"], reward["after"], reward["difference"])])
    if before["recognised"] is not None:
        rows.append(["recognised", share(before["recognised"]), share(after["recognised"]), ""])
    rows.append(["words", f"{before['words']:.1f}", f"{after['words']:.1f}", f"x {figures['length_ratio']:.2f}"])
    for title, key in (("empty", "empty"), ("different replies", "distinct")):
        rows.append([title, share(before[key]), share(after[key]), ""])
    for title, key in (("distinct-1", "distinct_1"), ("distinct-2", "distinct_2"), ("self-repetition", "repetition")):
        rows.append([title, _number(before[key]), _number(after[key]), ""])
    if figures["sentiment"] is not None:
        rows.append(["sentiment", *_pair(before["sentiment"], after["sentiment"], figures["sentiment"])])
    return aligned_table(["", _short(base), _short(name), "difference"], rows)


def _length(figures: Mapping[str, Any]) -> str:
    low, high = SAME_LENGTH
    agree = "agree" if figures["same_length"] else "do NOT agree"
    text = f"Lengths {agree} within a tenth (ratio {figures['length_ratio']:.2f}, wanted {low:g} to {high:g})."
    return text if figures["same_length"] else f"{text} Look at the win rate at equal length, and trust it less."


def _divergence(chosen: EvaluatedPolicy, figures: Mapping[str, Any]) -> str:
    if figures["kl"] is None:
        return f"No KL divergence: {chosen.incomparable}."
    return f"KL: **{_interval(figures['kl'], 2)}** nats per reply. {ESTIMATOR}."


def _explanation(conversations: int, figures: Mapping[str, Any]) -> str:
    intervals = "In brackets 95 % bootstrap intervals over conversations; differences are paired, reply by reply."
    if conversations < CONVERSATIONS_NEEDED:
        intervals = (
            f"Don't rely on the intervals: {conversations} conversations were judged, and a bootstrap over fewer than "
            f"{CONVERSATIONS_NEEDED} says little."
        )
    sentiment = " *Sentiment* is VADER's." if figures["sentiment"] is not None else ""
    return (
        f"{intervals} *Distinct-n* is the share of different n-grams among all of a side's; *self-repetition* the "
        f"share of a reply's three-word sequences that the agent used before.{sentiment}"
    )


def _pair(before: Interval, after: Interval, difference: Interval) -> list[str]:
    return [_number(before.estimate), _number(after.estimate), _interval(difference, sign="+")]


def _interval(value: Interval, digits: int = 3, sign: str = "") -> str:
    if math.isnan(value.estimate):
        return MISSING
    bounds = "" if math.isnan(value.low) else f" [{value.low:{sign}.{digits}f}, {value.high:{sign}.{digits}f}]"
    return f"{value.estimate:{sign}.{digits}f}{bounds}"


def _percent(value: Interval) -> str:
    if math.isnan(value.estimate):
        return MISSING
    bounds = "" if math.isnan(value.low) else f" [{value.low * 100:.1f}, {value.high * 100:.1f}]"
    return f"{value.estimate * 100:.1f} %{bounds}"


def _number(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.3f}"


def _short(name: str) -> str:
    """The end of a path, for the title of a column; the heading holds all of it."""
    return Path(name).name or name
