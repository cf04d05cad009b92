"""Drawing that every picture shares: colours, fonts, axes, and how a figure is saved.

Nothing here touches pyplot, so that no global state or display is needed and a server can draw in threads.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from unicodedata import category

from matplotlib import font_manager
from matplotlib.figure import Figure

BLUE, RED, GREY, LIGHT, INK = "#2f6c9f", "#b5523b", "#7d7d7d", "#d9d9d9", "#222222"
DPI = 150
MINUS = str.maketrans("-", "−")  # as wide as the plus
# Scripts and emoji that DejaVu lacks, from whichever of these is installed; what none of them has shows as a box.
FALLBACK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Noto Emoji", "Symbola")


def new_figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    style(axes)
    return figure, axes


def style(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=LIGHT, linewidth=0.5)
    axes.set_axisbelow(True)


def say_nothing(figure: Figure, axes: Any, why: str) -> Figure:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=GREY)
    return figure


@cache
def fonts() -> tuple[list[str], frozenset[int]]:
    """Installed families, best first, and the code points that they have between them."""
    installed = set(font_manager.fontManager.get_font_names())
    families = ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in families]
    return families, frozenset().union(*(font.get_charmap() for font in fonts))


def printable(text: str) -> str:
    """The text on one line, with a box for each character that no font has; joiners and selectors of emoji go."""
    known = fonts()[1]
    invisible = {"Cf", "Cc", "Mn"}
    return "".join(
        char if ord(char) in known else "" if category(char) in invisible else "▯" for char in " ".join(text.split())
    )


def save(figure: Figure, path: str | Path) -> Figure:
    figure.savefig(path, format="png")
    return figure
