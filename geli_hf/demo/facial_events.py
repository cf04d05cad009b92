"""Event handlers of the facial-signal page: a live session before the camera, and a recording.

Live handlers end with `view`: the curve, the turns, and the steps of the rating.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from pathlib import Path

import gradio as gr

from ..affect import read_transcript, session_of_recording
from ..affect.session import listener_of
from ..data.rows import to_json_line
from ..models.attribution import HindsightAttribution
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..models.growing import GrowingScorer
from ..sessions import Session, assistant_turns
from . import facial_html
from .camera import REACTION_SECONDS, FaceReader, read_frame
from .facial import LiveSession, decompose, explain
from .limits import Limits
from .look import note, smile_meter
from .serving import for_browser, guarded, on_gpu

PARTNER, YOU = "Partner", "You"
UNCHANGED = (gr.skip(),) * 3  # of a `view`
FRAMES_PER_VIEW = 4  # the turns change slowly, and the visitor may be reading them


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
        scorer = GrowingScorer(model)
        self._decompose = on_gpu(lambda messages: decompose(scorer, messages))
        self._explain = on_gpu(lambda row: explain(attribution, row))

    # Live

    def view(self, session: LiveSession, now: float) -> tuple:
        return facial_html.live_curve(session, now), *self._turns(session)

    def _turns(self, session: LiveSession) -> tuple:
        smiles = session.watch.signals(session.turns)["affect_mean"]
        steps = facial_html.rating_steps(session.hindsight or session.words, smiles)
        return facial_html.turns(session.messages, session.words, smiles), steps

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
        smile = watch.see(self.faces, picture, now)
        shown = smile_meter(smile), facial_html.live_curve(session, now)
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
            return gr.skip(), note(problem), *UNCHANGED
        session.add("assistant" if who == PARTNER else "user", text, now)
        return "", "", *self._rescore(session, now)

    @guarded
    def begin(self):
        """Begin a new session."""
        session = LiveSession()
        return session, "", smile_meter(math.nan), *self.view(session, time.time())

    @guarded
    def keep(self, session: LiveSession):
        """Download the live session as a row."""
        if not session.words.rewards:
            gr.Info("There is nothing to download yet: let the partner say something.")
            return ""
        return _download(session.row(f"live-{secrets.token_hex(4)}", time.time()))

    # Recorded

    @guarded
    def analyse(self, video, transcript, listener):
        """Read the face in an uploaded video, beside its transcript if there is one. Both files are deleted then."""
        listener = (listener or "").strip() or None
        files = [Path(file) for file in (video, transcript) if file is not None]
        try:
            if video is None:
                return None, None, *_problem("Choose a video first.")
            words = None
            if transcript is not None:
                if Path(transcript).stat().st_size > self.limits.file_bytes:
                    return None, None, *_problem(f"A transcript may have {self.limits.file_bytes // 1000} kB here.")
                words = read_transcript(transcript)
                listener_of(words, listener)  # before minutes of reading the video
            table = self.faces.read_video(video, minutes=self.limits.video_minutes)
            session = None
            if words is not None:
                session = session_of_recording(table, words, listener=listener, session_id=Path(video).stem)
        except (ValueError, OSError) as error:
            text = str(error)
            for file in files:
                text = text.replace(f"{file.parent}{os.sep}", "")
            return None, None, *_problem(text)
        finally:
            for file in files:
                file.unlink(missing_ok=True)
        incomplete = table.attrs.get("incomplete", "")
        warning = note(f"Not all of the video could be read: it {incomplete}." if incomplete else "")
        if session is None:
            return None, None, warning, facial_html.recorded_curve(table), "", "", None
        words, smiles = self._decompose(session["messages"]), session["feedback"]["affect_mean"]
        steps = words if self.attribution is None else self._explain(session)
        marks = [session["start"][index] for index in assistant_turns(session["messages"])]
        turns = facial_html.turns(session["messages"], words, smiles)
        curve = facial_html.recorded_curve(table, marks)
        return None, None, warning, curve, turns, facial_html.rating_steps(steps, smiles), session

    @guarded
    def save(self, session: Session | None):
        """Download the recorded session as a row."""
        if session is None:
            gr.Info("There is no session yet: it takes a video and a transcript.")
            return ""
        return _download(session)


def _problem(text: str) -> tuple:
    return note(text), "", "", "", None


def _download(row: Session) -> str:
    return for_browser(f"{row['session_id']}.jsonl", "application/jsonl", (to_json_line(row) + "\n").encode())
