"""Load test of the chat page: ten people chat at once, and four cameras are on.

    python spaces/chat/app.py &
    python benchmarks/chat_load.py --pid $! --minutes 3

Talks to the page by its queue, as a browser does. Prints the time from a message to the first word of the reply, the
number of errors and of messages that reached another person, and the memory of the server before and after. Not a
test: the figures are those of the machine.
"""

import argparse
import asyncio
import base64
import io
import json
import re
import secrets
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from skimage import data


class Page:
    """One tab of a browser."""

    def __init__(self, client: httpx.AsyncClient, config: dict):
        self.client, self.config, self.name = client, config, secrets.token_hex(6)
        components = {each["id"]: each for each in config["components"]}
        self.functions = {each["api_name"]: each for each in config["dependencies"]}
        self.state = {name for name, each in components.items() if each["type"] == "state"}
        # An address of its own, as behind a proxy: so many people are not one.
        self.headers = {"X-Forwarded-For": ".".join(str(secrets.randbelow(250) + 1) for _ in range(4))}
        self.start = {name: each["props"].get("value") for name, each in components.items()}

    def inputs(self, function: str, given: dict[int, object]) -> list:
        asked = self.functions[function]["inputs"]
        return [given.get(place, None if name in self.state else self.start[name]) for place, name in enumerate(asked)]

    async def post(self, function: str, given: dict[int, object], *, event=None, route="queue/join") -> httpx.Response:
        """Send one event; by `run/predict` it passes the queue by."""
        call = {"fn_index": self.functions[function]["id"], "session_hash": self.name, "trigger_id": None}
        call |= {"data": self.inputs(function, given), "event_data": event}
        headers = self.headers | {"Content-Type": "application/json"}
        return await self.client.post(f"/gradio_api/{route}", content=json.dumps(call), headers=headers)

    async def call(self, function: str, given: dict[int, object], *, event=None):
        """Send one event, and yield the messages of the queue."""
        (await self.post(function, given, event=event)).raise_for_status()
        async with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.name}) as lines:
            async for line in lines.aiter_lines():
                if line.startswith("data:"):
                    message = json.loads(line[5:])
                    yield message
                    if message["msg"] in ("process_completed", "close_stream"):
                        return


async def person(page: Page, until: float, counts: dict) -> None:
    secret = f"secret{page.name}"
    while time.monotonic() < until:
        begun, first, shown = time.monotonic(), None, ""
        async for message in page.call("send", {0: f"My dog is called {secret} and we walked."}):
            output = json.dumps(message.get("output", {}))
            shown += output
            if first is None and message["msg"] == "process_generating" and is_word(output):
                first = time.monotonic() - begun
            counts["queued"] += message["msg"] == "estimation" and (message.get("rank") or 0) > 0
            if message["msg"] == "process_completed":
                counts["errors"] += not message.get("success", True)
        counts["crossed"] += any(name != secret for name in re.findall(r"secret[0-9a-f]{12}", shown))
        if first is not None:
            counts["first"].append(first)
        await asyncio.sleep(2 + 4 * secrets.randbelow(1000) / 1000)
        if secrets.randbelow(6) == 0:
            async for _ in page.call("clear", {}):
                pass


def is_word(output: str) -> bool:
    """Return whether an update of the chat, whole or as a difference, has more than the dots of an empty reply."""
    changed = re.findall(r'\["(?:append|replace|add)", \[[^]]*\], "([^"]+)"\]', output)
    return any(text != "\\u2026" and "<" not in text for text in changed)


async def camera(page: Page, until: float, frame: dict, counts: dict, look: Callable[[str], None] = len) -> None:
    """Send two frames a second; `look` gets the answer to each."""
    while time.monotonic() < until:
        sent = time.monotonic()
        answer = await page.post("see", {}, event=frame, route="run/predict")
        counts["seconds"].append(time.monotonic() - sent)
        counts["errors"] += answer.status_code != 200
        look(answer.text)
        await asyncio.sleep(max(0.0, 0.5 - (time.monotonic() - sent)))


def frame_of(picture: np.ndarray) -> dict:
    """Encode a picture as the page's camera does."""
    file = io.BytesIO()
    Image.fromarray(picture).convert("L").resize((480, 360)).save(file, "jpeg")
    return {"url": "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()}


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * len(values))] if values else float("nan")


def memory(pid: int | None) -> float:
    """Read the resident memory of a process, in MB."""
    if pid is None:
        return float("nan")
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


async def load(asked: argparse.Namespace) -> None:
    frame = frame_of(data.astronaut())
    counts = {"first": [], "errors": 0, "crossed": 0, "queued": 0, "seconds": []}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=asked.address, timeout=120, limits=limits) as client:
        config = (await client.get("/config")).json()
        async for _ in Page(client, config).call("send", {0: "Hello."}):  # so that what is loaded late is there
            pass
        before, until = memory(asked.pid), time.monotonic() + 60 * asked.minutes
        people = [person(Page(client, config), until, counts) for _ in range(asked.people)]
        cameras = [camera(Page(client, config), until, frame, counts) for _ in range(asked.cameras)]
        await asyncio.gather(*people, *cameras)
    first, frames = counts["first"], len(counts["seconds"])
    print(f"replies {len(first)}, frames {frames}, errors {counts['errors']}, cross-talk {counts['crossed']}")
    if not first:
        raise SystemExit("no reply had a first word")
    print(f"first word: median {statistics.median(first):.2f} s, p95 {percentile(first, 0.95):.2f} s")
    print(f"showed a place in the queue {counts['queued']} times")
    print(f"memory {before:.0f} MB before, {memory(asked.pid):.0f} MB after")


def options(doc: str, **counts: int) -> argparse.Namespace:
    """Parse the command line; `counts` are the default numbers of each kind."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--address", default="http://127.0.0.1:7860")
    parser.add_argument("--pid", type=int, help="of the server, to read its memory")
    parser.add_argument("--minutes", type=float, default=3)
    for name, count in counts.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(load(options(__doc__, people=10, cameras=4)))
