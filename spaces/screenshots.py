"""Take the README's pictures of both pages in a browser.

    python spaces/screenshots.py

Starts both apps with the models that ship, uses them, and writes spaces/images/chat.png and facial_signal.png. The
face before the camera is that of the tests. Needs the extras `demo`, `faces` and `dev`, and chromium.
"""

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

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.append(str(Path(__file__).parents[1] / "tests" / "spaces"))
from camera_clip import write_clip

HERE = Path(__file__).parent
SCREEN = {"width": 1280, "height": 860}
TIMEOUT = 120  # seconds
FACE_SECONDS = 8  # of each face before the camera


@contextmanager
def served(name: str) -> Iterator[str]:
    """Serve an app of spaces/, whose collection is deleted, and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        variables = {"GRADIO_SERVER_PORT": str(port), "GELI_COLLECT": folder}
        app = subprocess.Popen([sys.executable, HERE / name / "app.py"], env=os.environ | variables)
        try:
            yield wait_for(f"http://127.0.0.1:{port}", app)
        finally:
            app.terminate()
            app.wait()


def wait_for(address: str, app: subprocess.Popen) -> str:
    end = time.monotonic() + TIMEOUT
    while app.poll() is None and time.monotonic() < end:
        try:
            urlopen(address)
            return address
        except URLError:
            time.sleep(0.2)
    sys.exit(f"screenshots: the app does not answer at {address}")


def chat(page: Page) -> None:
    """Begin with a starter, vote blind, go on, and try to beat the last reply."""

    def replies(count: int) -> None:
        page.wait_for_function(f"document.querySelectorAll('#chat .g-chip').length === {count}")

    page.get_by_role("button", name="I failed my driving test today.").click()
    replies(1)
    page.get_by_label("Blind").check()
    page.get_by_label("Your message").fill("I was so nervous that I stalled the car twice.")
    page.get_by_label("Your message").press("Enter")
    page.get_by_role("button", name="A is better").click()
    replies(2)
    page.get_by_label("After training").check()
    page.get_by_label("Your message").fill("My sister says I should try again.")
    page.get_by_label("Your message").press("Enter")
    replies(3)
    page.get_by_label("Rewrite").fill("She is right! You know what to do better now, so you will be calm.")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector(".g-verdict")


def facial_signal(page: Page) -> None:
    """Let the example play until the listener smiles at the fourth turn."""
    page.wait_for_selector(".f-ready")
    page.get_by_role("button", name="Pause").click()
    page.locator(".f-controls input").first.fill("49")


def take(browser: Browser, name: str, use) -> None:
    """Use a page and write a picture of all of it, in 256 colours."""
    with served(name) as address:
        page = browser.new_page(viewport=SCREEN, color_scheme="light", permissions=["camera"])
        page.set_default_timeout(1000 * TIMEOUT)
        page.goto(address)
        page.wait_for_selector(".g-head")
        use(page)
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        page.wait_for_timeout(1000)  # until colours have faded in
        image = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
        image.quantize(256, dither=Image.Dither.NONE).save(HERE / "images" / f"{name}.png", optimize=True)
        page.close()


def main() -> None:
    chromium = shutil.which("chromium") or sys.exit("screenshots: needs chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        camera = Path(folder, "camera.mjpeg")
        write_clip(camera, seconds=FACE_SECONDS, rate=30)
        flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        flags.append(f"--use-file-for-fake-video-capture={camera}")
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        take(browser, "chat", chat)
        take(browser, "facial_signal", facial_signal)
        browser.close()


if __name__ == "__main__":
    main()
