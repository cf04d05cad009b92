"""The chat page as HTML: the session at a glance, what another reply would have been worth, and the finish."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from .conversation import ALIGNED, BASE, TIE, Conversation, Turn
from .look import HIGHEST, LOWEST, NO_BREAK, bar, chip, gauge, note, panel, percent, plain, side, timeline

VOTED = {ALIGNED: "You chose the one after training.", BASE: "You chose the one before training.", TIE: "A tie."}
CARD_SIZE = (1200, 630)  # as social networks show pictures of links
INK, PAPER, QUIET = "#ffffff", "#312e81", "#c7c5f7"


def reply_chip(share: float, turn: Turn) -> str:
    """Return what stands beneath a reply: what it is worth, and whom the visitor chose."""
    vote = f' <span class="g-quiet">{VOTED[turn.vote]}</span>' if turn.vote else ""
    return f'<div class="g-foot">{chip(share)}{vote}</div>'


def marks(turn: Turn) -> str:
    """Return signs for what the visitor did with a reply."""
    thumb = "" if math.isnan(turn.thumb) else "👍" if turn.thumb else "👎"
    return thumb + "↻" * min(3, turn.regenerated) + "✎" * bool(turn.rewrite) + "⧉" * bool(turn.copied)


def session(conversation: Conversation, shares: Sequence[float], deviation: float, votes: Mapping[str, int]) -> str:
    """Return the predicted rating, the timeline, and the visitor's votes."""
    count = len(conversation.replies)
    if not count:
        return panel("My guess of your rating", '<p class="g-quiet">It comes with the first reply.</p>')
    body = gauge(min(max(conversation.score, LOWEST), HIGHEST), deviation) + "<h2>Reply by reply</h2>"
    body += timeline(shares, [marks(turn) for turn in conversation.replies])
    if total := sum(votes.values()):
        body += f'<p class="g-votes">Of your {total} blind votes, {votes[ALIGNED]} were for “after training”, '
        body += f"{votes[BASE]} for “before”, {votes[TIE]} for neither.</p>"
    # The style sheet shows what can be done after so many replies.
    return f'<div data-replies="{min(count, 3)}">{panel("My guess of your rating", body)}</div>'


def finished(conversation: Conversation, shares: Sequence[float], kept: str) -> str:
    """Return how a rated conversation ended.

    Args:
        conversation: with the visitor's rating.
        shares: share of replies that each reply is better than.
        kept: what became of the session.
    """
    body = f'<p class="g-rating">You said {conversation.rating:.0f}. I guessed {conversation.score:.1f}.</p>'
    for name, index in zip(("This turn helped", "This turn cost"), extremes(shares)):
        quote = plain(textwrap.shorten(conversation.replies[index].text, 160, placeholder="…"))
        body += f"<p><b>{name} the most:</b> “{quote}” {chip(shares[index])}</p>"
    return f"<div data-finished>{panel('Finished', body + note(kept))}</div>"


def extremes(shares: Sequence[float]) -> tuple[int, int]:
    """Return the places of the greatest and the least share; 0 where none is known."""
    places = [place for place, share in enumerate(shares) if not math.isnan(share)] or [0]
    return max(places, key=shares.__getitem__), min(places, key=shares.__getitem__)


def what_if(share: float, others: Mapping[str, float], rewritten: bool) -> str:
    """Return bars: what a reply is worth, and what others in its place would be.

    Args:
        share: share of replies that it is better than.
        others: shares by name.
        rewritten: whether the first of them is the visitor's.
    """
    verdict = "You beat it!" if rewritten and next(iter(others.values())) > share else "The reply still wins."
    rows = {"The reply": share, **others}
    bars = "".join(bar(plain(name), value, side(value - 0.5)) for name, value in rows.items())
    return (f'<p role="status"><b>{verdict}</b></p>' if rewritten else "") + bars


def kept(repo: str | None, minutes: float) -> str:
    """Return where a session that was collected goes."""
    where = f"will be uploaded to a private dataset within {minutes:g} minutes" if repo else "stays on this server"
    return f"Thank you: the session was kept. It {where}. Your data, below, has its key, by which you can delete it."


# By the result of `Collection.delete`.
DELETED = {
    "here": "The session is deleted. It had not been uploaded.",
    "hub": "The session is deleted, and the dataset's history was rewritten without it. What somebody downloaded "
    "before, or a model learned from it, can't be recalled.",
    "unknown": "There is no session of that key here. Was it copied whole, and was the session kept at all?",
}


def share_card(quote: str, share: float, link: str) -> bytes:
    """Draw a picture to share, as PNG: a reply, what it is worth, and where this is."""
    image = Image.new("RGB", CARD_SIZE, PAPER)
    draw = ImageDraw.Draw(image)

    def write(place: tuple[int, int], text: str, size: int, colour: str = INK) -> None:
        font = ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), size)
        draw.multiline_text(place, text, colour, font, spacing=size // 3)

    lines = textwrap.wrap(" ".join(quote.split()), 46, max_lines=4, placeholder=" …")
    write((70, 60), "A reward for every turn", 34, QUIET)
    write((70, 140), "“" + "\n".join(lines) + "”", 40)
    write((70, 400), percent(share).replace(NO_BREAK, " "), 110)
    write((420, 455), "of replies are\nworse than this one", 36)
    write((70, 570), link, 26, QUIET)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
