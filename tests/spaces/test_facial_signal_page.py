"""The facial-signal page in a browser whose camera shows a face that smiles now and then."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsing import ROOT, load_app, new_context, open_page, serving, tiny_models
from PIL import Image

from geli_hf.affect import read_transcript
from geli_hf.demo import facial_events
from geli_hf.demo.camera import FaceReader
from geli_hf.demo.drawn_face import draw_clip
from geli_hf.demo.facial import Example
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
    """(address, folder of uploads): the page, which takes videos of 1 MB and half a minute."""
    uploads = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        patch.setenv("HF_HUB_OFFLINE", "1")
        limits = replace(facial_app.LIMITS, video_megabytes=1, video_minutes=0.5)
        demo = facial_app.build_demo(tiny_models().reward, FaceReader(), limits)
        with serving(demo, facial_app.LAUNCH | {"max_file_size": "2mb"}) as address:
            yield address, uploads


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three seconds of the drawn face, which begins to smile in the middle, and is called something nasty."""
    path = tmp_path_factory.mktemp("clip") / "<img src=x onerror=alert(1)>.mp4"
    path.write_bytes(draw_clip([0.0] * 15 + [1.0] * 15))
    return path


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
        page.wait_for_selector("#read-note .g-note")


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
    x, y, width, height = map(float, page.locator("#now [data-box]").get_attribute("data-box").split(","))
    assert 0.2 < x < x + width < 0.8  # of the picture: her face is in the middle
    assert 0.1 < y < y + height < 0.8
    page.wait_for_selector("#camera .f-box")
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
    text = page.locator("#steps .g-quiet").first.inner_text().replace("−", "-")
    base, *adds, total = map(float, re.findall(r"[+-]?\d+\.\d\d", text)[:3])
    assert base + sum(adds) == pytest.approx(total, abs=0.011)
    assert uploads(served) == []  # no frame was written


def test_a_tab_restores_its_turns_after_a_reload_and_no_other_tab_sees_them(context, page, served):
    start_camera(page)
    page.get_by_role("button", name="Let the partner speak").click()
    page.wait_for_selector("#dialogue .f-smile")
    page.get_by_text("Stop", exact=True).click()
    page.wait_for_timeout(1000)  # for frames that are under way
    page.get_by_label("What is said").fill("only here")
    page.get_by_role("button", name="Add").click()
    page.locator("#dialogue .g-text", has_text="only here").wait_for()
    page.wait_for_function("(sessionStorage.getItem('geli-face') || '').includes('only here')")
    stored = json.loads(page.evaluate("sessionStorage.getItem('geli-face')"))
    assert set(stored) == {"row", "began", "script"}
    feedback = json.loads(stored["row"])["feedback"]
    assert {name: len(values) for name, values in feedback.items()} == {"affect": 1, "affect_mean": 1}
    before = page.locator("#dialogue .g-text").all_inner_texts()

    other = context.new_page()
    open_page(other, served[0])
    other.wait_for_timeout(1000)
    assert "Nothing has been said yet" in other.locator("#dialogue").inner_text()
    other.close()

    page.reload()
    page.wait_for_selector("#dialogue .g-assistant")
    assert page.locator("#dialogue .g-text").all_inner_texts() == before
    assert f"{feedback['affect_mean'][0]:.3f}" == page.locator(".f-smile").get_attribute("data-smile")
    assert "there again" in page.locator("#live-note").inner_text()
    assert page.locator("#curve .f-curve").count() == 0
    page.get_by_role("button", name="Begin anew").click()
    page.wait_for_selector("#dialogue .g-empty")
    page.wait_for_function("sessionStorage.getItem('geli-face') === null")


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


