"""The facial-signal page as HTML: the smile over time, the turns with both signals, and the steps of the rating."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..affect.emotions import FACE_COLUMNS, HAPPINESS
from ..affect.faces import Box
from ..sessions import assistant_turns
from .facial import Decomposition, LiveSession, Recording
from .look import (
    MINUS,
    NO_BREAK,
    meter,
    panel,
    percent,
    plain,
    reward_chip,
    scrollable,
    side,
    signed,
    smile_dot,
    svg_bar,
    svg_line,
    svg_text,
    turn,
)

SHOWN_SECONDS = 180.0  # of the live curve
GAP = 3.0  # seconds without a frame at which a curve breaks
MAX_POINTS = 600  # of the curve of a recording
TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300)


def smile_chip(smile: float) -> str:
    """Return the Local Implicit value of a turn as a label: the mean probability of a smile."""
    if math.isnan(smile):
        return '<span class="g-chip g-unknown">no face seen</span>'
    return (
        f'<span class="g-chip f-smile" data-smile="{smile:.3f}"><span class="f-bar" aria-hidden="true">'
        f'<i style="width:{100 * smile:.0f}%"></i></span>smile {percent(smile, NO_BREAK)}</span>'
    )


def camera_now(box: Box | None = None, smile: float = math.nan, size: tuple[int, int] | None = None) -> str:
    """Return the smile before the camera now.

    Args:
        box: of the face, in pixels; None if there is none.
        smile: its probability; NaN if there is no face.
        size: width and height of the picture in pixels; None while the camera is off.
    """
    if size is None or box is None:
        text = "No face in the picture. It has to look at the camera, upright, with some light on it."
        if size is None:
            text = "The camera is off. Press its picture, allow it, and then press Record."
        no_box = "" if size is None else ' data-box=""'
        return f'<div class="f-now" role="status"{no_box}><p class="g-quiet">{text}</p></div>'
    width, height = size
    place = ",".join(
        f"{value:.4f}" for value in (box.x / width, box.y / height, box.width / width, box.height / height)
    )
    number = f'<p><strong class="f-big">{percent(smile, NO_BREAK)}</strong> probability of a smile, now</p>'
    bar = meter(smile, "Probability of a smile")
    return f'<div class="f-now" data-box="{place}" data-smile="{smile:.3f}">{number}{bar}</div>'


# ---------------------------------------------------------------------------------------------------------------------
# Curves


def _curve(times: np.ndarray, smiles: np.ndarray, x: Callable[[float], float], top: float, bottom: float) -> str:
    """Draw the scale of a smile and its curve, which breaks where no face was seen or no frame came."""
    path, pen, before = [], "M", -math.inf
    for time, smile in zip(times.tolist(), smiles.tolist()):
        if math.isnan(smile):
            pen = "M"
            continue
        if time - before > GAP:
            pen = "M"
        path.append(f"{pen}{x(time):.1f} {bottom - smile * (bottom - top):.1f}")
        if pen == "M":
            path.append("h.1")  # a face that was seen once is a dot
        pen, before = "L", time
    return f'<path class="f-curve" d="{"".join(path)}"/>' if path else ""


def _scale(width: float, top: float, bottom: float, left: float) -> str:
    lines = ""
    for share in (0, 0.5, 1):
        y = bottom - share * (bottom - top)
        lines += svg_line((left, width - 4), (y, y)) + svg_text(left - 6, y + 4, percent(share), "end")
    return lines


def live_curve(session: LiveSession, now: float) -> str:
    """Draw the probability of a smile over the last minutes, and when the partner began each turn."""
    width, height, left, top, bottom = 440, 176, 50, 26, 136
    first = now - SHOWN_SECONDS

    def x(time: float) -> float:
        return left + (width - left - 6) * (time - first) / SHOWN_SECONDS

    marks = ""
    for number, index in enumerate(assistant_turns(session.messages), 1):
        at = session.turns[index].at
        if at >= first:
            marks += svg_line((x(at), x(at)), (top - 6, bottom), "f-mark") + svg_text(x(at), top - 11, str(number))
    for minutes, anchor in ((3, "start"), (2, "middle"), (1, "middle"), (0, "end")):
        label = f"{minutes} min ago" if minutes else "now"
        marks += svg_text(x(now - 60 * minutes), bottom + 18, label, anchor)
    times, smiles = np.array(session.watch.seconds), np.array(session.watch.smiles)
    times, smiles = times[times >= first], smiles[times >= first]
    average = "no face seen" if np.isnan(smiles).all() else f"on average {percent(np.nanmean(smiles))}"
    return panel(
        "Your smile over the last minutes",
        f'<svg class="f-plot" viewBox="0 0 {width} {height - 14}" role="img" '
        f'aria-label="Probability of a smile over the last three minutes: {average}">'
        f"{_scale(width, top, bottom, left)}{marks}{_curve(times, smiles, x, top, bottom)}</svg>"
        '<p class="g-quiet">Numbered lines: when the partner began a turn. The curve breaks where no face is seen.'
        "</p>",
    )


def recorded_timeline(recording: Recording) -> str:
    """Draw the smile over a recording, the turns of both sides beneath, and a cursor that the player moves."""
    width, left, top, bottom = 720, 80, 14, 130
    end = max(recording.seconds, 1.0)

    def x(time: float) -> float:
        return left + (width - left - 8) * time / end

    times = recording.table["time"].to_numpy(float)
    smiles = recording.table[FACE_COLUMNS[HAPPINESS]].to_numpy(float)
    seen = smiles[~np.isnan(smiles)]
    average = "no face was seen"
    if len(seen):
        average = (
            f"{percent(seen.mean())} on average; a face was seen in {percent(len(seen) / len(smiles))} of the frames"
        )
    lanes, height = "", bottom + 30
    if recording.session is not None:
        height, lanes = bottom + 96, _lanes(recording, x, bottom + 26)
    step = next((step for step in TICK_SECONDS if end / step <= 10), 600)
    ticks = "".join(svg_text(x(second), height - 6, clock(second)) for second in range(0, math.floor(end) + 1, step))
    drawn = (
        f'<svg class="f-plot f-wide" viewBox="0 0 {width} {height}" role="img" data-end="{end:.3f}" '
        f'data-left="{left}" data-right="{width - 8}" aria-label="Smile over the recording: {average}">'
        f"{_scale(width, top, bottom, left)}{lanes}{_curve(*_thinned(times, smiles), x, top, bottom)}{ticks}"
        f"{svg_line((left, left), (top - 8, height - 20), 'f-cursor')}</svg>"
    )
    legend = f"Probability of a smile: {average}. Click the timeline to move the player there."
    return panel("Timeline", f'{scrollable(drawn, "Timeline")}<p class="g-quiet">{legend}</p>')


def _thinned(times: np.ndarray, smiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average stretches of a long curve; a stretch without a face is a gap."""
    stride = math.ceil(len(times) / MAX_POINTS)
    if stride <= 1:
        return times, smiles
    firsts = range(0, len(times), stride)
    stretches = [smiles[first : first + stride] for first in firsts]
    means = [math.nan if np.isnan(stretch).all() else np.nanmean(stretch) for stretch in stretches]
    return np.array([times[first : first + stride].mean() for first in firsts]), np.array(means)


