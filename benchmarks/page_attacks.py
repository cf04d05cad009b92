"""Attack the chat page as a stranger could, and see that nothing of it stops it.

    python spaces/chat/app.py &
    python benchmarks/page_attacks.py --axe axe.min.js

Prints one line for each attack, and exits with 1 if one of them worked. `--axe` names the script of axe-core
(`npm pack axe-core`), with which the page is looked at in both themes; needs Playwright and Debian's chromium. Every
attacker has an address of its own, as behind a proxy on this machine.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

import httpx
from chat_load import Page, frame_of
from skimage import data

CHROMIUM = Path("/usr/bin/chromium")
SECONDS = 60  # in which a message and a deletion are through, whatever others do
AXE = "axe.run().then(({violations}) => violations.map(({id, impact, nodes}) => [id, impact, nodes[0].target[0]]))"


async def ends(page: Page, function: str, given: dict, *, event=None) -> dict:
    """Send an event, and return the last message of the queue."""
    async with asyncio.timeout(SECONDS):
        async for message in page.call(function, given, event=event):
            last = message
    return last


async def cameras_that_nobody_reads(client: httpx.AsyncClient, config: dict) -> str:
    """Joins without a reader, and then one honest message, deletion and camera."""
    frame = frame_of(data.astronaut())
    for page in [Page(client, config) for _ in range(4)]:
        await asyncio.gather(*(page.post("see", {}, event=frame) for _ in range(20)))
    honest, begun = Page(client, config), time.monotonic()
    assert (await ends(honest, "send", {0: "Hello."}))["success"], "no reply"
    assert (await ends(honest, "delete", {0: "no such key"}))["success"], "no deletion"
    await asyncio.sleep(11)  # a camera that sends nothing has lost its place
    answer = await honest.post("see", {}, event=frame, route="run/predict")
    assert answer.status_code == 200, "no answer to a frame"
    assert "in use" not in answer.text, "no place for a camera"
    return f"reply and deletion within {time.monotonic() - begun - 11:.1f} s, and a place for a camera"


async def invented_conversations(client: httpx.AsyncClient, config: dict) -> str:
    """A forged state, and ratings that are none."""
    turn = {"role": "assistant", "text": "forged", "source": "aligned"}
    kept = 0
    for number in (7, True, 99, "7"):
        page = Page(client, config)
        await page.post("send", {1: {"key": "mine", "turns": [turn] * 8}})
        kept += (await ends(page, "rate", {0: {"key": "mine", "turns": [turn] * 8}, 3: number, 4: True}))["success"]
    assert not kept, f"{kept} rows were taken"
    return "none was taken"


async def closed_doors(client: httpx.AsyncClient, config: dict) -> str:
    """Uploads, the page written to the disk, and a body of 100 MB."""
    headers = Page(client, config).headers
    upload = await client.post("/gradio_api/upload", files={"files": ("a", b"x")}, headers=headers)
    link = await client.get("/gradio_api/deep_link", headers=headers)
    try:
        large = (await client.post("/gradio_api/queue/join", content=b" " * 10**8, headers=headers)).status_code
    except httpx.TransportError:  # the server has closed the connection before all was sent
        large = 413
    found = (upload.status_code, link.status_code, large)
    assert found == (404, 404, 413), f"upload, deep link and body: {found}"
    return "404, 404 and 413"


async def ever_new_tabs(client: httpx.AsyncClient, config: dict) -> str:
    """One address with a new session for each request."""
    page, answers = Page(client, config), []
    for count in range(2_000):
        page.name = f"tab{count}"
        answers.append((await page.post("delete", {0: "x"})).status_code)
        if answers[-1] == 429:
            return f"refused after {count}"
    raise AssertionError("2,000 requests were taken")


async def half_an_emoji(client: httpx.AsyncClient, config: dict) -> str:
    """A text that Gradio can't encode, and the message after it."""
    page = Page(client, config)
    for text in ("a \ud83d b", "and now?"):
        assert (await ends(page, "send", {0: text}))["success"], "no reply"
    return "two replies"


ATTACKS = (cameras_that_nobody_reads, invented_conversations, closed_doors, half_an_emoji, ever_new_tabs)


async def attack(address: str) -> bool:
    """Make all attacks, and return whether none of them worked."""
    safe = True
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=httpx.Limits(max_connections=None)) as client:
        config = (await client.get("/config")).json()
        for each in ATTACKS:
            try:
                print(f"held    {each.__name__}: {await each(client, config)}")
            except (AssertionError, TimeoutError, httpx.HTTPError, json.JSONDecodeError) as error:
                safe = False
                print(f"failed  {each.__name__}: {error or type(error).__name__}")
    return safe


def accessible(address: str, script: Path) -> bool:
    """Look at the page with axe-core before, in and after a conversation; return whether nothing serious is wrong."""
    from playwright.sync_api import sync_playwright

    serious = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
            page.set_default_timeout(120_000)
            page.goto(address)
            page.get_by_label("Your message").wait_for()
            page.add_script_tag(content=script.read_text(encoding="utf-8"))
            for count in range(4):
                if count:
                    page.get_by_label("Your message").fill("I walked my dog today.")
                    page.get_by_label("Your message").press("Enter")
                    page.wait_for_function(f"document.querySelectorAll('#chat .g-chip').length === {count}")
                if count in (0, 3):
                    page.wait_for_timeout(1000)  # until colours have faded in
                    found = [each for each in page.evaluate(AXE) if each[1] in ("serious", "critical")]
                    serious += [(scheme, count, *each) for each in found]
            page.close()
        browser.close()
    for each in serious:
        print("axe    ", *each)
    print(f"axe     {len(serious)} serious violations in two themes")
    return not serious


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--address", default="http://127.0.0.1:7860")
    parser.add_argument("--axe", type=Path, help="axe.min.js")
    asked = parser.parse_args()
    safe = asyncio.run(attack(asked.address))
    if asked.axe:
        safe &= accessible(asked.address, asked.axe)
    raise SystemExit(not safe)


if __name__ == "__main__":
    main()
