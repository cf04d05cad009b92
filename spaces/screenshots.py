"""The README's pictures of both pages, taken in a browser while somebody uses them.

    python spaces/screenshots.py

Starts both apps with what ships, talks with them, and writes spaces/images/chat.png and facial_signal.png. The face
before the camera is drawn. Needs the extras `demo`, `faces` and `dev`, and a chromium.
"""

import argparse
import base64
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import av
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from geli_hf.demo.drawn_face import draw_face

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SCREEN = {"width": 1280, "height": 860}
PATIENCE = 120  # seconds
LISTENS = 8  # seconds, and as many the face smiles


@contextmanager
def served(name: str) -> Iterator[str]:
    """The address of an app of spaces/, which keeps nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        places = {"GRADIO_SERVER_PORT": str(port), "GELI_COLLECT": folder}
        app = subprocess.Popen([sys.executable, HERE / name / "app.py"], env=os.environ | places)
        try:
            yield answering(f"http://127.0.0.1:{port}", app)
        finally:
            app.terminate()
            app.wait()


def answering(address: str, app: subprocess.Popen) -> str:
    until = time.monotonic() + PATIENCE
    while app.poll() is None and time.monotonic() < until:
        try:
            urlopen(address)
            return address
        except URLError:
            time.sleep(0.2)
    sys.exit(f"screenshots: the app does not answer at {address}")


def write_camera(path: Path, rate: int = 30) -> None:
    """What the camera shows again and again: the drawn face listens, and then smiles."""
    with av.open(str(path), "w", format="mjpeg") as file:  # which chromium plays at this rate
        stream = file.add_stream("mjpeg", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuvj420p"
        for smile in (0.0, 1.0):
            frame = av.VideoFrame.from_ndarray(draw_face(smile), format="rgb24").reformat(format="yuvj420p")
            for _ in range(LISTENS * rate):
                frame.pts = None
                file.mux(stream.encode(frame))
        file.mux(stream.encode())


def chat(page: Page) -> None:
    """Both policies, a poor reply of the base policy, and both again; at temperature 0 they always say the same."""
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").first.fill("0")
    page.get_by_label("Temperature").first.press("Tab")
    page.get_by_role("button", name="Settings").click()

    def say(mode: str, text: str, rewards: int) -> None:
        page.get_by_label(mode).check()
        page.get_by_label("Your message").fill(text)
        page.get_by_label("Your message").press("Enter")
        page.wait_for_function(f"document.querySelectorAll('.g-chip').length === {rewards}")

    say("Side by side", "Hello, my coach dropped me from the team, and I feel awful.", 2)
    page.get_by_role("button", name="Go on with the reply of the aligned policy").click()
    page.wait_for_selector(".g-other")
    say("Base", "I worked so hard for it.", 2)
    say("Side by side", "And now my knee hurts so much.", 4)
    page.get_by_label("6", exact=True).check()


def facial_signal(page: Page) -> None:
    """The camera is on, and the scripted partner speaks while the face smiles now and then."""
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_text("Record", exact=True).click()
    smile = "Number(document.querySelector('#now [data-smile]')?.dataset.smile)"
    for count in range(1, 7):
        page.wait_for_function(f"{smile} {'> 0.6' if count % 2 else '< 0.4'}")
        page.get_by_role("button", name="Let the partner speak").click()
        page.wait_for_function(f"document.querySelectorAll('#dialogue .g-assistant').length === {count}")
        page.wait_for_timeout(1000 * (LISTENS - 3))  # in which the face is seen
    page.wait_for_function(f"{smile} > 0.6")
    page.wait_for_timeout(1500)  # what is read of the face is a moment behind it


def take(page: Page, path: Path) -> None:
    """All of the page, with 256 colours, in which it looks the same and is a fraction as large."""
    area = {"x": 0, "y": 0, "width": SCREEN["width"], "height": page.evaluate("document.documentElement.scrollHeight")}
    # Playwright's own would resize the window, and the box around the face would come after.
    shot = page.context.new_cdp_session(page).send(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": area | {"scale": 1}}
    )
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    path.parent.mkdir(exist_ok=True)
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main(argv: list[str] | None = None) -> None:
    pages = {"chat": chat, "facial_signal": facial_signal}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pages", nargs="+", choices=pages, default=list(pages), help="default: both")
    parser.add_argument("--output-dir", type=Path, default=HERE / "images", help="default: spaces/images")
    arguments = parser.parse_args(argv)
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        sys.exit(f"screenshots: needs a browser, one of {', '.join(BROWSERS)}: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        camera = Path(folder, "camera.mjpeg")
        write_camera(camera)
        flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = driver.chromium.launch(
            executable_path=chromium, args=[*flags, f"--use-file-for-fake-video-capture={camera}"]
        )
        for name in arguments.pages:
            with served(name) as address:
                context = browser.new_context(viewport=SCREEN, color_scheme="light", permissions=["camera"])
                context.set_default_timeout(1000 * PATIENCE)
                page = context.new_page()
                page.goto(address)
                page.wait_for_selector(".g-thread")
                pages[name](page)
                page.mouse.move(0, 0)
                page.evaluate("document.activeElement.blur()")
                page.wait_for_timeout(1000)  # in which colours have changed that change slowly
                take(page, arguments.output_dir / f"{name}.png")
                context.close()
        browser.close()


if __name__ == "__main__":
    main()
