"""One look for the web demos: theme, style sheet, and how a reward is drawn.

Whatever somebody wrote goes through `plain` on its way into a page. Colours are blue for above and orange for below
average, which colour-blind people can tell apart, and a number and a sign always stand beside them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

MINUS = str.maketrans("-", "−")  # as wide as the plus
# Besides what HTML knows: what Gradio's templates would take for theirs.
_TEMPLATES = str.maketrans({sign: f"&#{ord(sign)};" for sign in "${}`@"})


def plain(text: str) -> str:
    """The text as HTML that shows it, and does nothing else, in an element or in an attribute."""
    return html.escape(text, quote=True).translate(_TEMPLATES)


def theme():
    """The theme of the pages, for `launch`. Needs Gradio."""
    import gradio as gr

    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        secondary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=fonts,  # of the system: nothing to wait for, and nobody else's server is asked
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    ).set(
        body_background_fill="#f6f7fb",
        body_background_fill_dark="#0f1320",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#171c2c",
        background_fill_secondary="#f6f7fb",
        background_fill_secondary_dark="#121726",
        block_background_fill="#ffffff",
        block_background_fill_dark="#171c2c",
        block_border_color="#dfe3ee",
        block_border_color_dark="#2b3247",
        border_color_primary="#dfe3ee",
        border_color_primary_dark="#2b3247",
        input_background_fill="#ffffff",
        input_background_fill_dark="#121726",
        button_primary_background_fill="#4338ca",
        button_primary_background_fill_dark="#4f46e5",
        button_primary_background_fill_hover="#3730a3",
        button_primary_background_fill_hover_dark="#6366f1",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        block_info_text_color="#4b5468",
        block_info_text_color_dark="#b3bbd0",
        body_text_color_subdued="#4b5468",
        body_text_color_subdued_dark="#b3bbd0",
    )


@cache
def style_sheet() -> str:
    """The CSS of the pages, for `launch`."""
    return (Path(__file__).parent / "look.css").read_text(encoding="utf-8")


def signed(value: float, digits: int = 1) -> str:
    """+0.8, −0.3, 0.0; a dash if there is none."""
    if math.isnan(value):
        return "–"
    rounded = round(value, digits) + 0.0  # no negative zero
    return f"{rounded:+.{digits}f}".translate(MINUS) if rounded else f"{rounded:.{digits}f}"


def side(value: float) -> str:
    """The class that colours a value: above, below, or as good as average."""
    return "unknown" if math.isnan(value) else "above" if value > 0.05 else "below" if value < -0.05 else "even"


def in_words(reward: float, percentile: float) -> str:
    """What a person understands of a reward: "+0.8, better than 79 % of turns"."""
    if math.isnan(reward):
        return "no reward yet"
    told = signed(reward)
    return told if math.isnan(percentile) else f"{told}, better than {100 * percentile:.0f}\u00a0% of turns"


def reward_chip(reward: float, percentile: float, before: float = math.nan) -> str:
    """A reward as a coloured label. `before`: what the turn was worth before a change, shown where it differs."""
    signs = {"above": "▲", "below": "▼", "even": "●", "unknown": "…"}
    kind = side(reward)
    sign = f'<span aria-hidden="true">{signs[kind]}</span>'
    label = f'<span class="g-chip g-{kind}">{sign} {in_words(reward, percentile)}</span>'
    if not math.isnan(before) and not math.isnan(reward) and abs(reward - before) >= 0.05:
        label += f'<span class="g-was">was {signed(before)}</span>'
    return label


def timeline(
    rewards: Sequence[float],
    *,
    labels: Sequence[str] = (),
    signal: Sequence[float] | None = None,
    signal_name: str = "smile",
    limit: float = 2.0,
) -> str:
    """A bar for each turn, up for what was above average and down for what was below, as an SVG.

    Args:
        rewards: one value per turn; NaN leaves a gap.
        labels: what to call each turn for those who can't see the bars.
        signal: a share from 0 to 1 for each turn, as a dot beneath its bar; NaN where nothing was observed.
        signal_name: what it is called.
        limit: of the scale; a greater value stretches it.
    """
    count = len(rewards)
    known = [value for value in rewards if not math.isnan(value)]
    limit = max([limit, *map(abs, known)])
    step, middle, half = 36, 70, 58
    width, height = max(14, count) * step + 40, 150 + (34 if signal is not None else 0)
    told = "; ".join(
        f"{labels[index] if index < len(labels) else f'turn {index + 1}'} {signed(value)}"
        for index, value in enumerate(rewards)
    )
    parts = [
        f'<svg class="g-timeline" viewBox="0 0 {width} {height}" style="min-width:{0.6 * width:.0f}px" '
        f'role="img" aria-label="Rewards of the turns, from first to last: {plain(told) or "none yet"}">',
        f'<line class="g-axis" x1="34" x2="{width - 4}" y1="{middle}" y2="{middle}"/>',
    ]
    for value in (limit, 0, -limit):
        y = middle - value / limit * half
        parts.append(f'<text class="g-tick" x="30" y="{y + 4:.1f}" text-anchor="end">{signed(value)}</text>')
    for index, value in enumerate(rewards):
        x = 40 + index * step
        parts.append(f'<text class="g-tick" x="{x + 13}" y="146" text-anchor="middle">{index + 1}</text>')
        if not math.isnan(value):
            length = max(2.0, abs(value) / limit * half)
            y = middle - length if value > 0 else middle
            parts.append(
                f'<rect class="g-bar g-{side(value)}" x="{x}" y="{y:.1f}" width="26" height="{length:.1f}" rx="4">'
                f"<title>Turn {index + 1}: {signed(value, 2)}</title></rect>"
            )
        if signal is not None:
            seen = index < len(signal) and not math.isnan(signal[index])
            shape = (
                f'<circle class="g-signal" cx="{x + 13}" cy="168" r="{3 + 8 * signal[index]:.1f}">'
                f"<title>{plain(signal_name)} {100 * signal[index]:.0f} %</title></circle>"
                if seen
                else f'<text class="g-tick" x="{x + 13}" y="172" text-anchor="middle">–</text>'
            )
            parts.append(shape)
    return "".join(parts) + "</svg>"


def gauge(value: float, deviation: float, low: float = 1, high: float = 9) -> str:
    """A number on its scale, with the span of a deviation to both sides, as an SVG."""

    def at(number: float) -> float:
        return 10 + 300 * (min(max(number, low), high) - low) / (high - low)

    ticks = "".join(
        f'<line class="g-axis" x1="{at(number):.1f}" x2="{at(number):.1f}" y1="22" y2="28"/>'
        f'<text class="g-tick" x="{at(number):.1f}" y="42" text-anchor="middle">{number:g}</text>'
        for number in range(round(low), round(high) + 1)
    )
    mark = ""
    if not math.isnan(value):
        if not math.isnan(deviation):
            first, last = at(value - deviation), at(value + deviation)
            mark += f'<rect class="g-span" x="{first:.1f}" y="9" width="{last - first:.1f}" height="12" rx="6"/>'
        mark += f'<circle class="g-mark" cx="{at(value):.1f}" cy="15" r="8"/>'
    return (
        '<svg class="g-gauge" viewBox="0 0 320 48" role="img" aria-hidden="true">'
        f'<line class="g-axis" x1="10" x2="310" y1="25" y2="25"/>{ticks}{mark}</svg>'
    )
