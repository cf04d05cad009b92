"""Recordings become Session rows: a video of the listener and a transcript in, a session with its feedback out."""

from .rows import session_of_recording
from .watching import Watching, watch_all

__all__ = ["Watching", "session_of_recording", "watch_all"]