def _lanes(recording: Recording, x: Callable[[float], float], top: float) -> str:
    session = recording.session
    rewards = dict(zip(assistant_turns(session["messages"]), recording.words.rewards))
    parts = [svg_text(74, top + 17, "partner", "end"), svg_text(74, top + 47, "listener", "end")]
    for index, (message, start, stop) in enumerate(zip(session["messages"], session["start"], session["stop"])):
        if not stop >= start:
            continue
        width, title = max(2.0, x(stop) - x(start)), f"{clock(start)} {plain(message['content'])}"
        if index not in rewards:
            parts.append(svg_bar(x(start), top + 30, width, 24, "f-heard", title))
            continue
        title = f"{signed(rewards[index], 2)} {title}"
        parts.append(svg_bar(x(start), top, width, 24, f"g-bar g-{side(rewards[index])}", title))
        if width > 30:
            parts.append(svg_text(x(start) + width / 2, top + 16, signed(rewards[index]), kind="f-inside"))
    return "".join(parts)


def clock(seconds: float) -> str:
    """Format a time as 1:05."""
    return "–" if math.isnan(seconds) else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


# ---------------------------------------------------------------------------------------------------------------------
# Turns and the steps of the rating


def live_turns(session: LiveSession, smiles: Sequence[float]) -> str:
    """Return the dialogue, with the reward of its text and the smile beside each turn of the partner."""
    if not session.turns:
        return (
            '<div class="g-thread f-thread"><div class="g-empty"><strong>Nothing has been said yet</strong>Let the '
            "scripted partner say something, good or bad, and let your face answer. Or type what was said.</div></div>"
        )
    rows, number = [], 0
    for message in session.turns:
        if message.role != "assistant":
            rows.append(turn("g-user", "You", message.text))
            continue
        reward = percentile = math.nan
        if number < len(session.words.rewards):  # a new turn is rewarded in a moment
            reward, percentile = session.words.rewards[number], session.words.percentiles[number]
        signals = (("text", reward_chip(reward, percentile)), ("face", smile_chip(smiles[number])))
        foot = "".join(
            f'<span class="f-pair"><span class="f-label">{name}</span>{chip}</span>' for name, chip in signals
        )
        number += 1
        rows.append(turn(f"g-assistant g-{side(reward)}", f"Partner, turn {number}", message.text, foot))
    return f'<div class="g-thread f-thread" role="log" aria-label="Turns" tabindex="0">{"".join(rows)}</div>'


