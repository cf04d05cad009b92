"""Chat with a policy that was aligned with rewards for its turns, and see each turn's reward.

    python spaces/chat/app.py

Environment variables name the models:

GELI_MODEL          the aligned policy, or an adapter (PEFT) to the base policy (default: the adapter that ships)
GELI_BASE_POLICY    the policy before alignment; "" if there is none (default: SmolLM2-135M-Instruct)
GELI_REWARD         the reward model (default: the one that ships)
GELI_COLLECT        folder for the rated sessions of those who agree (default: runs/collected)
GELI_COLLECT_REPO   a private dataset on the Hub that they are uploaded to; without it they stay in the folder
"""

from __future__ import annotations

import math
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
from geli_hf.demo import chat_html
from geli_hf.demo.camera import FaceReader, Watch
from geli_hf.demo.chat_events import MODES, ChatEvents
from geli_hf.demo.collection import Collection
from geli_hf.demo.conversation import Conversation
from geli_hf.demo.limits import Limits, Visit
from geli_hf.demo.look import HIGHEST, LOWEST, smile_meter
from geli_hf.demo.policies import Models, load_models
from geli_hf.demo.serving import CAMERA, QUIET, html, on_download

logger = logging.get_logger("geli_hf.demo")

HERE = Path(__file__).parent
STATE_SECONDS = 3 * 3600
LAUNCH = serving.launch_options("1mb")


def build_demo(
    models: Models, collection: Collection, faces: FaceReader | None = None, limits: Limits | None = None
) -> gr.Blocks:
    """Build the page.

    Args:
        models: policies and reward model.
        collection: where rated sessions of those who agree are written.
        faces: reads faces; None: the page has no camera.
        limits: of one visitor.
    """
    limits = limits or Limits()
    events = ChatEvents(models, collection, faces, limits)
    modes = [mode for mode, sources in MODES.items() if set(sources) <= set(models.policies)]

    with gr.Blocks(title="Chat with a reward for every turn", analytics_enabled=False) as demo:
        # Each tab has copies. A function in place of a value would run late on a busy server, and replace a state that
        # is in use: Stop would then reach a visit that nobody looks at.
        conversation = gr.State(Conversation(), time_to_live=STATE_SECONDS)
        visit = gr.State(Visit(), time_to_live=STATE_SECONDS)
        watch = gr.State(Watch(), time_to_live=STATE_SECONDS)
        file = gr.Textbox(visible="hidden")
        html(HERE / "head.html")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                mode = gr.Radio(modes, value="Aligned", label="Who answers")
                thread = html(chat_html.thread(Conversation(), models), js=HERE / "thread.js", elem_id="thread")
                message = gr.Textbox(
                    label="Your message",
                    placeholder="Say something",
                    max_lines=6,
                    max_length=limits.characters,
                    submit_btn="Send",
                    autofocus=True,
                    elem_id="message",
                )
                with gr.Row(elem_classes="g-tools"):
                    stop, retry, undo, clear = (
                        gr.Button(name, size="sm", min_width=60) for name in ("Stop", "Retry", "Undo", "Clear")
                    )
                chart = html(chat_html.chart(Conversation()), elem_id="chart")
            with gr.Column(scale=2, min_width=320):
                prediction = html(chat_html.rating(Conversation(), models), elem_id="rated")
                with gr.Group():
                    rating = gr.Radio(
                        [(str(number), number) for number in range(LOWEST, HIGHEST + 1)],
                        label="How did you feel during this conversation, all in all?",
                        info=f"{LOWEST} very bad, {HIGHEST} very good",
                        elem_id="rating",
                    )
                    consent = gr.Checkbox(False, label=chat_html.CONSENT, elem_id="consent")
                    rate = gr.Button("Rate and close the session", variant="primary")
                note = html(elem_id="note")
                if faces is not None:
                    with gr.Accordion("Camera: let your face give feedback", open=False):
                        html(HERE / "about_camera.html")
                        camera_on = gr.Checkbox(False, label="Use my camera")
                        camera = gr.Image(
                            sources=["webcam"], streaming=True, visible=False, label="Camera", height=220, buttons=[]
                        )
                        meter = html(smile_meter(math.nan), visible=False, elem_id="meter")
                with gr.Accordion("Settings", open=False):
                    temperature = gr.Slider(
                        0, 1.5, 0.8, step=0.1, label="Temperature", info="0: always the likeliest word"
                    )
                    length = gr.Slider(8, 120, 60, step=4, label="Longest reply, in tokens")
                with gr.Accordion("Your data", open=False):
                    html(HERE / "about_data.html")
                    export = gr.Button("Export JSONL", size="sm")
                    key = gr.Textbox(label="Key of a session", max_length=64, max_lines=1, elem_id="key")
                    delete = gr.Button("Delete my session", size="sm", variant="stop")
                    deleted = html(elem_id="deleted")
        html(HERE / "about.html")

        view = [conversation, thread, chart, prediction]
        options = [conversation, visit, watch, mode, temperature, length]
        # A visitor who has to wait sees the place in the queue.
        waits = QUIET | {"show_progress": "minimal", "show_progress_on": message}
        # A message that is sent while a reply is written waits for its end.
        message.submit(events.send, [message, *options], [message, *view], trigger_mode="always_last", **waits)
        thread.act(events.act, [conversation, visit, watch], view, **QUIET)
        retry.click(events.retry, options, view, **waits)
        stop.click(events.stop, visit, queue=False, **QUIET)
        undo.click(events.undo, [conversation, visit, watch], view, trigger_mode="multiple", **QUIET)
        clear.click(events.clear, visit, [watch, note, *view], **QUIET)
        rate.click(events.rate, [conversation, visit, watch, rating, consent], [note, key, *view], **QUIET)
        delete.click(events.delete, key, deleted, **QUIET)
        on_download(export.click, events.export, [conversation, watch], file)
        if faces is not None:
            camera_on.change(lambda on: [gr.update(visible=on)] * 2, camera_on, [camera, meter], **QUIET)
            camera.stream(
                events.see, [camera, watch], meter, time_limit=limits.camera_seconds, concurrency_limit=4, **CAMERA
            )
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
    serving.serve(build_demo(models, collection, faces=camera_faces()), LAUNCH)


if __name__ == "__main__":
    main()
