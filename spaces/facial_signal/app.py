"""See a face become feedback on each turn of a conversation, live or in a recording, beside a text reward model.

    python spaces/facial_signal/app.py

GELI_MODEL names another reward model than the one that comes with the package, and GELI_ATTRIBUTION an attribution
(`HindsightAttribution`): the steps of the rating are then those with hindsight.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

# Before all others, see its docstring.
from geli_hf.demo import serving

# isort: split
import gradio as gr

from geli_hf import GeliRewardModel
from geli_hf.demo import facial_html
from geli_hf.demo.camera import FaceReader
from geli_hf.demo.facial import Decomposition, LiveSession
from geli_hf.demo.facial_events import PARTNER, YOU, FacialEvents
from geli_hf.demo.limits import Limits
from geli_hf.demo.look import smile_meter
from geli_hf.demo.policies import load_reward_model
from geli_hf.demo.serving import CAMERA, QUIET, WEIGHTS, html, on_download
from geli_hf.models.attribution import HindsightAttribution

HERE = Path(__file__).parent
STATE_SECONDS = 3600
LIMITS = Limits(characters=500, messages=60, camera_seconds=600)
LAUNCH = serving.launch_options(f"{LIMITS.video_megabytes}mb")


def build_demo(
    model: GeliRewardModel, faces: FaceReader, limits: Limits = LIMITS, attribution: HindsightAttribution | None = None
) -> gr.Blocks:
    """Build the page.

    Args:
        model: rewards the words of each turn.
        faces: reads faces.
        limits: of one visitor.
        attribution: explains the rating with hindsight.
    """
    events, empty = FacialEvents(model, faces, limits, attribution), LiveSession()

    with gr.Blocks(
        title="A face, and what it says of each turn", analytics_enabled=False, delete_cache=(300, 900)
    ) as demo:
        session = gr.State(LiveSession(), time_to_live=STATE_SECONDS)
        recorded = gr.State(None, time_to_live=STATE_SECONDS)
        file = gr.Textbox(visible="hidden")
        html(HERE / "head.html")
        with gr.Tabs():
            with gr.Tab("Live"), gr.Row():
                with gr.Column(scale=2, min_width=320):
                    camera = gr.Image(
                        sources=["webcam"],
                        streaming=True,
                        label="Your camera",
                        height=300,
                        buttons=[],
                        elem_id="camera",
                    )
                    now = html(smile_meter(math.nan), elem_id="now")
                    curve = html(facial_html.live_curve(empty, time.time()), elem_id="curve")
                with gr.Column(scale=3, min_width=320):
                    with gr.Row(elem_classes="g-tools"):
                        speak = gr.Button("Let the partner speak", variant="primary", size="md", min_width=220)
                        begin = gr.Button("Begin anew", size="md", min_width=110)
                        keep = gr.Button("Download (JSONL)", size="md", min_width=140)
                    live_note = html(elem_id="live-note")
                    turns = html(
                        facial_html.turns([], Decomposition(), []), js=HERE / "scroll_down.js", elem_id="dialogue"
                    )
                    with gr.Group():
                        who = gr.Radio([PARTNER, YOU], value=PARTNER, label="Or type what is said, and by whom")
                        words = gr.Textbox(
                            show_label=False,
                            placeholder="What is said",
                            label="What is said",
                            max_length=limits.characters,
                            submit_btn="Add",
                            elem_id="words",
                        )
                    steps = html(facial_html.rating_steps(Decomposition(), []), elem_id="steps")
            with gr.Tab("Recorded"), gr.Row():
                with gr.Column(scale=2, min_width=320):
                    video = gr.File(
                        label=f"Video, up to {limits.video_megabytes} MB, {limits.video_minutes:g} min",
                        file_types=["video"],
                        height=150,
                        elem_id="video",
                    )
                    transcript = gr.File(
                        label="Transcript: CSV, SRT, VTT, JSON",
                        file_types=[".csv", ".srt", ".vtt", ".json"],
                        height=150,
                        elem_id="transcript",
                    )
                    listener = gr.Textbox(
                        label="Whose face is it?",
                        info="Name in the transcript; needed unless the speakers are called user and assistant.",
                        max_length=100,
                        elem_id="listener",
                    )
                    analyse = gr.Button("Look at it", variant="primary", min_width=120)
                    note = html(elem_id="rec-note")
                    timeline = html(elem_id="timeline")
                with gr.Column(scale=3, min_width=320):
                    recorded_turns = html(elem_id="rec-turns")
                    recorded_steps = html(elem_id="rec-steps")
                    save = gr.Button("Session (JSONL)", size="sm", min_width=90)
        html(HERE / "about.html")

        view = [curve, turns, steps]
        camera.stream(
            events.see,
            [camera, session],
            [now, *view],
            time_limit=limits.camera_seconds,
            concurrency_limit=8,
            **CAMERA,
        )
        speak.click(events.speak, session, [live_note, *view], **QUIET)
        words.submit(events.say, [words, who, session], [words, live_note, *view], **QUIET)
        begin.click(events.begin, None, [session, live_note, now, *view], **QUIET)
        on_download(keep.click, events.keep, session, file)
        result = [video, transcript, note, timeline, recorded_turns, recorded_steps, recorded]
        analyse.click(
            events.analyse,
            [video, transcript, listener],
            result,
            concurrency_limit=1,
            show_progress="full",
            show_progress_on=timeline,
            api_visibility="private",
        )
        on_download(save.click, events.save, recorded, file)
    return demo


def main() -> None:
    model = load_reward_model(os.environ.get("GELI_MODEL") or WEIGHTS / "reward")
    name = os.environ.get("GELI_ATTRIBUTION")
    attribution = HindsightAttribution.from_pretrained(name) if name else None
    serving.serve(build_demo(model, FaceReader(), attribution=attribution), LAUNCH)


if __name__ == "__main__":
    main()