def table(recording: Recording) -> str:
    """Return a table of a recording with a row for each turn of the partner."""
    session, words = recording.session, recording.words
    contributions, rows = (recording.hindsight or words).contributions, ""
    for number, index in enumerate(assistant_turns(session["messages"])):
        start, smile = session["start"][index], session["feedback"]["affect_mean"][number]
        better = words.percentiles[number]
        rows += (
            f'<tr tabindex="0" data-at="{0 if math.isnan(start) else start:.3f}">'
            f"<th scope=row>{number + 1}</th><td>{clock(start)}</td><td>{percent(smile)}</td>"
            f"<td>{signed(words.rewards[number])}{'' if math.isnan(better) else f' ({percent(better)})'}</td>"
            f"<td>{signed(contributions[number], 2)}</td>"
            f'<td class="f-said">{plain(session["messages"][index]["content"])}</td></tr>'
        )
    heads = ("Turn", "At", "Smile", "Text reward", "Adds", "Said")
    head = "".join(f"<th scope=col>{name}</th>" for name in heads)
    grid = f'<table class="f-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return panel(
        "Turn by turn",
        f'{scrollable(grid, "Turn by turn")}<p class="g-quiet">In brackets: the share of the reward model’s training '
        "turns that are worth less. Choose a row to move the player to its turn.</p>",
    )


