"""Limits of the pages: what one address may ask for, the places of cameras, and what a request may hold.

Behind a proxy, uvicorn's variable `FORWARDED_ALLOW_IPS` lists the proxies whose `X-Forwarded-For` is believed. Needs
no Gradio.
"""

from __future__ import annotations

import json
import re
import time
from collections import deque
from dataclasses import dataclass
from ipaddress import ip_address
from threading import Lock

WINDOW = 60.0  # seconds in which requests are counted
KEPT_ADDRESSES = 20_000
# What a page posts to Gradio; uploads only where a component takes them.
POSTS, UPLOAD = re.compile(r".*/gradio_api/(queue/join|run/\w+|cancel|reset)/?"), "/gradio_api/upload"
# Gradio would write the page as the visitor sees it to the disk.
CLOSED = re.compile(r".*/gradio_api/deep_link/?")


@dataclass(frozen=True)
class Limits:
    """Limits of one address, or of one conversation."""

    characters: int = 1_000  # of a message
    messages: int = 80  # of a conversation, both sides
    replies_per_minute: int = 30
    ratings_per_minute: int = 6
    frames_per_minute: int = 300
    requests_per_minute: int = 900
    cameras: int = 8  # of all visitors
    cameras_per_address: int = 2
    camera_seconds: float = 10.0  # without a frame, after which a place is free
    body_bytes: int = 500_000  # of a request that is no upload
    file_bytes: int = 500_000  # of a transcript
    video_megabytes: int = 200
    video_minutes: float = 20.0

    def problem(self, text: str, messages: int) -> str:
        """Say why a message can't be added, in words for the visitor; "" if it can.

        Args:
            text: the message.
            messages: number of messages in the conversation.
        """
        if not isinstance(text, str) or not text.strip():
            return "Write something first."
        if len(text) > self.characters:
            return f"That is {len(text):,} characters; a message may have {self.characters:,}. Please shorten it."
        if messages + 2 > self.messages:
            return f"A conversation may have {self.messages} messages here. Begin a new one to go on."
        return ""


class Quota:
    """Counts of what each address asked for within the last minute. Threads may share it."""

    def __init__(self):
        self._times: dict[tuple[str, str], deque[float]] = {}
        self._lock = Lock()

    def take(self, address: str, kind: str, most: int) -> bool:
        """Count a request of an address; False if there were `most` of this kind within the last minute."""
        now = time.monotonic()
        with self._lock:
            if len(self._times) > KEPT_ADDRESSES:
                self._times = {key: times for key, times in self._times.items() if now - times[-1] < WINDOW}
            times = self._times.setdefault((address, kind), deque())
            while times and now - times[0] > WINDOW:
                times.popleft()
            if len(times) < most:
                times.append(now)
                return True
        return False


class Cameras:
    """Places of the cameras that are on. One that sends no frame leaves its place."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self._seen: dict[tuple[str, str], float] = {}  # by address and tab
        self._lock = Lock()

    def admit(self, address: str, tab: str) -> bool:
        """Note a frame of a tab; False if all places are taken, or all that an address may have."""
        now, limits = time.monotonic(), self.limits
        with self._lock:
            self._seen = {key: at for key, at in self._seen.items() if now - at < limits.camera_seconds}
            if (address, tab) not in self._seen:
                same = sum(other == address for other, _ in self._seen)
                if len(self._seen) >= limits.cameras or same >= limits.cameras_per_address:
                    return False
            self._seen[address, tab] = now
            return True


def network_of(host: str) -> str:
    """Return the address whose requests are counted together: of IPv6 the network, which belongs to one customer."""
    try:
        return ":".join(ip_address(host).exploded.split(":")[:4]) if ":" in host else host
    except ValueError:  # a proxy may write what it likes, such as a port
        return host.partition(":")[0]


class Guard:
    """ASGI middleware before Gradio, which takes bodies of any size and from anybody as often as they come.

    It also closes what no page here uses, and replaces halves of surrogate pairs, at which Gradio's stream of answers
    breaks off without a word.

    Args:
        app: the application.
        limits: of an address.
        uploads: whether the page takes files.
    """

    def __init__(self, app, limits: Limits, uploads: bool):
        self.app, self.limits, self.uploads, self.quota = app, limits, uploads, Quota()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http" or (scope["method"] in ("GET", "HEAD") and not CLOSED.fullmatch(scope["path"])):
            return await self.app(scope, receive, send)
        address = network_of((scope.get("client") or ("",))[0])
        upload = self.uploads and scope["path"].rstrip("/").endswith(UPLOAD)
        if not (upload or POSTS.fullmatch(scope["path"])):
            return await _answer(send, 404, "Not found")
        if not self.quota.take(address, "request", self.limits.requests_per_minute):
            return await _answer(send, 429, "Too many requests: wait a minute")
        if upload:
            return await self.app(scope, receive, send)
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > self.limits.body_bytes:
                return await _answer(send, 413, "Too large")
        messages = iter([{"type": "http.request", "body": replace_half_characters(body)}])

        async def replay():
            return next(messages, None) or await receive()

        return await self.app(scope, replay, send)


def replace_half_characters(body: bytes) -> bytes:
    """Replace the halves of surrogate pairs in a JSON text by question marks."""
    if b"\\ud" not in body.lower() and b"\xed" not in body:
        return body
    try:
        return json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace")
    except (ValueError, RecursionError):  # Gradio will say that it is no JSON
        return body


async def _answer(send, status: int, text: str) -> None:
    # In the form of Gradio's own errors, which the page shows.
    body = json.dumps({"detail": text, "error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