def test_a_classifier_that_can_not_be_loaded_leaves_the_shipped_one(page, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    monkeypatch.setattr("geli_hf.affect.deepface.is_offline_mode", lambda: True)
    page.get_by_role("radio", name="DeepFace").check(force=True)
    page.wait_for_selector("#switched .f-problem")
    assert str(tmp_path) not in page.locator("#switched").inner_text()
    page.wait_for_function("document.querySelector('#classifier input').checked")
    assert "DeepFace can't be used" in caplog.text
    page.get_by_role("button", name="Add").click()  # of no text
    page.wait_for_selector("#live-note .f-problem")


def test_deepface_by_the_switch(context, facial_app, deepface_home, tmp_path, monkeypatch):
    """The weights are stand-ins of the right shape."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    faces = FaceReader()
    with serving(facial_app.build_demo(tiny_models().reward, faces), facial_app.LAUNCH) as address:
        page = context.new_page()
        open_page(page, address)
        page.get_by_role("radio", name="DeepFace").check(force=True)
        page.wait_for_function("document.querySelectorAll('#classifier input')[1].checked")
        start_camera(page)
        asked = []
        classify = faces.classifier("deepface").classify
        monkeypatch.setattr(faces.classifier("deepface"), "classify", lambda crops: asked.append(1) or classify(crops))
        page.get_by_role("button", name="Let the partner speak").click()
        page.wait_for_selector("#dialogue .f-smile")
        assert page.locator("#switched .g-note").count() == 0
        while not asked:  # the switch may come after the first frames
            page.wait_for_timeout(200)
        page.close()


# ------------------------------------------------------------------------------------------------ recorded


def test_a_video_and_its_transcript(page, served, clip, tmp_path):
    path = tmp_path / "talk.csv"
    path.write_text(TRANSCRIPT)
    recorded(page, clip, path)
    page.locator("#listener").get_by_text("<img").click()
    look(page)
    page.wait_for_selector("#table tbody tr")
    rows = page.locator("#table tbody tr")
    assert rows.count() == 2
    smiles = [float(rows.nth(n).locator("td").nth(1).inner_text().removesuffix(" %")) for n in range(2)]
    assert smiles[0] < 40 < 70 < smiles[1]
    assert page.locator("#timeline .g-bar").count() == 2
    assert page.locator("img[src=x]").count() == 0  # neither names nor words became pictures
    assert uploads(served) == []  # the server has forgotten the video and the transcript
    rows.nth(1).click()
    page.wait_for_function("Math.abs(document.querySelector('#player video').currentTime - 2) < 0.1")
    left, at, right = (
        float(page.locator("#timeline svg").get_attribute("data-left")),
        float(page.locator(".f-cursor").get_attribute("x1")),
        float(page.locator("#timeline svg").get_attribute("data-right")),
    )
    end = float(page.locator("#timeline svg").get_attribute("data-end"))
    assert at == pytest.approx(left + (right - left) * 2 / end, abs=2)
    row = json.loads(download(page, "Session (JSONL)", tmp_path).read_text())
    validate_session(null_to_nan(row), "the download", {})
    assert [round(100 * value) for value in row["feedback"]["affect_mean"]] == smiles
    with download(page, "Frames (CSV)", tmp_path).open(newline="") as file:
        frames = list(csv.DictReader(file))
    assert len(frames) == 15  # of three seconds, five a second
    assert Image.open(download(page, "Picture (PNG)", tmp_path)).width > 1000


def test_the_example(page, facial_app, monkeypatch, clip, tmp_path):
    """A short clip stands in for the example."""
    path = tmp_path / "talk.csv"
    path.write_text(TRANSCRIPT)
    short = Example(clip.read_bytes(), read_transcript(path), "robot")
    monkeypatch.setattr(facial_events, "example", lambda: short)
    recorded(page)
    assert "No recording yet" in page.locator("#timeline").inner_text()
    page.get_by_role("button", name="Take the example").click()
    page.wait_for_selector("#table tbody tr")
    page.wait_for_function("document.querySelector('#player video').duration > 2")


@pytest.mark.parametrize("kind", ["no video", "nothing", "too long", "too large"])
def test_an_unreadable_video_is_reported_by_its_problem(page, served, tmp_path, kind):
    path = tmp_path / "video.mp4"
    wrong = {"no video": b"this is a letter", "nothing": b"", "too large": bytes(1_500_000)}
    path.write_bytes(draw_clip([0.0] * 80, rate=2) if kind == "too long" else wrong[kind])
    recorded(page, path)
    look(page)
    page.wait_for_selector("#rec-note .f-problem")
    problem = page.locator("#rec-note").inner_text()
    expected = {"no video": "no video", "nothing": "empty", "too long": "0.5 minutes", "too large": "1 MB"}[kind]
    assert expected in problem
    assert str(served[1]) not in problem
    assert uploads(served) == []


def test_a_huge_video_and_a_broken_transcript_are_refused(page, served, tmp_path):
    transcript, huge = tmp_path / "talk.csv", tmp_path / "video.mp4"
    transcript.write_text("speaker,start,stop,text\nAnn,9,2,hello\n")
    recorded(page, transcript=transcript)
    problem = page.locator("#read-note").inner_text()
    assert "talk.csv, line 2" in problem.replace("Talk", "talk")
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
    page.locator("#listener").get_by_text("<img").click()
    look(page)
    page.wait_for_selector("#table tbody tr")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picture = folder / f"facial-recorded-{width}-{scheme}.png"
    page.screenshot(path=picture, full_page=True)
    context.close()
    corner = np.asarray(Image.open(picture).convert("L"))[:40, :8]
    assert (corner.mean() > 128) == (scheme == "light")
