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
BEAT = "Rewrite the last reply: can you beat it?"
BRUSH_OFF = "What would a brush-off, an echo or a question have scored?"
# In the tab alone, for as long as it is open; what it holds is shown.
RESTORE = "() => sessionStorage.getItem('geli-keys') || ''"
REMEMBER = """(keys) => {
  sessionStorage.setItem('geli-keys', keys || '');
  return {__type__: 'update', open: !!keys};
}"""


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
        conversation, visit, watch = (
            gr.State(value, time_to_live=STATE_SECONDS) for value in (Conversation(), Visit(), Watch())
        )
        file = gr.Textbox(visible="hidden")
        html(HERE / "head.html")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                mode = gr.Radio(modes, value=AFTER, label="Who answers", elem_id="mode")
                chat = gr.Chatbot(
                    label="Conversation",
                    show_label=False,
                    height=480,
                    editable="user",
                    render_markdown=False,
                    latex_delimiters=[],
                    allow_tags=False,
                    buttons=[],  # `copy` leaves out replies, since they hold HTML too; see copy.js
                    examples=[{"text": text} for text in STARTERS],
                    placeholder="**How was your day?** Say it, or begin with one of these.",
                    elem_id="chat",
                )
                text = {"max_length": limits.characters, "max_lines": 6}
                message = gr.Textbox(
                    label="Your message",
                    show_label=False,
                    placeholder=SAY,
                    submit_btn="Send",
                    elem_id="message",
                    **text,
                )
                with gr.Row(elem_classes="g-tools"):
                    stop, new = gr.Button("Stop", elem_id="stop"), gr.Button("New conversation", elem_id="new")
            with gr.Column(scale=2, min_width=320):
                with gr.Column(elem_id="beat"):
                    mine = gr.Textbox(label=BEAT, placeholder="Say it better", submit_btn="Compare", **text)
                    compare = gr.Button(BRUSH_OFF, size="md")
                    bars = html(elem_id="bars")
                session = html(session_html(Conversation(), [], 0, {}), elem_id="session")
                with gr.Column(elem_id="rate"):
                    rating = gr.Radio(
                        [(str(number), number) for number in range(LOWEST, HIGHEST + 1)],
                        label="How did you feel during this conversation, all in all?",
                        info=f"{LOWEST} very bad, {HIGHEST} very good",
                        elem_id="rating",
                    )
                    consent = gr.Checkbox(False, label=CONSENT, elem_id="consent")
                    rate = gr.Button("Rate and finish", variant="primary")
                with gr.Row(elem_id="finish"):
                    share, download = gr.Button("Card to share"), gr.Button("Conversation as JSONL")
                if faces is not None:
                    with gr.Accordion("Camera: let your face give feedback", open=False):
                        html(HERE / "about_camera.html")
                        face, meter = camera(), html(elem_id="meter")
                with gr.Accordion("Your data", open=False) as data:
                    html(HERE / "about_data.html")
                    keys = gr.Textbox(label="Keys of your sessions", max_length=600, buttons=["copy"], elem_id="keys")
                    delete = gr.Button("Delete my sessions", size="md", variant="stop")
                deleted = html(elem_id="deleted")
        html(HERE / "about.html")
        copies = html(js=HERE / "copy.js")

        view = [message, conversation, chat, session, bars]
        here, cleared = [conversation, visit], [*view, watch, rating, consent, mine]
        # Who has to wait sees the place in the queue. What is sent while a reply is written waits for its end.
        replying = QUIET | {"concurrency_id": "reply", "show_progress": "minimal", "show_progress_on": message}
        message.submit(events.send, [message, *here, mode], view, trigger_mode="always_last", **replying)
        chat.example_select(events.start, [*here, mode], view, **replying)
        chat.edit(events.edit, [*here, mode], view, **replying)
        chat.retry(events.retry, [*here, mode], view, **replying)
        chat.undo(events.undo, here, view, **QUICK)
        chat.option_select(events.vote, here, view, **QUICK)
        chat.like(events.feel, here, view, **QUICK)
        copies.copied(events.copied, here, view, **QUICK)
        stop.click(events.stop, visit, **AT_ONCE)
        new.click(events.clear, visit, cleared, **QUICK)
        gr.on([mine.submit, compare.click], events.beat, [mine, *here], view, **QUICK)
        rate.click(events.rate, [*here, watch, rating, consent, keys], [*view, keys], **QUICK)
        delete.click(events.delete, [keys, visit], [deleted, keys, *cleared], **QUICK)
        on_download(download, events.download, [conversation, watch], file)
        on_download(share, events.card, conversation, file)
        demo.load(None, None, keys, js=RESTORE)
        keys.change(None, keys, data, js=REMEMBER)
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
