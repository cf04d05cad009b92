"""Colours, fonts and axes of every picture.

Nothing here touches pyplot, which has global state: a server can draw in threads, without a display.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unicodedata import category

from matplotlib import font_manager
from matplotlib.figure import Figure

BLUE, RED, GREY, LIGHT, INK = "#2f6c9f", "#b5523b", "#7d7d7d", "#d9d9d9", "#222222"
DPI = 150
MINUS = str.maketrans("-", "−")  # as wide as the plus
# For scripts and emoji that DejaVu lacks, the installed ones of these; a character that none of them has is a box.
FALLBACK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Noto Emoji", "Symbola")


def new_figure(width: float, height: float) -> tuple[Figure, Any]:
    """Make a figure of this size in inches, and its axes."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    style(axes)
    return figure, axes


def style(axes: Any) -> None:
    """Draw a light grid, and no frame above and on the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=LIGHT, linewidth=0.5)
    axes.set_axisbelow(True)


def fonts() -> tuple[list[str], frozenset[int]]:
    """Return the installed font families, best first, and all code points that they have."""
    installed = set(font_manager.fontManager.get_font_names())
    families = ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in families]
    return families, frozenset().union(*(font.get_charmap() for font in fonts))


def printable(text: str) -> str:
    """Put a text on one line, with a box for each character that no font has, and without joiners of emoji."""
    known = fonts()[1]
    invisible = {"Cf", "Cc", "Mn"}
    return "".join(
        char if ord(char) in known else "" if category(char) in invisible else "▯" for char in " ".join(text.split())
    )


def save(figure: Figure, path: str | Path) -> Figure:
    """Save a figure as PNG, and return it."""
    figure.savefig(path, format="png")
    return figure