def rating_steps(steps: Decomposition, smiles: Sequence[float]) -> str:
    """Draw the steps from the mean rating to the predicted one, a step for each turn, with the smile beneath each."""
    count = len(steps.contributions)
    title = "What the predicted rating is made of"
    if not count:
        text = "As soon as the partner has said something, each of its turns is a step from an average rating to this"
        return panel(title, f'<p class="g-quiet">{text} session’s.</p>')
    sums = steps.base + np.concatenate([[0.0], np.cumsum(steps.contributions)])
    low, high = float(sums.min()), float(sums.max())
    margin = max(0.15, 0.18 * (high - low))
    low, high = low - margin, high + margin
    step, left, top, bottom = 46, 54, 26, 170
    width, height = left + (max(count, 5) + 2) * step + 6, 238

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    def level(place: int, value: float, name: str) -> str:
        x, label = left + place * step, f"{value:.1f}".translate(MINUS)
        return (
            svg_line((x + 6, x + step - 6), (y(value), y(value)), "f-level")
            + svg_text(x + step / 2, y(value) - 7, label, kind="f-value")
            + svg_text(x + step / 2, bottom + 18, name)
        )

    parts = [svg_text(left - 6, bottom + 42, "smile", "end")]
    for value in _ticks(low, high):
        parts += [
            svg_line((left, width - 4), (y(value), y(value))),
            svg_text(left - 6, y(value) + 4, f"{value:g}", "end"),
        ]
    for number, contribution in enumerate(steps.contributions, 1):
        x, before, after = left + number * step, y(sums[number - 1]), y(sums[number])
        upper, length = min(before, after), max(2.0, abs(after - before))
        kind, words = "above" if contribution > 0 else "below", signed(contribution, 2)
        smile = smiles[number - 1]
        parts += [
            svg_line((x - 8, x + 8), (before, before)),
            svg_bar(x + 6, upper, step - 12, length, f"g-bar g-{kind}", f"Turn {number} adds {words}"),
            svg_text(x + step / 2, upper - 5, words, kind="f-value"),
            svg_text(x + step / 2, bottom + 18, str(number)),
            smile_dot(x + step / 2, bottom + 38, smile, number),
            "" if math.isnan(smile) else svg_text(x + step / 2, bottom + 64, percent(smile)),
        ]
    parts += [level(0, sums[0], "average"), level(count + 1, sums[-1], "rating")]
    adds = " ".join(signed(value, 2) for value in steps.contributions)
    label, explanation = "What the words promise", PROMISED
    if steps.parts:
        each = ", ".join(f"{name} {signed(value, 2)}" for name, value in steps.parts.items())
        label, explanation = "With hindsight", f"Of all steps together: {each}. {HINDSIGHT}"
    margin = "" if math.isnan(steps.deviation) else f", give or take {steps.deviation:.1f}"
    drawn = (
        f'<svg class="f-plot" viewBox="0 0 {width} {height}" style="min-width:{min(0.85 * width, 2000):.0f}px;'
        f'max-width:{1.15 * width:.0f}px" role="img" aria-label="From an average rating of {steps.base:.2f} the turns '
        f'add {adds}, which makes {steps.rating:.2f}">{"".join(parts)}</svg>'
    )
    return panel(
        title,
        f'<p class="f-label">{label}</p><p class="g-rating" data-score="{steps.rating:.4f}" '
        f'data-base="{steps.base:.4f}">{steps.rating:.1f} <small>of 9{margin}</small></p>'
        f"{scrollable(drawn, 'Steps of the rating')}"
        f'<p class="g-quiet">{steps.base:.2f} {adds} = {steps.rating:.2f}. {explanation}</p>',
    )


def _ticks(low: float, high: float) -> list[float]:
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 1e9) if (high - low) / step <= 6)
    return [round(step * number, 3) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


# ---------------------------------------------------------------------------------------------------------------------
# Texts

PROMISED = (
    "The steps come from the words of the turns alone; the dots beneath are how much of a smile they met. Where the "
    "two disagree, learning from both has something to gain."
)
HINDSIGHT = (
    "They come from what was said, what was answered, and what the face showed, as far as rated sessions have shown "
    "that each tells of the rating. What was not answered or not seen adds nothing. Since this looks at what came "
    "after a turn, it explains, and never rewards a policy."
)
EMPTY = (
    '<div class="g-thread f-thread"><div class="g-empty"><strong>No recording yet</strong>Upload a video of a '
    "listener’s face, with a transcript if you have one, or take the example.</div></div>"
)
