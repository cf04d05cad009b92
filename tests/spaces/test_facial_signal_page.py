"""The facial-signal page in a browser whose camera shows a face that smiles now and then."""

import base64
import io
import json
import logging
import os
import re
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import av
import httpx
import numpy as np
import pytest
from browsing import ROOT, Tab, load_app, new_context, serving, tiny_models, wait_for_toast
from camera_clip import smiling, write_clip
from PIL import Image

from geli_hf.demo.camera import FaceReader
from geli_hf.demo.facial import Recording
from geli_hf.demo.facial_events import FacialEvents
from geli_hf.sessions import null_to_nan, validate_session

pytestmark = pytest.mark.browser
TRANSCRIPT = """speaker,start,stop,text
Robot,0.2,1.4,I am so very happy for you and your dog
<img src=x onerror=alert(1)>,1.5,1.9,<script>alert(1)</script> oh
Robot,2.0,2.8,the old garden was quiet yesterday
"""
JSON = {"content-type": "application/json"}
LISTENER = "<img src=x onerror=alert(1)>"


class Reader(FaceReader):
    """A reader of faces that can be made to wait while it reads a video."""

    def __init__(self):
        super().__init__()
        self.reading, self.go = Event(), Event()
        self.go.set()

    def read_video(self, *arguments, **named):
        self.reading.set()
        assert self.go.wait(60)
        return super().read_video(*arguments, **named)


@pytest.fixture(scope="module")
def facial_app():
    """`spaces/facial_signal/app.py` as a module."""
    return load_app("facial_signal")


@pytest.fixture(scope="module")
def reader():
    return Reader()


@pytest.fixture(scope="module")
def served(facial_app, reader, tmp_path_factory):
    """(address, folder of uploads): the page, which takes videos of 2 MB and ten seconds."""
    uploads = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("geli_hf.demo.facial_events.VIDEOS_PER_MINUTE", 100)
        limits = replace(facial_app.LIMITS, video_minutes=1 / 6, video_megabytes=2, cameras_per_address=4)
        demo = facial_app.build_demo(tiny_models().reward, reader, replace(limits, camera_seconds=2))
        with serving(demo, limits, uploads=True) as address:
            yield address, uploads


