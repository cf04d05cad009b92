"""No picture of a listener is written: the page runs in its own process, all of whose files are watched."""

from __future__ import annotations

import base64
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import httpx
import matplotlib as mpl
import pytest
from browsing import ROOT, Tab, new_context

pytest.importorskip("gradio", reason="needs gradio, of the demo extra, for the browser tests")
pytest.importorskip("av")
pytest.importorskip("cv2")

from camera_clip import write_clip

pytestmark = [pytest.mark.browser, pytest.mark.slow]
TOKEN = "hf_ThisIsNoTokenButNobodyKnows"


class Watched:
    """The page as `python spaces/facial_signal/app.py` serves it, with all of its folders in one."""

    def __init__(self, folder: Path):
        self.folder, self.opened, self.log = folder / "server", folder / "opened.txt", folder / "log.txt"
        places = {"HOME": "home", "TMPDIR": "tmp", "GRADIO_TEMP_DIR": "uploads", "GELI_HF_CACHE": "cache"}
        places = {name: self.folder / place for name, place in places.items()}
        self.uploads, here = places["GRADIO_TEMP_DIR"], self.folder / "here"
        for place in (here, *places.values()):
            place.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        settings = {
            "GRADIO_SERVER_PORT": str(port),
            "HF_HUB_OFFLINE": "1",
            "HF_TOKEN": TOKEN,
            "MPLCONFIGDIR": mpl.get_configdir(),  # where the list of fonts is, which takes long to make
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        script, app = ROOT / "tests" / "spaces" / "opened_files.py", ROOT / "spaces" / "facial_signal" / "app.py"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, script, self.opened, app],
                env=os.environ | settings | {name: str(place) for name, place in places.items()},
                cwd=here,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.seen: set[str] = set()  # every file that was ever there, whoever wrote it
        self._over = Event()
        self._looking = Thread(target=self._look)
        self._looking.start()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.seen.update(map(str, self.files()))

    def files(self) -> list[Path]:
        return [Path(folder) / name for folder, _, names in os.walk(self.folder) for name in names]

    def up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(self.address).status_code == 200
        except httpx.TransportError:
            return False

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self._over.set()
        self._looking.join()

    def written(self) -> set[str]:
        """Return all files that were opened for writing, or seen."""
        return self.seen.union(self.opened.read_text().splitlines(), map(str, self.files()))


@pytest.fixture
def watched(tmp_path):
    server = Watched(tmp_path)
    try:
        until = time.monotonic() + 300  # on a busy machine
        while not server.up():
            assert time.monotonic() < until, server.log.read_text()
            time.sleep(0.2)
        yield server
    finally:
        server.close()


def test_no_picture_of_a_listener_is_written_or_logged(watched, browser, tmp_path):
    before = watched.written()  # what libraries write for themselves, before anybody is here
    context = new_context(browser)
    page = context.new_page()
    page.goto(watched.address)
    page.get_by_role("tab", name="Your camera").click()
    page.get_by_role("button", name="Use my camera").click()
    page.wait_for_selector("#now [data-smile]")
    page.get_by_role("button", name="Let the partner speak").click()
    page.wait_for_function("/\\d/.test(document.querySelector('#dialogue [data-label=smile]')?.textContent)")
    assert watched.written() - before == set()

    clip = write_clip(tmp_path / "clip.mp4").read_bytes()
    page.get_by_role("tab", name="Your video").click()
    for name, video, shown in (
        ("talk.mp4", clip, "#moments img"),
        ("broken.mp4", clip[: len(clip) // 2], "#rec-note .g-note"),
    ):
        page.locator("#video input[type=file]").set_input_files(
            {"name": name, "mimeType": "video/mp4", "buffer": video}
        )
        page.locator(shown).first.wait_for()
        page.locator("#video").get_by_label("Clear").click()
        page.locator(shown).first.wait_for(state="detached")
    context.close()

    secret = base64.b64encode(os.urandom(3000)).decode()
    for url in (f"data:image/jpeg;base64,{secret}", f"data:image/jpeg;{secret}", {"a": secret}):
        Tab(watched.address, **{"content-type": "application/json"}).post(
            "see", event={"url": url}, route="run/predict"
        )
    written = watched.written() - before
    assert written
    assert [path for path in written if not Path(path).is_relative_to(watched.uploads)] == []
    assert [path for path in watched.files() if path.stat().st_size and str(path) not in before] == []
    log = watched.log.read_text()
    assert TOKEN not in log
    assert not re.search(r"data:(image|video)|[A-Za-z0-9+/]{60}", log)
