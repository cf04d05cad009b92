"""The facial-signal demo as HTML. What anybody wrote, file names included, stays text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from ..affect.emotions import FACE_COLUMNS, HAPPINESS
from ..affect.faces import Box
from ..sessions import Message, assistant_turns
from .facial import Decomposition, LiveSession, Recording
from .look import MINUS, plain, reward_chip, side, signed

SHOWN_SECONDS = 180.0  # of the live curve
GAP = 3.0  # seconds without a frame at which a curve breaks
UNKNOWN = (math.nan, math.nan)
POINTS = 600  # of the curve of a recording


@cache
def style_sheet() -> str:
    """The CSS of the page beyond that of `look`."""
    return (Path(__file__).parent / "facial.css").read_text(encoding="utf-8")


def smile_chip(smile: float) -> str:
    """The Local Implicit value of a turn: the mean probability of a smile."""
    if math.isnan(smile):
        return '<span class="g-chip g-unknown">no face seen</span>'
    percent = f"{100 * smile:.0f}"
    return (
        f'<span class="g-chip f-smile" data-smile="{smile:.3f}"><span class="f-bar" aria-hidden="true">'
        f'<i style="width:{percent}%"></i></span>smile {percent}\u00a0%</span>'
    )


def now(box: Box | None, smile: float, size: tuple[int, int] | None) -> str:
    """What the camera shows now.

    Args:
        box: of the face, in pixels; None if there is none.
        smile: its probability; NaN if there is no face.
        size: width and height of the picture in pixels; None before the first.
    """
    if size is None:
        told = "The camera is off. Press its picture, allow it, and then press Record."
        return f'<div class="f-now" role="status"><p class="g-quiet">{told}</p></div>'
    if box is None:
        told = "No face in the picture. It has to look at the camera, upright, with some light on it."
        return f'<div class="f-now" role="status" data-box=""><p class="g-quiet">{told}</p></div>'
    width, height = size
    share = (box.x / width, box.y / height, box.width / width, box.height / height)
    place = ",".join(f"{value:.4f}" for value in share)
    percent = f"{100 * smile:.0f}"
    return (
        f'<div class="f-now" data-box="{place}" data-smile="{smile:.3f}"><p><strong class="f-big">{percent}\u00a0%'
        "</strong> probability of a smile, now</p>"
        '<div class="g-meter" role="meter" aria-label="Probability of a smile" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent}"><div style="width:{percent}%"></div></div></div>'
    )


# ---------------------------------------------------------------------------------------------------------------------
# Curves


def _curve(times: np.ndarray, values: np.ndarray, x, y) -> str:
    """A path that breaks where no face was seen or no frame came."""
    path, pen, before = [], "M", -math.inf
    for time, value in zip(times.tolist(), values.tolist()):
        if math.isnan(value):
            pen = "M"
            continue
        if time - before > GAP:
            pen = "M"
        path.append(f"{pen}{x(time):.1f} {y(value):.1f}")
        if pen == "M":
            path.append("h.1")  # a face that was seen once is a dot
        pen, before = "L", time
    return f'<path class="f-curve" d="{"".join(path)}"/>'


def _scale(width: float, top: float, bottom: float, left: float) -> str:
    lines = ""
    for share, label in ((0, "0 %"), (0.5, "50 %"), (1, "100 %")):
        y = bottom - share * (bottom - top)
        lines += f'<line class="f-grid" x1="{left}" x2="{width - 4}" y1="{y:.1f}" y2="{y:.1f}"/>'
        lines += f'<text class="g-tick" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    return lines


def live_curve(session: LiveSession, clock: float) -> str:
    """The probability of a smile over the last minutes, and when the partner said what."""
    width, height, left, top, bottom = 440, 176, 50, 26, 136
    first = clock - SHOWN_SECONDS

    def x(time: float) -> float:
        return left + (width - left - 6) * (time - first) / SHOWN_SECONDS

    def y(value: float) -> float:
        return bottom - value * (bottom - top)

    times, smiles = np.array(session.seconds), np.array(session.smiles)
    marks, number = "", 0
    for said in session.said:
        if said.role != "assistant":
            continue
        number += 1
        if said.at >= first:
            at = x(said.at)
            marks += f'<line class="f-mark" x1="{at:.1f}" x2="{at:.1f}" y1="{top - 6}" y2="{bottom}"/>'
            marks += f'<text class="g-tick" x="{at:.1f}" y="{top - 11}" text-anchor="middle">{number}</text>'
    ticks = "".join(
        f'<text class="g-tick" x="{x(clock - 60 * minutes):.1f}" y="{bottom + 18}" '
        f'text-anchor="{"end" if not minutes else "middle" if minutes < 3 else "start"}">'
        f"{'now' if not minutes else f'{minutes} min ago'}</text>"
        for minutes in (3, 2, 1, 0)
    )
    shown = smiles[times >= first] if len(times) else smiles
    seen = shown[~np.isnan(shown)]
    told = f"on average {100 * seen.mean():.0f} %" if len(seen) else "no face seen"
    return (
        '<section class="g-panel"><h2>Your smile over the last minutes</h2>'
        f'<svg class="f-plot" viewBox="0 0 {width} {height - 14}" role="img" '
        f'aria-label="Probability of a smile over the last three minutes: {told}">'
        f"{_scale(width, top, bottom, left)}{marks}"
        f"{_curve(times[times >= first], shown, x, y) if len(seen) else ''}{ticks}</svg>"
        '<p class="g-quiet">Numbered lines: when the partner began a turn. The curve breaks where no face is seen.'
        "</p></section>"
    )


def recorded_timeline(recording: Recording) -> str:
    """The smile over a recording, the turns of both sides beneath, and a cursor that the player moves."""
    width, left, top, bottom = 720, 80, 14, 130
    end = max(recording.seconds, 1.0)

    def x(time: float) -> float:
        return left + (width - left - 8) * time / end

    def y(value: float) -> float:
        return bottom - value * (bottom - top)

    times = recording.table["time"].to_numpy(float)
    smiles = recording.table[FACE_COLUMNS[HAPPINESS]].to_numpy(float)
    seen = smiles[~np.isnan(smiles)]
    told = f"a face was seen in {100 * len(seen) / max(1, len(smiles)):.0f} % of the frames"
    told = f"{100 * seen.mean():.0f} % on average; {told}" if len(seen) else "no face was seen"
    stride = math.ceil(len(times) / POINTS) or 1
    if stride > 1:  # the means of stretches; one without a face is a gap
        pieces = range(0, len(times), stride)
        means = [smiles[first : first + stride] for first in pieces]
        smiles = np.array([piece[~np.isnan(piece)].mean() if (~np.isnan(piece)).any() else np.nan for piece in means])
        times = np.array([times[first : first + stride].mean() for first in pieces])
    lanes, height = "", bottom + 30
    if recording.session is not None:
        height, lanes = bottom + 96, _lanes(recording, x, bottom + 26)
    step = next((step for step in (1, 2, 5, 10, 15, 30, 60, 120, 300) if end / step <= 10), 600)
    ticks = "".join(
        f'<text class="g-tick" x="{x(second):.1f}" y="{height - 6}" text-anchor="middle">{clock(second)}</text>'
        for second in range(0, math.floor(end) + 1, step)
    )
    return (
        '<section class="g-panel"><h2>Timeline</h2><div class="g-scroll" tabindex="0" aria-label="Timeline">'
        f'<svg class="f-plot f-wide" viewBox="0 0 {width} {height}" role="img" data-end="{end:.3f}" '
        f'data-left="{left}" data-right="{width - 8}" aria-label="Smile over the recording: {told}">'
        f"{_scale(width, top, bottom, left)}{lanes}{_curve(times, smiles, x, y)}{ticks}"
        f'<line class="f-cursor" x1="{left}" x2="{left}" y1="{top - 8}" y2="{height - 20}"/></svg></div>'
        f'<p class="g-quiet">Probability of a smile: {told}. Click the timeline to move the player there.</p>'
        "</section>"
    )


def _lanes(recording: Recording, x, top: float) -> str:
    session = recording.session
    rewarded = assistant_turns(session["messages"])
    rewards = dict(zip(rewarded, recording.decomposition.rewards))
    parts = [
        f'<text class="g-tick" x="74" y="{top + 17 + 30 * lane}" text-anchor="end">{who}</text>'
        for lane, who in enumerate(("partner", "listener"))
    ]
    for index, (message, start, stop) in enumerate(zip(session["messages"], session["start"], session["stop"])):
        if not stop >= start:
            continue
        lane = 0 if index in rewards else 1
        kind = f"g-bar g-{side(rewards[index])}" if index in rewards else "f-heard"
        wide = max(2.0, x(stop) - x(start))
        told = f"{clock(start)} {plain(message['content'])}"
        if index in rewards:
            told = f"{signed(rewards[index], 2)} {told}"
        parts.append(
            f'<rect class="{kind}" x="{x(start):.1f}" y="{top + 30 * lane}" width="{wide:.1f}" height="24" rx="4">'
            f"<title>{told}</title></rect>"
        )
        if index in rewards and wide > 30:
            parts.append(
                f'<text class="f-inside" x="{x(start) + wide / 2:.1f}" y="{top + 16}" text-anchor="middle">'
                f"{signed(rewards[index])}</text>"
            )
    return "".join(parts)


def clock(seconds: float) -> str:
    """1:05."""
    return "–" if math.isnan(seconds) else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


# ---------------------------------------------------------------------------------------------------------------------
# Turns and what they add up to


def turns(
    messages: Sequence[Message], found: Decomposition, smiles: Sequence[float], starts: Sequence[float] = ()
) -> str:
    """The dialogue: beside each turn of the partner what its text is worth, and what the face showed."""
    if not messages:
        return (
            '<div class="g-thread f-thread"><div class="g-empty"><strong>Nothing has been said yet</strong>Let the '
            "scripted partner say something, good or bad, and let your face answer. Or type what was said.</div></div>"
        )
    rows, number = [], 0
    for index, message in enumerate(messages):
        at = f'<span class="f-at">{clock(starts[index])}</span> ' if index < len(starts) else ""
        seek = f' data-at="{starts[index]:.3f}"' if index < len(starts) and not math.isnan(starts[index]) else ""
        text = f'<div class="g-text">{plain(message["content"])}</div>'
        if message["role"] != "assistant":
            rows.append(f'<div class="g-turn g-user"{seek}><div class="g-who">{at}You</div>{text}</div>')
            continue
        # A turn that was said just now is rewarded in a moment.
        reward, better = (found.rewards[number], found.percentiles[number]) if number < len(found.rewards) else UNKNOWN
        smile = smiles[number] if number < len(smiles) else math.nan
        number += 1
        rows.append(
            f'<div class="g-turn g-assistant g-{side(reward)}"{seek}><div class="g-who">{at}Partner, turn {number}'
            f'</div>{text}<div class="g-foot"><span class="f-pair"><span class="f-label">text</span>'
            f"{reward_chip(reward, better)}</span>"
            f'<span class="f-pair"><span class="f-label">face</span>{smile_chip(smile)}</span></div></div>'
        )
    return f'<div class="g-thread f-thread" role="log" aria-label="Turns" tabindex="0">{"".join(rows)}</div>'


def table(
    messages: Sequence[Message],
    found: Decomposition,
    smiles: Sequence[float],
    starts: Sequence[float],
    steps: Decomposition | None = None,
) -> str:
    """A row for each turn of the partner.

    Args:
        found: what the words promise.
        steps: what is drawn of the rating; `found` if it is nothing else.
    """
    steps = steps or found
    rows = ""
    for number, index in enumerate(assistant_turns(messages)):
        smile, better = smiles[number], found.percentiles[number]
        rows += (
            f'<tr tabindex="0" data-at="{0 if math.isnan(starts[index]) else starts[index]:.3f}">'
            f"<th scope=row>{number + 1}</th><td>{clock(starts[index])}</td>"
            f"<td>{'–' if math.isnan(smile) else f'{100 * smile:.0f} %'}</td>"
            f"<td>{signed(found.rewards[number])}{'' if math.isnan(better) else f' ({100 * better:.0f} %)'}</td>"
            f"<td>{signed(steps.contributions[number], 2)}</td>"
            f'<td class="f-said">{plain(messages[index]["content"])}</td></tr>'
        )
    heads = ("Turn", "At", "Smile", "Text reward", "Adds", "Said")
    head = "".join(f"<th scope=col>{name}</th>" for name in heads)
    return (
        '<section class="g-panel"><h2>Turn by turn</h2><div class="g-scroll" tabindex="0" aria-label="Turn by turn">'
        f'<table class="f-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        '<p class="g-quiet">In brackets: the share of the reward model’s training turns that '
        "are worth less. Choose a row to move the player to its turn.</p></section>"
    )


def decomposition(found: Decomposition, smiles: Sequence[float]) -> str:
    """From the mean rating to the predicted one, a step for each turn, and the face's answer beneath each."""
    count = len(found.rewards)
    title = "<h2>What the predicted rating is made of</h2>"
    if not count:
        told = "As soon as the partner has said something, each of its turns is a step from an average rating to this"
        return f'<section class="g-panel">{title}<p class="g-quiet">{told} session’s.</p></section>'
    sums = found.base + np.concatenate([[0.0], np.cumsum(found.contributions)])
    low, high = float(sums.min()), float(sums.max())
    margin = max(0.15, 0.18 * (high - low))
    low, high = low - margin, high + margin
    step, left, top, bottom = 46, 54, 26, 170
    width, height = left + (max(count, 5) + 2) * step + 6, 238

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    parts = []
    for value in _ticks(low, high):
        parts.append(f'<line class="f-grid" x1="{left}" x2="{width - 4}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text class="g-tick" x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    parts.append(_level(left, step, y(sums[0]), f"{sums[0]:.1f}", "average", bottom))
    for number, contribution in enumerate(found.contributions):
        x, before, after = left + (number + 1) * step, y(sums[number]), y(sums[number + 1])
        upper, length = min(before, after), max(2.0, abs(after - before))
        told = f"Turn {number + 1} adds {signed(contribution, 2)}"
        parts.append(f'<line class="f-grid" x1="{x - 8}" x2="{x + 8}" y1="{before:.1f}" y2="{before:.1f}"/>')
        parts.append(
            f'<rect class="g-bar g-{"above" if contribution > 0 else "below"}" x="{x + 6}" y="{upper:.1f}" '
            f'width="{step - 12}" height="{length:.1f}" rx="4"><title>{told}</title></rect>'
            f'<text class="f-value" x="{x + step / 2}" y="{upper - 5:.1f}" text-anchor="middle">'
            f"{signed(contribution, 2)}</text>"
            f'<text class="g-tick" x="{x + step / 2}" y="{bottom + 18}" text-anchor="middle">{number + 1}</text>'
        )
        smile = smiles[number] if number < len(smiles) else math.nan
        middle = x + step / 2
        if math.isnan(smile):
            parts.append(f'<text class="g-tick" x="{middle}" y="{bottom + 44}" text-anchor="middle">–</text>')
        else:
            parts.append(
                f'<circle class="g-signal" cx="{middle}" cy="{bottom + 38}" r="{3 + 8 * smile:.1f}">'
                f"<title>Turn {number + 1}: smile {100 * smile:.0f} %</title></circle>"
                f'<text class="g-tick" x="{middle}" y="{bottom + 64}" text-anchor="middle">{100 * smile:.0f} %</text>'
            )
    parts.append(_level(left + (count + 1) * step, step, y(sums[-1]), f"{sums[-1]:.1f}", "rating", bottom))
    parts.append(f'<text class="g-tick" x="{left - 6}" y="{bottom + 42}" text-anchor="end">smile</text>')
    sum_told = " ".join(signed(value, 2) for value in found.contributions)
    which, why = (
        ("With hindsight", _in_hindsight(found.parts)) if found.parts else ("What the words promise", PROMISED)
    )
    give = "" if math.isnan(found.deviation) else f", give or take {found.deviation:.1f}"
    return (
        f'<section class="g-panel">{title}<p class="f-label">{which}</p>'
        f'<p class="g-rating" data-score="{found.rating:.4f}" data-base="{found.base:.4f}">{found.rating:.1f} '
        f"<small>of 9{give}</small></p>"
        f'<div class="g-scroll" tabindex="0" aria-label="Steps of the rating"><svg class="f-plot" '
        f'viewBox="0 0 {width} {height}" style="min-width:{min(0.85 * width, 2000):.0f}px;'
        f'max-width:{1.15 * width:.0f}px" role="img" aria-label="From an average rating of {found.base:.2f} the turns '
        f'add {sum_told}, which makes {found.rating:.2f}">{"".join(parts)}</svg></div>'
        f'<p class="g-quiet">{found.base:.2f} {" ".join(signed(value, 2) for value in found.contributions)} = '
        f"{found.rating:.2f}. {why}</p></section>"
    )


PROMISED = (
    "The steps come from the words of the turns alone; the dots beneath are how much of a smile they met. Where the "
    "two disagree, learning from both has something to gain."
)


def _in_hindsight(parts: dict[str, float]) -> str:
    told = ", ".join(f"{name} {signed(value, 2)}" for name, value in parts.items())
    return (
        f"Of all steps together: {told}. They come from what was said, what was answered, and what the face showed, "
        "as far as rated sessions have shown that each tells of the rating. What was not answered or not seen adds "
        "nothing. Since this looks at what came after a turn, it explains, and never rewards a policy."
    )


def _level(x: float, step: float, y: float, value: str, name: str, bottom: float) -> str:
    return (
        f'<line class="f-level" x1="{x + 6}" x2="{x + step - 6}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="f-value" x="{x + step / 2}" y="{y - 7:.1f}" text-anchor="middle">'
        f"{value.translate(MINUS)}</text>"
        f'<text class="g-tick" x="{x + step / 2}" y="{bottom + 18}" text-anchor="middle">{name}</text>'
    )


def _ticks(low: float, high: float) -> list[float]:
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 1e9) if (high - low) / step <= 6)
    return [round(step * number, 3) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


# ---------------------------------------------------------------------------------------------------------------------
# Words


def note(text: str, *, problem: bool = False) -> str:
    """What there is to say of what was asked for; "" for nothing."""
    return f'<div class="g-note{" f-problem" if problem else ""}" role="status">{plain(text)}</div>' if text else ""


HEAD = (
    '<header class="g-head"><h1>A face, and what it says of each turn</h1><p>While somebody talks to you, your face '
    "answers. Here a small classifier reads how much of a smile that is, turn by turn, beside what a reward model "
    "makes of the words alone.</p></header>"
)
PRIVACY = (
    '<p class="f-promise"><strong>Frames are processed in memory only.</strong> None is stored, logged or sent on; '
    "what stays are times and probabilities, until you close the tab. Your browser keeps the turns of this tab and "
    "two numbers of each, so that a reload does not lose them. A video that you upload lies on this server while it "
    "is looked at, and is deleted then.</p>"
)
EMPTY = (
    '<div class="g-thread f-thread"><div class="g-empty"><strong>No recording yet</strong>Upload a video of a '
    "listener’s face, with a transcript if you have one, or take the example.</div></div>"
)
ABOUT = """<details class="g-other f-about"><summary>What the classifier can’t do</summary>
<ul>
<li>It sees a smile, and not a feeling: people smile out of politeness or unease, and are glad without a smile.</li>
<li>Only happiness and a neutral face are read well (happiness: balanced accuracy .92 on 459 unseen persons). Anger,
disgust, fear, sadness and surprise are unreliable, and there is no contempt. Nothing here stands on them.</li>
<li>It learned from press photographs. It has not been validated on video of people who talk, nor on children, covered
faces or profiles, and nobody has measured for whom it reads worse.</li>
<li>The detector wants an upright face that looks at the camera; where it sees none there is no value, never a
guess.</li>
<li>DeepFace, by the switch, is another model with other errors; these limits hold for it too.</li>
<li>The reward model reads words only. It learned from simulated small talk, and knows little else.</li>
</ul><p>Do not decide about anybody by this. Inferring emotions at work or in education is prohibited in the European
Union but for medical or safety reasons, and whoever is filmed has to know and agree.</p></details>"""
