"""Event handlers of the facial-signal page: a live session before the camera, and a recording.

Live handlers end with `view`: the rating, the curves and the turns.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np

from ..affect import read_transcript, session_of_recording
from ..affect.session import listener_of
from ..data.rows import to_json_line
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..models.growing import GrowingScorer
from ..sessions import Session
from . import facial_html
from .camera import FaceReader, read_frame
from .facial import Decomposition, LiveSession, Recording, add_face, decompose, strongest_faces
from .limits import Cameras, Limits, Quota
from .look import note, smile_meter
from .serving import address_of, for_browser, guarded, on_gpu, refuse

PARTNER, YOU = "Partner", "You"
UNCHANGED = (gr.skip(),) * 3  # of a `view`
FRAMES_PER_VIEW = 4  # the turns change slowly, and the visitor may be reading them
VIDEOS_PER_MINUTE = 4
ALL_IN_USE = "All cameras are in use. Leave yours on: it begins when a place is free."


class FacialEvents:
    """Event handlers of the facial-signal page.

    Args:
        model: rewards the words of each turn.
        faces: reads faces.
        limits: of an address.
        trust: `SignalTrust` by the name of the face's signal.
        script: the listener's lines, and the partner's answer to each.
    """

    def __init__(self, model: GeliRewardModel, faces: FaceReader, limits: Limits, trust: Mapping, script: Sequence):
        self.model, self.faces, self.limits, self.trust, self.script = model, faces, limits, trust, script
        self.quota, self.cameras = Quota(), Cameras(limits)
        self.uploads: set[tuple[str | None, Path]] = set()  # that lie on the disk, with their tabs
        scorer = GrowingScorer(model)
        self._decompose = on_gpu(lambda messages: decompose(scorer, messages))

    # Live

    def view(self, session: LiveSession, now: float) -> tuple:
        turns, words = session.scored
        signals = session.watch.signals(turns)
        steps = add_face(words, self.trust, signals, self.model.config)
        return facial_html.live(turns, session.watch, steps, signals["affect_mean"], now)

    def _rescore(self, session: LiveSession, now: float) -> tuple:
        session.scored = list(session.turns), self._decompose(session.messages)
        return self.view(session, now)

    @guarded
    def see(self, session: LiveSession, event: gr.EventData, request: gr.Request):
        """Read the face in a frame of the camera, and now and then update the turns."""
        now, picture, watch = time.time(), read_frame(getattr(event, "url", None)), session.watch
        if not self.cameras.admit(address_of(request), request.session_hash or ""):
            return note(ALL_IN_USE), *UNCHANGED
        if picture is None or (watch.seconds and now - watch.seconds[-1] < 0.1):
            return gr.skip(), *UNCHANGED
        smile = smile_meter(watch.see(self.faces, picture, now))
        rating, curves, turns = self.view(session, now)
        return smile, rating, curves, gr.skip() if len(watch.seconds) % FRAMES_PER_VIEW else turns

    @guarded
    def speak(self, session: LiveSession):
        """Add the scripted partner's next turn."""
        now = time.time()
        if not session.add_from_script(self.script, now):
            return note("The scripted partner has no more to say. Begin anew, or type what is said."), *UNCHANGED
        return "", *self._rescore(session, now)

    @guarded
    def say(self, text, who, session: LiveSession):
        """Add a turn that the visitor has typed."""
        problem, now = self.limits.problem(text, len(session.turns)), time.time()
        # Who goes on speaking extends a turn.
        if sum(len(turn.text) for turn in session.turns) > 40 * self.limits.characters:
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
        """Download the live session as a row.

        Raises:
            refuse: nothing has been said yet.
        """
        if not session.scored[1].words:
            raise refuse("There is nothing to download yet: let the partner say something.")
        return _download(session.row(f"live-{secrets.token_hex(4)}", time.time()))

    # Recorded. A file lies on the disk from its upload until it was read, was removed, or its tab was closed.

    @guarded
    def arrive(self, video, request: gr.Request) -> None:
        """Note that a video lies on the disk."""
        self.uploads.add((request.session_hash, Path(video)))

    @guarded
    def watch(self, video, sheet, recording: Recording, request: gr.Request):
        """Read the face in an uploaded video, and delete it."""
        try:
            if not self.quota.take(address_of(request), "video", VIDEOS_PER_MINUTE):
                return note("That was a lot of videos within a minute. Please wait a moment."), "", ""
            recording.table = self.faces.read_video(video, minutes=self.limits.video_minutes)
            moments = strongest_faces(recording.table, video) if sheet else []
        except (ValueError, OSError) as error:
            recording.table = None
            return note(_message(error, Path(video))), "", ""
        finally:
            self._release(request.session_hash, Path(video))
        return *self.show(recording), facial_html.contact_sheet(moments) if moments else ""

    @guarded
    def hear(self, transcript, recording: Recording):
        """Read a transcript, delete it, and ask whose face it is unless it says so. None: forget it."""
        recording.transcript = recording.listener = None
        ask, file = gr.update(visible=False), Path(transcript or "")
        if transcript is None:
            return ask, *self.show(recording)
        try:
            if file.stat().st_size > self.limits.file_bytes:
                return ask, note(f"A transcript may have {self.limits.file_bytes // 1000} kB here."), gr.skip()
            # No log shall name a visitor's file.
            recording.transcript = said = replace(read_transcript(file), path=Path("transcript"))
        except (ValueError, OSError) as error:
            return ask, note(_message(error, file)), self.show(recording)[1]
        finally:
            file.unlink(missing_ok=True)
        try:
            listener_of(said, None)
        except ValueError:
            speakers = dict.fromkeys(each.speaker for each in said.utterances)
            ask = gr.update(choices=list(speakers), value=None, visible=True)
        return ask, *self.show(recording)

    @guarded
    def choose(self, listener, recording: Recording):
        """Say whose face the video shows."""
        recording.listener = str(listener) if listener else None
        return self.show(recording)

    def show(self, recording: Recording) -> tuple:
        """Return what there is to say, and the numbers of what has been read so far."""
        table, transcript, recording.session = recording.table, recording.transcript, None
        if table is None:
            return note("Now choose the video of this conversation." if transcript else ""), ""
        incomplete = table.attrs.get("incomplete")
        problem = f"Not all of the video could be read: it {incomplete}." if incomplete else ""
        if transcript is None:
            return note(problem), facial_html.recorded(table, None, Decomposition())
        try:
            session = session_of_recording(table, transcript, listener=recording.listener, session_id="recording")
        except ValueError as error:
            return note(str(error)), facial_html.recorded(table, None, Decomposition())
        if late := int(np.sum(np.array(session["start"]) > table["time"].max())):
            problem += f" {late} of {len(session['start'])} turns start after the end of the video: no face met them."
        words = self._decompose(session["messages"])
        steps, recording.session = add_face(words, self.trust, session["feedback"], self.model.config), session
        return note(problem.strip()), facial_html.recorded(table, session, steps)

    @guarded
    def forget(self, recording: Recording, request: gr.Request):
        """Forget the video, and delete it."""
        self.leave(request)
        recording.table = recording.session = None
        return "", "", ""

    def leave(self, request: gr.Request) -> None:
        """Delete what a tab has left on the disk."""
        for tab, path in list(self.uploads):
            if tab == request.session_hash:
                self._release(tab, path)

    def _release(self, tab: str | None, path: Path) -> None:
        """Delete a tab's video, unless another tab has uploaded the same one."""
        self.uploads.discard((tab, path))
        if path not in {other for _, other in list(self.uploads)}:
            path.unlink(missing_ok=True)

    @guarded
    def save(self, recording: Recording):
        """Download the recorded session as a row.

        Raises:
            refuse: there is no session yet.
        """
        if recording.session is None:
            raise refuse("There is no session yet: it takes a video and a transcript.")
        return _download(recording.session)


def _message(error: Exception, file: Path) -> str:
    """Return an error without the server's folders."""
    return str(error).replace(f"{file.parent}{os.sep}", "")


def _download(row: Session) -> str:
    return for_browser(f"{row['session_id']}.jsonl", "application/jsonl", (to_json_line(row) + "\n").encode())
