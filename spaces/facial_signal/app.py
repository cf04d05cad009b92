"""See a face become feedback on each turn of a conversation, live or in a recording, beside a text reward model.

    python spaces/facial_signal/app.py

GELI_MODEL names another reward model than the one that comes with the package, and GELI_ATTRIBUTION an attribution
(`HindsightAttribution`): the steps of the rating are then those in hindsight.
"""

from __future__ import annotations

import base64
import functools
import io
import math
import os
import secrets
import sys
import time
from pathlib import Path
from threading import Thread

# Before all others, as it says itself.
from geli_hf.demo.serving import SAVE_JS, for_browser, friendly, launch_options, on_gpu, serve

# isort: split
import gradio as gr

import geli_hf
from geli_hf import GeliRewardModel
from geli_hf.affect import read_transcript
from geli_hf.affect.plot import plot_affect
from geli_hf.affect.session import listener_of
from geli_hf.data.rows import to_json_line
from geli_hf.demo import facial_page as page
from geli_hf.demo.camera import picture_of
from geli_hf.demo.facial import (
    DEEPFACE,
    LOOKED_AT,
    SHIPPED,
    Faces,
    Limits,
    LiveSession,
    Recording,
    TooMuch,
    decompose,
    example,
    explain,
    recording,
)
from geli_hf.demo.policies import ModelError, load_attribution, load_reward_model
from geli_hf.models.attribution import HindsightAttribution

CLASSIFIERS = {"Shipped classifier": SHIPPED, "DeepFace": DEEPFACE}
PARTNER, YOU = "Partner", "You"
STATE_SECONDS = 3600
PROGRESS = gr.Progress()  # as a default it asks Gradio for a bar of one's own
# By what its loading fails with: what is the matter, and what whoever runs the page can do about it.
DEEPFACE_FILE = "facial_expression_model_weights.onnx"
NO_DEEPFACE = {
    ImportError: "it is not installed. Install it with pip install 'geli-hf[faces]'",
    OSError: f"its weights are not on this server and can’t be downloaded. Put {DEEPFACE_FILE} into .deepface/weights "
    "in the server’s home",
    ValueError: f"it can’t read its weights. Delete {DEEPFACE_FILE} in .deepface/weights in the server’s home, and it "
    "is downloaded anew",
    RuntimeError: "it runs on another engine already. Start the page without DEEPFACE_BACKEND_ENGINE",
}

