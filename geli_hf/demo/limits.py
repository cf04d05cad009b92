"""What one visitor may ask of a demo, so that there is something left for the others; said in words for a page."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """Of one conversation, or one tab of a browser."""

    characters: int = 1_000  # of a message
    messages: int = 80  # of a conversation, both sides
    per_minute: int = 20  # replies asked for
    minutes: int = 60  # of a conversation
    file_bytes: int = 500_000  # of a conversation to load

    def problem(self, text: str, messages: int, minutes: float) -> str:
        """Why this message can't be sent, or ""."""
        if not text.strip():
            return "Write something first."
        if len(text) > self.characters:
            return f"That is {len(text):,} characters; a message may have {self.characters:,}. Please shorten it."
        if messages + 2 > self.messages:
            return f"A conversation may have {self.messages} messages here. Rate this one, or clear it to begin anew."
        if minutes > self.minutes:
            return f"A conversation may last {self.minutes} minutes here. Rate this one, or clear it to begin anew."
        return ""


@dataclass
class Visit:
    """What has to outlast a conversation in one tab: who asks for how much, and that a reply shall stop."""

    stopped: bool = False  # the reply that is being written: what is there of it is kept
    latest: int = 0  # number of that reply, or of what was done after it
    asked: deque[float] = field(default_factory=deque)

    def begin(self) -> int:
        """The number of a reply, or of another change of the conversation: nobody waits for a reply before it."""
        self.stopped = False
        self.latest += 1
        return self.latest

    def too_often(self, limits: Limits, now: float) -> bool:
        """Whether another reply has to wait; if not, it is counted."""
        while self.asked and now - self.asked[0] > 60:
            self.asked.popleft()
        if len(self.asked) >= limits.per_minute:
            return True
        self.asked.append(now)
        return False
