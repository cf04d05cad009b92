"""Twenty people chat at once, and four cameras stream: what the chat page does then.

    python spaces/chat/app.py &
    python benchmarks/chat_load.py --pid $! --minutes 3

Speaks with the page as a browser does, by its queue. Tells the time from a message to the first word of the reply, how
many errors there were, whether anybody saw what another one had said, and how much memory the server takes before and
after. Not a test: the figures are those of the machine.
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
        self.start = {name: each["props"].get("value") for name, each in components.items()}

    def inputs(self, function: str, given: dict[int, object]) -> list:
        asked = self.functions[function]["inputs"]
        return [given.get(place, None if name in self.state else self.start[name]) for place, name in enumerate(asked)]

    async def call(self, function: str, given: dict[int, object]):
        """The messages of the queue for one event."""
        call = {"fn_index": self.functions[function]["id"], "session_hash": self.name, "trigger_id": None}
        call |= {"data": self.inputs(function, given), "event_data": None}
        answer = await self.client.post("/gradio_api/queue/join", json=call)
        answer.raise_for_status()
        async with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.name}) as lines:
            async for line in lines.aiter_lines():
                if line.startswith("data:"):
                    message = json.loads(line[5:])
                    yield message
                    if message["msg"] in ("process_completed", "close_stream"):
                        return


async def person(page: Page, until: float, told: dict) -> None:
    secret = f"secret{page.name}"
    while time.monotonic() < until:
        begun, first, shown = time.monotonic(), None, ""
        async for message in page.call("send", {0: f"My dog is called {secret} and we walked."}):
            output = json.dumps(message.get("output", {}))
            shown += output
            if first is None and message["msg"] == "process_generating" and re.search(r"g-typing[^>]*>[^<]", output):
                first = time.monotonic() - begun
            told["queued"] += message["msg"] == "estimation" and (message.get("rank") or 0) > 0
            if message["msg"] == "process_completed":
                told["errors"] += not message.get("success", True)
        told["crossed"] += any(name != secret for name in re.findall(r"secret[0-9a-f]{12}", shown))
        if first is not None:
            told["first"].append(first)
        await asyncio.sleep(2 + 4 * secrets.randbelow(1000) / 1000)
        if secrets.randbelow(6) == 0:
            async for _ in page.call("clear", {}):
                pass


async def camera(page: Page, until: float, frame: dict, told: dict, look: Callable[[str], None] = len) -> None:
    """One event that lasts, and gets frame after frame; `look` sees what comes of each."""
    sent = time.monotonic()
    async for message in page.call("see", {0: frame}):
        if message["msg"] == "process_streaming":
            told["seconds"].append(time.monotonic() - sent)
            told["errors"] += not message.get("success", True)
            look(json.dumps(message["output"]))
            event = f"/gradio_api/stream/{message['event_id']}"
            if time.monotonic() > until:
                await page.client.post(f"{event}/close")
                return
            await asyncio.sleep(0.5)
            call = {
                "fn_index": page.functions["see"]["id"],
                "session_hash": page.name,
                "event_id": message["event_id"],
            }
            sent = time.monotonic()
            await page.client.post(event, json=call | {"data": page.inputs("see", {0: frame})})


def frame_of(picture: np.ndarray) -> dict:
    """A picture as a browser's camera sends it."""
    file = io.BytesIO()
    Image.fromarray(picture).resize((640, 480)).save(file, "jpeg")
    url = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return {"path": None, "url": url, "is_stream": True, "meta": {"_type": "gradio.FileData"}}


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * len(values))] if values else float("nan")


def memory(pid: int | None) -> float:
    """Resident memory in MB."""
    if pid is None:
        return float("nan")
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


async def load(asked: argparse.Namespace) -> None:
    frame = frame_of(data.astronaut())
    told = {"first": [], "errors": 0, "crossed": 0, "queued": 0, "seconds": []}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=asked.address, timeout=120, limits=limits) as client:
        config = (await client.get("/config")).json()
        async for _ in Page(client, config).call("send", {0: "Hello."}):  # so that what is loaded late is there
            pass
        before, until = memory(asked.pid), time.monotonic() + 60 * asked.minutes
        people = [person(Page(client, config), until, told) for _ in range(asked.people)]
        cameras = [camera(Page(client, config), until, frame, told) for _ in range(asked.cameras)]
        await asyncio.gather(*people, *cameras)
    first, frames = told["first"], len(told["seconds"])
    print(f"replies {len(first)}, frames {frames}, errors {told['errors']}, cross-talk {told['crossed']}")
    print(f"first word: median {statistics.median(first):.2f} s, p95 {percentile(first, 0.95):.2f} s")
    print(f"told their place in the queue {told['queued']} times")
    print(f"memory {before:.0f} MB before, {memory(asked.pid):.0f} MB after")


def options(doc: str, **counts: int) -> argparse.Namespace:
    """The command line's; `counts` are how many there are of each kind unless it says otherwise."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--address", default="http://127.0.0.1:7860")
    parser.add_argument("--pid", type=int, help="of the server, whose memory is looked at")
    parser.add_argument("--minutes", type=float, default=3)
    for name, count in counts.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(load(options(__doc__, people=20, cameras=4)))
