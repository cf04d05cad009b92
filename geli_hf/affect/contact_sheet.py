"""A contact sheet: the frames at the strongest moments of a recording, by which a person checks its signal.

It shows the listener's face, and is the only thing that the package writes of a picture.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..plotting import DPI, MINUS, printable, save
from ..sessions import Session
from .emotions import FACE_COLUMNS
from .faces import Box, square_crop
from .frames import VideoFrames
from .session import SMOOTH
from .turns import face_valence, smooth_faces

MOMENTS = 4  # of either sign
APART = 2.0  # seconds between two of them
SIDE = 160  # pixels of a face
MARGIN = 1.8  # sides of the square around a face, in sides of the detector's box


def strongest_moments(times: np.ndarray, valence: np.ndarray) -> list[int]:
    """Find the rows of the strongest moments, up to `MOMENTS` of either sign, those of one sign `APART` seconds apart.

    Args:
        times: (n,), seconds.
        valence: (n,), NaN where no face was seen.

    Returns:
        Rows of the greatest values above 0, then of the least below 0, each from the strongest on.
    """
    chosen: list[int] = []
    for sign in (1, -1):
        strength = np.nan_to_num(sign * valence)
        for _ in range(MOMENTS):
            if not len(strength) or strength.max() <= 0:
                break
            chosen.append(int(strength.argmax()))
            strength = np.where(np.abs(times - times[chosen[-1]]) < APART, 0.0, strength)
    return chosen


def draw_contact_sheet(
    table: pd.DataFrame, session: Session, path: str | Path, *, video: str | Path, fps: float = 5.0
) -> Figure:
    """Draw the listener's face at the strongest positive and negative moments, with time, turn and valence.

    Args:
        table: of `VideoAffect`.
        session: of `session_of_recording`, with `start` and `stop`.
        path: of the PNG.
        video: of which the table was made.
        fps: frames per second at which it was made.

    Raises:
        FileNotFoundError, ValueError: see `VideoFrames`.
    """
    times, faces = smooth_faces(table["time"].to_numpy(float), table[FACE_COLUMNS].to_numpy(float), SMOOTH)
    valence = face_valence(faces)
    rows = strongest_moments(times, valence)
    boxes = table.set_index("time")[list(Box._fields)]
    pictures = {}
    for frame in VideoFrames(video, fps):
        if frame.time in times[rows]:
            box = Box(*(boxes.loc[frame.time] * frame.scale))
            pictures[frame.time] = square_crop(frame.image, box, scale=MARGIN, side=SIDE)

    figure = Figure(figsize=(2 * MOMENTS, 5), dpi=DPI, layout="constrained")
    figure.suptitle(printable(f"{session['session_id']}: strongest moments")[:110] if rows else "no moment to show")
    signs = [[row for row in rows if sign * valence[row] > 0] for sign in (1, -1)]
    for axes, moments in zip(figure.subplots(2, MOMENTS), signs):
        for axis in axes:
            axis.axis("off")
        for axis, row in zip(axes, moments):
            time = times[row]
            axis.imshow(pictures[time], cmap="gray", vmin=0, vmax=255)
            spans = zip(session["messages"], session["start"], session["stop"])
            turns = [f"{n} ({turn['role']})" for n, (turn, a, z) in enumerate(spans, 1) if a <= time <= z]
            sign = f"{valence[row]:+.2f}".translate(MINUS)
            axis.set_title(f"{time:.1f} s, {sign}\nturn {', '.join(turns) or '–'}", fontsize=7)
    return save(figure, path)
