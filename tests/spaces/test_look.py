"""Pieces of HTML and SVG: shares in words and to scale, and text from outside that stays text."""

import html
import io
import math
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from talks import dialogue

from geli_hf.demo import chat_html
from geli_hf.demo.conversation import ALIGNED, BASE, TIE
from geli_hf.demo.look import bar, chip, gauge, note, plain, signed, timeline

EVIL = "<script>alert(1)</script> ${x} {{y}} {{#each}} `z` @children \" ' & <img src=x onerror=alert(2)>"
VOTES = {ALIGNED: 2, BASE: 1, TIE: 0}


class Reader(HTMLParser):
    """The tags of a page, the names of their attributes, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.names, self.text = set(), set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.names |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text += data


@given(st.text())
def test_plain_shows_the_text_and_nothing_else(text):
    written = plain(text)
    assert html.unescape(written) == html.unescape(html.escape(text))
    assert not set(written) & set("<>\"'`${}@")


@pytest.mark.parametrize(
    ("value", "text"), [(0.84, "+0.8"), (-0.26, "−0.3"), (0.04, "0.0"), (-0.01, "0.0"), (math.nan, "–")]
)
def test_signed(value, text):
    assert signed(value) == text


@pytest.mark.parametrize(
    ("share", "kind", "text"),
    [
        (0.79, "above", "79\u00a0%"),
        (0.4, "below", "40\u00a0%"),
        (0.52, "even", "52\u00a0%"),
        (math.nan, "unknown", "no"),
    ],
)
def test_one_number_is_coloured_around_a_half(share, kind, text):
    read = Reader(chip(share))
    assert text in read.text
    assert f"g-{kind}" in chip(share)
    assert not set("▲▼+−") & set(read.text)


def bars(svg: str) -> list[tuple[float, float]]:
    """Return (y, height) of each bar."""
    drawn = ElementTree.fromstring(svg.replace("&nbsp;", " "))
    return [(float(bar.get("y")), float(bar.get("height"))) for bar in drawn.iter("rect")]


def test_the_timeline_is_to_scale():
    drawn = timeline([1.0, 0.25, 0.0, math.nan], ["👍", "", "", "✎"])
    (up, high), (axis, low), (_, least) = bars(drawn)  # none for NaN
    assert up + high == pytest.approx(axis, abs=0.1)
    assert high / low == pytest.approx(2, abs=0.05)
    assert least / low == pytest.approx(2, abs=0.05)
    assert "👍" in drawn
    assert "✎" in drawn


def test_bars_and_gauge_are_to_scale():
    assert "width:25%" in bar("a", 0.25, "below")
    assert "width:0%" in bar("a", math.nan, "unknown")
    assert "width:50%" in gauge(5.5, math.nan)
    assert "give or take 1.2" in gauge(5.5, 1.2)


def test_text_from_outside_stays_text():
    conversation = replace(dialogue(EVIL, EVIL), rating=3.0, score=4.0)
    shown = [
        note(EVIL),
        chat_html.finished(conversation, [0.5], EVIL),
        chat_html.what_if([("The reply", "", 0.5), ("You", EVIL[:70], 0.5)]),
    ]
    for part in shown:
        read = Reader(part)
        assert not read.tags & {"script", "img"}
        assert "onerror" not in read.names
        assert EVIL[:40] in read.text


def test_the_page_speaks_of_training_and_not_of_policies():
    conversation = dialogue("hi", "hello", "how", "well")
    pages = [chat_html.session(conversation, [0.5, 0.7], 1.2, VOTES), chat_html.HOW, *chat_html.VOTED.values()]
    text = " ".join(Reader(page).text for page in pages).lower()
    for word in ("policy", "aligned", "base", "standard deviation", "reward model"):
        assert word not in text
    assert "2 of 3" in text


def test_the_finish_names_what_helped_and_what_cost():
    conversation = replace(dialogue("hi", "hello", "how", "well", "so", "hm"), rating=3.0, score=7.12)
    text = Reader(chat_html.finished(conversation, [0.4, 0.9, math.nan], "Nothing was kept.")).text
    assert "You said 3. I guessed 7.1." in text
    assert text.index("helped") < text.index("well") < text.index("cost") < text.index("hello")
    assert "hm" not in text


def test_what_the_visitor_did_is_on_the_timeline():
    turn = dialogue("hi", "hello").turns[1]
    assert chat_html.marks(turn) == ""
    assert chat_html.marks(replace(turn, thumb=1.0)) == "👍"
    assert chat_html.marks(replace(turn, thumb=0.0, regenerated=2, rewrite="a", copied=1)) == "👎↻✎⧉"


@pytest.mark.parametrize("rewritten", [0.3, 0.7])
def test_the_comparison_says_who_won(rewritten):
    text = Reader(
        chat_html.what_if([("The reply", "", 0.5), ("You", "mine", rewritten), ("A question", "why", 0.4)])
    ).text
    assert ("beat" in text) == (rewritten > 0.5)
    assert ("still wins" in text) == (rewritten < 0.5)
    assert "wins" not in Reader(chat_html.what_if([("The reply", "", 0.5), ("A question", "why", 0.4)])).text


@pytest.mark.parametrize("share", [0.0, 1.0, math.nan])
def test_the_card_is_a_picture_of_a_fixed_size(share):
    quote = "A long reply, " * 40 + " 🐕 \ud83d"
    assert Image.open(io.BytesIO(chat_html.share_card(quote, share, "host"))).size == chat_html.CARD_SIZE
