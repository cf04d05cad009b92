"""Event handlers of the facial-signal page: a live session before the camera, and a recording.

Live handlers end with `view`: the curve, the turns, the steps of the rating, and the snapshot that the tab stores.
"""

from __future__ import annotations

import base64
import io
import math
import secrets
import time
from pathlib import Path

import gradio as gr
from transformers.utils import logging

from ..affect import read_transcript
from ..affect.plot import plot_affect
from ..affect.session import listener_of
from ..affect.transcripts import Transcript
from ..data.rows import to_json_line
from ..models.attribution import HindsightAttribution
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import SessionError
from . import facial_html
from .camera import DEEPFACE, REACTION_SECONDS, SHIPPED, FaceReader, VideoTooLong, Watch, read_frame
from .facial import LiveSession, Recording, combine_recording, decompose, example, explain
from .limits import Limits
from .look import note
from .serving import for_browser, guarded, on_gpu

logger = logging.get_logger("geli_hf.demo")

CLASSIFIERS = {"Shipped classifier": SHIPPED, "DeepFace": DEEPFACE}
PARTNER, YOU = "Partner", "You"
UNCHANGED = (gr.skip(),) * 4  # of a `view`
FRAMES_PER_VIEW = 4  # the turns change slowly, and the visitor may be reading them
PROGRESS = gr.Progress()  # as a default it asks Gradio for a progress bar


