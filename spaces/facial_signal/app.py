"""See a smile change the predicted rating of a conversation: in an example, live, or in a video of your own.

    python spaces/facial_signal/app.py

GELI_MODEL names another reward model of the words than the one that comes with the package, and GELI_ATTRIBUTION an
attribution (`HindsightAttribution`), whose trust in the face's signals takes the place of that in hindsight.json.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

# Before all others, see its docstring.
from geli_hf.demo import serving

# isort: split
import gradio as gr
import pandas as pd
from transformers.utils import cached_file

from geli_hf import GeliRewardModel
from geli_hf.affect import read_transcript
from geli_hf.alignment.shipped import REWARD
from geli_hf.demo.camera import FaceReader
from geli_hf.demo.facial import LiveSession, Recording
from geli_hf.demo.facial_events import PARTNER, YOU, FacialEvents
from geli_hf.demo.limits import Limits
from geli_hf.demo.look import smile_meter
from geli_hf.demo.policies import load_reward_model
from geli_hf.demo.serving import AT_ONCE, QUICK, QUIET, camera, html, on_download
from geli_hf.models.attribution import SIGNALS_FILE, SignalTrust

HERE = Path(__file__).parent
SWEEP = (60, 600)  # every minute Gradio deletes the uploads that are older than ten, whatever went wrong
TRANSCRIPTS, WHOSE = [".csv", ".srt", ".vtt", ".json"], "Whose face is it?"
LIMITS = Limits(characters=500, messages=60, cameras=4)


def build_demo(
    model: GeliRewardModel, faces: FaceReader, limits: Limits = LIMITS, trust: Mapping[str, SignalTrust] | None = None
) -> gr.Blocks:
    """Build the page.

    Args:
        model: rewards the words of each turn.
        faces: reads faces.
        limits: of an address.
        trust: of the face's signals; None: that of hindsight.json.
    """
    script = list(csv.reader((HERE / "script.csv").open(encoding="utf-8")))
    events = FacialEvents(model, faces, limits, load_trust(HERE) if trust is None else trust, script)
    example = Recording(pd.read_csv(HERE / "example_face.csv"), read_transcript(HERE / "example_talk.csv"))
    rating, curves, turns = events.view(LiveSession(), time.time())

    with gr.Blocks(title="Does a smile change the rating?", analytics_enabled=False, delete_cache=SWEEP) as demo:
        session = gr.State(LiveSession(), time_to_live=3600)
        recording = gr.State(Recording(), time_to_live=3600)
        file = gr.Textbox(visible="hidden")
        html(HERE / "head.html")
        with gr.Tabs():
            with gr.Tab("Example"):
                html(HERE / "player.html", js=HERE / "player.js", elem_classes="f-place")
                html(HERE / "example.html")
                html(events.show(example)[1], elem_id="example")
            with gr.Tab("Your camera"), gr.Row():
                with gr.Column(scale=2, min_width=320):
                    face, now = camera(), html(smile_meter(math.nan), elem_id="now")
                    rating, curves = html(rating, elem_id="rating-now"), html(curves, elem_id="curve")
                with gr.Column(scale=3, min_width=320):
                    with gr.Row(elem_classes="g-tools"):
                        speak = gr.Button("Let the partner speak", variant="primary", size="md", min_width=200)
                        begin = gr.Button("Begin anew", size="md", min_width=100)
                    live_note = html(elem_id="live-note")
                    turns = html(turns, elem_id="dialogue")
                    with gr.Group():
                        who = gr.Radio([PARTNER, YOU], value=PARTNER, label="Or type what is said, and by whom")
                        words = gr.Textbox(label="What is said", max_length=limits.characters, submit_btn="Add")
                    keep = gr.Button("Download (JSONL)", size="md")
            with gr.Tab("Your video"), gr.Row():
                with gr.Column(scale=2, min_width=320):
                    label = f"Video, up to {limits.video_megabytes} MB, {limits.video_minutes:g} min"
                    video = gr.File(label=label, file_types=["video"], height=140, elem_id="video")
                    label = "Transcript: CSV, SRT, VTT, JSON"
                    transcript = gr.File(label=label, file_types=TRANSCRIPTS, height=140, elem_id="transcript")
                    listener = gr.Dropdown([], label=WHOSE, visible=False, allow_custom_value=True, elem_id="listener")
                    sheet = gr.Checkbox(True, label="Show me the strongest moments")
                    save = gr.Button("Session (JSONL)", size="md")
                with gr.Column(scale=3, min_width=320):
                    html(HERE / "player.html", js=HERE / "player.js", elem_classes="f-place")
                    rec_note, result = html(elem_id="rec-note"), html(HERE / "video.html", elem_id="result")
                    moments = html(elem_id="moments")
        html(HERE / "about.html")

        view = [rating, curves, turns]
        face.frame(events.see, session, [now, *view], **AT_ONCE)
        speak.click(events.speak, session, [live_note, *view], **QUIET)
        words.submit(events.say, [words, who, session], [words, live_note, *view], **QUIET)
        begin.click(events.begin, None, [session, live_note, now, *view], **QUIET)
        on_download(keep, events.keep, session, file)
        shown = [rec_note, result]
        reading = {"show_progress": "full", "show_progress_on": result, "api_visibility": "private"}
        video.upload(events.arrive, video, **AT_ONCE).then(
            events.watch, [video, sheet, recording], [*shown, moments], concurrency_limit=1, **reading
        )
        video.clear(events.forget, recording, [*shown, moments], **AT_ONCE)
        gr.on([transcript.upload, transcript.clear], events.hear, [transcript, recording], [listener, *shown], **QUICK)
        listener.input(events.choose, [listener, recording], shown, **QUICK)
        on_download(save, events.save, recording, file)
        demo.unload(events.leave)
    return demo


def load_trust(attribution: str | Path) -> dict[str, SignalTrust]:
    """Read the trust in each signal from an attribution's folder, here or on the Hub, without its model."""
    text = Path(cached_file(str(attribution), SIGNALS_FILE)).read_text(encoding="utf-8")
    return {name: SignalTrust(**signal) for name, signal in json.loads(text)["signals"].items()}


def own_uploads() -> None:
    """Give uploads a folder of their own, and delete what an earlier run has left there when it was killed."""
    folder = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()) / "geli_hf_facial_signal"
    shutil.rmtree(folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)


def main() -> None:
    own_uploads()
    trust = load_trust(os.environ.get("GELI_ATTRIBUTION") or HERE)
    model = load_reward_model(os.environ.get("GELI_MODEL") or REWARD)
    serving.serve(build_demo(model, FaceReader(), trust=trust), LIMITS, uploads=True)


if __name__ == "__main__":
    main()
