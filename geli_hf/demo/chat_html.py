"""The chat page as HTML: the session at a glance, what another reply would have been worth, and the finish."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from .collection import Collection
from .conversation import ALIGNED, BASE, TIE, Conversation, Turn
from .look import HIGHEST, LOWEST, NO_BREAK, bar, chip, gauge, note, panel, percent, plain, side, timeline

VOTED = {ALIGNED: "You chose the one after training.", BASE: "You chose the one before training.", TIE: "A tie."}
WRITING = '<span class="g-writing"></span>'  # while it is shown, there is something to stop
HOW = (
    "<ol><li>Say something. A small AI answers.</li><li>See how many replies its answer beats.</li>"
    "<li>Write a better one, and see if it is.</li></ol>"
)
CARD_SIZE = (1200, 630)  # as social networks show pictures of links
INK, PAPER, QUIET, ACCENT = "#ffffff", "#312e81", "#c7c5f7", "#8b88f0"


def reply_foot(index: int, share: float, turn: Turn) -> str:
    """Return what stands beneath the reply at `index` of the turns: its worth, the visitor's choice, and Copy."""
    vote = f'<span class="g-quiet">{VOTED[turn.vote]}</span>' if turn.vote else ""
    copy = f'<button type="button" class="g-copy" data-index="{index}">{"Copied" if turn.copied else "Copy"}</button>'
    return f'<div class="g-foot">{chip(share)}{vote}{copy}</div>'


def marks(turn: Turn) -> str:
    """Return signs for what the visitor did with a reply."""
    thumb = "" if math.isnan(turn.thumb) else "👍" if turn.thumb else "👎"
    return thumb + "↻" * bool(turn.regenerated) + "✎" * bool(turn.rewrite or turn.edited) + "⧉" * bool(turn.copied)


def session(conversation: Conversation, shares: Sequence[float], deviation: float, votes: Mapping[str, int]) -> str:
    """Return the predicted rating, the timeline, and the visitor's votes."""
    count = len(conversation.replies)
    if not count:
        return panel("How it works", HOW)
    body = gauge(min(max(conversation.score, LOWEST), HIGHEST), deviation) + "<h2>Reply by reply</h2>"
    body += timeline(shares, [marks(turn) for turn in conversation.replies])
    if total := sum(votes.values()):
        body += f'<p class="g-votes">Your blind votes: <b>{votes[ALIGNED]} of {total}</b> for “after training”, '
        body += f"{votes[BASE]} for “before”, {votes[TIE]} alike.</p>"
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
    best, worst = extremes(shares)
    helped = "helped the most" if shares[best] >= 0.5 else "cost the least"
    cost = "cost the most" if shares[worst] < 0.5 else "helped the least"
    for name, index in ((helped, best), (cost, worst)):
        quote = plain(textwrap.shorten(conversation.replies[index].text, 160, placeholder="…"))
        body += f"<p><b>This reply {name}:</b> “{quote}” {chip(shares[index])}</p>"
    return f"<div data-finished>{panel('Finished', body + note(kept))}</div>"


def extremes(shares: Sequence[float]) -> tuple[int, int]:
    """Return the places of the greatest and the least share; 0 where none is known."""
    places = [place for place, share in enumerate(shares) if not math.isnan(share)] or [0]
    return max(places, key=shares.__getitem__), min(places, key=shares.__getitem__)


def what_if(rows: Sequence[tuple[str, str, float]]) -> str:
    """Return bars: what a reply is worth, and what others in its place would be.

    Args:
        rows: name, text and share of replies that it is better than; the reply first, then the visitor's if any.
    """
    bars = "".join(
        bar(f"<b>{name}</b> {plain(textwrap.shorten(text, 80, placeholder='…'))}", share, side(share - 0.5))
        for name, text, share in rows
    )
    if rows[1][0] != "You":
        return bars
    verdict = "You beat it!" if rows[1][2] > rows[0][2] else "The reply still wins. Try again?"
    return f'<p class="g-verdict" role="status">{verdict}</p>{bars}'


def kept(collection: Collection) -> str:
    """Return where a session that was collected goes."""
    where = f"will be uploaded to a private dataset within {collection.minutes:g} minutes"
    where = where if collection.repo else "stays on this server"
    return f"Thank you: the session was kept. It {where}. With the key under “Your data” you can delete it."


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

    def write(place: tuple[int, int], text: str, size: int, colour: str = INK, font: str = "DejaVuSans") -> None:
        loaded = ImageFont.truetype(str(Path(mpl.get_data_path(), f"fonts/ttf/{font}.ttf")), size)
        draw.multiline_text(place, text, colour, loaded, spacing=size // 3)

    lines = textwrap.wrap(" ".join(quote.split()), 44, max_lines=4, placeholder=" …")
    write((70, 56), "A reward for every turn", 34, QUIET, "DejaVuSans-Bold")
    write((70, 132), "“" + "\n".join(lines) + "”", 40)
    write((70, 370), percent(share).replace(NO_BREAK, ""), 104, font="DejaVuSans-Bold")
    write((430, 396), "of replies are\nworse than this one", 34)
    draw.rounded_rectangle((70, 512, 1130, 532), 10, "#4a47a3")
    draw.rounded_rectangle((70, 512, 90 + 1040 * (0 if math.isnan(share) else share), 532), 10, ACCENT)
    write((70, 562), f"Can you beat it?  {link}", 28, QUIET)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
