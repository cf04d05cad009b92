"""The facial-signal page as HTML: the smile over time, the turns with both signals, and the steps of the rating."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..affect.emotions import FACE_COLUMNS, HAPPINESS
from ..sessions import Message, assistant_turns
from .facial import Decomposition, LiveSession
from .look import (
    NO_BREAK,
    panel,
    percent,
    predicted_rating,
    reward_chip,
    scrollable,
    side,
    signed,
    svg_line,
    svg_text,
    timeline,
    turn,
)

SHOWN_SECONDS = 180.0  # of the live curve
GAP = 3.0  # seconds without a frame at which a curve breaks
PROMISED = (
    "The steps come from the words of the turns alone; the dots beneath are how much of a smile they met. Where the "
    "two disagree, learning from both has something to gain."
)
HINDSIGHT = (
    "They come from what was said, what was answered, and what the face showed, as far as rated sessions have shown "
    "that each tells of the rating. What was not answered or not seen adds nothing. Since this looks at what came "
    "after a turn, it explains, and never rewards a policy."
)


def live_curve(session: LiveSession, now: float) -> str:
    """Draw the smile over the last minutes, and when the partner began each turn."""
    marks = [session.turns[index].at - now for index in assistant_turns(session.messages)]
    times = np.array(session.watch.seconds) - now
    return _curve(
        "Your smile over the last minutes", times, np.array(session.watch.smiles), -SHOWN_SECONDS, 0.0, marks
    )


def recorded_curve(table: pd.DataFrame, marks: Sequence[float] = ()) -> str:
    """Draw the smile over a recording.

    Args:
        table: of `VideoAffect`.
        marks: when the partner began each turn, in seconds.
    """
    times, smiles = table["time"].to_numpy(float), table[FACE_COLUMNS[HAPPINESS]].to_numpy(float)
    return _curve("Timeline", times, smiles, 0.0, max(1.0, float(np.nanmax(times))), marks)


def _curve(
    title: str, times: np.ndarray, smiles: np.ndarray, first: float, last: float, marks: Sequence[float]
) -> str:
    """Draw a curve that breaks where no face was seen or no frame came, with a numbered line at each mark."""
    width, left, top, bottom = 440, 50, 26, 136
    times, smiles = times[times >= first], smiles[times >= first]

    def x(time: float) -> float:
        return left + (width - left - 16) * (time - first) / (last - first)

    def y(share: float) -> float:
        return bottom - share * (bottom - top)

    parts, path, before = [], "", -math.inf
    for share in (0, 0.5, 1):
        parts.append(svg_line((left, width - 16), (y(share), y(share))))
        parts.append(svg_text(left - 6, y(share) + 4, percent(share), "end"))
    for number, mark in enumerate(marks, 1):
        if first <= mark <= last:
            parts.append(svg_line((x(mark), x(mark)), (top - 6, bottom), "f-mark"))
            parts.append(svg_text(x(mark), top - 11, str(number)))
    for time in np.linspace(first, last, 5):
        parts.append(svg_text(x(time), bottom + 18, f"{time:.0f} s"))
    seen = ~np.isnan(smiles)
    for time, smile in zip(times, smiles):
        if math.isnan(smile):
            before = -math.inf
            continue
        pen = "M" if time - before > GAP else "L"
        path += f"{pen}{x(time):.1f} {y(smile):.1f}"
        before = time
    average = "no face was seen"
    if seen.any():
        average = f"{percent(smiles[seen].mean())} on average; a face was seen in {percent(seen.mean())} of the frames"
    legend = f"Probability of a smile: {average}. Numbered lines: when the partner began a turn."
    return panel(
        title,
        f'<svg class="f-plot" viewBox="0 0 {width} {bottom + 26}" role="img" aria-label="{legend}">{"".join(parts)}'
        f'<path class="f-curve" d="{path}"/></svg><p class="g-quiet">{legend}</p>',
    )


def turns(messages: Sequence[Message], words: Decomposition, smiles: Sequence[float]) -> str:
    """Return the dialogue, with the reward of its text and the smile beside each turn of the partner.

    Args:
        messages: the dialogue.
        words: decomposition of the rating by the words; it may lack the last turn.
        smiles: at each turn of the partner.
    """
    if not messages:
        return (
            '<div class="g-thread"><div class="g-empty"><strong>Nothing has been said yet</strong>Let the scripted '
            "partner say something, good or bad, and let your face answer. Or type what was said.</div></div>"
        )
    rows, number = "", 0
    for message in messages:
        if message["role"] != "assistant":
            rows += turn("g-user", "Listener", message["content"])
            continue
        reward = percentile = math.nan
        if number < len(words.rewards):
            reward, percentile = words.rewards[number], words.percentiles[number]
        chips = reward_chip(reward, percentile) + smile_chip(smiles[number])
        number += 1
        rows += turn(f"g-assistant g-{side(reward)}", f"Partner, turn {number}", message["content"], chips)
    return f'<div class="g-thread" role="log" aria-label="Turns" tabindex="0">{rows}</div>'


def smile_chip(smile: float) -> str:
    """Return the Local Implicit value of a turn as a label: the mean probability of a smile."""
    if math.isnan(smile):
        return '<span class="g-chip g-unknown">no face seen</span>'
    return f'<span class="g-chip f-smile" data-smile="{smile:.3f}">smile {percent(smile, NO_BREAK)}</span>'


def rating_steps(steps: Decomposition, smiles: Sequence[float]) -> str:
    """Draw what each turn adds to the mean rating, with the smile beneath, and the predicted rating."""
    title = "What the predicted rating is made of"
    if not steps.contributions:
        return panel(title, '<p class="g-quiet">Each turn of the partner is a step away from an average rating.</p>')
    label, explanation = "What the words promise", PROMISED
    if steps.parts:
        each = ", ".join(f"{name} {signed(value, 2)}" for name, value in steps.parts.items())
        label, explanation = "With hindsight", f"Of all steps together: {each}. {HINDSIGHT}"
    adds = " ".join(signed(value, 2) for value in steps.contributions)
    return panel(
        title,
        f'<p class="g-quiet">{label}</p>{predicted_rating(steps.rating, steps.deviation)}'
        f"{scrollable(timeline(steps.contributions, signal=smiles, limit=0.5), 'Steps of the rating')}"
        f'<p class="g-quiet">{steps.base:.2f} {adds} = {steps.rating:.2f}. {explanation}</p>',
    )
