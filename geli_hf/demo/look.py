"""The look of the web demos: theme, style sheets, and pieces of HTML and SVG.

Every text from outside goes through `plain` on its way into a page. Blue is above and orange below average, which
colour-blind people can tell apart, and a number always stands beside the colour.
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


def plain(text: str) -> str:
    """Escape a text for an element or an attribute, so that it is shown and does nothing else."""
    return escape(text, quote=True).translate(_TEMPLATES)


def signed(value: float, digits: int = 1) -> str:
    """Format a number as +0.8, −0.3 or 0.0; NaN as a dash."""
    if math.isnan(value):
        return "–"
    rounded = round(value, digits) + 0.0  # no negative zero
    return f"{rounded:+.{digits}f}".translate(MINUS) if rounded else f"{rounded:.{digits}f}"


def percent(share: float) -> str:
    """Format a share from 0 to 1 as 80 %, without a line break; NaN as a dash."""
    return "–" if math.isnan(share) else f"{100 * share:.0f}{NO_BREAK}%"


def side(value: float) -> str:
    """Return the CSS class of a value: above, below, even (about 0) or unknown."""
    return "unknown" if math.isnan(value) else "above" if value > 0.05 else "below" if value < -0.05 else "even"


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


def chip(share: float) -> str:
    """Return the share of replies that a reply is better than, from 0 to 1, as a label coloured around a half."""
    text = "no number yet" if math.isnan(share) else f"better than {percent(share)} of replies"
    return f'<span class="g-chip g-{side(share - 0.5)}">{text}</span>'


def bar(name: str, share: float, kind: str) -> str:
    """Return a row with a name, a bar from 0 to 1, and the number.

    Args:
        name: HTML.
        share: length of the bar.
        kind: CSS class that colours it.
    """
    width = 0 if math.isnan(share) else 100 * min(1.0, max(0.0, share))
    return (
        f'<div class="g-row"><span>{name}</span><span class="g-meter" aria-hidden="true"><i class="g-{kind}" '
        f'style="width:{width:.0f}%"></i></span><b>{percent(share)}</b></div>'
    )


def smile_meter(smile: float) -> str:
    """Return the smile before the camera now; NaN if no face is seen."""
    if math.isnan(smile):
        return '<p class="g-quiet" role="status">No face is seen, so nothing is stored.</p>'
    return f'<div role="status" data-smile="{smile:.3f}">{bar("Smile", smile, "smile")}</div>'


def gauge(value: float, deviation: float) -> str:
    """Return a predicted rating on its scale, with its standard deviation, which may be NaN."""
    margin = "" if math.isnan(deviation) else f", give or take {deviation:.1f}"
    share = (value - LOWEST) / (HIGHEST - LOWEST)
    return (
        f'<p class="g-rating" data-score="{value:.4f}">{value:.1f} <small>of {HIGHEST}{margin}</small></p>'
        f'<div class="g-meter" aria-hidden="true"><i style="width:{100 * min(1, max(0, share)):.0f}%"></i></div>'
    )


def svg_text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    """Return a short text at a point of a chart."""
    return f'<text class="g-tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def svg_line(x: tuple[float, float], y: tuple[float, float], kind: str = "g-grid") -> str:
    """Return a line from (x[0], y[0]) to (x[1], y[1])."""
    return f'<line class="{kind}" x1="{x[0]:.1f}" x2="{x[1]:.1f}" y1="{y[0]:.1f}" y2="{y[1]:.1f}"/>'


def timeline(shares: Sequence[float], marks: Sequence[str]) -> str:
    """Draw a bar for each reply, up for better than half of all replies and down for worse.

    Args:
        shares: share of replies that each is better than; NaN leaves a gap.
        marks: what the listener did, a few signs beneath each bar.
    """
    step, middle, half = 40, 64, 52
    width = max(6, len(shares)) * step + 44
    parts = [svg_line((38, width - 4), (middle, middle))]
    parts += [svg_text(34, middle - half * (2 * share - 1) + 4, percent(share), "end") for share in (1, 0.5, 0)]
    for number, (share, mark) in enumerate(zip(shares, marks), 1):
        x = 4 + number * step
        parts.append(svg_text(x + 14, 134, str(number)) + svg_text(x + 14, 154, mark))
        if not math.isnan(share):
            height = max(2.0, abs(2 * share - 1) * half)
            y = middle - height if share > 0.5 else middle
            parts.append(
                f'<rect class="g-bar g-{side(share - 0.5)}" x="{x}" y="{y:.1f}" width="28" height="{height:.1f}" '
                f'rx="4"><title>Reply {number}: {percent(share)} {mark}</title></rect>'
            )
    words = "; ".join(
        f"reply {number} {percent(share)} {mark}" for number, (share, mark) in enumerate(zip(shares, marks), 1)
    )
    return (
        f'<div class="g-scroll" tabindex="0" role="group" aria-label="Timeline"><svg class="g-timeline" role="img" '
        f'viewBox="0 0 {width} 162" style="min-width:{width}px;max-width:{width + 60}px" '
        f'aria-label="Better than this share of replies: {words}">{"".join(parts)}</svg></div>'
    )
