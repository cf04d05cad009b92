"""The look of the web demos: theme, style sheets, and pieces of HTML and SVG.

Every text from outside goes through `plain` on its way into a page. Blue is above and orange below average, which
colour-blind people can tell apart, and a number and a sign always stand beside the colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

NO_BREAK = "\u00a0"  # space
MINUS = str.maketrans("-", "−")  # as wide as the plus
# Beyond HTML's own: the signs of Gradio's templates.
_TEMPLATES = str.maketrans({sign: f"&#{ord(sign)};" for sign in "${}`@"})

# Colours of Gradio's theme, light and dark.
COLOURS = {
    "body_background_fill": ("#f6f7fb", "#0f1320"),
    "background_fill_primary": ("#ffffff", "#171c2c"),
    "background_fill_secondary": ("#f6f7fb", "#121726"),
    "block_background_fill": ("#ffffff", "#171c2c"),
    "block_border_color": ("#dfe3ee", "#2b3247"),
    "border_color_primary": ("#dfe3ee", "#2b3247"),
    "input_background_fill": ("#ffffff", "#121726"),
    "button_primary_background_fill": ("#4338ca", "#4f46e5"),
    "button_primary_background_fill_hover": ("#3730a3", "#6366f1"),
    "button_primary_text_color": ("#ffffff", "#ffffff"),
    "block_info_text_color": ("#4b5468", "#b3bbd0"),
    "body_text_color_subdued": ("#4b5468", "#b3bbd0"),
}


def theme():
    """Return the theme of the pages, for `launch`. Needs Gradio."""
    import gradio as gr

    # Fonts of the system: there is nothing to wait for, and no other server is asked.
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        secondary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    ).set(
        **{name: light for name, (light, _) in COLOURS.items()},
        **{f"{name}_dark": dark for name, (_, dark) in COLOURS.items()},
    )


def style_sheet(*names: str) -> str:
    """Read style sheets of this folder as one text."""
    return "".join((Path(__file__).parent / f"{name}.css").read_text(encoding="utf-8") for name in names)


# ---------------------------------------------------------------------------------------------------------------------
# Text


def plain(text: str) -> str:
    """Escape a text for an element or an attribute, so that it is shown and does nothing else."""
    return escape(text, quote=True).translate(_TEMPLATES)


def signed(value: float, digits: int = 1) -> str:
    """Format a number as +0.8, −0.3 or 0.0; NaN as a dash."""
    if math.isnan(value):
        return "–"
    rounded = round(value, digits) + 0.0  # no negative zero
    return f"{rounded:+.{digits}f}".translate(MINUS) if rounded else f"{rounded:.{digits}f}"


def percent(share: float, space: str = " ") -> str:
    """Format a share from 0 to 1 as 80 %; NaN as a dash."""
    return "–" if math.isnan(share) else f"{100 * share:.0f}{space}%"


def side(value: float) -> str:
    """Return the CSS class of a value: above, below, even (about average) or unknown."""
    return "unknown" if math.isnan(value) else "above" if value > 0.05 else "below" if value < -0.05 else "even"


def in_words(reward: float, percentile: float) -> str:
    """Describe a reward: "+0.8, better than 79 % of turns"."""
    if math.isnan(reward):
        return "no reward yet"
    text = signed(reward)
    return text if math.isnan(percentile) else f"{text}, better than {percent(percentile, NO_BREAK)} of turns"


# ---------------------------------------------------------------------------------------------------------------------
# HTML


def note(text: str, *, problem: bool = False, html: str = "") -> str:
    """Return a message to the visitor; "" for no text.

    Args:
        text: it is escaped here.
        problem: it reports one.
        html: follows the text.
    """
    kind = "g-note f-problem" if problem else "g-note"
    return f'<div class="{kind}" role="status">{plain(text)}{html}</div>' if text else ""


def panel(title: str, body: str, attributes: str = "") -> str:
    """Return a titled box of the page."""
    return f'<section class="g-panel"{attributes}><h2>{title}</h2>{body}</section>'


def scrollable(body: str, label: str) -> str:
    """Return a box that scrolls sideways where its content is wider than the screen."""
    return f'<div class="g-scroll" tabindex="0" aria-label="{label}">{body}</div>'


def turn(
    kind: str,
    who: str,
    text: str,
    foot: str = "",
    *,
    below: str = "",
    attributes: str = "",
    index: int | None = None,
    typing: bool = False,
) -> str:
    """Return a message of a dialogue.

    Args:
        kind: CSS classes that colour it.
        who: HTML of its author.
        text: the message; it is escaped here.
        foot: HTML of what belongs to it, in one line.
        below: HTML beneath that.
        attributes: of the element.
        index: by which a script finds the text.
        typing: the text is being written.
    """
    place = "" if index is None else f' data-text="{index}"'
    foot = f'<div class="g-foot">{foot}</div>' if foot else ""
    return (
        f'<div class="g-turn {kind}"{attributes}><div class="g-who">{who}</div>'
        f'<div class="g-text{" g-typing" if typing else ""}"{place}>{plain(text)}</div>{foot}{below}</div>'
    )


def meter(share: float, label: str) -> str:
    """Return a horizontal bar of a share from 0 to 1."""
    return (
        f'<div class="g-meter" role="meter" aria-label="{label}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}"><div style="width:{100 * share:.0f}%"></div></div>'
    )


def reward_chip(reward: float, percentile: float, before: float = math.nan) -> str:
    """Return a reward as a coloured label, with its value `before` a change where that differs."""
    signs = {"above": "▲", "below": "▼", "even": "●", "unknown": "…"}
    kind = side(reward)
    sign = f'<span aria-hidden="true">{signs[kind]}</span>'
    label = f'<span class="g-chip g-{kind}">{sign} {in_words(reward, percentile)}</span>'
    if not math.isnan(before) and not math.isnan(reward) and abs(reward - before) >= 0.05:
        label += f'<span class="g-was">was {signed(before)}</span>'
    return label


# ---------------------------------------------------------------------------------------------------------------------
# SVG


def svg_text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "g-tick") -> str:
    """Return a short text at a point of a chart."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def svg_line(x: tuple[float, float], y: tuple[float, float], kind: str = "f-grid") -> str:
    """Return a line from (x[0], y[0]) to (x[1], y[1])."""
    return f'<line class="{kind}" x1="{x[0]:.1f}" x2="{x[1]:.1f}" y1="{y[0]:.1f}" y2="{y[1]:.1f}"/>'


