"""Pieces of HTML and SVG: rewards in words and to scale, and text from outside that stays text."""

import html
import math
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from browsing import tiny_models
from hypothesis import given
from hypothesis import strategies as st
from talks import dialogue

from geli_hf.demo import chat_html
from geli_hf.demo.conversation import ALIGNED, BASE, Reply
from geli_hf.demo.look import note, plain, reward_chip, signed, timeline

EVIL = "<script>alert(1)</script> ${x} {{y}} {{#each}} `z` @children \" ' & <img src=x onerror=alert(2)>"


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


def test_a_reward_in_words():
    assert "▲ +0.8, better than 79\u00a0% of turns<" in reward_chip(0.8, 0.79)
    assert "▼ −1.0<" in reward_chip(-1.0, math.nan)  # of an untrained model
    assert "no reward yet" in reward_chip(math.nan, math.nan)
    assert "was −0.2" in reward_chip(0.8, 0.79, before=-0.2)
    assert "was" not in reward_chip(0.8, 0.79, before=0.81)


def bars(svg: str) -> list[tuple[float, float]]:
    """Return (y, height) of each bar."""
    return [(float(bar.get("y")), float(bar.get("height"))) for bar in ElementTree.fromstring(svg).iter("rect")]


def test_the_timeline_is_to_scale():
    (up, high), (down, low), (_, greatest) = bars(timeline([1.0, -0.5, -4.0]))
    axis = down
    assert up + high == pytest.approx(axis, abs=0.1)
    assert high / low == pytest.approx(2, abs=0.05)
    assert greatest / low == pytest.approx(8, abs=0.1)
    assert len(bars(timeline([1.0, math.nan]))) == 1
    root = ElementTree.fromstring(timeline([1.0, -0.5], signal=[0.5, math.nan]))
    assert "turn 1 +1.0" in root.get("aria-label")
    assert len(list(root.iter("circle"))) == 1


def test_text_from_outside_stays_text():
    models = tiny_models()
    conversation = dialogue(EVIL, EVIL).rescore(models.score, models.rating)
    choosing = conversation.add_message(EVIL, 3.0).offer([Reply(ALIGNED, EVIL), Reply(BASE, EVIL)], blind=False)
    chosen = choosing.rescore(models.score, models.rating).decide(0, 4.0).rescore(models.score, models.rating)
    for shown in (
        note(EVIL),
        chat_html.thread(conversation, models),
        chat_html.thread(choosing, models),
        chat_html.thread(chosen, models),
        chat_html.thread(conversation, models, [Reply(ALIGNED, EVIL)]),
    ):
        read = Reader(shown)
        assert not read.tags & {"script", "img"}
        assert "onerror" not in read.names
        assert EVIL in read.text


def test_blind_replies_reveal_nothing_of_their_authors():
    models = tiny_models()
    replies = [Reply(BASE, "hm"), Reply(ALIGNED, "great")]
    conversation = dialogue("hi").offer(replies, blind=True).rescore(models.score, models.rating)
    shown = chat_html.thread(conversation, models) + chat_html.thread(dialogue("hi"), models, replies, blind=True)
    for clue in ("ligned", "ase policy", "better than", "g-above", "g-below"):
        assert clue not in shown


def test_a_closed_conversation_offers_no_change():
    shown = chat_html.thread(replace(dialogue("hi", "hello"), closed=True), tiny_models())
    assert "data-act" not in shown