# The box lies over the camera's picture, which is mirrored as the frames that are sent are.
BOX_JS = """
const place = () => {
  const camera = document.querySelector('#camera'), video = camera && camera.querySelector('video');
  const told = element.querySelector('[data-box]');
  let box = camera && camera.querySelector('.f-box');
  if (!video || !told || !told.dataset.box || !video.videoWidth) { if (box) box.remove(); return; }
  const home = video.parentElement;
  if (!box) { box = document.createElement('div'); box.className = 'f-box'; box.setAttribute('aria-hidden', 'true'); }
  if (box.parentElement !== home) { home.style.position = 'relative'; home.append(box); }
  const inside = video.getBoundingClientRect(), around = home.getBoundingClientRect();
  const scale = Math.min(inside.width / video.videoWidth, inside.height / video.videoHeight);
  const width = video.videoWidth * scale, height = video.videoHeight * scale;
  const left = inside.left - around.left + (inside.width - width) / 2;
  const top = inside.top - around.top + (inside.height - height) / 2;
  const [x, y, w, h] = told.dataset.box.split(',').map(Number);
  Object.assign(box.style, {left: left + x * width + 'px', top: top + y * height + 'px', width: w * width + 'px',
    height: h * height + 'px'});
};
watch('value', place); window.addEventListener('resize', place);
"""
# The player shows the visitor's own file, which is still in the browser when the server has deleted it.
PLAYER_HTML = '<video class="f-player" controls playsinline aria-label="Player of the recording"></video>'
PLAYER_JS = """
const player = () => document.querySelector('#player video');
let url = null;
const show = (blob) => {
  if (url) URL.revokeObjectURL(url);
  url = URL.createObjectURL(blob); player().src = url;
};
window.geliPlay = show;
const chosen = (files) => { if (files && files[0] && player()) show(files[0]); };
document.addEventListener('change', (event) => {
  if (event.target.matches && event.target.matches('#video input[type=file]')) chosen(event.target.files);
}, true);
document.addEventListener('drop', (event) => {
  if (event.target.closest && event.target.closest('#video')) chosen(event.dataTransfer.files);
}, true);
const cursor = () => {
  const plot = document.querySelector('#timeline svg'), line = plot && plot.querySelector('.f-cursor');
  if (!line || !player()) return;
  const {left, right, end} = plot.dataset;
  const x = Number(left) + (right - left) * Math.min(1, player().currentTime / end);
  line.setAttribute('x1', x); line.setAttribute('x2', x);
};
const tick = () => { cursor(); if (player() && !player().paused) requestAnimationFrame(tick); };
for (const name of ['timeupdate', 'seeked', 'play']) element.addEventListener(name, tick, true);
const go = (seconds) => { if (player() && player().src) { player().currentTime = seconds; cursor(); } };
const act = (event) => {
  const row = event.target.closest('#table [data-at]');
  if (row) { go(Number(row.dataset.at)); return; }
  const plot = event.type === 'click' && event.target.closest('#timeline svg');
  if (!plot) return;
  const {left, right, end} = plot.dataset, area = plot.getBoundingClientRect();
  const x = (event.clientX - area.left) * plot.viewBox.baseVal.width / area.width;
  go(Math.min(Math.max((x - left) / (right - left), 0), 1) * end);
};
document.addEventListener('click', act);
document.addEventListener('keydown', (event) => { if (event.key === 'Enter') act(event); });
"""
DOWN_JS = """
watch('value', () => { const box = element.querySelector('.g-thread'); if (box) box.scrollTop = box.scrollHeight; });
"""
# Of one tab: the storage of a session goes when its tab is closed, and no other tab sees it.
KEEP_JS = "(kept) => { kept ? sessionStorage.setItem('geli-face', kept) : sessionStorage.removeItem('geli-face'); }"
KEPT_JS = "(kept, session) => [sessionStorage.getItem('geli-face') || '', session]"
PLAY_JS = """(clip) => {
  if (!clip) return;
  const bytes = Uint8Array.from(atob(clip), (sign) => sign.charCodeAt(0));
  window.geliPlay(new Blob([bytes], {type: 'video/mp4'}));
}"""


def said_of(error: Exception, path: Path) -> str:
    """What is wrong with a file, by the name that its owner gave it and without the server's folders."""
    told = str(error).replace(str(path), path.name).replace(str(path.parent), "")
    return told[:1].upper() + told[1:]


