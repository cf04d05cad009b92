"""See a face become feedback on each turn of a conversation, live or in a recording, beside a text reward model.

    python spaces/facial_signal/app.py

GELI_MODEL names another reward model than the one that comes with the package, and GELI_ATTRIBUTION an attribution
(`HindsightAttribution`): the steps of the rating are then those with hindsight.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from threading import Thread

# Before all others, see its docstring.
from geli_hf.demo import serving

# isort: split
import gradio as gr

from geli_hf import GeliRewardModel
from geli_hf.demo import facial_html
from geli_hf.demo.camera import FaceReader
from geli_hf.demo.facial import Decomposition, LiveSession, example
from geli_hf.demo.facial_events import CLASSIFIERS, PARTNER, YOU, FacialEvents
from geli_hf.demo.limits import Limits
from geli_hf.demo.policies import load_attribution, load_reward_model
from geli_hf.demo.serving import CAMERA, QUIET, WEIGHTS, html, on_download
from geli_hf.models.attribution import HindsightAttribution

HERE = Path(__file__).parent
STATE_SECONDS = 3600
LIMITS = Limits(characters=500, messages=60, camera_seconds=600)
LAUNCH = serving.launch_options(f"{LIMITS.video_megabytes}mb", "facial")
VARIABLES = {"reward": "GELI_MODEL", "attribution": "GELI_ATTRIBUTION"}


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
        # The function is called once for each tab.
        session = gr.State(lambda: LiveSession(), time_to_live=STATE_SECONDS)
        recording = gr.State(None, time_to_live=STATE_SECONDS)
        transcript = gr.State(None, time_to_live=STATE_SECONDS)
        file, clip, stored = (gr.Textbox(visible="hidden") for _ in range(3))
        html(HERE / "head.html")
        with gr.Row(elem_classes="g-tools"):
            classifier = gr.Radio(
                list(CLASSIFIERS), value="Shipped classifier", label="What reads the face", elem_id="classifier"
            )
        switched = html(elem_id="switched")
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
                    now = html(facial_html.camera_now(), js=HERE / "box.js", elem_id="now")
                    curve = html(facial_html.live_curve(empty, time.time()), elem_id="curve")
                with gr.Column(scale=3, min_width=320):
                    with gr.Row(elem_classes="f-tools"):
                        speak = gr.Button("Let the partner speak", variant="primary", size="md", min_width=220)
                        begin = gr.Button("Begin anew", size="md", min_width=110)
                        keep = gr.Button("Download (JSONL)", size="md", min_width=140)
                    live_note = html(elem_id="live-note")
                    turns = html(facial_html.live_turns(empty, []), js=HERE / "scroll_down.js", elem_id="dialogue")
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
            with gr.Tab("Recorded"):
                with gr.Row():
                    with gr.Column(scale=2, min_width=320):
                        video = gr.File(
                            label=f"Video, up to {limits.video_megabytes} MB, {limits.video_minutes:g} min",
                            file_types=["video"],
                            height=150,
                            elem_id="video",
                        )
                        transcript_file = gr.File(
                            label="Transcript: CSV, SRT, VTT, JSON",
                            file_types=[".csv", ".srt", ".vtt", ".json"],
                            height=150,
                            elem_id="transcript",
                        )
                        listener = gr.Radio(
                            [], label="Whose face is it?", visible=False, interactive=True, elem_id="listener"
                        )
                        read_note = html(elem_id="read-note")
                        with gr.Row(elem_classes="g-tools"):
                            analyse = gr.Button("Look at it", variant="primary", min_width=120)
                            try_example = gr.Button("Take the example", min_width=140)
                    with gr.Column(scale=3, min_width=320):
                        # The player shows the visitor's own file, which the browser has when the server deletes it.
                        html(HERE / "player.html", js=HERE / "player.js", elem_id="player")
                        note = html(elem_id="rec-note")
                        timeline = html(facial_html.EMPTY, elem_id="timeline")
                        with gr.Row(elem_classes="g-tools"):
                            save_csv, save_jsonl, save_png = (
                                gr.Button(name, size="sm", min_width=90)
                                for name in ("Frames (CSV)", "Session (JSONL)", "Picture (PNG)")
                            )
                with gr.Row():
                    with gr.Column(scale=1, min_width=320):
                        table = html(elem_id="table")
                    with gr.Column(scale=1, min_width=320):
                        recorded_steps = html(elem_id="rec-steps")
        html(HERE / "about.html")

        view = [curve, turns, steps, stored]
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
        begin.click(events.begin, session, [session, live_note, now, *view], **QUIET)
        on_download(keep.click, events.keep, session, file)
        stored.change(None, stored, js=serving.store_in_tab("geli-face"), **QUIET)
        restored = [session, live_note, *view]
        demo.load(events.restore, [stored, session], restored, js=serving.read_from_tab("geli-face"), **QUIET)
        classifier.input(events.choose, [classifier, session], [classifier, switched], **QUIET)

        result = [note, timeline, table, recorded_steps, recording]
        transcript_file.change(events.read, transcript_file, [transcript, listener, read_note], **QUIET)
        one_at_a_time = QUIET | {
            "concurrency_limit": 1,
            "concurrency_id": "watching",
            "show_progress": "full",
            "show_progress_on": timeline,
        }
        analyse.click(events.analyse, [video, transcript, listener, classifier], [video, *result], **one_at_a_time)
        play = (HERE / "play.js").read_text(encoding="utf-8")
        try_example.click(events.analyse_example, classifier, [clip, *result], **one_at_a_time).then(
            None, clip, js=play, **QUIET
        )
        for button, save in (
            (save_csv, events.save_csv),
            (save_jsonl, events.save_jsonl),
            (save_png, events.save_png),
        ):
            on_download(button.click, save, recording, file)
    return demo


def main() -> None:
    attribution = os.environ.get("GELI_ATTRIBUTION")
    with serving.exit_naming(VARIABLES):
        model = load_reward_model(os.environ.get("GELI_MODEL") or WEIGHTS / "policy_reward")
        attribution = load_attribution(attribution) if attribution else None
    faces = FaceReader()
    faces.classifier()
    Thread(target=example, daemon=True).start()  # so that it is drawn before a visitor asks for it
    serving.serve(build_demo(model, faces, attribution=attribution), LAUNCH)


if __name__ == "__main__":
    main()
