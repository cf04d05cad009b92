"""The facial-signal page in a browser whose camera shows a face that smiles now and then."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsing import ROOT, load_app, new_context, open_page, serving, tiny_models
from camera_clip import write_clip
from PIL import Image

from geli_hf.demo.camera import FaceReader
from geli_hf.sessions import null_to_nan, validate_session

pytestmark = pytest.mark.browser
TRANSCRIPT = """speaker,start,stop,text
Robot,0.2,1.4,I am so very happy for you and your dog
<img src=x onerror=alert(1)>,1.5,1.9,<script>alert(1)</script> oh
Robot,2.0,2.8,the old garden was quiet yesterday
"""


@pytest.fixture(scope="session")
def facial_app():
    """`spaces/facial_signal/app.py` as a module."""
    return load_app("facial_signal")


@pytest.fixture(scope="module")
def served(facial_app, tmp_path_factory):
    """(address, folder of uploads): the page, which takes videos of 2 MB and ten seconds."""
    uploads = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        patch.setenv("HF_HUB_OFFLINE", "1")
        limits = replace(facial_app.LIMITS, video_minutes=1 / 6)
        demo = facial_app.build_demo(tiny_models().reward, FaceReader(), limits)
        with serving(demo, facial_app.LAUNCH | {"max_file_size": "2mb"}) as address:
            yield address, uploads


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three seconds of a face, which smiles in the second half, and a name that is something nasty."""
    return write_clip(tmp_path_factory.mktemp("clip") / "<img src=x onerror=alert(1)>.mp4", seconds=1.5)


def start_camera(page) -> None:
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_text("Record", exact=True).click()
    page.wait_for_selector("#now [data-smile]")


def recorded(page, video: Path | None = None, transcript: Path | None = None) -> None:
    """Open the other half of the page, and upload what is there."""
    page.get_by_role("tab", name="Recorded").click()
    if video:
        page.locator("#video input[type=file]").set_input_files(video)
        page.locator("#video .file-preview").wait_for()
    if transcript:
        page.locator("#transcript input[type=file]").set_input_files(transcript)
        page.locator("#transcript .file-preview").wait_for()


def look(page) -> None:
    page.get_by_role("button", name="Look at it").click()


def download(page, name: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=name).click()
    waiting.value.save_as(folder / "downloaded")
    return folder / "downloaded"


def uploads(served) -> list[Path]:
    return [path for path in served[1].rglob("*") if path.is_file() and path.stat().st_size]


# ------------------------------------------------------------------------------------------------ live


def test_the_smile_is_measured_and_turns_get_both_signals(page, served):
    """The camera shows two seconds of each face, over and over."""
    start_camera(page)
    smile = "Number(document.querySelector('#now [data-smile]')?.dataset.smile)"
    page.wait_for_function(f"{smile} < 0.4")
    page.wait_for_function(f"{smile} > 0.8")
    page.get_by_role("button", name="Let the partner speak").click()
    page.wait_for_selector("#dialogue .f-smile")  # a face was seen during the turn
    page.get_by_label("What is said").fill("<b>words</b> & ${more}")
    page.get_by_role("button", name="Add").click()
    # Who goes on speaking adds to the turn; and words stay words.
    said = page.locator("#dialogue .g-assistant .g-text", has_text="<b>words</b> & ${more}")
    said.wait_for()
    assert page.locator("#dialogue .g-turn").count() == 2
    assert re.search(r"better than \d+\s%", page.locator("#dialogue .g-assistant .g-chip").first.inner_text())
    assert page.locator("#curve .f-curve").count() == 1
    text = page.locator("#steps .g-quiet").last.inner_text().replace("−", "-")
    base, *adds, total = map(float, re.findall(r"[+-]?\d+\.\d\d", text)[:3])
    assert base + sum(adds) == pytest.approx(total, abs=0.011)
    assert uploads(served) == []  # no frame was written


def test_a_session_is_downloaded_as_a_row(page, tmp_path):
    page.get_by_role("button", name="Let the partner speak").click()
    page.wait_for_selector("#dialogue .g-assistant")
    row = json.loads(download(page, "Download (JSONL)", tmp_path).read_text())
    validate_session(null_to_nan(row), "the download", {})
    assert row["feedback"]["affect_mean"] == [None]  # no camera, no value
    page.get_by_role("button", name="Begin anew").click()
    page.wait_for_selector("#dialogue .g-empty")


