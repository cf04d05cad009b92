"""Event handlers of the chat page. Most end with `view`: the message box, the conversation, its chat, the session."""

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
UNCHANGED = (gr.skip(),) * 4  # of a `view`
STARTERS = (
    "My dog won a prize at the village show!",
    "I failed my driving test today.",
    "What should I do with a rainy Sunday?",
)
OPTIONS = [
    {"label": "A is better", "value": "0"},
    {"label": "B is better", "value": "1"},
    {"label": "They are alike", "value": TIE},
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

    def view(self, conversation: Conversation, visit: Visit) -> tuple:
        shares = self._shares(conversation)
        session = chat_html.session(conversation, shares, self.models.uncertainty, visit.votes)
        return (
            gr.update(interactive=True, placeholder="Say something"),
            conversation,
            self._chat(conversation),
            session,
        )

    def _shares(self, conversation: Conversation) -> list[float]:
        return [self.models.reward.percentile(reward) for reward in conversation.rewards]

    def _chat(self, conversation: Conversation, typing: Mapping[str, str] | None = None) -> list[dict]:
        """Return the messages as Gradio's Chatbot takes them, with those that are being written."""
        shares, messages = iter(self._shares(conversation)), []
        for turn in conversation.turns:
            messages.append({"role": turn.role, "content": [as_text(turn.text)]})
            if turn.role == "assistant":
                messages[-1]["content"] += [self._html(chat_html.reply_chip(next(shares, math.nan), turn))]
        texts = typing.values() if typing else [reply.text for reply in conversation.choice]
        parts = [as_text(text) or "…" for text in texts]
        if len(parts) > 1:  # blind: a number beside a reply would tell which one the reward model likes
            parts = [part for name, text in zip("AB", parts) for part in (self._html(f"<b>{name}</b>"), text)]
        if parts:
            messages.append({"role": "assistant", "content": parts, "options": OPTIONS if conversation.choice else []})
        return messages

    def _html(self, value: str) -> dict:
        """Return a part of a message: cheaper than a component, which Gradio would make anew for every token."""
        props = self._html_props | {"value": value}
        return {"type": "component", "component": "html", "value": value, "constructor_args": {}, "props": props}

    # Replies

    def _take(self, request: gr.Request, kind: str, most: int) -> None:
        if not self.quota.take(address_of(request), kind, most):
            raise refuse(BUSY)

    def _answer(self, conversation: Conversation, visit: Visit, options: tuple, regenerated: int = 0) -> Iterator:
        """Show the replies to the last message while they are written, then add one, or offer the choice."""
        number, (mode, temperature, length) = visit.begin(), options
        sources = random.sample(MODES[mode], len(MODES[mode]))
        settings = {"temperature": temperature, "max_new_tokens": int(length)}
        streams = {source: self._stream(source, conversation.messages, settings) for source in sources}
        texts = dict.fromkeys(sources, "")
        yield gr.update(value=""), conversation, self._chat(conversation, texts), gr.skip()
        while streams and not visit.stopped and visit.latest == number:
            for source in list(streams):
                text = next(streams[source], None)
                if text is None:
                    del streams[source]
                else:
                    texts[source] = text
            yield gr.skip(), conversation, self._chat(conversation, texts), gr.skip()
        for stream in streams.values():
            stream.close()
        if visit.latest != number:  # the visitor has changed the conversation meanwhile
            yield UNCHANGED
            return
        replies = [Turn("assistant", text, source, time.time()) for source, text in texts.items() if text]
        replies = [replace(reply, regenerated=regenerated) for reply in replies]
        if not replies:
            gr.Info("Stopped before a word was said." if visit.stopped else "There was no answer. Try again.")
        elif len(replies) > 1:
            conversation = replace(conversation, choice=tuple(replies))
        else:
            conversation = conversation.add_reply(replies[0]).rescore(self._score, self._rating)
        yield self.view(conversation, visit)

    @guarded
    def send(self, text, conversation, visit, mode, temperature, length, request: gr.Request):
        """Add the visitor's message and the reply to it."""
        problem = CLOSED if conversation.closed else self.limits.problem(text, len(conversation.turns))
        if conversation.choice:
            problem = "Vote first: the conversation goes on with the reply that you prefer."
        if problem:
            raise refuse(problem)
        self._take(request, "reply", self.limits.replies_per_minute)
        conversation = conversation.add_message(text.replace(JOINER, "").strip(), time.time())
        yield from self._answer(conversation, visit, (mode, temperature, length))

    @guarded
    def start(self, conversation, visit, mode, temperature, length, event: gr.SelectData, request: gr.Request):
        """Begin with one of the starters."""
        yield from self.send(event.value["text"], conversation, visit, mode, temperature, length, request)

    @guarded
    def retry(self, conversation, visit, mode, temperature, length, request: gr.Request):
        """Write another reply to the last message."""
        if conversation.closed or not conversation.turns:
            raise refuse(CLOSED if conversation.closed else "There is no reply to write again.")
        self._take(request, "reply", self.limits.replies_per_minute)
        last = conversation.turns[-1]
        again = last.role == "assistant"
        conversation = conversation.cut(len(conversation.turns) - again)
        yield from self._answer(conversation, visit, (mode, temperature, length), last.regenerated + again)

    def stop(self, visit):
        """Keep what is written of the reply."""
        visit.stopped = True

    @guarded
    def undo(self, conversation, visit):
        """Take back the last message and its reply."""
        visit.begin()
        if conversation.closed:
            raise refuse(CLOSED)
        asked = [index for index, turn in enumerate(conversation.turns) if turn.role == "user"]
        return self.view(conversation.cut(asked[-1] if asked else 0).rescore(self._score, self._rating), visit)

    @guarded
    def clear(self, visit):
        """Begin a new conversation, of which nothing is rated or agreed to yet."""
        visit.begin()
        return *self.view(Conversation(), visit), Watch(), None, False, "", ""

    @guarded
    def edit(self, conversation, visit, mode, temperature, length, event: gr.EditData, request: gr.Request):
        """Say one of the visitor's messages in other words, and go on from there."""
        index = event.index
        if conversation.closed or type(index) is not int or index not in range(0, len(conversation.turns), 2):
            raise refuse(CLOSED if conversation.closed else "Only what you said can be said again.")
        yield from self.send(event.value, conversation.cut(index), visit, mode, temperature, length, request)

    @guarded
    def vote(self, conversation, visit, event: gr.EventData):
        """Continue with the reply that the visitor prefers."""
        chosen = conversation.decide(str(_data(event).get("value")), time.time())
        if chosen is not conversation:
            visit.votes[chosen.turns[-1].vote] += 1
        return self.view(chosen.rescore(self._score, self._rating), visit)

    @guarded
    def feel(self, conversation, visit, event: gr.LikeData):
        """Note the thumb of a reply."""
        index, liked = event.index, event.liked
        if not conversation.closed and type(index) is int and index in range(1, len(conversation.turns), 2):
            conversation = conversation.mark(index, thumb=float(liked) if isinstance(liked, bool) else math.nan)
        return self.view(conversation, visit)

    @guarded
    def copied(self, conversation, visit, event: gr.EventData):
        """Note that the visitor copied from a reply."""
        text = str(_data(event).get("text")).replace(JOINER, "").strip()
        for index, turn in enumerate(conversation.turns):
            if turn.role == "assistant" and text and text in turn.text and not conversation.closed:
                conversation = conversation.mark(index, copied=turn.copied + 1)
        return self.view(conversation, visit)

    @guarded
    def beat(self, text, conversation, visit):
        """Compare the last reply with the visitor's own words in its place, and with what others would say."""
        text = valid_unicode(text.replace(JOINER, "").strip())
        if not conversation.replies or conversation.closed or len(text) > self.limits.characters:
            raise refuse("There is no reply to beat." if not conversation.replies else CLOSED)
        index = max(index for index, turn in enumerate(conversation.turns) if turn.role == "assistant")
        said = conversation.turns[index - 1].text
        others = {f"Yours: “{text}”": text} if text else {}
        others |= {f"Dismiss: “{DISMISSAL}”": DISMISSAL, f"Echo: “{said}”": said, f"Ask: “{QUESTION}”": QUESTION}
        before, shares = conversation.messages[:index], {}
        for name, other in others.items():
            reward = self._score([*before, {"role": "assistant", "content": other}])[-1]
            shares[name] = self.models.reward.percentile(reward)
        if text:
            conversation = conversation.mark(index, rewrite=text)
        return *self.view(conversation, visit), chat_html.what_if(self._shares(conversation)[-1], shares, bool(text))

    # Sessions

    @guarded
    def rate(self, conversation, visit, watch, rating, consent, request: gr.Request):
        """Finish the conversation; with consent, and only then, write it."""
        if conversation.closed or conversation.choice or len(conversation.replies) < RATED_TURNS:
            raise refuse(CLOSED if conversation.closed else "Talk a little more: it is rated after three replies.")
        if type(rating) is not int or not LOWEST <= rating <= HIGHEST:
            raise refuse(f"Choose a number from {LOWEST} to {HIGHEST}.")
        self._take(request, "rating", self.limits.ratings_per_minute)
        visit.begin()
        closed, kept = replace(conversation, rating=float(rating)), "Nothing was kept."
        if consent is True:
            self.collection.add(closed.row(self.models.names, watch.feedback(closed.turns)))
            kept = chat_html.kept(self.collection.repo, self.collection.minutes)
        message = gr.update(interactive=False, placeholder="This conversation is finished")
        result = chat_html.finished(closed, self._shares(closed), kept)
        return message, closed, self._chat(closed), result, closed.key if consent is True else gr.skip()

    @guarded
    def delete(self, key, visit):
        """Delete a collected session: here, on the Hub, and in the browser."""
        result = self.collection.delete(key.strip()) if key.strip() else "unknown"
        cleared = (gr.skip(),) * 10 if result == "unknown" else ("", *self.clear(visit))
        return note(chat_html.DELETED[result]), *cleared

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
        picture = read_frame(_data(event).get("url"))
        if self.faces is None or picture is None:
            return gr.skip()
        if not self.cameras.admit(address_of(request), str(request.session_hash)):
            return note(ALL_IN_USE)
        return smile_meter(watch.see(self.faces, picture, time.time()))


def _data(event: gr.EventData) -> dict:
    """Return what the browser sent with an event; it may send anything."""
    return event._data if isinstance(event._data, dict) else {}


def as_text(text: str) -> str:
    """Keep a text from being read as HTML, which Gradio's Chatbot does even where it renders no Markdown.

    The sign after each < and & is invisible, and no tag or entity begins with it. Escapes would be shown while the
    visitor edits a message.
    """
    return text.replace("<", f"<{JOINER}").replace("&", f"&{JOINER}")
