"""Pages in Debian's chromium: the chat, unless a module serves another one."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import load_app, new_context, open_page, serving, tiny_models
from camera_clip import write_clip
from tiny import backbone
from toy import toy_sessions

from geli_hf import GeliRewardModel
from geli_hf.demo.collection import Collection
from geli_hf.demo.limits import Limits
from geli_hf.models.attribution import HindsightAttribution
from geli_hf.training import fit_hindsight

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="session")
def app():
    """`spaces/chat/app.py` as a module."""
    return load_app("chat")


@pytest.fixture(scope="module")
def served(app, tmp_path_factory):
    """(address, folder of the collection): the page, with scripted policies."""
    folder = tmp_path_factory.mktemp("collected")
    limits = Limits(replies_per_minute=1_000, ratings_per_minute=100)  # the tests are one address
    demo = app.build_demo(tiny_models(), Collection(folder), app.camera_faces(), limits)
    with serving(demo, limits) as address:
        yield address, folder


@pytest.fixture(scope="session")
def camera_file(tmp_path_factory) -> Path:
    """A clip that the browser's camera repeats: two seconds of a face without a smile, then two with one."""
    return write_clip(tmp_path_factory.mktemp("camera") / "camera.mjpeg")


@pytest.fixture(scope="module")
def browser(camera_file):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the dev extra, for a browser")
    if not CHROMIUM.exists():
        pytest.skip(f"needs the browser at {CHROMIUM}: apt-get install chromium")
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    flags.append(f"--use-file-for-fake-video-capture={camera_file}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser):
    """A browser window for all tests of a module, so that the page's files are loaded once; each test has a tab."""
    context = new_context(browser, viewport={"width": 1280, "height": 900})
    yield context
    context.close()


@pytest.fixture
def page(context, served):
    """The page in a tab of its own; a failing script or a message box is an error."""
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: (errors.append(f"a message box: {dialog.message}"), dialog.dismiss()))
    open_page(page, served[0])
    yield page
    page.close()
    assert errors == []


@pytest.fixture(scope="session")
def attribution(tmp_path_factory):
    """An attribution of a toy corpus, loaded from its folder."""
    folder = tmp_path_factory.mktemp("attribution")
    fit = fit_hindsight(GeliRewardModel.from_backbone(backbone("llama")), toy_sessions(60), cache_dir=folder / "cache")
    fit.attribution.save_pretrained(folder / "it")
    return HindsightAttribution.from_pretrained(folder / "it")
