"""Event handlers of the chat page. Most return its `view`: message box, conversation, its chat, session, and bars."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import gradio as gr

from ..data.rows import to_json_line
from ..models.geli_reward.text_geli import valid_unicode
from . import chat_html
from .camera import FaceReader, Watch, read_frame
from .collection import Collection
from .conversation import ALIGNED, BASE, TIE, Conversation, Turn
from .limits import Cameras, Limits, Quota
from .look import HIGHEST, LOWEST, note, smile_meter
from .policies import Models
from .serving import address_of, for_browser, guarded, html, on_gpu, refuse

AFTER, BEFORE, BLIND = "After training", "Before training", "Blind: A or B"
MODES = {AFTER: (ALIGNED,), BEFORE: (BASE,), BLIND: (ALIGNED, BASE)}
RATED_TURNS = 3  # replies before the rating is asked for
UNCHANGED = (gr.skip(),) * 5  # of a `view`
STARTERS = (
    "My dog won a prize at the village show!",
    "I failed my driving test today.",
    "What should I do with a rainy Sunday?",
)
OPTIONS = [
    {"label": label, "value": value}
    for label, value in (("A is better", "0"), ("B is better", "1"), ("They are alike", TIE))
]
DISMISSAL, QUESTION = "Whatever. That is not important.", "Oh! How did you feel about it? Tell me more."
SAY, JOINER = "Say something", "\u2060"
CLOSED = "This conversation is finished. Begin a new one."
ALL_IN_USE = "All cameras are in use. Leave yours on: it begins when a place is free."
BUSY = "That was a lot within a minute. Please wait a moment."


class Visit:
    """State of one tab that outlasts a conversation: its latest change, and the visitor's votes."""

    def __init__(self):
        self.stopped, self.latest, self.votes = False, 0, dict.fromkeys((ALIGNED, BASE, TIE), 0)

    def begin(self) -> int:
        """Number a change of the conversation; a reply with an earlier number is abandoned."""
        self.stopped, self.latest = False, self.latest + 1
        return self.latest


