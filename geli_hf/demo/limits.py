"""Limits of one visitor of a demo, so that the others get their share."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """Limits of one conversation, or of one tab of a browser."""

    characters: int = 1_000  # of a message
    messages: int = 80  # of a conversation, both sides
    replies_per_minute: int = 20
    file_bytes: int = 500_000  # of a transcript
    video_megabytes: int = 200
    video_minutes: float = 20.0
    camera_seconds: int = 3_600  # until the camera has to be started again

    def problem(self, text: str, messages: int) -> str:
        """Say why a message can't be added, in words for the visitor; "" if it can.

        Args:
            text: the message.
            messages: number of messages in the conversation.
        """
        if not text.strip():
            return "Write something first."
        if len(text) > self.characters:
            return f"That is {len(text):,} characters; a message may have {self.characters:,}. Please shorten it."
        if messages + 2 > self.messages:
            return f"A conversation may have {self.messages} messages here. Begin a new one to go on."
        return ""


@dataclass
class Visit:
    """State of one tab that outlasts a conversation: its latest change, and when replies were asked for."""

    stopped: bool = False  # the reply that is being written ends here
    latest: int = 0  # number of the latest change of the conversation
    requests: deque[float] = field(default_factory=deque)

    def begin(self) -> int:
        """Number a change of the conversation; a reply with an earlier number is abandoned."""
        self.stopped = False
        self.latest += 1
        return self.latest

    def too_often(self, limits: Limits, now: float) -> bool:
        """Tell whether another reply has to wait; if not, count it."""
        while self.requests and now - self.requests[0] > 60:
            self.requests.popleft()
        if len(self.requests) >= limits.replies_per_minute:
            return True
        self.requests.append(now)
        return False