def svg_bar(x: float, y: float, width: float, height: float, kind: str, title: str = "", rounding: int = 4) -> str:
    """Return a bar with a text that the mouse shows."""
    title = f"<title>{title}</title>" if title else ""
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{rounding}">'
        f"{title}</rect>"
    )


def smile_dot(x: float, y: float, smile: float, turn: int) -> str:
    """Return the smile at a turn as a dot, larger for a broader one; NaN as a dash."""
    if math.isnan(smile):
        return svg_text(x, y + 5, "–")
    return (
        f'<circle class="g-signal" cx="{x:.1f}" cy="{y:.1f}" r="{3 + 8 * smile:.1f}">'
        f"<title>Turn {turn}: smile {percent(smile)}</title></circle>"
    )


def timeline(rewards: Sequence[float], *, signal: Sequence[float] | None = None, limit: float = 2.0) -> str:
    """Draw a bar for each turn, up for above average and down for below.

    Args:
        rewards: one value per turn; NaN leaves a gap.
        signal: the smile at each turn, from 0 to 1, as a dot beneath its bar; NaN where nothing was observed.
        limit: of the scale; a greater value stretches it.
    """
    count = len(rewards)
    limit = max([limit, *(abs(value) for value in rewards if not math.isnan(value))])
    step, middle, half = 36, 70, 58
    width, height = max(7, count) * step + 40, 150 + (34 if signal is not None else 0)
    words = "; ".join(f"reply {number} {signed(value)}" for number, value in enumerate(rewards, 1)) or "none yet"
    parts = [svg_line((34, width - 4), (middle, middle), "g-axis")]
    for value in (limit, 0, -limit):
        parts.append(svg_text(30, middle - value / limit * half + 4, signed(value), "end"))
    for index, value in enumerate(rewards):
        x = 40 + index * step
        parts.append(svg_text(x + 13, 146, str(index + 1)))
        if not math.isnan(value):
            length = max(2.0, abs(value) / limit * half)
            y = middle - length if value > 0 else middle
            title = f"Turn {index + 1}: {signed(value, 2)}"
            parts.append(svg_bar(x, y, 26, length, f"g-bar g-{side(value)}", title))
        if signal is not None:
            smile = signal[index] if index < len(signal) else math.nan
            parts.append(smile_dot(x + 13, 168, smile, index + 1))
    return (
        f'<svg class="g-timeline" viewBox="0 0 {width} {height}" style="min-width:{width}px;max-width:{width + 60}px" '
        f'role="img" aria-label="Rewards of the turns, from first to last: {words}">{"".join(parts)}</svg>'
    )


def gauge(value: float, deviation: float, low: float = 1, high: float = 9) -> str:
    """Draw a number on its scale, with the span of one standard deviation to both sides.

    Args:
        value: the number; NaN draws the scale alone.
        deviation: its standard deviation; NaN draws no span.
        low: least value of the scale.
        high: greatest value of the scale.
    """

    def at(number: float) -> float:
        return 10 + 300 * (min(max(number, low), high) - low) / (high - low)

    parts = [svg_line((10, 310), (25, 25), "g-axis")]
    for number in range(round(low), round(high) + 1):
        parts.append(svg_line((at(number), at(number)), (22, 28), "g-axis") + svg_text(at(number), 42, f"{number:g}"))
    if not math.isnan(value):
        if not math.isnan(deviation):
            first, last = at(value - deviation), at(value + deviation)
            parts.append(svg_bar(first, 9, last - first, 12, "g-span", rounding=6))
        parts.append(f'<circle class="g-mark" cx="{at(value):.1f}" cy="15" r="8"/>')
    return f'<svg class="g-gauge" viewBox="0 0 320 48" role="img" aria-hidden="true">{"".join(parts)}</svg>'
