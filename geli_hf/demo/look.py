"""The look of the web demos: theme, style sheets, and pieces of HTML and SVG.

Every text from outside goes through `plain` on its way into a page. Blue is above and orange below average, which
colour-blind people can tell apart, and a number and a sign always stand beside the colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

NO_BREAK = "\u00a0"  # space
MINUS = str.maketrans("-", "−")  # as wide as the plus
LOWEST, HIGHEST = 1, 10  # of a rating, as in Chit-Chat, which the shipped reward model predicts
# Beyond HTML's own: the signs of Gradio's templates.
_TEMPLATES = str.maketrans({sign: f"&#{ord(sign)};" for sign in "${}`@"})


def theme():
    """Return the theme of the pages, for `launch`. Needs Gradio."""
    import gradio as gr

    # Fonts of the system: there is nothing to wait for, and no other server is asked.
    return gr.themes.Base(
        primary_hue="indigo", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )


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


# ---------------------------------------------------------------------------------------------------------------------
# HTML


def note(text: str, *, html: str = "") -> str:
    """Return a message to the visitor; "" for no text.

    Args:
        text: it is escaped here.
        html: follows the text.
    """
    return f'<div class="g-note" role="status">{plain(text)}{html}</div>' if text else ""


def panel(title: str, body: str) -> str:
    """Return a titled box of the page."""
    return f'<section class="g-panel" aria-label="{title}"><h2>{title}</h2>{body}</section>'


def scrollable(body: str, label: str) -> str:
    """Return a box that scrolls sideways where its content is wider than the screen."""
    return f'<div class="g-scroll" tabindex="0" aria-label="{label}">{body}</div>'


def turn(kind: str, who: str, text: str, foot: str = "", *, index: int | None = None, typing: bool = False) -> str:
    """Return a message of a dialogue.

    Args:
        kind: CSS classes that colour it.
        who: HTML of its author.
        text: the message; it is escaped here.
        foot: HTML of what belongs to it, in one line.
        index: by which a script finds the text.
        typing: the text is being written.
    """
    place = "" if index is None else f' data-text="{index}"'
    foot = f'<div class="g-foot">{foot}</div>' if foot else ""
    return (
        f'<div class="g-turn {kind}"><div class="g-who">{who}</div>'
        f'<div class="g-text{" g-typing" if typing else ""}"{place}>{plain(text)}</div>{foot}</div>'
    )


def smile_meter(smile: float) -> str:
    """Return the smile before the camera now; NaN if no face is seen."""
    if math.isnan(smile):
        return '<div class="g-quiet" role="status">No face is seen, so nothing is stored.</div>'
    return (
        f'<div class="g-quiet" role="status" data-smile="{smile:.3f}">Smile: {percent(smile)}</div>'
        f'<div class="g-meter" aria-hidden="true"><div style="width:{100 * smile:.0f}%"></div></div>'
    )


def predicted_rating(value: float, deviation: float) -> str:
    """Return a predicted rating with its standard deviation, which may be NaN."""
    margin = "" if math.isnan(deviation) else f", give or take {deviation:.1f}"
    return f'<p class="g-rating" data-score="{value:.4f}">{value:.1f} <small>of {HIGHEST}{margin}</small></p>'


def reward_chip(reward: float, percentile: float, before: float = math.nan) -> str:
    """Return a reward as a coloured label, such as "▲ +0.8, better than 79 % of turns".

    Args:
        reward: NaN if there is none yet.
        percentile: share of the training turns that it is better than; NaN if unknown.
        before: the value before a change, which is shown where it differs.
    """
    if math.isnan(reward):
        return '<span class="g-chip g-unknown">no reward yet</span>'
    kind = side(reward)
    text = {"above": "▲", "below": "▼", "even": "●"}[kind] + " " + signed(reward)
    if not math.isnan(percentile):
        text += f", better than {percent(percentile, NO_BREAK)} of turns"
    label = f'<span class="g-chip g-{kind}">{text}</span>'
    if abs(reward - before) >= 0.05:
        label += f'<span class="g-was">was {signed(before)}</span>'
    return label


# ---------------------------------------------------------------------------------------------------------------------
# SVG


def svg_text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "g-tick") -> str:
    """Return a short text at a point of a chart."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def svg_line(x: tuple[float, float], y: tuple[float, float], kind: str = "g-grid") -> str:
    """Return a line from (x[0], y[0]) to (x[1], y[1])."""
    return f'<line class="{kind}" x1="{x[0]:.1f}" x2="{x[1]:.1f}" y1="{y[0]:.1f}" y2="{y[1]:.1f}"/>'


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
    width, height = max(7, count) * step + 40, 184
    words = "; ".join(f"turn {number} {signed(value)}" for number, value in enumerate(rewards, 1)) or "none yet"
    parts = [svg_line((34, width - 4), (middle, middle))]
    for value in (limit, 0, -limit):
        parts.append(svg_text(30, middle - value / limit * half + 4, signed(value), "end"))
    for index, value in enumerate(rewards):
        x = 40 + index * step
        parts.append(svg_text(x + 13, 146, str(index + 1)))
        if not math.isnan(value):
            length = max(2.0, abs(value) / limit * half)
            y = middle - length if value > 0 else middle
            parts.append(
                f'<rect class="g-bar g-{side(value)}" x="{x}" y="{y:.1f}" width="26" height="{length:.1f}" rx="4">'
                f"<title>Turn {index + 1}: {signed(value, 2)}</title></rect>"
            )
        if signal is not None and index < len(signal) and not math.isnan(signal[index]):
            parts.append(
                f'<circle class="g-signal" cx="{x + 13}" cy="168" r="{3 + 8 * signal[index]:.1f}">'
                f"<title>Turn {index + 1}: smile {percent(signal[index])}</title></circle>"
            )
    return (
        f'<svg class="g-timeline" viewBox="0 0 {width} {height}" style="min-width:{width}px;max-width:{width + 60}px" '
        f'role="img" aria-label="Values of the turns, from first to last: {words}">{"".join(parts)}</svg>'
    )
