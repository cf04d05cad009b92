"""Event handlers of the chat page. Most end with `view`: the conversation, its thread, its chart and its rating."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import gradio as gr

from ..data.rows import to_json_line
from ..sessions import Session
from . import chat_html
from .camera import FaceReader, Watch, read_frame
from .collection import Collection
from .conversation import ALIGNED, BASE, Conversation, Reply, session_row
from .limits import Limits, Visit
from .look import HIGHEST, LOWEST, note, smile_meter
from .policies import Models
from .serving import for_browser, guarded, on_gpu

BLIND = "Blind A/B"
MODES = {"Aligned": (ALIGNED,), "Base": (BASE,), "Side by side": (ALIGNED, BASE), BLIND: (ALIGNED, BASE)}
UNCHANGED = (gr.skip(),) * 4  # of a `view`
CLOSED = "This conversation is closed. Start a new one."


def _while_latest(write: Callable) -> Callable:
    """Abandon a reply when the visitor changes the conversation."""

    @functools.wraps(write)
    def views(self, conversation, visit, *arguments):
        number = visit.begin()
        for view in write(self, conversation, visit, *arguments):
            if visit.latest != number:
                yield UNCHANGED
                return
            yield view

    return views


class ChatEvents:
    """Event handlers of the chat page.

    Args:
        models: policies and reward model.
        collection: where rated sessions of those who agree are written.
        faces: reads faces; None: the page has no camera.
        limits: of one visitor.
    """

    def __init__(self, models: Models, collection: Collection, faces: FaceReader | None, limits: Limits):
        self.models, self.collection, self.faces, self.limits = models, collection, faces, limits
        self._stream, self._score, self._rating = map(on_gpu, (models.stream, models.score, models.rating))

    def view(self, conversation: Conversation, watch: Watch) -> tuple:
        smiles = watch.feedback(conversation.turns).get("affect_mean")
        chart, rating = chat_html.chart(conversation, smiles), chat_html.rating(conversation, self.models)
        return conversation, chat_html.thread(conversation, self.models), chart, rating

    def _rescore(self, conversation: Conversation) -> Conversation:
        return conversation.rescore(self._score, self._rating)

    def _must_wait(self, visit: Visit) -> bool:
        if visit.too_often(self.limits, time.time()):
            gr.Warning(f"That is more than {self.limits.replies_per_minute} replies a minute. Please wait a moment.")
            return True
        return False

    # Replies

    def _stream_all(
        self, visit: Visit, sources: Sequence[str], messages: list, options: dict
    ) -> Iterator[list[Reply]]:
        """Yield the replies of all sources each time they have grown by a token."""
        streams = {source: self._stream(source, messages, options) for source in sources}
        texts = dict.fromkeys(sources, "")
        while streams and not visit.stopped:
            for source in list(streams):
                text = next(streams[source], None)
                if text is None:
                    del streams[source]
                else:
                    texts[source] = text
            yield [Reply(source, text) for source, text in texts.items()]
        for stream in streams.values():
            stream.close()

    @_while_latest
    def _answer(
        self, conversation: Conversation, visit: Visit, watch: Watch, mode: str, temperature, length
    ) -> Iterator:
        """Show the replies to the last message while they are written, then add one, or offer the choice."""
        sources, blind = MODES[mode], mode == BLIND
        options = {"temperature": temperature, "max_new_tokens": int(length)}
        if blind:
            sources = tuple(random.sample(sources, len(sources)))

        def typing(replies: Sequence[Reply]) -> tuple:
            thread = chat_html.thread(conversation, self.models, replies, blind=blind)
            return conversation, thread, gr.skip(), gr.skip()

        replies = [Reply(source, "") for source in sources]
        yield typing(replies)
        for replies in self._stream_all(visit, sources, conversation.messages, options):
            yield typing(replies)
        replies = [reply for reply in replies if reply.text]
        if not replies:
            gr.Info("Stopped before a word was said." if visit.stopped else "There was no answer. Try again.")
        elif len(replies) > 1:
            conversation = conversation.offer(replies, blind)
        else:
            conversation = conversation.add_reply(replies[0], time.time())
        yield self.view(self._rescore(conversation), watch)

    @guarded
    def send(self, text, conversation, visit, watch, mode, temperature, length):
        """Add the visitor's message and the reply to it."""
        problem = self.limits.problem(text, len(conversation.turns))
        if conversation.closed:
            problem = CLOSED
        elif conversation.choice is not None and conversation.choice.blind:
            problem = "Vote first: the conversation goes on with the reply that you prefer."
        if problem:
            gr.Warning(problem)
        if problem or self._must_wait(visit):
            yield gr.skip(), *self.view(conversation, watch)
            return
        conversation = conversation.add_message(text.strip(), time.time())
        typed = ""  # and afterwards the text that is typed while the reply is written
        for view in self._answer(conversation, visit, watch, mode, temperature, length):
            yield typed, *view
            typed = gr.skip()

    @guarded
    def act(self, conversation, visit, watch, event: gr.EventData):
        """Do what a button in the conversation asks for. A browser may send anything."""
        asked = event._data if isinstance(event._data, dict) else {}
        name, index, text = (asked.get(field) for field in ("act", "index", "text"))
        index = index if isinstance(index, int) else -2
        visit.begin()
        if conversation.closed:
            gr.Warning(CLOSED)
        elif name == "edit" and index in range(len(conversation.turns)) and isinstance(text, str):
            problem = self.limits.problem(text, 0)
            if problem:
                gr.Warning(problem)
            else:
                conversation = self._rescore(conversation.edit(index, text.strip()))
        elif name in ("choose", "vote"):
            conversation = self._rescore(conversation.decide(index, time.time()))
        return self.view(conversation, watch)

    @guarded
    def retry(self, conversation, visit, watch, mode, temperature, length):
        """Write another reply to the last message."""
        if not conversation.turns or conversation.closed:
            gr.Info("There is no reply to try again.")
        elif not self._must_wait(visit):
            yield from self._answer(conversation.drop_reply(), visit, watch, mode, temperature, length)
            return
        yield self.view(conversation, watch)

    def stop(self, visit):
        """Keep what is written of the reply."""
        visit.stopped = True

    @guarded
    def undo(self, conversation, visit, watch):
        visit.begin()
        return self.view(conversation if conversation.closed else conversation.undo(), watch)

    @guarded
    def clear(self, visit):
        visit.begin()
        watch = Watch()
        return watch, "", *self.view(Conversation(), watch)

    # Sessions

    @guarded
    def rate(self, conversation, visit, watch, rating, consent):
        """Close the session; with consent, and only then, write it."""
        problem = ""
        if conversation.closed:
            problem = "This conversation is closed already."
        elif not conversation.replies:
            problem = "Talk a little first: there is nothing to rate yet."
        elif conversation.choice is not None:
            problem = "Choose a reply first."
        elif rating is None or not LOWEST <= rating <= HIGHEST:
            problem = f"Choose a number from {LOWEST} to {HIGHEST}."
        if problem:
            gr.Warning(problem)
            return gr.skip(), gr.skip(), *self.view(conversation, watch)
        visit.begin()
        closed = replace(conversation, closed=True, past=())
        if not consent:
            return note("Thank you. Nothing was kept."), gr.skip(), *self.view(closed, watch)
        self.collection.add(self._row(conversation, watch, int(rating)))
        thanks = chat_html.thanks(conversation.key, self.collection.repo, self.collection.minutes)
        return thanks, conversation.key, *self.view(closed, watch)

    @guarded
    def delete(self, key):
        result = self.collection.delete(key.strip()) if key.strip() else "unknown"
        return note(chat_html.DELETED[result])

    @guarded
    def export(self, conversation, watch):
        if not conversation.replies:
            gr.Info("There is nothing to export yet.")
            return ""
        line = to_json_line(self._row(conversation, watch)) + "\n"
        return for_browser(f"conversation-{conversation.session_id}.jsonl", "application/jsonl", line.encode())

    def _row(self, conversation: Conversation, watch: Watch, rating: float = float("nan")) -> Session:
        feedback = watch.feedback(conversation.turns)
        return session_row(conversation.session_id, conversation.turns, score=rating, feedback=feedback)

    @guarded
    def see(self, frame, watch):
        """Read the smile in a frame of the camera."""
        picture = read_frame(frame)
        if self.faces is None or picture is None:
            return gr.skip()
        return smile_meter(watch.see(self.faces, picture, time.time()))