def build_demo(
    model: GeliRewardModel,
    faces: Faces,
    limits: Limits | None = None,
    attribution: HindsightAttribution | None = None,
) -> gr.Blocks:
    """The page.

    Args:
        model: rewards the words of each turn.
        faces: what reads faces.
        limits: what one visitor may ask of it.
        attribution: says in hindsight what each turn was worth.
    """
    limits = limits or Limits()
    score = on_gpu(lambda messages: decompose(model, messages))
    explained = on_gpu(lambda row: explain(attribution, row))

    # Live

    def heard(session: LiveSession):
        smiles = session.signals()["affect_mean"]
        steps = page.decomposition(session.explained or session.found, smiles)
        return page.turns(session.messages, session.found, smiles), steps, session.snapshot()

    def look_back(session: LiveSession, now: float):
        if attribution is not None:
            session.explained = explained(session.row("live", now))

    @friendly
    def see(frame, session: LiveSession):
        now, picture = time.time(), picture_of(frame)
        if picture is None or (session.seconds and now - session.seconds[-1] < 0.1):
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip()
        box, smile = session.see(faces, picture, now)
        shown = page.now(box, smile, picture.shape[::-1]), page.live_curve(session, now)
        # The turns change slowly, and somebody may be reading them.
        if not session.said or len(session.seconds) % 4:
            return *shown, gr.skip(), gr.skip(), gr.skip()
        if now - session.said[-1].at < LOOKED_AT:
            look_back(session, now)
        return *shown, *heard(session)

    def told(session: LiveSession, now: float):
        session.found = score(session.messages)
        look_back(session, now)
        return page.live_curve(session, now), *heard(session)

    @friendly
    def speak(session: LiveSession):
        now = time.time()
        if len(session.said) + 2 > limits.turns:
            return page.note(full), *nothing_new
        if not session.go_on(now):
            over = "The scripted partner has no more to say. Begin anew, or type what is said."
            return page.note(over), *nothing_new
        return "", *told(session, now)

    nothing_new = (gr.skip(),) * 4  # of what `told` tells
    full = f"A session may have {limits.turns} turns here. Begin anew to go on."

    @friendly
    def say(text, who, session: LiveSession):
        problem = ""
        if not text.strip():
            problem = "Write what was said first."
        elif len(text) > limits.characters:
            problem = f"That is {len(text):,} characters; a turn may have {limits.characters}. Please shorten it."
        elif len(session.said) >= limits.turns:
            problem = full
        elif sum(len(each.text) for each in session.said) > 40 * limits.characters:
            problem = "Enough was said for one session. Begin anew to go on."
        if problem:
            return gr.skip(), page.note(problem, problem=True), *nothing_new
        now = time.time()
        session.say("assistant" if who == PARTNER else "user", text, now)
        return "", "", *told(session, now)

    @friendly
    def begin(session: LiveSession):
        fresh = LiveSession(backend=session.backend)
        return fresh, "", page.now(None, math.nan, None), page.live_curve(fresh, time.time()), *heard(fresh)

    @friendly
    def restore(kept, session: LiveSession):
        """The turns that this tab had before it was loaded anew."""
        before = LiveSession.restored(kept, limits) if isinstance(kept, str) else None
        if before is None:
            return session, gr.skip(), *nothing_new
        again = "Your turns are there again, with what your face showed at each. The curve begins anew."
        return before, page.note(again), *told(before, time.time())

    @friendly
    def keep(session: LiveSession):
        if not session.found.rewards:
            gr.Info("There is nothing to keep yet: let the partner say something.")
            return ""
        row = session.row(f"live-{secrets.token_hex(4)}", time.time())
        return for_browser(f"{row['session_id']}.jsonl", "application/jsonl", (to_json_line(row) + "\n").encode())

    # Both

    @friendly
    def choose(label, session: LiveSession):
        name, problem = CLASSIFIERS.get(label, SHIPPED), ""
        try:
            faces.classifier(name)
        except tuple(NO_DEEPFACE) as error:
            why = next(told for kind, told in NO_DEEPFACE.items() if isinstance(error, kind))
            problem = f"DeepFace can’t be used here: {why}; until then the shipped classifier reads the face."
            name, label = SHIPPED, "Shipped classifier"
        session.backend, session.live = name, None
        return label, page.note(problem, problem=True)

    # Recorded

    def blank(message: str = "", problem: bool = True):
        return page.note(message, problem=problem), page.EMPTY, "", "", None

    def shown(found: Recording):
        session, table, steps, warning = found.session, "", "", ""
        if session is not None:
            smiles = session["feedback"]["affect_mean"]
            table = page.table(session["messages"], found.decomposition, smiles, session["start"], found.explained)
            steps = page.decomposition(found.explained or found.decomposition, smiles)
        if broken_off := found.table.attrs.get("incomplete"):
            warning = f"Not all of the video could be read: it {broken_off}."
        return page.note(warning, problem=True), page.recorded_timeline(found), table, steps, found

    def looked_at(source, name, label, transcript, listener, progress):
        progress(0, desc="Looking at the video")

        def tell(share: float) -> None:
            progress(None if math.isnan(share) else share, desc="Looking at the video")

        table = faces.watch(source, name=CLASSIFIERS.get(label, SHIPPED), minutes=limits.minutes, progress=tell)
        progress(1.0, desc="Rewarding the turns")
        return recording(name, table, transcript, listener, model, attribution)

    @friendly
    def analyse(video, transcript, listener, label, progress=PROGRESS):
        if video is None:
            return None, *blank("Choose a video first, or take the example.")
        path = Path(video)
        try:
            if path.stat().st_size > limits.megabytes * 1_000_000:
                return None, *blank(f"The video is larger than {limits.megabytes} MB, which is what this demo takes.")
            if transcript is not None:
                listener_of(transcript, listener or None)  # before minutes of video are looked at
            found = looked_at(path, path.name, label, transcript, listener or None, progress)
        except TooMuch as error:
            return None, *blank(str(error))
        except (ValueError, FileNotFoundError) as error:
            return None, *blank(said_of(error, transcript.path if transcript and "listener" in str(error) else path))
        finally:
            path.unlink(missing_ok=True)
        return None, *shown(found)

    @friendly
    def analyse_example(label, progress=PROGRESS):
        progress(0, desc="Drawing the example")
        made = example()
        found = looked_at(io.BytesIO(made.video), "example", label, made.transcript, made.listener, progress)
        return base64.b64encode(made.video).decode(), *shown(found)

    @friendly
    def read(file):
        """The transcript, who speaks in it, and what is wrong with it."""
        if file is None:
            return None, gr.update(visible=False, value=None), ""
        path = Path(file)
        try:
            if path.stat().st_size > 1000 * limits.transcript_kilobytes:
                raise TooMuch(f"A transcript may have {limits.transcript_kilobytes} kB here; this one is larger.")
            transcript = read_transcript(path)
        except (ValueError, OSError) as error:
            return None, gr.update(visible=False, value=None), page.note(said_of(error, path), problem=True)
        finally:
            path.unlink(missing_ok=True)
        names = list(dict.fromkeys(each.speaker for each in transcript.utterances if each.speaker))[:20]
        try:
            listener = listener_of(transcript, None) or None
        except ValueError:
            listener = None
        count = len(transcript.utterances)
        read_it = page.note(f"{path.name}: {count} utterance{'s' if count > 1 else ''} of {len(names)} speakers.")
        choices = gr.update(choices=names, value=listener, visible=len(names) > 1)
        return transcript, choices, read_it

    def saved(found: Recording | None, kind: str) -> str:
        if found is None:
            gr.Info("There is nothing to download yet.")
            return ""
        name = Path(found.name).stem or "recording"
        if kind == "csv":
            return for_browser(f"{name}-frames.csv", "text/csv", found.csv().encode())
        if kind == "jsonl":
            if found.session is None:
                gr.Info("Without a transcript there is no session.")
                return ""
            return for_browser(f"{name}.jsonl", "application/jsonl", (to_json_line(found.session) + "\n").encode())
        nothing = {"messages": [], "start": [], "stop": [], "feedback": {"affect_mean": []}}
        picture = io.BytesIO()
        plot_affect(found.table, found.session or {"session_id": name, **nothing}, picture)
        return for_browser(f"{name}.png", "image/png", picture.getvalue())

    with gr.Blocks(
        title="A face, and what it says of each turn", analytics_enabled=False, delete_cache=(300, 900)
    ) as demo:
        # Called once for each tab.
        session = gr.State(lambda: LiveSession(), time_to_live=STATE_SECONDS)
        watched = gr.State(None, time_to_live=STATE_SECONDS)
        transcript = gr.State(None, time_to_live=STATE_SECONDS)
        file, clip, kept = (gr.Textbox(visible="hidden") for _ in range(3))
        gr.HTML(page.HEAD + page.PRIVACY, apply_default_css=False)
        with gr.Row(elem_classes="g-tools"):
            classifier = gr.Radio(
                list(CLASSIFIERS), value="Shipped classifier", label="What reads the face", elem_id="classifier"
            )
        switched = gr.HTML("", elem_id="switched", apply_default_css=False)
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
                    seen = gr.HTML(
                        page.now(None, math.nan, None), js_on_load=BOX_JS, elem_id="now", apply_default_css=False
                    )
                    curve = gr.HTML(
                        page.live_curve(LiveSession(), time.time()), elem_id="curve", apply_default_css=False
                    )
                with gr.Column(scale=3, min_width=320):
                    with gr.Row(elem_classes="f-tools"):
                        speaking = gr.Button("Let the partner speak", variant="primary", size="md", min_width=220)
                        beginning = gr.Button("Begin anew", size="md", min_width=110)
                        keeping = gr.Button("Download (JSONL)", size="md", min_width=140)
                    live_note = gr.HTML("", elem_id="live-note", apply_default_css=False)
                    dialogue = gr.HTML(
                        page.turns([], LiveSession().found, []),
                        js_on_load=DOWN_JS,
                        elem_id="dialogue",
                        apply_default_css=False,
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
                    steps = gr.HTML(
                        page.decomposition(LiveSession().found, []), elem_id="steps", apply_default_css=False
                    )
            with gr.Tab("Recorded"):
                with gr.Row():
                    with gr.Column(scale=2, min_width=320):
                        video = gr.File(
                            label=f"Video, up to {limits.megabytes} MB, {limits.minutes:g} min",
                            file_types=["video"],
                            height=150,
                            elem_id="video",
                        )
                        written = gr.File(
                            label="Transcript: CSV, SRT, VTT, JSON",
                            file_types=[".csv", ".srt", ".vtt", ".json"],
                            height=150,
                            elem_id="transcript",
                        )
                        listener = gr.Radio(
                            [], label="Whose face is it?", visible=False, interactive=True, elem_id="listener"
                        )
                        read_note = gr.HTML("", elem_id="read-note", apply_default_css=False)
                        with gr.Row(elem_classes="g-tools"):
                            looking = gr.Button("Look at it", variant="primary", min_width=120)
                            trying = gr.Button("Take the example", min_width=140)
                    with gr.Column(scale=3, min_width=320):
                        gr.HTML(PLAYER_HTML, js_on_load=PLAYER_JS, elem_id="player", apply_default_css=False)
                        rec_note = gr.HTML("", elem_id="rec-note", apply_default_css=False)
                        timeline = gr.HTML(page.EMPTY, elem_id="timeline", apply_default_css=False)
                        with gr.Row(elem_classes="g-tools"):
                            save_csv = gr.Button("Frames (CSV)", size="sm", min_width=90)
                            save_jsonl = gr.Button("Session (JSONL)", size="sm", min_width=90)
                            save_png = gr.Button("Picture (PNG)", size="sm", min_width=90)
                with gr.Row():
                    with gr.Column(scale=1, min_width=320):
                        table = gr.HTML("", elem_id="table", apply_default_css=False)
                    with gr.Column(scale=1, min_width=320):
                        rec_steps = gr.HTML("", elem_id="rec-steps", apply_default_css=False)
        gr.HTML(page.ABOUT, apply_default_css=False)

        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        said = [curve, dialogue, steps, kept]
        camera.stream(
            see,
            [camera, session],
            [seen, *said],
            stream_every=0.5,
            time_limit=limits.camera_seconds,
            concurrency_limit=8,
            preprocess=False,
            **quiet,
        )
        speaking.click(speak, session, [live_note, *said], **quiet)
        words.submit(say, [words, who, session], [words, live_note, *said], **quiet)
        beginning.click(begin, session, [session, live_note, seen, *said], **quiet)
        kept.change(None, kept, js=KEEP_JS, **quiet)
        demo.load(restore, [kept, session], [session, live_note, *said], js=KEPT_JS, **quiet)
        classifier.input(choose, [classifier, session], [classifier, switched], **quiet)

        result = [rec_note, timeline, table, rec_steps, watched]
        written.change(read, written, [transcript, listener, read_note], **quiet)
        busy = {"concurrency_limit": 1, "concurrency_id": "watching", "show_progress_on": timeline}
        busy |= {"show_progress": "full", "api_visibility": "private"}
        looking.click(analyse, [video, transcript, listener, classifier], [video, *result], **busy)
        trying.click(analyse_example, classifier, [clip, *result], **busy).then(None, clip, js=PLAY_JS, **quiet)
        save = {"fn": None, "inputs": file, "js": SAVE_JS, **quiet}
        keeping.click(keep, session, file, **quiet).then(**save)
        for button, kind in ((save_csv, "csv"), (save_jsonl, "jsonl"), (save_png, "png")):
            button.click(functools.partial(friendly(saved), kind=kind), watched, file, **quiet).then(**save)
    return demo


def main() -> None:
    reward = os.environ.get("GELI_MODEL") or Path(geli_hf.__file__).parent / "weights" / "policy_reward"
    explaining = os.environ.get("GELI_ATTRIBUTION")
    try:
        model = load_reward_model(reward)
        attribution = load_attribution(explaining) if explaining else None
    except ModelError as error:
        sys.exit(f"{'GELI_MODEL' if error.argument == 'reward' else 'GELI_ATTRIBUTION'}: {error.told}")
    faces = Faces()
    faces.classifier()
    Thread(target=example, daemon=True).start()  # so that it is drawn before somebody asks for it
    serve(build_demo(model, faces, attribution=attribution), LAUNCH)


LAUNCH = launch_options(f"{Limits().megabytes}mb", page.style_sheet())

if __name__ == "__main__":
    main()