def test_an_attribution_explains_with_hindsight(context, facial_app, attribution, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    demo = facial_app.build_demo(tiny_models().reward, FaceReader(), attribution=attribution)
    with serving(demo, facial_app.LAUNCH) as address:
        page = context.new_page()
        open_page(page, address)
        start_camera(page)
        page.get_by_role("button", name="Let the partner speak").click()
        page.wait_for_selector("#dialogue .f-smile")
        shown = "document.querySelector('#steps').innerText"
        page.wait_for_function(f"/With hindsight/.test({shown}) && !/face 0.00/.test({shown})")
        page.close()


# ------------------------------------------------------------------------------------------------ recorded


def test_a_video_and_its_transcript(page, served, clip, tmp_path):
    path = tmp_path / "talk.csv"
    path.write_text(TRANSCRIPT)
    recorded(page, clip, path)
    look(page)
    page.wait_for_selector("#rec-note .g-note")  # neither speaker is called user
    assert "Robot" in page.locator("#rec-note").inner_text()
    recorded(page, clip, path)
    page.get_by_label("Whose face is it?").fill("<img src=x onerror=alert(1)>")
    look(page)
    page.wait_for_selector("#rec-turns .f-smile")
    smiles = [float(chip.get_attribute("data-smile")) for chip in page.locator("#rec-turns .f-smile").all()]
    assert smiles[0] < 0.4 < 0.7 < smiles[1]
    assert page.locator("#rec-steps .g-bar").count() == 2
    assert page.locator("#timeline .f-mark").count() == 2
    assert page.locator("img[src=x]").count() == 0  # neither names nor words became pictures
    assert uploads(served) == []  # the server has forgotten the video and the transcript
    row = json.loads(download(page, "Session (JSONL)", tmp_path).read_text())
    validate_session(null_to_nan(row), "the download", {})
    assert row["feedback"]["affect_mean"] == pytest.approx(smiles, abs=1e-3)


@pytest.mark.parametrize("kind", ["no video", "nothing", "too long"])
def test_an_unreadable_video_is_reported_by_its_problem(page, served, tmp_path, kind):
    path = tmp_path / "video.mp4"
    if kind == "too long":
        write_clip(path, seconds=6, rate=2)
    else:
        path.write_bytes({"no video": b"this is a letter", "nothing": b""}[kind])
    recorded(page, path)
    look(page)
    page.wait_for_selector("#rec-note .g-note")
    problem = page.locator("#rec-note").inner_text()
    assert {"no video": "no video", "nothing": "no video", "too long": "longer than"}[kind] in problem
    assert str(served[1]) not in problem
    assert uploads(served) == []


def test_a_huge_video_and_a_broken_transcript_are_refused(page, served, clip, tmp_path):
    transcript, huge = tmp_path / "talk.csv", tmp_path / "video.mp4"
    transcript.write_text("speaker,start,stop,text\nAnn,9,2,hello\n")
    recorded(page, clip, transcript)
    look(page)
    page.wait_for_selector("#rec-note .g-note")
    problem = page.locator("#rec-note").inner_text()
    assert "talk.csv, line 2" in problem
    assert str(served[1]) not in problem
    huge.write_bytes(bytes(3_000_000))
    page.locator("#video input[type=file]").set_input_files(huge)
    page.get_by_text(re.compile("maximum allowed size|too large", re.IGNORECASE)).first.wait_for()
    assert uploads(served) == []


# ------------------------------------------------------------------------------------------------ robustness


def test_no_file_of_the_server_can_be_read(page, served):
    assert "Frames are processed in memory only" in page.locator("body").inner_text()
    for path in ("/etc/passwd", str(ROOT / "setup.cfg"), "../../etc/passwd"):
        for route in ("/gradio_api/file=", "/file="):
            assert page.request.get(f"{served[0].rstrip('/')}{route}{path}").status in (403, 404)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_page_fits_a_phone_and_a_laptop(browser, served, clip, tmp_path_factory, width, scheme):
    context = new_context(browser, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    open_page(page, f"{served[0]}?__theme={scheme}")
    start_camera(page)
    page.get_by_role("button", name="Let the partner speak").click()
    page.wait_for_selector("#dialogue .f-smile")
    folder = tmp_path_factory.getbasetemp() / "screenshots"
    folder.mkdir(exist_ok=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=folder / f"facial-live-{width}-{scheme}.png", full_page=True)
    path = folder / "talk.csv"
    path.write_text(TRANSCRIPT)
    recorded(page, clip, path)
    page.get_by_label("Whose face is it?").fill("Robot")
    look(page)
    page.wait_for_selector("#rec-turns .g-turn")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picture = folder / f"facial-recorded-{width}-{scheme}.png"
    page.screenshot(path=picture, full_page=True)
    context.close()
    corner = np.asarray(Image.open(picture).convert("L"))[:40, :8]
    assert (corner.mean() > 128) == (scheme == "light")
