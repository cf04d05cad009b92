"""Four cameras stream to the page of a face at once, while two people upload one video after the other.

    python spaces/facial_signal/app.py &
    python benchmarks/facial_load.py --pid $! --minutes 3

Made of parts of `chat_load.py`. The faces of a camera or a video all smile or none does, and what is said before a
camera is nobody else's, so that what belongs to another one shows. Tells the time from a frame to its smile, and that
of a video, errors, cross-talk, and the server's memory before and after. Not a test: the figures are the machine's.
"""

import argparse
import asyncio
import json
import re
import statistics
import time

import httpx
from chat_load import Page, camera, frame_of, memory, options, percentile

from geli_hf.demo.drawn_face import draw_clip, draw_face


async def answer(page: Page, function: str, given: dict, told: dict) -> str:
    """What comes of one event, as JSON."""
    shown = ""
    async for message in page.call(function, given):
        shown += json.dumps(message.get("output", {}))
        told["errors"] += message["msg"] == "process_completed" and not message.get("success", True)
    return shown


async def talker(page: Page, smile: float, until: float, told: dict) -> None:
    """Somebody to whom the partner speaks, who types something, and whose camera then streams."""
    secret = f"secret{page.name}"

    def look(shown: str) -> None:
        smiles = re.findall(r'data-smile=\\"([\d.]+)', shown)
        others = set(re.findall(r"secret[0-9a-f]{12}", shown)) - {secret}
        told["crossed"] += bool(others) or any((float(each) > 0.5) != (smile > 0.5) for each in smiles)
        told["smiles"] += len(smiles)

    look(await answer(page, "speak", {}, told))
    look(await answer(page, "say", {0: secret, 1: "You"}, told))
    await camera(page, until, frame_of(draw_face(smile)), told, look)


async def uploader(page: Page, smile: float, clip: bytes, until: float, told: dict) -> None:
    while time.monotonic() < until:
        sent = time.monotonic()
        file = {"files": ("clip.mp4", clip, "video/mp4")}
        [path] = (await page.client.post("/gradio_api/upload", files=file)).json()
        video = {"path": path, "orig_name": "clip.mp4", "meta": {"_type": "gradio.FileData"}}
        shown = await answer(page, "analyse", {0: video}, told)
        told["videos"].append(time.monotonic() - sent)
        average = re.search(r"Probability of a smile: (\d+) % on average", shown)
        told["errors"] += average is None
        told["crossed"] += average is not None and (int(average[1]) > 50) != (smile > 0.5)
        await asyncio.sleep(2)


async def load(asked: argparse.Namespace) -> None:
    told = {"errors": 0, "crossed": 0, "smiles": 0, "seconds": [], "videos": []}
    clips = [draw_clip([smile] * 300) for smile in (0.0, 1.0)]  # of half a minute
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=asked.address, timeout=120, limits=limits) as client:
        config = (await client.get("/config")).json()

        async def all_of_them(until: float) -> None:
            cameras = [talker(Page(client, config), n % 2, until, told) for n in range(asked.cameras)]
            uploads = [uploader(Page(client, config), n % 2, clips[n % 2], until, told) for n in range(asked.uploads)]
            await asyncio.gather(*cameras, *uploads)

        await all_of_them(time.monotonic() + 5)  # so that what is loaded late is there
        told |= {"errors": 0, "crossed": 0, "smiles": 0, "seconds": [], "videos": []}
        before = memory(asked.pid)
        await all_of_them(time.monotonic() + 60 * asked.minutes)
    seconds, videos = told["seconds"], told["videos"]
    counts = f"frames {len(seconds)}, smiles {told['smiles']}, videos {len(videos)}"
    print(f"{counts}, errors {told['errors']}, cross-talk {told['crossed']}")
    print(f"a frame to its smile: median {statistics.median(seconds):.2f} s, p95 {percentile(seconds, 0.95):.2f} s")
    if videos:
        print(f"a video of 30 s: median {statistics.median(videos):.1f} s, the longest {max(videos):.1f} s")
    print(f"memory {before:.0f} MB before, {memory(asked.pid):.0f} MB after")


if __name__ == "__main__":
    asyncio.run(load(options(__doc__, cameras=4, uploads=2)))
