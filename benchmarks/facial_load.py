"""Load test of the facial-signal page: four cameras stream at once, and two people upload videos.

    python spaces/facial_signal/app.py &
    python benchmarks/facial_load.py --pid $! --minutes 3

Made of parts of `chat_load.py`. The faces of a camera or a video all smile or none does, and every camera has words of
its own, so that a mix-up shows. Prints the time from a frame to its smile, the time of a video, errors, cross-talk,
and the memory of the server before and after. Not a test: the figures are those of the machine.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
from chat_load import Page, camera, frame_of, memory, options, percentile

sys.path.append(str(Path(__file__).parents[1] / "tests" / "spaces"))
from camera_clip import not_smiling, smiling, write_clip


async def answer(page: Page, function: str, given: dict, counts: dict) -> str:
    """Send one event, and return its output as JSON."""
    shown = ""
    async for message in page.call(function, given):
        shown += json.dumps(message.get("output", {}))
        counts["errors"] += message["msg"] == "process_completed" and not message.get("success", True)
    return shown


async def talker(page: Page, smile: float, until: float, counts: dict) -> None:
    """Listen to the partner, type something, and stream a camera."""
    secret = f"secret{page.name}"

    def look(shown: str) -> None:
        smiles = re.findall(r'data-smile=\\"([\d.]+)', shown)
        others = set(re.findall(r"secret[0-9a-f]{12}", shown)) - {secret}
        counts["crossed"] += bool(others) or any((float(each) > 0.5) != (smile > 0.5) for each in smiles)
        counts["smiles"] += len(smiles)

    look(await answer(page, "speak", {}, counts))
    look(await answer(page, "say", {0: secret, 1: "You"}, counts))
    await camera(page, until, frame_of(smiling() if smile else not_smiling()), counts, look)


async def uploader(client: httpx.AsyncClient, config: dict, smile: float, clip: bytes, until: float, counts: dict):
    while time.monotonic() < until:
        page = Page(client, config)  # at an address of its own, of which only so many videos are taken
        sent = time.monotonic()
        file = {"files": ("clip.mp4", clip, "video/mp4")}
        [path] = (await client.post("/gradio_api/upload", files=file, headers=page.headers)).json()
        video = {"path": path, "orig_name": "clip.mp4", "meta": {"_type": "gradio.FileData"}}
        shown = await answer(page, "watch", {0: video}, counts)
        counts["videos"].append(time.monotonic() - sent)
        average = re.search(r"Smile: (\d+).{1,8}% on average", shown)
        counts["errors"] += average is None
        counts["crossed"] += average is not None and (int(average[1]) > 50) != (smile > 0.5)
        await asyncio.sleep(2)


async def load(asked: argparse.Namespace) -> None:
    counts = {"errors": 0, "crossed": 0, "smiles": 0, "seconds": [], "videos": []}
    clips = []
    with tempfile.TemporaryDirectory() as folder:
        for picture in (not_smiling(), smiling()):
            clips.append(write_clip(Path(folder, "clip.mp4"), [picture], seconds=30).read_bytes())
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=asked.address, timeout=120, limits=limits) as client:
        config = (await client.get("/config")).json()

        async def all_of_them(until: float) -> None:
            cameras = [talker(Page(client, config), n % 2, until, counts) for n in range(asked.cameras)]
            uploads = [uploader(client, config, n % 2, clips[n % 2], until, counts) for n in range(asked.uploads)]
            await asyncio.gather(*cameras, *uploads)

        await all_of_them(time.monotonic() + 5)  # so that what is loaded late is there
        counts |= {"errors": 0, "crossed": 0, "smiles": 0, "seconds": [], "videos": []}
        before = memory(asked.pid)
        await all_of_them(time.monotonic() + 60 * asked.minutes)
    seconds, videos = counts["seconds"], counts["videos"]
    totals = f"frames {len(seconds)}, smiles {counts['smiles']}, videos {len(videos)}"
    print(f"{totals}, errors {counts['errors']}, cross-talk {counts['crossed']}")
    print(f"a frame to its smile: median {statistics.median(seconds):.2f} s, p95 {percentile(seconds, 0.95):.2f} s")
    if videos:
        print(f"a video of 30 s: median {statistics.median(videos):.1f} s, the longest {max(videos):.1f} s")
    print(f"memory {before:.0f} MB before, {memory(asked.pid):.0f} MB after")


if __name__ == "__main__":
    asyncio.run(load(options(__doc__, cameras=4, uploads=2)))
