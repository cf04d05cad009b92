"""A picture of a listener's emotions over time, with the turns beneath."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

from ..plotting import BLUE, DPI, GREY, INK, LIGHT, MINUS, RED, printable, save, style
from ..sessions import Session, assistant_turns
from .emotions import EMOTIONS, FACE_COLUMNS, HAPPINESS

OTHERS = 2  # emotions that are drawn besides happiness: those that are most probable on average
POINTS = 1500  # for which a picture has room; of longer recordings the means of so many stretches are drawn


def plot_affect(table: pd.DataFrame, session: Session, path: str | Path, *, signal: str = "affect_mean") -> Figure:
    """Draw the probabilities of the listener's emotions over time, and beneath them the turns.

    Args:
        table: `time` and `prob_face_*`, NaN where no face was seen (see `geli_hf.affect.VideoAffect`).
        session: a Session row with `start`, `stop` and `feedback`.
        path: of the PNG.
        signal: name in `feedback` of the value, 0..1, that colours each turn of the assistant; a turn without it is
            white.
    """
    figure = Figure(figsize=(11, 5), dpi=DPI, layout="constrained")
    curves, lanes = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    shown = ~table[FACE_COLUMNS].isna().all(axis=1)
    share = f"{shown.mean():.0%} of the frames show a face" if len(table) else "no frames"
    table = (
        table[["time", *FACE_COLUMNS]].groupby(np.arange(len(table)) // max(1, math.ceil(len(table) / POINTS))).mean()
    )
    time, faces = table["time"].to_numpy(), table[FACE_COLUMNS].to_numpy()
    seen = ~np.isnan(faces).all(1)

    style(curves)
    curves.set_title(printable(f"{session['session_id']}: the listener's face")[:110], parse_math=False)
    curves.set(ylabel=f"probability\n({share})", ylim=(-0.03, 1.03))
    gaps = np.column_stack([time, np.diff(time, append=time[-1:])])[~seen]
    curves.broken_barh(gaps, (-0.03, 1.06), color=LIGHT, linewidth=0)
    if not seen.all():
        curves.plot([], [], "s", color=LIGHT, label="no face seen")
    known = [index for index in range(len(EMOTIONS)) if index != HAPPINESS and not np.isnan(faces[:, index]).all()]
    most = sorted(known, key=lambda index: -np.nanmean(faces[:, index]))[:OTHERS]
    for index, colour, width in zip([HAPPINESS, *most], (BLUE, GREY, RED), (1.6, 0.9, 0.9)):
        curves.plot(time, faces[:, index], color=colour, linewidth=width, label=EMOTIONS[index])
    curves.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)

    style(lanes)
    lanes.grid(axis="y", visible=False)
    lanes.set(ylim=(1.5, -0.5), xlabel="seconds", yticks=[0, 1], yticklabels=["assistant", "listener"])
    lanes.tick_params(axis="y", length=0)
    turns, values = assistant_turns(session["messages"]), session["feedback"][signal]
    shade = colormaps["Blues"]
    lengths = np.nanmax([0.0, *session["stop"], *time]) or 1.0
    for index, (start, stop) in enumerate(zip(session["start"], session["stop"])):
        if not stop >= start:  # unknown, or it ends before it begins
            continue
        lane, colour, label = 1, LIGHT, ""
        if index in turns:
            value = values[turns.index(index)]
            lane, colour = 0, "white" if np.isnan(value) else shade(0.08 + 0.8 * value)
            label = "–" if np.isnan(value) else f"{value:.2f}".translate(MINUS)
        lanes.barh(lane, stop - start, left=start, height=0.62, color=colour, edgecolor=GREY, linewidth=0.5)
        if label and (stop - start) / lengths > 0.025:
            ink = "white" if label != "–" and float(label) > 0.55 else INK
            lanes.text((start + stop) / 2, lane, label, ha="center", va="center", fontsize=7, color=ink)
    lanes.set_title(f"{signal} of each turn of the assistant; white: too little was seen", fontsize=8, color=GREY)
    return save(figure, path)
