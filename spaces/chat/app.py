"""Chat with a small model before and after its training, and see what each reply is worth.

    python spaces/chat/app.py

Environment variables name the models:

GELI_MODEL          the aligned policy, or an adapter (PEFT) to the base policy (default: the adapter that ships)
GELI_BASE_POLICY    the policy before alignment; "" if there is none (default: SmolLM2-135M-Instruct)
GELI_REWARD         the reward model (default: the one that ships)
GELI_COLLECT        folder for the rated sessions of those who agree (default: runs/collected)
GELI_COLLECT_REPO   a private dataset on the Hub that they are uploaded to; without it they stay in the folder
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before all others, see its docstring.
from geli_hf.demo import serving

# isort: split
import gradio as gr
from transformers.utils import logging

from geli_hf.alignment import PolicyError
from geli_hf.alignment.default import DEFAULT_POLICY, DefaultPolicyError
from geli_hf.alignment.shipped import ALIGNED_ADAPTER, REWARD
from geli_hf.demo.camera import FaceReader, Watch
from geli_hf.demo.chat_events import AFTER, MODES, SAY, STARTERS, ChatEvents, Visit
from geli_hf.demo.chat_html import session as session_html
from geli_hf.demo.collection import Collection
from geli_hf.demo.conversation import Conversation
from geli_hf.demo.limits import Limits
from geli_hf.demo.look import HIGHEST, LOWEST
from geli_hf.demo.policies import Models, load_models
from geli_hf.demo.serving import AT_ONCE, QUICK, QUIET, camera, html, on_download

logger = logging.get_logger("geli_hf.demo")

HERE = Path(__file__).parent
STATE_SECONDS = 3 * 3600
CONSENT = "Keep this conversation with my rating, to train models. Without this tick nothing is kept."


def build_demo(
    models: Models, collection: Collection, faces: FaceReader | None = None, limits: Limits | None = None
) -> gr.Blocks:
    """Build the page.

    Args:
        models: policies and reward model.
        collection: where rated sessions of those who agree are written.
        faces: reads faces; None: the page has no camera.
        limits: of an address.
    """
    limits = limits or Limits()
    events = ChatEvents(models, collection, faces, limits)
    modes = [mode for mode, sources in MODES.items() if set(sources) <= set(models.policies)]

    with gr.Blocks(title="A reward for every turn", analytics_enabled=False) as demo:
        # Each tab has copies. A function in place of a value would run late on a busy server, and replace a state that
        # is in use: Stop would then reach a visit that nobody looks at.
        conversation = gr.State(Conversation(), time_to_live=STATE_SECONDS)
        visit = gr.State(Visit(), time_to_live=STATE_SECONDS)
        watch = gr.State(Watch(), time_to_live=STATE_SECONDS)
        file = gr.Textbox(visible="hidden")
        html(HERE / "head.html")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                mode = gr.Radio(modes, value=AFTER, label="Who answers", elem_id="mode")
                # Its `copy` has no replies, since they hold HTML too; see copy.js.
                chat = gr.Chatbot(
                    show_label=False,
                    label="Conversation",
                    height=480,
                    editable="user",
                    render_markdown=False,
                    latex_delimiters=[],
                    allow_tags=False,
                    buttons=[],
                    examples=[{"text": text} for text in STARTERS],
                    placeholder="**Say something about your day,** and see how many replies the answer beats.",
                    elem_id="chat",
                )
                message = gr.Textbox(
                    label="Your message",
                    show_label=False,
                    placeholder=SAY,
                    max_lines=6,
                    max_length=limits.characters,
                    submit_btn="Send",
                    autofocus=True,
                    elem_id="message",
                )
                with gr.Row(elem_classes="g-tools"):
                    stop, new = gr.Button("Stop", size="md"), gr.Button("New conversation", size="md", elem_id="new")
                with gr.Group(elem_id="beat"):
                    mine = gr.Textbox(
                        label="Rewrite this reply: can you beat it?",
                        placeholder="What would you have answered?",
                        max_lines=4,
                        max_length=limits.characters,
                        submit_btn="Compare",
                    )
                    compare = gr.Button("What would dismissing, echoing or asking have been worth?", size="md")
                    bars = html(elem_id="bars")
            with gr.Column(scale=2, min_width=320):
                session = html(session_html(Conversation(), [], 0, {}), elem_id="session")
                with gr.Group(elem_id="rate"):
                    rating = gr.Radio(
                        [(str(number), number) for number in range(LOWEST, HIGHEST + 1)],
                        label="How did you feel during this conversation, all in all?",
                        info=f"{LOWEST} very bad, {HIGHEST} very good",
                        elem_id="rating",
                    )
                    consent = gr.Checkbox(False, label=CONSENT, elem_id="consent")
                    rate = gr.Button("Rate and finish", variant="primary")
                with gr.Row(elem_id="finish"):
                    share, download = gr.Button("Card to share (PNG)"), gr.Button("Conversation (JSONL)")
                if faces is not None:
                    with gr.Accordion("Camera: let your face give feedback", open=False):
                        html(HERE / "about_camera.html")
                        face, meter = camera(), html(elem_id="meter")
                with gr.Accordion("Settings", open=False):
                    temperature = gr.Slider(
                        0, 1.5, 0.8, step=0.1, label="Surprise", info="0: always the likeliest word"
                    )
                    length = gr.Slider(8, 120, 60, step=4, label="Longest reply, in pieces of words")
                with gr.Accordion("Your data", open=False):
                    html(HERE / "about_data.html")
                    key = gr.Textbox(
                        label="Key of your session", max_length=64, max_lines=1, buttons=["copy"], elem_id="key"
                    )
                    delete = gr.Button("Delete my session", size="md", variant="stop")
                    deleted = html(elem_id="deleted")
        html(HERE / "about.html")
        copies = html(js=HERE / "copy.js")

        view = [message, conversation, chat, session]
        options = [conversation, visit, mode, temperature, length]
        cleared = [*view, watch, rating, consent, mine, bars]
        # A visitor who has to wait sees the place in the queue.
        waits = QUIET | {"show_progress": "minimal", "show_progress_on": message}
        # A message that is sent while a reply is written waits for its end.
        message.submit(events.send, [message, *options], view, trigger_mode="always_last", **waits)
        chat.example_select(events.start, options, view, **waits)
        chat.edit(events.edit, options, view, **waits)
        chat.retry(events.retry, options, view, **waits)
        chat.undo(events.undo, [conversation, visit], view, **QUIET)
        chat.option_select(events.vote, [conversation, visit], view, **QUIET)
        chat.like(events.feel, [conversation, visit], view, **QUICK)
        copies.copied(events.copied, [conversation, visit], view, **QUICK)
        stop.click(events.stop, visit, **AT_ONCE)
        new.click(events.clear, visit, cleared, **QUICK)
        gr.on([mine.submit, compare.click], events.beat, [mine, conversation, visit], [*view, bars], **QUIET)
        rate.click(events.rate, [conversation, visit, watch, rating, consent], [*view, key], **QUICK)
        delete.click(events.delete, [key, visit], [deleted, key, *cleared], **QUICK)
        on_download(download, events.download, [conversation, watch], file)
        on_download(share, events.card, conversation, file)
        # In the tab alone, for as long as it is open.
        demo.load(None, None, key, js="() => sessionStorage.getItem('geli-key') || ''")
        key.change(None, key, None, js="(key) => { sessionStorage.setItem('geli-key', key || ''); }")
        if faces is not None:
            face.frame(events.see, watch, meter, **AT_ONCE)
    return demo


def camera_faces() -> FaceReader | None:
    """Load what reads faces; None if its packages are missing."""
    try:
        return FaceReader()
    except ImportError as error:
        logger.warning(f"The page has no camera: {error}")
        return None


def main() -> None:
    try:
        models = load_models(
            os.environ.get("GELI_MODEL") or ALIGNED_ADAPTER,
            os.environ.get("GELI_BASE_POLICY", DEFAULT_POLICY) or None,
            os.environ.get("GELI_REWARD") or REWARD,
        )
    except (PolicyError, DefaultPolicyError) as error:
        sys.exit(f"chat: {error}")
    folder = os.environ.get("GELI_COLLECT", "runs/collected")
    collection = Collection(folder, os.environ.get("GELI_COLLECT_REPO") or None)
    serving.serve(build_demo(models, collection, faces=camera_faces()), Limits())


if __name__ == "__main__":
    main()