class ChatEvents:
    """Event handlers of the chat page.

    Args:
        models: policies and reward model.
        collection: where rated sessions of those who agree are written.
        faces: reads faces; None: the page has no camera.
        limits: of an address.
    """

    def __init__(self, models: Models, collection: Collection, faces: FaceReader | None, limits: Limits):
        self.models, self.collection, self.faces, self.limits = models, collection, faces, limits
        self.quota, self.cameras = Quota(), Cameras(limits)
        self._stream, self._score, self._rating = map(on_gpu, (models.stream, models.score, models.rating))
        self._html_props = html().get_config()

    # What the visitor sees

    def view(self, conversation: Conversation, visit: Visit, bars: object = "") -> tuple:
        shares = self._shares(conversation)
        session = chat_html.session(conversation, shares, self.models.uncertainty, visit.votes)
        return gr.skip(), conversation, self._chat(conversation), session, bars

    def _shares(self, conversation: Conversation) -> list[float]:
        return [self.models.reward.percentile(reward) for reward in conversation.rewards]

    def _chat(self, conversation: Conversation, typing: Mapping[str, str] | None = None) -> dict:
        """Update the chat: the messages, and those that are being written."""
        shares, messages = iter(self._shares(conversation)), []
        for index, turn in enumerate(conversation.turns):
            messages.append({"role": turn.role, "content": [as_text(turn.text)]})
            if turn.role == "assistant":
                foot = chat_html.reply_foot(index, next(shares, math.nan), turn)
                messages[-1]["content"].append(self._html(foot))
        texts = typing.values() if typing else [reply.text for reply in conversation.choice]
        parts = [as_text(text) or "…" for text in texts]
        if len(parts) > 1:  # blind: a number beside a reply would tell which one the reward model likes
            parts = [part for name, text in zip("AB", parts) for part in (self._html(f"<b>{name}</b>"), text)]
        if typing:
            parts.append(self._html(chat_html.WRITING))
        if parts:
            messages.append({"role": "assistant", "content": parts, "options": OPTIONS if conversation.choice else []})
        thumbs = [{1.0: "Like", 0.0: "Dislike"}.get(reply.thumb) for reply in conversation.replies]
        return gr.update(value=messages, feedback_value=thumbs)

    def _html(self, value: str) -> dict:
        """Return a part of a message: cheaper than a component, which Gradio would make anew for every token."""
        props = self._html_props | {"value": value}
        return {"type": "component", "component": "html", "value": value, "constructor_args": {}, "props": props}

    # Replies

    def _take(self, request: gr.Request, kind: str, most: int) -> None:
        if not self.quota.take(address_of(request), kind, most):
            raise refuse(BUSY)

    def _answer(self, conversation, visit, mode, request, **history) -> Iterator:
        """Show the replies to the last message while they are written, then add one, or offer the choice.

        Args:
            conversation: ends with the user.
            visit: of the tab.
            mode: one of `MODES`.
            request: of the visitor.
            history: fields of the reply that it has from the one in whose place it comes.
        """
        self._take(request, "reply", self.limits.replies_per_minute)
        number, sources = visit.begin(), random.sample(MODES[mode], len(MODES[mode]))
        streams = {source: self._stream(source, conversation.messages) for source in sources}
        texts = dict.fromkeys(sources, "")
        yield gr.update(value=""), conversation, self._chat(conversation, texts), gr.skip(), ""
        while streams and not visit.stopped and visit.latest == number:
            for source in list(streams):
                text = next(streams[source], None)
                if text is None:
                    del streams[source]
                else:
                    texts[source] = text
            if visit.latest == number:
                yield gr.skip(), gr.skip(), self._chat(conversation, texts), gr.skip(), gr.skip()
        for stream in streams.values():
            stream.close()
        if visit.latest != number:  # the visitor has changed the conversation meanwhile
            yield UNCHANGED
            return
        replies = [Turn("assistant", text, source, time.time(), **history) for source, text in texts.items() if text]
        if not replies:
            gr.Info("Stopped before a word was said." if visit.stopped else "There was no answer. Try again.")
        elif len(replies) > 1:
            conversation = replace(conversation, choice=tuple(replies))
        else:
            conversation = conversation.add_reply(replies[0]).rescore(self._score, self._rating)
        yield self.view(conversation, visit)

    @guarded
    def send(self, text, conversation, visit, mode, request: gr.Request, **history):
        """Add the visitor's message and the reply to it.

        Raises:
            refuse: the message is empty or too long, or the conversation is finished or awaits a vote.
        """
        problem = CLOSED if conversation.closed else self.limits.problem(text, len(conversation.turns))
        if conversation.choice:
            problem = "Vote first: the conversation goes on with the reply that you prefer."
        if problem:
            raise refuse(problem)
        conversation = conversation.add_message(text.replace(JOINER, "").strip(), time.time())
        yield from self._answer(conversation, visit, mode, request, **history)

    @guarded
    def start(self, conversation, visit, mode, event: gr.SelectData, request: gr.Request):
        """Begin with one of the starters."""
        yield from self.send(event.value["text"], conversation, visit, mode, request)

    @guarded
    def retry(self, conversation, visit, mode, request: gr.Request):
        """Write another reply to the last message.

        Raises:
            refuse: there is no message, or the conversation is finished.
        """
        if conversation.closed or not conversation.turns:
            raise refuse(CLOSED if conversation.closed else "There is no reply to write again.")
        last, history = conversation.turns[-1], {}
        if last.role == "assistant":
            conversation = conversation.cut(len(conversation.turns) - 1)
            history = {"regenerated": last.regenerated + 1, "edited": last.edited}
        yield from self._answer(replace(conversation, choice=()), visit, mode, request, **history)

    @guarded
    def edit(self, conversation, visit, mode, event: gr.EditData, request: gr.Request):
        """Say one of the visitor's messages in other words, and go on from there.

        Raises:
            refuse: it is no message of the visitor.
        """
        turns, index = conversation.turns, event.index
        if type(index) is not int or index not in range(0, len(turns), 2):
            raise refuse("Only what you said can be said again.")
        history = {"edited": turns[index + 1].edited + 1} if index + 1 < len(turns) else {}
        conversation = conversation if conversation.closed else conversation.cut(index)
        yield from self.send(event.value, conversation, visit, mode, request, **history)

    def stop(self, visit):
        """Keep what is written of the reply."""
        visit.stopped = True

    @guarded
    def undo(self, conversation, visit):
        """Take back the last message and its reply.

        Raises:
            refuse: the conversation is finished.
        """
        if conversation.closed:
            raise refuse(CLOSED)
        visit.begin()
        asked = [index for index, turn in enumerate(conversation.turns) if turn.role == "user"]
        return self.view(conversation.cut(asked[-1] if asked else 0).rescore(self._score, self._rating), visit)

    @guarded
    def clear(self, visit):
        """Begin a new conversation, of which nothing is rated or agreed to yet."""
        visit.begin()
        _, *rest = self.view(Conversation(), visit)
        return gr.update(value=""), *rest, Watch(), None, False, ""

    # What the visitor does with replies

    @guarded
    def vote(self, conversation, visit, event: gr.EventData):
        """Continue with the reply that the visitor prefers."""
        chosen = conversation.decide(str(_data(event).get("value")), time.time())
        if chosen is conversation:
            return UNCHANGED
        visit.votes[chosen.turns[-1].vote] += 1
        return self.view(chosen.rescore(self._score, self._rating), visit)

    @guarded
    def feel(self, conversation, visit, event: gr.LikeData):
        """Note the thumb of a reply."""
        thumb = float(event.liked) if isinstance(event.liked, bool) else math.nan
        return self._mark(conversation, visit, event.index, lambda turn: {"thumb": thumb})

    @guarded
    def copied(self, conversation, visit, event: gr.EventData):
        """Note that the visitor copied a reply."""
        return self._mark(conversation, visit, _data(event).get("index"), lambda turn: {"copied": turn.copied + 1})

    def _mark(self, conversation, visit, index, changes) -> tuple:
        if conversation.closed or type(index) is not int or index not in range(1, len(conversation.turns), 2):
            return UNCHANGED
        marked = conversation.mark(index, **changes(conversation.turns[index]))
        return self.view(marked, visit, bars=gr.skip())

    @guarded
    def beat(self, text, conversation, visit, request: gr.Request):
        """Compare the last reply with the visitor's own words in its place, and with what others would say.

        Raises:
            refuse: there is no reply, or the conversation is finished.
        """
        text = valid_unicode(text.replace(JOINER, "").strip())
        index = max((index for index, turn in enumerate(conversation.turns) if turn.role == "assistant"), default=0)
        if not index or conversation.closed or len(text) > self.limits.characters:
            raise refuse(CLOSED if conversation.closed else "There is nothing to compare yet.")
        self._take(request, "comparison", self.limits.replies_per_minute)
        said = conversation.turns[index - 1].text
        others = {"You": text} if text else {}
        others |= {"A brush-off": DISMISSAL, "An echo": said, "A question": QUESTION}
        before, rows = conversation.messages[:index], [("The reply", "", self._shares(conversation)[-1])]
        for name, other in others.items():
            reward = self._score([*before, {"role": "assistant", "content": other}])[-1]
            rows.append((name, other, self.models.reward.percentile(reward)))
        if text:
            conversation = conversation.mark(index, rewrite=text)
        return self.view(conversation, visit, chat_html.what_if(rows))

    # Sessions

    @guarded
    def rate(self, conversation, visit, watch, rating, consent, keys, request: gr.Request):
        """Finish the conversation; with consent, and only then, write it.

        Raises:
            refuse: the conversation is too short or finished, or the rating is none.
        """
        if conversation.closed or conversation.choice or len(conversation.replies) < RATED_TURNS:
            raise refuse(CLOSED if conversation.closed else "Talk a little more: it is rated after three replies.")
        if type(rating) is not int or not LOWEST <= rating <= HIGHEST:
            raise refuse(f"Choose a number from {LOWEST} to {HIGHEST}.")
        self._take(request, "rating", self.limits.ratings_per_minute)
        visit.begin()
        closed, kept = replace(conversation, rating=float(rating)), "Nothing was kept."
        if consent is True:
            self.collection.add(closed.row(self.models.names, watch.feedback(closed.turns)))
            kept, keys = chat_html.kept(self.collection), f"{keys} {closed.key}".strip()
        finished = chat_html.finished(closed, self._shares(closed), kept)
        return gr.skip(), closed, self._chat(closed), finished, "", keys

    @guarded
    def delete(self, keys, visit, request: gr.Request):
        """Delete collected sessions: here, on the Hub, and in the browser."""
        self._take(request, "deletion", self.limits.ratings_per_minute)
        results = {self.collection.delete(key) for key in keys.split()[:20]} or {"unknown"}
        if results == {"unknown"}:
            return note(chat_html.DELETED["unknown"]), *(gr.skip(),) * 10
        return note(chat_html.DELETED["hub" if "hub" in results else "here"]), "", *self.clear(visit)

    @guarded
    def download(self, conversation, watch):
        """Download the conversation as a row."""
        line = to_json_line(conversation.row(self.models.names, watch.feedback(conversation.turns))) + "\n"
        return for_browser(f"conversation-{conversation.session_id}.jsonl", "application/jsonl", line.encode())

    @guarded
    def card(self, conversation, request: gr.Request):
        """Download a picture of the best reply, to share."""
        shares = self._shares(conversation)
        best, _ = chat_html.extremes(shares)
        link = str(request.headers.get("host", ""))[:80]
        picture = chat_html.share_card(conversation.replies[best].text, shares[best], link)
        return for_browser("a-reward-for-every-turn.png", "image/png", picture)

    @guarded
    def see(self, watch, event: gr.EventData, request: gr.Request):
        """Read the smile in a frame of the camera."""
        address = address_of(request)
        if self.faces is None or not self.quota.take(address, "frame", self.limits.frames_per_minute):
            return gr.skip()
        if not self.cameras.admit(address, str(request.session_hash)):
            return note(ALL_IN_USE)
        picture = read_frame(_data(event).get("url"))
        return gr.skip() if picture is None else smile_meter(watch.see(self.faces, picture, time.time()))


def _data(event: gr.EventData) -> dict:
    """Return what the browser sent with an event; it may send anything."""
    return event._data if isinstance(event._data, dict) else {}


def as_text(text: str) -> str:
    """Keep a text from being read as HTML, which Gradio's Chatbot does even where it renders no Markdown.

    The sign after each < and & is invisible, and no tag or entity begins with it. Escapes would be shown while the
    visitor edits a message.
    """
    return text.replace("<", f"<{JOINER}").replace("&", f"&{JOINER}")
