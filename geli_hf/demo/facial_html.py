"""The facial-signal page as HTML: the smile over time, the rating by words and by words and face, and the turns."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pandas as pd
from PIL import Image

from ..affect.emotions import FACE_COLUMNS, HAPPINESS
from ..affect.turns import face_valence
from ..sessions import Message, Session, assistant_turns
from .camera import Watch
from .conversation import Turn, messages_of
from .facial import Decomposition
from .look import HIGHEST, panel, percent, plain, side, signed, svg_line, svg_text

SHOWN_SECONDS = 180.0  # of the live curve
GAP = 3.0  # seconds without a frame at which a curve breaks
NEVER = 1e9  # start of a turn whose time is unknown
ONLY_HERE = "Valence from −1 to 1. Only this page has these pictures: the server keeps none."
RATINGS = {"words": "By the words alone", "both": "By words and face"}


def live(said: Sequence[Turn], watch: Watch, steps: Decomposition, smiles: Sequence[float], now: float) -> tuple:
    """Return the rating, the curves over the last minutes, and the turns of a live session."""
    seen, messages = np.array(watch.smiles), messages_of(said)
    times = np.array(watch.seconds[: len(seen)]) - now  # a frame may be on its way
    marks = [said[index].at - now for index in assistant_turns(messages)]
    curves = _curves(times, seen, (max(-SHOWN_SECONDS, min([-30.0, *times[:1]])), 0.0), marks, steps)
    return rating(steps), panel("Your smile over the last minutes", curves), turns(messages, steps, smiles)


def recorded(table: pd.DataFrame, session: Session | None, steps: Decomposition) -> str:
    """Return the numbers of a recording, and the track that the player beside them follows.

    Args:
        table: of `VideoAffect`.
        session: of `session_of_recording`; without one only the curve is shown.
        steps: of its rating.
    """
    faces, times = table[FACE_COLUMNS].to_numpy(float), table["time"].to_numpy(float)
    last, smiles = max(1.0, float(np.nanmax(times))), faces[:, HAPPINESS]
    track = {"times": times.round(2).tolist(), "last": last, "turns": []}
    for name, values in (("smile", smiles), ("valence", face_valence(faces))):
        track[name] = [None if math.isnan(value) else round(value, 3) for value in values.tolist()]
    if session is None:
        shown = panel("Timeline", _curves(times, smiles, (0.0, last), [], steps))
    else:
        messages = session["messages"]
        start = np.nan_to_num(session["start"], nan=NEVER).tolist()
        marks = [start[index] for index in assistant_turns(messages)]
        track["turns"] = [[at, each["role"] == "assistant", each["content"]] for at, each in zip(start, messages)]
        track |= {"marks": marks, **_running(steps)}
        shown = rating(steps) + panel("Timeline", _curves(times, smiles, (0.0, last), marks, steps))
        shown += turns(messages, steps, session["feedback"]["affect_mean"], start)
    return f'<div class="f-recorded" data-track="{plain(json.dumps(track))}">{shown}</div>'


def _running(steps: Decomposition) -> dict[str, list[float]]:
    """Return the rating by words, and by both, before the first turn and after each."""
    both = np.add(steps.words, steps.face).tolist()
    return {
        name: list(accumulate(each, initial=steps.base)) for name, each in (("words", steps.words), ("both", both))
    }


def rating(steps: Decomposition) -> str:
    """Return the rating by words alone, and by words and face, side by side."""
    boxes, moved = "", "Each answer of the partner moves the rating: by what is said, and by the smile that it meets."
    for (name, title), value in zip(RATINGS.items(), (steps.by_words, steps.rating)):
        shown = f"{value:.2f}" if steps.words else "–"
        boxes += (
            f'<div class="f-sum f-{name}"><h3>{title}</h3><p class="g-rating" data-number="{name}" '
            f'data-score="{value:.4f}"><span>{shown}</span> <small>of {HIGHEST}</small></p></div>'
        )
    if steps.words:
        error = "" if math.isnan(steps.deviation) else f"; a prediction errs by {steps.deviation:.1f} or so"
        moved = f"In all the face moves it by <b>{signed(sum(steps.face), 2)}</b>{error}."
    return panel("The rating of the conversation", f'<div class="f-sums">{boxes}</div><p>{moved}</p>')


def _curves(times: np.ndarray, smiles: np.ndarray, span: tuple, marks: Sequence[float], steps: Decomposition) -> str:
    """Draw the smile, which breaks where no face was seen, a numbered line at each turn, and the rating beneath."""
    (first, last), (left, right, height) = span, (50, 424, 228 if steps.words else 142)
    times, smiles = times[times >= first], smiles[times >= first]
    ratings = _running(steps) if steps.words else {}
    low, high = (function([value for line in ratings.values() for value in line] or [0]) for function in (min, max))

    def x(time: float) -> float:
        return left + (right - left) * (min(max(time, first), last) - first) / (last - first)

    def level(value: float) -> float:
        return height - 32 - 56 * (value - low) / max(high - low, 1e-9)

    drawn, path, before = "", "", -math.inf
    for share, y in ((0, 116), (0.5, 71), (1, 26)):
        drawn += svg_line((left, right), (y, y)) + svg_text(left - 6, y + 4, percent(share), "end")
    for time in np.linspace(first, last, 5):
        drawn += svg_text(x(time), height - 8, f"{time:.0f} s")
    for number, mark in enumerate(marks, 1):
        if first <= mark <= last:
            drawn += svg_line((x(mark), x(mark)), (20, height - 24), "f-mark") + svg_text(x(mark), 15, str(number))
    for time, smile in zip(times, smiles):
        if not math.isnan(smile):
            path += f"{'M' if time - before > GAP else 'L'}{x(time):.1f} {116 - 90 * smile:.1f}"
        before = -math.inf if math.isnan(smile) else time
    for value in {low, high} if ratings else ():
        drawn += svg_text(left - 6, level(value) + 4, f"{value:.1f}", "end")
    for name, line in ratings.items():
        ends = [x(first), *map(x, marks), x(last)]
        points = " ".join(
            f"{a:.1f},{level(value):.1f} {b:.1f},{level(value):.1f}" for a, b, value in zip(ends, ends[1:], line)
        )
        drawn += f'<polyline class="f-step f-{name}" points="{points}"/>'
    seen, average = ~np.isnan(smiles), "no face was seen"
    if seen.any():
        average = f"{percent(smiles[seen].mean())} on average; a face was seen in {percent(seen.mean())} of the frames"
    legend = f"Smile: {average}. Numbers: turns of the partner"
    below = '. Beneath, the rating <i class="f-words">by words</i> and <i class="f-both">by words and face</i>'
    return (
        f'<svg class="f-plot" viewBox="0 0 440 {height}" role="img" aria-label="{legend}" data-left="{left}" '
        f'data-right="{right}">{drawn}<path class="f-curve" d="{path}"/><line class="f-now" x1="-9" x2="-9" y1="20" '
        f'y2="{height - 24}"/></svg><p class="g-quiet">{legend}{below if ratings else ""}.</p>'
    )


def turns(
    messages: Sequence[Message], steps: Decomposition, smiles: Sequence[float], start: Sequence[float] = ()
) -> str:
    """Return the dialogue as a table, with what each turn of the partner adds to the rating.

    Args:
        messages: the dialogue.
        steps: of its rating.
        smiles: at each turn of the partner.
        start: of each message in the recording, in seconds.
    """
    if not messages:
        return panel("Turns", '<p class="g-quiet">Nothing has been said yet.</p>')
    rows, number = "", 0
    for index, message in enumerate(messages):
        begin = f'<tr data-at="{start[index]:.2f}"' if start else "<tr"
        text = plain(message["content"])
        if message["role"] != "assistant":
            rows += f'{begin} class="f-user"><td colspan="4">{text}</td></tr>'
            continue
        word, face, smile = steps.words[number], steps.face[number], smiles[number]
        number += 1
        seen = "no face seen" if math.isnan(smile) else percent(smile)
        rows += (
            f'{begin} class="f-partner"><td><b>{number}</b> {text}</td>{_cell("words", signed(word, 2), word)}'
            f"{_cell('smile', seen)}{_cell('face', signed(face, 2), face)}</tr>"
        )
    head = "<tr><th>Said by the partner, and by the listener (grey)</th><th>Words</th><th>Smile</th><th>Face</th></tr>"
    table = f'<table class="f-turns"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    log = f'<div class="f-log" tabindex="0" role="log" aria-label="Turns">{table}</div>'
    return panel("What each turn adds to the rating", log)


def _cell(label: str, text: str, value: float = 0.0) -> str:
    return f'<td class="f-number f-{side(10 * value)}" data-label="{label}">{text}</td>'


def contact_sheet(moments: Sequence[tuple[float, float, np.ndarray]]) -> str:
    """Return the faces at the strongest moments, which are in the page alone, and lead the player there.

    Args:
        moments: of `strongest_faces`, each with a picture (side, side), uint8.
    """
    figures = ""
    for time, valence, picture in moments:
        Image.fromarray(picture).save(file := io.BytesIO(), "jpeg")
        image = base64.b64encode(file.getvalue()).decode()
        figures += (
            f'<button type="button" data-at="{time:.2f}"><img alt="The listener at {time:.0f} s" '
            f'src="data:image/jpeg;base64,{image}">{time:.0f} s, {signed(valence)}</button>'
        )
    return panel("Strongest moments", f'<div class="f-sheet">{figures}</div><p class="g-quiet">{ONLY_HERE}</p>')
