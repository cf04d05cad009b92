"""Pictures for a report: a session's rewards turn by turn, training, methods.

Every function writes a PNG and returns the `matplotlib.figure.Figure`. Nothing here touches pyplot, which keeps global
state and needs a display, so a server can draw in threads.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from ..plotting import BLUE, DPI, GREY, INK, LIGHT, MINUS, RED, fonts, new_figure, printable, save
from ..sessions import Session, assistant_turns
from .intervals import Interval

# In `plot_session`: messages, and lines of one message.
MAX_MESSAGES, MAX_LINES = 24, 8


def plot_session(
    session: Session,
    turn_rewards: Sequence[float],
    path: str | Path,
    quantiles: Sequence[float] | None = None,
) -> Figure:
    """Draw a dialogue as text, with a bar beside each turn of the assistant: blue above 0, red below.

    A session of more than `MAX_MESSAGES` messages is cut after so many, and the picture says so.

    Args:
        session: a Session row.
        turn_rewards: (turns,), one reward per assistant turn, in units of the standardised score.
        path: of the PNG.
        quantiles: (101,), quantiles 0..100 % of the rewards of the training turns (`config.reward_quantiles`). With
            them each bar says how many training turns it beats, and all pictures share one scale of colours.

    Raises:
        ValueError: there is not one reward per assistant turn.
    """
    messages = session["messages"][:MAX_MESSAGES]
    turns = len(assistant_turns(session["messages"]))
    if len(turn_rewards) != turns:
        raise ValueError(f"turn_rewards: expected one per assistant turn, {turns}, found {len(turn_rewards)}")
    shown = np.asarray(turn_rewards, float)[: len(assistant_turns(messages))]
    quantiles = np.asarray(quantiles if quantiles is not None else (), float)
    limit = np.abs(shown).max(initial=0)
    if len(quantiles):
        limit = max(limit, *np.abs(np.quantile(quantiles, [0.01, 0.99])))
    limit = limit or 1.0

    # Everything below is in inches, from the top left: the height of the picture follows from its text.
    width, left, text_left, text_right, bar_middle, bar_half = 10.0, 0.3, 1.2, 6.5, 7.5, 0.7
    line, gap, top = 0.175, 0.13, 0.95
    font = FontProperties(family=fonts()[0], size=9)
    figure = Figure(figsize=(width, 1), dpi=DPI)
    renderer = FigureCanvasAgg(figure).get_renderer()
    blocks = [_wrap(message["content"], (text_right - text_left) * DPI, renderer, font) for message in messages]
    bottoms = top + np.cumsum([line * len(block) + gap for block in blocks])
    height = bottoms[-1] + 0.6
    figure.set_size_inches(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")

    def write(x: float, y: float, text: str, **style: Any) -> None:
        axes.text(x, y, text, parse_math=False, **{"fontproperties": font, "color": INK, "va": "center", **style})

    title = FontProperties(family=fonts()[0], size=12, weight="bold")
    write(left, 0.32, printable(f"Session {session['session_id']}")[:90], fontproperties=title)
    parts = [f"score {session['score']:.3g}" if np.isfinite(session["score"]) else "no score"]
    if len(messages) < len(session["messages"]):
        parts.append(f"first {len(messages)} of {len(session['messages'])} messages")
    write(left, 0.6, ", ".join(parts), color=GREY)
    write(bar_middle, 0.6, "reward of the turn", color=GREY, ha="center")
    axes.plot([bar_middle] * 2, [top - 0.12, height - 0.42], color=LIGHT, linewidth=1, zorder=0)

    rewards = iter(shown)
    for message, block, bottom in zip(messages, blocks, bottoms):
        assistant = message["role"] == "assistant"
        first, middle = bottom - gap - line * (len(block) - 0.5), bottom - gap - line * len(block) / 2
        write(left, first, message["role"].capitalize(), color=INK if assistant else GREY)
        for index, words in enumerate(block):
            write(text_left, first + line * index, words, color=INK if assistant else GREY)
        if not assistant:
            continue
        reward = next(rewards)
        length = reward / limit * bar_half
        colour = colormaps["RdBu"](0.5 + 0.42 * reward / limit)
        axes.barh(middle, length, left=bar_middle, height=0.15, color=colour, edgecolor=GREY, linewidth=0.4)
        label = f"{reward:+.2f}".translate(MINUS)
        if len(quantiles):
            label += f"  beats {100 * np.searchsorted(quantiles, reward) / len(quantiles):.0f} %"
        write(bar_middle + bar_half + 0.15, middle, label)

    for value in (-limit, 0, limit):
        place = bar_middle + value / limit * bar_half
        write(place, height - 0.32, f"{value:.2g}".translate(MINUS), color=GREY, ha="center")
    unit = "in units of the standardised score"
    if len(quantiles):
        unit += ", beside the share of training turns it beats"
    write(width - left, height - 0.13, unit, color=GREY, ha="right", size=8)
    return save(figure, path)


def plot_comparison(
    rows: Mapping[str, Interval],
    path: str | Path,
    label: str = "Within-session Spearman with the true turn values",
) -> Figure:
    """Draw a forest plot: estimates with their 95 % intervals, the first row on top.

    Args:
        rows: name -> estimate: blue above 0, red below, grey where the interval holds 0.
        path: of the PNG.
        label: the title.
    """
    figure, axes = new_figure(5.4 + 0.07 * max(map(len, rows), default=0), 1.3 + 0.36 * len(rows))
    axes.set(title=label, xlabel="estimate with 95 % interval over conversations", ylim=(len(rows) - 0.5, -0.5))
    axes.axvline(0, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), list(map(printable, rows)), parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    for place, interval in enumerate(rows.values()):
        estimate, low, high = interval
        text = str(interval).translate(MINUS)
        axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=INK)
        colour = BLUE if low > 0 else RED if high < 0 else GREY
        axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(estimate, place, "o", color=colour)
    return save(figure, path)


def plot_over_optimisation(
    judged: Sequence[tuple[float, Interval]], rewarded: Sequence[tuple[float, Interval]], path: str | Path
) -> Figure:
    """Draw win rates over the base, by a judge and by the reward that was trained for, over the KL from the base.

    Where the reward goes on rising and the judge does not, the policy learns to please the reward alone (Gao, Schulman
    and Hilton, "Scaling Laws for Reward Model Overoptimization", ICML 2023, arXiv 2210.10760).

    Args:
        judged, rewarded: KL in nats per reply and win rate of each checkpoint. `rewarded` may be empty.
        path: of the PNG.
    """
    figure, axes = new_figure(7.4, 4.6)
    axes.set(title="Win rate over the base", xlabel="KL from the base (nats per reply)", ylabel="win rate")
    axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axes.plot(0, 0.5, "s", color=GREY, markersize=6, label="base")
    for points, colour, marker, label in (
        (judged, BLUE, "o", "by the judge"),
        (rewarded, RED, "^", "by the reward that was trained for"),
    ):
        at = np.array(sorted([(kl, *rate) for kl, rate in points if np.isfinite([kl, rate.estimate]).all()]))
        if not len(at):
            continue
        kl, estimate, low, high = at.T
        axes.plot([0, *kl], [0.5, *estimate], color=colour, linewidth=1, alpha=0.6)
        reach = np.nan_to_num([estimate - low, high - estimate])
        style = {"color": colour, "capsize": 3, "markersize": 5, "label": f"{label}, 95 % interval"}
        axes.errorbar(kl, estimate, reach, fmt=marker, **style)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return save(figure, path)


def plot_learning_curve(
    sessions: Sequence[float], agreement: Sequence[Interval], path: str | Path, baselines: Mapping[str, float]
) -> Figure:
    """Draw agreement with its intervals as a band over the number of sessions that were learned from.

    Args:
        sessions: (sizes,), rising.
        agreement: (sizes,).
        path: of the PNG.
        baselines: name -> agreement, a horizontal line; two baselines at most.
    """
    figure, axes = new_figure(7.4, 4.6)
    axes.set(title="Agreement by the number of ratings", xlabel="rated sessions to learn from", xscale="log")
    axes.set_ylabel("correlation on held-out sessions")
    axes.set_xticks(sessions, [f"{size:,.0f}" for size in sessions])
    axes.xaxis.minorticks_off()
    axes.axhline(0, color=GREY, linewidth=0.8)
    estimate, low, high = np.array(agreement, float).T
    axes.plot(sessions, estimate, "o-", color=BLUE, markersize=5, label="session Spearman, 95 % interval")
    axes.fill_between(sessions, low, high, color=BLUE, alpha=0.18, linewidth=0)
    for (name, value), line in zip(baselines.items(), (":", "--")):
        axes.axhline(value, color=BLUE, linewidth=1.2, linestyle=line, label=name)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return save(figure, path)


def _wrap(text: str, pixels: float, renderer: Any, font: FontProperties) -> list[str]:
    """Wrap into lines no wider than `pixels` in this font, since characters differ in width across scripts."""
    text = printable(text)[: MAX_LINES * 110]
    for width in range(100, 8, -4):
        lines = textwrap.wrap(text, width, max_lines=MAX_LINES, placeholder=" …")
        if all(renderer.get_text_width_height_descent(words, font, False)[0] <= pixels for words in lines):
            break
    return lines or [""]