class FacialEvents:
    """Event handlers of the facial-signal page.

    Args:
        model: rewards the words of each turn.
        faces: reads faces.
        limits: of one visitor.
        attribution: explains the rating with hindsight; None: the steps are those of the words.
    """

    def __init__(
        self, model: GeliRewardModel, faces: FaceReader, limits: Limits, attribution: HindsightAttribution | None
    ):
        self.model, self.faces, self.limits, self.attribution = model, faces, limits, attribution
        self._decompose = on_gpu(lambda messages: decompose(model, messages))
        self._explain = on_gpu(lambda row: explain(attribution, row))

    # Live

    def view(self, session: LiveSession, now: float) -> tuple:
        return facial_html.live_curve(session, now), *self._turns(session)

    def _turns(self, session: LiveSession) -> tuple:
        smiles = session.signals()["affect_mean"]
        steps = facial_html.rating_steps(session.hindsight or session.words, smiles)
        return facial_html.live_turns(session, smiles), steps, session.snapshot()

    def _rescore(self, session: LiveSession, now: float) -> tuple:
        session.words = self._decompose(session.messages)
        self._explain_with_hindsight(session, now)
        return self.view(session, now)

    def _explain_with_hindsight(self, session: LiveSession, now: float) -> None:
        if self.attribution is not None and session.words.rewards:
            session.hindsight = self._explain(session.row("live", now))

    @guarded
    def see(self, frame, session: LiveSession):
        """Read the face in a frame of the camera, and now and then update the turns."""
        now, picture, watch = time.time(), read_frame(frame), session.watch
        if picture is None or (watch.seconds and now - watch.seconds[-1] < 0.1):
            return gr.skip(), *UNCHANGED
        box, smile = watch.see(self.faces, picture, now)
        shown = facial_html.camera_now(box, smile, picture.shape[::-1]), facial_html.live_curve(session, now)
        if not session.turns or len(watch.seconds) % FRAMES_PER_VIEW:
            return *shown, *UNCHANGED[1:]
        if now - session.turns[-1].at < REACTION_SECONDS:
            self._explain_with_hindsight(session, now)
        return *shown, *self._turns(session)

    @guarded
    def speak(self, session: LiveSession):
        """Add the scripted partner's next turn."""
        now = time.time()
        problem = self.limits.problem("from the script", len(session.turns))
        if not problem and not session.add_from_script(now):
            problem = "The scripted partner has no more to say. Begin anew, or type what is said."
        return note(problem), *(UNCHANGED if problem else self._rescore(session, now))

    @guarded
    def say(self, text, who, session: LiveSession):
        """Add a turn that the visitor has typed."""
        problem, now = self.limits.problem(text, len(session.turns)), time.time()
        if not problem and sum(len(turn.text) for turn in session.turns) > 40 * self.limits.characters:
            problem = "Enough was said for one session. Begin anew to go on."
        if problem:
            return gr.skip(), note(problem, problem=True), *UNCHANGED
        session.add("assistant" if who == PARTNER else "user", text, now)
        return "", "", *self._rescore(session, now)

    @guarded
    def begin(self, session: LiveSession):
        """Begin a new session."""
        fresh = LiveSession(watch=Watch(session.watch.classifier))
        return fresh, "", facial_html.camera_now(), *self.view(fresh, time.time())

    @guarded
    def restore(self, stored, session: LiveSession):
        """Return to the turns that this tab had before a reload."""
        earlier = LiveSession.restore(stored, self.limits)
        if earlier is None:
            return session, gr.skip(), *UNCHANGED
        text = "Your turns are there again, with what your face showed at each. The curve begins anew."
        return earlier, note(text), *self._rescore(earlier, time.time())

    @guarded
    def keep(self, session: LiveSession):
        """Download the session as a row."""
        if not session.words.rewards:
            gr.Info("There is nothing to keep yet: let the partner say something.")
            return ""
        row = session.row(f"live-{secrets.token_hex(4)}", time.time())
        return for_browser(f"{row['session_id']}.jsonl", "application/jsonl", (to_json_line(row) + "\n").encode())

    @guarded
    def choose(self, label, session: LiveSession):
        """Switch the classifier."""
        name, problem = CLASSIFIERS.get(label, SHIPPED), ""
        try:
            self.faces.classifier(name)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            logger.warning(f"DeepFace can't be used: {error}")  # a visitor is told no path
            problem = "DeepFace can’t be used on this server; until then the shipped classifier reads the face."
            name, label = SHIPPED, "Shipped classifier"
        session.watch.classifier, session.watch.track = name, None
        return label, note(problem, problem=True)

    # Recorded

    def _read_video(self, source, name, label, transcript, listener, progress) -> Recording:
        progress(0, desc="Looking at the video")

        def report(share: float) -> None:
            progress(None if math.isnan(share) else share, desc="Looking at the video")

        classifier, minutes = CLASSIFIERS.get(label, SHIPPED), self.limits.video_minutes
        table = self.faces.read_video(source, name=classifier, minutes=minutes, progress=report)
        progress(1.0, desc="Rewarding the turns")
        return combine_recording(name, table, transcript, listener, self.model, self.attribution)

    @guarded
    def analyse(self, video, transcript, listener, label, progress=PROGRESS):
        """Read the face in an uploaded video, which is deleted then."""
        if video is None:
            return None, *_problem("Choose a video first, or take the example.")
        path, megabytes = Path(video), self.limits.video_megabytes
        try:
            if path.stat().st_size > megabytes * 1_000_000:
                return None, *_problem(f"The video is larger than {megabytes} MB, which is what this demo takes.")
            if transcript is not None:
                listener_of(transcript, listener or None)  # before minutes of reading the video
            recording = self._read_video(path, path.name, label, transcript, listener or None, progress)
        except VideoTooLong as error:
            return None, *_problem(str(error))
        except (ValueError, FileNotFoundError) as error:
            named = transcript.path if transcript and "listener" in str(error) else path
            return None, *_problem(_without_folder(error, named))
        finally:
            path.unlink(missing_ok=True)
        return None, *_recorded(recording)

    @guarded
    def analyse_example(self, label, progress=PROGRESS):
        """Read the face in the drawn example."""
        progress(0, desc="Drawing the example")
        made = example()
        recording = self._read_video(
            io.BytesIO(made.video), "example", label, made.transcript, made.listener, progress
        )
        return base64.b64encode(made.video).decode(), *_recorded(recording)

    @guarded
    def read(self, file):
        """Read an uploaded transcript, which is deleted then."""
        nobody = gr.update(visible=False, value=None)
        if file is None:
            return None, nobody, ""
        path = Path(file)
        try:
            if path.stat().st_size > self.limits.file_bytes:
                size = self.limits.file_bytes // 1000
                problem = f"A transcript may have {size} kB here; this one is larger."
                return None, nobody, note(problem, problem=True)
            transcript = read_transcript(path)
        except (ValueError, OSError) as error:
            return None, nobody, note(_without_folder(error, path), problem=True)
        finally:
            path.unlink(missing_ok=True)
        names = list(dict.fromkeys(each.speaker for each in transcript.utterances if each.speaker))[:20]
        count = len(transcript.utterances)
        text = f"{path.name}: {count} utterance{'s' if count > 1 else ''} of {len(names)} speakers."
        listeners = gr.update(choices=names, value=_known_listener(transcript), visible=len(names) > 1)
        return transcript, listeners, note(text)

    @guarded
    def save_csv(self, recording: Recording | None):
        if recording is None:
            return _nothing_to_download()
        return for_browser(f"{_stem(recording)}-frames.csv", "text/csv", recording.csv().encode())

    @guarded
    def save_jsonl(self, recording: Recording | None):
        if recording is None or recording.session is None:
            return _nothing_to_download("Without a transcript there is no session." if recording else None)
        line = to_json_line(recording.session) + "\n"
        return for_browser(f"{_stem(recording)}.jsonl", "application/jsonl", line.encode())

    @guarded
    def save_png(self, recording: Recording | None):
        if recording is None:
            return _nothing_to_download()
        name, file = _stem(recording), io.BytesIO()
        no_turns = {"session_id": name, "messages": [], "start": [], "stop": [], "feedback": {"affect_mean": []}}
        plot_affect(recording.table, recording.session or no_turns, file)
        return for_browser(f"{name}.png", "image/png", file.getvalue())


def _problem(text: str) -> tuple:
    return note(text, problem=True), facial_html.EMPTY, "", "", None


def _recorded(recording: Recording) -> tuple:
    table = steps = warning = ""
    if recording.session is not None:
        table = facial_html.table(recording)
        smiles = recording.session["feedback"]["affect_mean"]
        steps = facial_html.rating_steps(recording.hindsight or recording.words, smiles)
    if incomplete := recording.table.attrs.get("incomplete"):
        warning = f"Not all of the video could be read: it {incomplete}."
    return note(warning, problem=True), facial_html.recorded_timeline(recording), table, steps, recording


def _without_folder(error: Exception, path: Path) -> str:
    """Return the error with the file's own name instead of its path on the server."""
    text = str(error).replace(str(path), path.name).replace(str(path.parent), "")
    return text[:1].upper() + text[1:]


def _known_listener(transcript: Transcript) -> str | None:
    try:
        return listener_of(transcript, None) or None
    except SessionError:
        return None


def _nothing_to_download(text: str | None = None) -> str:
    gr.Info(text or "There is nothing to download yet.")
    return ""


def _stem(recording: Recording) -> str:
    return Path(recording.name).stem or "recording"
