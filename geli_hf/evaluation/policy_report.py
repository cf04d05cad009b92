"""What `geli evaluate-policy` shows: tables and examples in Markdown, every figure as JSON, pictures, the replies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cache import whole
from ..metrics.metrics import Interval
from ..metrics.plots import plot_comparison, plot_over_optimisation
from ..metrics.table import MISSING, as_json
from .comparison import SAME_LENGTH, share
from .divergence import ESTIMATOR
from .policies import EvaluatedPolicy, PolicyEvaluation, Sampling

STEM = "policies"  # of the files
CONVERSATIONS_NEEDED = 20  # below, a bootstrap over conversations is no interval that one can rely on
EXAMPLES = 8


def policy_markdown(evaluation: PolicyEvaluation, sampling: Sampling, warnings: Sequence[str] = ()) -> str:
    """All that there is to read.

    Args:
        warnings: what has to be said before all else.
    """
    chosen = evaluation.chosen
    figures = chosen.figures()
    comparison = chosen.comparison
    conversations = len(set(comparison.conversation_ids))
    parts = [f"# {chosen.name} beside {evaluation.base}", *(f"**{warning}**" for warning in warnings)]
    if evaluation.candidates:
        parts += _choice(evaluation)
    parts += [
        f"Replies to {len(comparison.dialogues)} held-out dialogues of {conversations} conversations, sampled at "
        f"temperature {sampling.temperature:g} and at most {sampling.max_new_tokens} tokens long, judged by "
        f"**{figures['judge']}**.",
        _verdict(_short(chosen.name), figures),
        _table(evaluation.base, chosen.name, figures),
        _length(figures),
        *_kl(chosen, figures),
    ]
    if figures["verdicts"]:
        parts.append(_rows(["", "win rate"], [[name, _percent(rate)] for name, rate in figures["verdicts"].items()]))
    parts += [*chosen.notes, _reading(conversations, figures), *_examples(chosen)]
    return "\n\n".join(parts) + "\n"


def write_policy_evaluation(folder: str | Path, evaluation: PolicyEvaluation, text: str) -> None:
    """Write `policies.md`, `policies.json` (every figure), `policies.png` (win rates), `replies.jsonl`, and of several
    policies `over_optimisation.png` into the folder.

    Args:
        text: as of `policy_markdown`.
    """
    folder, chosen = Path(folder), evaluation.chosen
    figures = chosen.figures()
    record = {
        "base": evaluation.base,
        "chosen": chosen.name,
        "test": figures | {"dialogues": len(chosen.comparison.dialogues), "notes": list(chosen.notes)},
        "validation": {each.name: each.figures() for each in evaluation.candidates},
        "kl_estimator": ESTIMATOR,
    }
    _write(folder / f"{STEM}.json", json.dumps(as_json(record), indent=1, allow_nan=False) + "\n")
    rates = {"win rate": figures["win_rate"], "win rate at equal length": figures["length_controlled_win_rate"]}
    rates |= {name.replace("_", " "): rate for name, rate in (figures["verdicts"] or {}).items()}
    if figures["reward"]:
        rates["win rate by the reward trained for"] = figures["reward"]["win_rate"]
    with whole(folder / f"{STEM}.png") as partial:
        plot_comparison(rates, partial, label=f"{_short(chosen.name)} over {_short(evaluation.base)}", reference=0.5)
    if evaluation.candidates:
        each = {candidate.name: candidate.figures() for candidate in evaluation.candidates}
        # Without a divergence they stand in the order in which they were named.
        place = {
            name: float(order) if row["kl"] is None else row["kl"].estimate
            for order, (name, row) in enumerate(each.items(), 1)
        }
        judged = {name: (place[name], row["win_rate"]) for name, row in each.items()}
        by_reward = {name: (place[name], row["reward"]["win_rate"]) for name, row in each.items() if row["reward"]}
        known = all(row["kl"] is not None for row in each.values())
        with whole(folder / "over_optimisation.png") as partial:
            plot_over_optimisation(judged, by_reward, partial, chosen=chosen.name, known=known)
    comparison = chosen.comparison
    rows = zip(comparison.conversation_ids, comparison.before, comparison.after, comparison.wins)
    _write(
        folder / "replies.jsonl",
        "".join(
            json.dumps(
                as_json(
                    {
                        "conversation_id": conversation,
                        "before": {"text": before.text, "value": before.value},
                        "after": {"text": after.text, "value": after.value},
                        "win": win,
                    }
                ),
                ensure_ascii=False,
            )
            + "\n"
            for conversation, before, after, win in rows
        ),
    )
    _write(folder / f"{STEM}.md", text)


def _choice(evaluation: PolicyEvaluation) -> list[str]:
    """Of several policies, what each was worth where one was chosen."""
    rows, by_reward = [], {}
    for each in evaluation.candidates:
        figures = each.figures()
        name = f"**{each.name}**" if each.name == evaluation.chosen.name else each.name
        reward = MISSING
        if figures["reward"]:
            by_reward[each.name] = figures["reward"]["difference"].estimate
            reward = _percent(figures["reward"]["win_rate"])
        kl = MISSING if figures["kl"] is None else f"{figures['kl'].estimate:.2f}"
        rows.append(
            [
                name,
                _percent(figures["win_rate"]),
                _percent(figures["length_controlled_win_rate"]),
                _interval(figures["difference"]),
                reward,
                kl,
                f"{figures['length_ratio']:.2f}",
            ]
        )
    titles = ["", "win rate", "at equal length", "gain in value", "win rate by the reward", "KL", "length ratio"]
    comparison = evaluation.candidates[0].comparison
    said = (
        f"Chosen by the judge on {len(comparison.dialogues)} dialogues of "
        f"{len(set(comparison.conversation_ids))} other conversations: **{evaluation.chosen.name}**, for the highest "
        "win rate."
    )
    if by_reward:
        best = max(by_reward, key=by_reward.get)
        said += f" The reward that was trained for would have chosen {best}" + (
            " too." if best == evaluation.chosen.name else "."
        )
    return ["## The choice", _rows(titles, rows), said, "## The chosen one"]


def _verdict(name: str, figures: Mapping[str, Any]) -> str:
    rate, controlled = figures["win_rate"], figures["length_controlled_win_rate"]
    if math.isnan(rate.estimate):
        return "Nothing could be judged."
    if rate.low > 0.5:
        found = f"the judge finds {name} better"
    elif rate.high < 0.5:
        found = f"the judge finds {name} worse"
    else:
        found = "the judge can't tell the two apart"
    return (
        f"Win rate of {name}: **{_percent(rate)}** (a tie counts half): {found}. At equal length, by logistic "
        f"regression on the log length ratio: {_percent(controlled)}."
    )


def _table(base: str, name: str, figures: Mapping[str, Any]) -> str:
    before, after = figures["before"], figures["after"]
    rows = [["value of a reply", *_pair(before["value"], after["value"], figures["difference"])]]
    if figures["reward"]:
        reward = figures["reward"]
        rows.append(["reward that was trained for", *_pair(reward["before"], reward["after"], reward["difference"])])
    if before["recognised"] is not None:
        rows.append(["recognised", share(before["recognised"]), share(after["recognised"]), ""])
    rows.append(["words", f"{before['words']:.1f}", f"{after['words']:.1f}", f"x {figures['length_ratio']:.2f}"])
    for title, key in (("empty", "empty"), ("different replies", "distinct")):
        rows.append([title, share(before[key]), share(after[key]), ""])
    for title, key in (("distinct-1", "distinct_1"), ("distinct-2", "distinct_2"), ("self-repetition", "repetition")):
        rows.append([title, *(_number(side[key]) for side in (before, after)), ""])
    if figures["sentiment"] is not None:
        rows.append(["sentiment", *_pair(before["sentiment"], after["sentiment"], figures["sentiment"])])
    return _rows(["", _short(base), _short(name), "difference"], rows)


def _length(figures: Mapping[str, Any]) -> str:
    low, high = SAME_LENGTH
    agree = "agree" if figures["same_length"] else "do NOT agree"
    text = f"Lengths {agree} within a tenth (ratio {figures['length_ratio']:.2f}, wanted {low:g} to {high:g})."
    return text if figures["same_length"] else f"{text} Look at the win rate at equal length, and trust it less."


def _kl(chosen: EvaluatedPolicy, figures: Mapping[str, Any]) -> list[str]:
    if figures["kl"] is None:
        return [f"No KL divergence: {chosen.undiverged}."]
    return [f"KL: **{_interval(figures['kl'], 2)}** nats per reply. {ESTIMATOR}."]


def _reading(conversations: int, figures: Mapping[str, Any]) -> str:
    intervals = "In brackets 95 % bootstrap intervals over conversations; differences are paired, reply by reply."
    if conversations < CONVERSATIONS_NEEDED:
        intervals = (
            f"Don't rely on the intervals: {conversations} conversations were judged, and a bootstrap over fewer than "
            f"{CONVERSATIONS_NEEDED} says little."
        )
    sentiment = " *Sentiment* is VADER's." if figures["sentiment"] is not None else ""
    return (
        f"{intervals} *Distinct-n* is the share of different n-grams among all of a side's; *self-repetition* the "
        f"share of a reply's three-word sequences that the agent has said already.{sentiment}"
    )


def _examples(chosen: EvaluatedPolicy) -> list[str]:
    comparison = chosen.comparison
    drawn = np.random.default_rng(0).permutation(len(comparison.dialogues))[:EXAMPLES]
    shown = []
    for index in drawn:
        before, after = comparison.before[index], comparison.after[index]
        shown.append(
            f"> **User:** {_one_line(comparison.dialogues[index][-1]['content'])}  \n"
            f"> **Before{_value(before.value)}:** {_one_line(before.text)}  \n"
            f"> **After{_value(after.value)}:** {_one_line(after.text)}"
        )
    return [f"## {len(shown)} of the replies, drawn at random", *shown]


def _rows(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned for who reads it as text."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (titles, *rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(titles))]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join(
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |" for line in lines
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
    bounds = "" if math.isnan(value.low) else f" [{value.low:.1%}, {value.high:.1%}]".replace("%", "")
    return f"{value.estimate * 100:.1f} %{bounds}"


def _number(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.3f}"


def _value(value: float) -> str:
    return "" if math.isnan(value) else f" ({value:+.2f})"


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "(nothing)"


def _short(name: str) -> str:
    """The end of a path, as the title of a column; the whole stands in the heading."""
    return Path(name).name or name


def _write(file: Path, text: str) -> None:
    with whole(file) as partial:
        partial.write_text(text, encoding="utf-8")