@pytest.fixture
def page(context, served):
    """The page in a tab of its own; a failing script or a message box is an error."""
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: (errors.append(f"a message box: {dialog.message}"), dialog.dismiss()))
    page.goto(served[0])
    page.wait_for_selector(".f-ready")
    yield page
    page.close()
    assert errors == []


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three seconds of a face, which smiles in the second half, and a name that is something nasty."""
    return write_clip(tmp_path_factory.mktemp("clip") / f"{LISTENER}.mp4", seconds=1.5)


def start_camera(page) -> None:
    page.get_by_role("tab", name="Your camera").click()
    page.get_by_role("button", name="Use my camera").click()
    page.wait_for_selector("#now [data-smile]")


def upload(page, video: Path | None = None, transcript: Path | None = None) -> None:
    page.get_by_role("tab", name="Your video").click()
    for name, file in (("transcript", transcript), ("video", video)):
        if file:
            page.locator(f"#{name} input[type=file]").set_input_files(file)
            page.locator(f"#{name} .file-preview").wait_for()


def problem(page) -> str:
    page.wait_for_selector("#rec-note .g-note")
    return page.locator("#rec-note").inner_text()


def download(page, name: str, folder: Path) -> dict:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=name).click()
    waiting.value.save_as(folder / "downloaded")
    row = json.loads((folder / "downloaded").read_text())
    validate_session(null_to_nan(row), "the download", {})
    return row


def uploads(served) -> list[Path]:
    return [path for path in served[1].rglob("*") if path.is_file() and path.stat().st_size]


def rating(page, place: str, name: str) -> float:
    return float(page.locator(f"{place} [data-number={name}] span").inner_text())


# ------------------------------------------------------------------------------------------------ example


def test_the_example_plays_and_its_numbers_follow(page):
    """The face, the words and the rating go along; a click on a turn leads there."""
    page.wait_for_function("Number(document.querySelector('.f-controls input').value) > 1")
    page.get_by_role("button", name="Pause").click()
    mouths = set()
    for number in (1, 4, 5):
        page.locator("#example .f-partner").nth(number - 1).click()
        said = page.locator("#example .f-partner").nth(number - 1).locator("td").first.inner_text()
        assert page.locator(".f-said").first.inner_text() == f"Partner: {said.partition(' ')[2]}"
        assert page.locator("#example .f-here").count() == 1
        mouths.add(page.locator(".f-mouth").first.get_attribute("d"))
    assert len(mouths) > 1
    page.locator(".f-controls input").first.fill("75.5")
    words, both = (
        float(each)
        for each in page.locator("#example [data-score]").evaluate_all("all => all.map(each => each.dataset.score)")
    )
    assert rating(page, "#example", "words") == pytest.approx(words, abs=0.01)
    assert rating(page, "#example", "both") == pytest.approx(both, abs=0.01)
    assert abs(both - words) > 0.05


def test_the_player_keeps_its_place_on_a_phone(browser, served):
    context = new_context(browser, viewport={"width": 390, "height": 800}, reduced_motion="reduce")
    page = context.new_page()
    page.goto(served[0])
    page.wait_for_selector(".f-ready")
    assert page.get_by_role("button", name="Play").count() == 1  # nothing moves by itself where that is unwanted
    page.mouse.wheel(0, 900)
    page.wait_for_function("window.scrollY > 500")
    assert abs(page.locator(".f-place").first.bounding_box()["y"]) < 5
    small = page.evaluate(
        "[...document.querySelectorAll('input, textarea')].filter(each => each.offsetParent)"
        ".filter(each => parseFloat(getComputedStyle(each).fontSize) < 16).length"
    )
    assert small == 0  # iOS would zoom in
    context.close()


# ------------------------------------------------------------------------------------------------ camera


def test_a_smile_changes_the_rating_and_the_words_stay(page, served):
    """The camera shows two seconds of each face, over and over."""
    start_camera(page)
    page.get_by_role("button", name="Let the partner speak").click()
    page.wait_for_selector("#dialogue .f-partner")
    words = rating(page, "#rating-now", "words")
    both = "document.querySelector('#rating-now [data-number=both] span').innerText"
    for _ in range(2):  # the face smiles, and no longer
        before = page.evaluate(both)
        page.wait_for_function(f"before => {both} !== before", arg=before)
    assert rating(page, "#rating-now", "words") == words
    page.get_by_label("What is said").fill("<b>words</b> & ${more}")
    page.get_by_role("button", name="Add").click()
    # Who goes on speaking adds to the turn; and words stay words.
    page.locator("#dialogue .f-partner td", has_text="<b>words</b> & ${more}").wait_for()
    assert page.locator("#dialogue .f-partner").count() == 1
    assert uploads(served) == []  # no frame was written


def test_a_session_is_downloaded_as_a_row(page, tmp_path):
    page.get_by_role("tab", name="Your camera").click()
    page.get_by_role("button", name="Download (JSONL)").click()
    wait_for_toast(page, "nothing to download")
    page.get_by_role("button", name="Let the partner speak").click()
    page.wait_for_selector("#dialogue .f-partner")
    row = download(page, "Download (JSONL)", tmp_path)
    assert row["feedback"]["affect_mean"] == [None]  # no camera, no value
    page.get_by_role("button", name="Begin anew").click()
    page.get_by_text("Nothing has been said yet").wait_for()


def test_the_fifth_camera_is_told_that_all_are_in_use(served):
    file = io.BytesIO()
    Image.fromarray(smiling()).save(file, "jpeg")
    frame = {"url": f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"}
    tabs = [Tab(served[0], **JSON) for _ in range(5)]
    shown = [tab.post("see", event=frame, route="run/predict").text for tab in tabs]
    assert ["data-smile" in each for each in shown] == [True] * 4 + [False]
    assert "All cameras are in use" in shown[-1]


@pytest.mark.parametrize("event", [7, "url", {"url": 7}, {"url": "data:image/jpeg;base64,AAAA"}, {"url": None}, {}])
def test_what_is_no_frame_is_no_face(served, event):
    shown = Tab(served[0], **JSON).post("see", event=event, route="run/predict").text
    assert "data-smile" not in shown
    assert "Input should be" not in shown


# ------------------------------------------------------------------------------------------------ video


def test_a_video_and_its_transcript_become_a_session(page, served, clip, tmp_path):
    transcript = tmp_path / "talk.csv"
    transcript.write_text(TRANSCRIPT)
    upload(page, clip, transcript)
    page.wait_for_selector("#result .f-curve")
    assert "listener" in problem(page)  # whose face it is, has to be chosen
    page.locator("#listener input").click()
    page.get_by_role("option", name=LISTENER).click()
    page.wait_for_selector("#result .f-turns")
    assert page.locator("#rec-note .g-note").count() == 0
    smiles = page.locator("#result td[data-label=smile]").all_inner_texts()
    smiles = [float(re.sub(r"\D", "", each)) for each in smiles]
    assert smiles[0] < 40 < 70 < smiles[1]
    assert rating(page, "#result", "both") != rating(page, "#result", "words")
    assert page.locator("#result .f-mark").count() == 2
    assert page.locator("#moments img").count() > 0
    assert page.locator("img[src=x]").count() == 0  # neither names nor words became pictures
    assert uploads(served) == []  # the server has forgotten the video and the transcript
    assert page.locator("#video .file-preview").count() == 1  # and the box has not
    page.wait_for_function("document.querySelector('video[src]')?.videoWidth === 640")  # the visitor's own file
    row = download(page, "Session (JSONL)", tmp_path)
    assert row["feedback"]["affect_mean"] == pytest.approx(np.array(smiles) / 100, abs=0.006)
    page.locator("#video").get_by_label("Clear").click()
    page.wait_for_selector("#result .f-curve", state="detached")
    assert page.locator("video[src]").count() == page.locator("#moments img").count() == 0


@pytest.mark.parametrize("kind", ["no video", "nothing", "too long"])
def test_an_unreadable_video_is_reported_by_its_problem(page, served, tmp_path, kind):
    path = tmp_path / "video.mp4"
    if kind == "too long":
        write_clip(path, seconds=6, rate=2)
    else:
        path.write_bytes({"no video": b"this is a letter", "nothing": b""}[kind])
    upload(page, path)
    said = problem(page)
    assert {"no video": "no video", "nothing": "no video", "too long": "longer than"}[kind] in said
    assert str(served[1]) not in said
    assert uploads(served) == []


def test_a_huge_video_and_a_broken_transcript_are_refused(page, served, clip, tmp_path):
    transcript, huge = tmp_path / "talk.csv", tmp_path / "video.mp4"
    transcript.write_text("speaker,start,stop,text\nAnn,9,2,hello\n")
    upload(page, transcript=transcript)
    said = problem(page)
    assert "talk.csv, line 2" in said
    assert str(served[1]) not in said
    huge.write_bytes(bytes(3_000_000))
    page.locator("#video input[type=file]").set_input_files(huge)
    page.get_by_text(re.compile("maximum allowed size|too large", re.IGNORECASE)).first.wait_for()
    assert uploads(served) == []


def test_a_video_that_the_browser_can_not_show_is_read_and_said_so(page, tmp_path):
    """MPEG-4 Part 2, which Chromium plays as little as HEVC on most machines."""
    path = tmp_path / "old.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for _ in range(20):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(smiling(), format="rgb24")))
        file.mux(stream.encode())
    upload(page, path)
    page.wait_for_selector("#result .f-curve")
    page.get_by_text("can’t show this video").wait_for()
    page.wait_for_selector(".tabitem:visible .f-ready .f-face")  # the drawn face stands in for it


def request_of(tab: str) -> SimpleNamespace:
    return SimpleNamespace(client=SimpleNamespace(host="192.0.2.1"), session_hash=tab)


@pytest.fixture
def events(facial_app, reader):
    return FacialEvents(tiny_models().reward, reader, facial_app.LIMITS, {}, [])


def test_a_transcript_beyond_the_end_says_so_on_the_page_and_never_in_the_log(events, clip, tmp_path, caplog):
    recording, path = Recording(), tmp_path / "secret_name.csv"
    path.write_text(
        "speaker,start,stop,text\nassistant,0.2,1.4,hello you\nuser,1.5,1.9,oh\nassistant,50,52,still here\n"
    )
    video = tmp_path / "video.mp4"
    video.write_bytes(clip.read_bytes())
    events.watch(str(video), False, recording, request_of("a"))
    with caplog.at_level(logging.WARNING):
        _, said, shown = events.hear(str(path), recording)
    assert "1 of 3 turns" in said
    assert "f-turns" in shown
    assert "secret_name" not in caplog.text
    assert list(tmp_path.iterdir()) == []
    path.write_text("speaker,start,stop,text\nassistant,60,61,hello\nuser,62,63,oh\n")
    _, said, shown = events.hear(str(path), recording)
    assert "end of the video" in said
    assert "f-turns" not in shown
    assert recording.session is None


def test_videos_are_counted_by_address(events, tmp_path, monkeypatch):
    monkeypatch.setattr("geli_hf.demo.facial_events.VIDEOS_PER_MINUTE", 2)
    video, said = tmp_path / "video.mp4", []
    for tab in "abc":
        video.write_bytes(b"no video")
        said.append(events.watch(str(video), False, Recording(), request_of(tab))[0])
    assert ["a lot of videos" in each for each in said] == [False, False, True]
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_another_tab_uploaded_too_stays_for_it(events, tmp_path):
    """Gradio stores the same content once."""
    video = tmp_path / "video.mp4"
    video.write_bytes(b"video")
    for tab in "ab":
        events.arrive(str(video), request_of(tab))
    events.leave(request_of("a"))
    assert video.exists()
    events.forget(Recording(), request_of("b"))
    assert not video.exists()
    assert events.uploads == set()


@pytest.mark.parametrize("way", ["removed", "closed"])
def test_a_video_is_gone_when_it_is_removed_or_its_tab_closed(context, served, reader, clip, way):
    """Another video is being read, so this one waits in the queue."""
    first, second = context.new_page(), context.new_page()
    reader.reading.clear()
    reader.go.clear()
    try:
        for page, name in ((first, "first.mp4"), (second, "second.mp4")):
            page.goto(served[0])
            page.get_by_role("tab", name="Your video").click()
            file = {"name": name, "mimeType": "video/mp4", "buffer": clip.read_bytes()}
            page.locator("#video input[type=file]").set_input_files(file)
            page.locator("#video .file-preview").wait_for()
            assert reader.reading.wait(60)
        second.wait_for_timeout(1000)
        assert {path.name for path in uploads(served)} == {"first.mp4", "second.mp4"}
        if way == "removed":
            second.locator("#video").get_by_label("Clear").click()
        else:
            second.close()
        for _ in range(100):
            first.wait_for_timeout(200)
            if {path.name for path in uploads(served)} == {"first.mp4"}:
                break
        assert {path.name for path in uploads(served)} == {"first.mp4"}
    finally:
        reader.go.set()
    first.wait_for_selector("#result .f-curve")
    assert uploads(served) == []
    first.close()
    second.close()


def test_what_a_killed_run_left_goes_at_the_start_and_nothing_else(facial_app, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    facial_app.own_uploads()
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    assert folder.parent == tmp_path
    (folder / "digest").mkdir(parents=True)
    (folder / "digest" / "video.mp4").write_bytes(b"video")
    (tmp_path / "another's").write_bytes(b"")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    facial_app.own_uploads()
    assert [path.name for path in tmp_path.iterdir()] == ["another's"]


def test_uploads_that_nobody_asks_for_are_swept_within_minutes(facial_app):
    demo = facial_app.build_demo(tiny_models().reward, None)
    every, older = demo.delete_cache
    assert every + older <= 15 * 60


# ------------------------------------------------------------------------------------------------ robustness


def test_no_file_of_the_server_can_be_read(page, served):
    assert "never stored" in page.locator("body").inner_text()
    for path in ("/etc/passwd", str(ROOT / "setup.cfg"), "../../etc/passwd"):
        for route in ("/gradio_api/file=", "/file="):
            assert httpx.get(f"{served[0].rstrip('/')}{route}{path}").status_code in (403, 404)


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (390, "dark"), (1440, "light")])
def test_the_page_fits_a_phone_and_a_laptop(browser, served, clip, tmp_path_factory, width, scheme):
    context = new_context(browser, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{served[0]}?__theme={scheme}")
    page.wait_for_selector(".f-ready")
    folder = tmp_path_factory.getbasetemp() / "screenshots"
    folder.mkdir(exist_ok=True)
    (folder / "talk.csv").write_text(TRANSCRIPT.replace("Robot", "assistant").replace(LISTENER, "user"))
    for name in ("Example", "Your camera", "Your video"):
        page.get_by_role("tab", name=name).click()
        if name == "Your camera":
            page.get_by_role("button", name="Let the partner speak").click()
            page.wait_for_selector("#dialogue .f-turns")
        if name == "Your video":
            upload(page, clip, folder / "talk.csv")
            page.wait_for_selector("#result .f-turns")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=folder / f"facial-{name}-{width}-{scheme}.png", full_page=True)
    context.close()
    corner = np.asarray(Image.open(folder / f"facial-Example-{width}-{scheme}.png").convert("L"))[:40, :8]
    assert (corner.mean() > 128) == (scheme == "light")
