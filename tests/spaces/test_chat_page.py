"""The chat page in a browser, and by HTTP as somebody without one would use it."""

import base64
import io
import json
import math
import re
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pytest
from browsing import (
    Tab,
    new_context,
    open_page,
    open_section,
    rewards,
    say,
    serving,
    talk,
    texts,
    tiny_models,
    wait_for_rewards,
    wait_for_toast,
)
from camera_clip import smiling
from PIL import Image

from geli_hf import load_sessions
from geli_hf.demo.chat_events import BLIND, RATED_TURNS, STARTERS
from geli_hf.demo.collection import Collection
from geli_hf.demo.limits import Limits
from geli_hf.sessions import null_to_nan, validate_session

pytestmark = pytest.mark.browser

HAPPY, QUIET = "I am so happy for you and your dog", "the old garden was quiet yesterday"
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>${alert(3)}{{alert(4)}}{{#each}} `x` &lt;b&gt; # **bold**"
SAID = ("I saw your dog in the garden", "it was lovely", "and my cat too")


def files(folder) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def screenshots(tmp_path_factory) -> Path:
    folder = tmp_path_factory.getbasetemp() / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder


def writing(page) -> None:
    """Wait until a part of the reply is there."""
    page.wait_for_selector("#chat .g-writing")
    page.wait_for_function("[...document.querySelectorAll('#chat .bot .message-content')].at(-1).innerText.length > 3")


def begin_anew(page) -> None:
    page.get_by_role("button", name="New conversation").click()
    page.wait_for_function("!document.querySelector('#chat .message')")


def rate(page, number: int, consent: bool) -> None:
    page.locator("#rating").get_by_label(str(number), exact=True).check()
    page.locator("#consent input").set_checked(consent)
    page.get_by_role("button", name="Rate and finish").click()
    page.wait_for_selector("[data-finished]")


# ------------------------------------------------------------------------------------------------ talking


def test_a_starter_and_a_message_get_rewards(page):
    """One number for each reply, which is the model's, and a guess of the rating."""
    assert page.get_by_text("How it works").is_visible()
    assert not page.locator("#beat").is_visible()
    page.get_by_role("button", name=STARTERS[0]).click()
    wait_for_rewards(page, 1)
    talk(page, "it was lovely")
    said = [STARTERS[0], f"{HAPPY} 1", "it was lovely", f"{HAPPY} 3"]
    assert texts(page) == said
    dialogue = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, said)]
    model = tiny_models().reward
    [expected] = model.score_sessions([{"messages": dialogue}])
    shares = [int(re.search(r"better than (\d+)", chip)[1]) for chip in rewards(page)]
    assert shares == [round(100 * model.percentile(reward)) for reward in expected["turn_rewards"]]
    shown = float(page.locator(".g-rating").get_attribute("data-score"))
    assert shown == pytest.approx(min(max(expected["score"], 1), 10), abs=1e-3)
    assert page.locator("#session .g-bar").count() == 2
    assert not page.locator("#rate").is_visible()  # until there are three replies


def test_edit_retry_undo_thumbs_and_copies(page, context):
    context.grant_permissions(["clipboard-read", "clipboard-write", "camera"])
    talk(page, *SAID[:2])
    page.get_by_role("button", name="Edit").first.click()
    page.locator("#chat .user textarea").fill("I never liked the winter")
    page.get_by_role("button", name="Submit").click()
    wait_for_rewards(page, 1)
    page.wait_for_function("document.querySelector('#chat .user .message-content').innerText.includes('winter')")
    assert texts(page) == ["I never liked the winter", f"{HAPPY} 1"]
    page.get_by_role("button", name="Retry").click()
    page.locator("#session .g-tick").get_by_text("↻✎").wait_for()
    page.get_by_role("button", name="Dislike").click()
    page.locator("#session .g-tick").get_by_text("👎").wait_for()
    page.get_by_role("button", name="Copy", exact=True).click()
    page.locator("#session .g-tick").get_by_text("⧉").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == f"{HAPPY} 1"
    page.get_by_role("button", name="Undo").click()
    page.wait_for_function("!document.querySelector('#chat .message')")


def test_stop_keeps_the_reply_so_far(page):
    say(page, "tell me slowly about the train")
    writing(page)
    page.get_by_role("button", name="Stop").click()
    wait_for_rewards(page, 1)
    reply, whole = texts(page)[1], f"{HAPPY} 1 " * 40
    assert reply
    assert whole.startswith(reply)
    assert reply != whole
    assert not page.get_by_role("button", name="Stop").is_visible()  # there is nothing to stop


def test_a_message_sent_during_a_reply_waits_and_a_new_conversation_abandons_it(page):
    say(page, "tell me slowly about the train")
    writing(page)
    say(page, "it was lovely")
    page.get_by_role("button", name="Stop").click()
    wait_for_rewards(page, 2)
    assert texts(page)[2:] == ["it was lovely", f"{HAPPY} 3"]
    say(page, "tell me slowly about the bus")
    writing(page)
    begin_anew(page)
    talk(page, SAID[0])
    assert texts(page) == [SAID[0], f"{HAPPY} 1"]


def test_a_blind_vote_is_revealed_afterwards_and_counted(page):
    page.get_by_label("Blind").check()
    say(page, SAID[0])
    page.wait_for_selector("#chat .option")
    chat = page.locator("#chat")
    assert not re.search("after training|before training|aligned", chat.inner_html(), re.IGNORECASE)
    assert rewards(page) == []  # a number would give it away
    say(page, "and now?")
    wait_for_toast(page, "Vote first")
    first = chat.locator(".bot .message-content").first.inner_text()
    page.get_by_role("button", name="A is better").click()
    wait_for_rewards(page, 1)
    assert texts(page)[1] == first
    preferred = "after" if first.startswith(HAPPY) else "before"
    assert f"the one {preferred} training" in chat.inner_text()
    assert ("1 of 1" if preferred == "after" else "0 of 1") in page.locator(".g-votes").inner_text()


def test_the_reply_can_be_rewritten_and_compared(page):
    talk(page, SAID[0])
    page.get_by_role("button", name="brush-off").click()
    page.wait_for_function("document.querySelectorAll('#bars .g-row').length === 4")
    page.get_by_label("Rewrite").fill("we walked & talked <b>with</b> your dog")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_function("document.querySelectorAll('#bars .g-row').length === 5")
    assert page.locator(".g-verdict").is_visible()
    assert "<b>with</b>" in page.locator("#bars").inner_text()
    assert texts(page) == [SAID[0], f"{HAPPY} 1"]  # what was said stays
    page.locator("#session .g-tick").get_by_text("✎").wait_for()
    talk(page, SAID[1])
    assert not page.locator("#bars .g-row").count()  # they were of another reply


# ------------------------------------------------------------------------------------------------ sessions


def test_a_session_is_finished_kept_and_deleted_by_its_key(page, served, tmp_path, monkeypatch):
    """With consent it is written when it is rated; the next one asks anew; the key survives a reload."""
    for path in files(served[1]):  # of another test
        path.unlink()
    talk(page, *SAID)
    page.get_by_label("Rewrite").fill("my own words")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector(".g-verdict")
    assert files(served[1]) == []
    rate(page, 3, consent=True)
    assert "You said 3. I guessed" in page.locator(".g-rating").inner_text()
    for name in ("#message", "#mode", "#beat", "#rate"):
        assert not page.locator(name).is_visible()
    [path] = files(served[1])
    key = page.locator("#keys textarea, #keys input").input_value()
    assert key
    assert key not in path.name + path.read_text()

    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    assert load_sessions(served[1])["score"][:] == [3]
    row = json.loads(path.read_text())
    assert (row["score"], row["policies"], row["reward_model"]) == (3, ["after@1"] * 3, "judge@3")
    assert row["rewrites"] == ["", "", "my own words"]
    assert [message["content"] for message in row["messages"]] == texts(page)

    for button, kind in (("Card to share", b"\x89PNG"), ("Conversation as JSONL", b'{"session_id"')):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        saved = tmp_path / download.value.suggested_filename
        download.value.save_as(saved)
        assert saved.read_bytes().startswith(kind)
    validate_session(null_to_nan(json.loads(saved.read_text())), "the download", {})

    begin_anew(page)
    talk(page, *SAID)
    assert not page.locator("#consent input").is_checked()
    assert page.locator("#rating input:checked").count() == 0
    rate(page, 8, consent=False)
    assert "Nothing was kept" in page.locator("#session").inner_text()
    assert len(files(served[1])) == 1
    page.reload()
    page.wait_for_function("key => document.querySelector('#keys textarea, #keys input')?.value === key", arg=key)
    page.get_by_role("button", name="Delete my sessions").click()
    page.locator("#deleted").get_by_text("is deleted").wait_for()
    assert files(served[1]) == []
    page.wait_for_function("!sessionStorage.getItem('geli-keys') && !document.querySelector('#chat .message')")


def test_the_smile_meter_rises_with_a_smile(page, served):
    """The camera shows two seconds of each face, over and over."""
    open_section(page, "Camera")
    page.get_by_role("button", name="Use my camera").click()
    seen = "[...document.querySelectorAll('[data-smile]')].map(e => Number(e.dataset.smile))[0]"

    def both_faces() -> None:
        page.wait_for_function(f"{seen} < 0.4")
        page.wait_for_function(f"{seen} > 0.8")

    both_faces()
    talk(page, *SAID)
    both_faces()
    both_faces()
    rate(page, 7, consent=True)
    newest = max(files(served[1]), key=lambda path: path.stat().st_mtime)
    row = null_to_nan(json.loads(newest.read_text()))
    validate_session(row, "what was collected", {})
    assert 0.2 < row["feedback"]["affect_mean"][-1] < 0.9  # some of the time
    page.get_by_role("button", name="Stop the camera").click()


def test_a_refused_camera_says_so(browser, served):
    context = new_context(browser, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.add_init_script(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); }"
    )
    open_page(page, served[0])
    open_section(page, "Camera")
    page.get_by_role("button", name="Use my camera").click()
    page.locator("#camera").get_by_text("refused").wait_for()
    context.close()


# ------------------------------------------------------------------------------------------------ robustness


def test_text_is_never_executed(page):
    talk(page, EVIL)
    assert texts(page)[0] == EVIL
    assert page.locator("#chat .message img, #chat .message script").count() == 0


def test_an_error_is_reported_without_its_message(page, caplog):
    say(page, "break my password hunter2")
    wait_for_toast(page, "Something went wrong")
    assert "secret of the server" not in page.content()
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text
    talk(page, "hello again my friend")
    assert texts(page) == ["hello again my friend", f"{HAPPY} 1"]


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (390, "dark"), (1280, "light")])
def test_the_page_fits_a_phone_and_a_laptop(browser, served, width, scheme, tmp_path_factory):
    context = new_context(browser, viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    open_page(page, served[0])
    talk(page, *SAID[:2], "it was lovely, and " + "longer" * 20)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    heading = page.locator("h1").bounding_box()
    assert heading["x"] >= 0
    assert heading["x"] + heading["width"] <= width
    numbers = page.locator("#rating .wrap label").all()
    assert [number.inner_text() for number in numbers] == [str(number) for number in range(1, 11)]
    assert len({number.bounding_box()["y"] for number in numbers}) == 1  # in one row
    if width < 640:  # a finger's size, and letters at which iOS does not zoom
        for button in page.get_by_role("button").all():
            assert not button.is_visible() or button.bounding_box()["height"] >= 44, button.inner_text()
        sizes = "[...document.querySelectorAll('input, textarea')].map(e => parseFloat(getComputedStyle(e).fontSize))"
        assert min(page.evaluate(sizes)) >= 16
    picture = screenshots(tmp_path_factory) / f"chat-{width}-{scheme}.png"
    page.screenshot(path=picture, full_page=True)
    corner = np.asarray(Image.open(picture).convert("L"))[:40, :4]
    assert (corner.mean() > 128) == (scheme == "light")
    context.close()


# ------------------------------------------------------------------------------------------------ without a browser


@pytest.fixture
def private(app, tmp_path):
    """(address, folder, limits) of a page of its own, whose counts no other test has used."""
    limits = Limits(
        cameras=4, cameras_per_address=4, camera_seconds=8.0, ratings_per_minute=3, requests_per_minute=400
    )
    demo = app.build_demo(tiny_models(), Collection(tmp_path), app.camera_faces(), limits)
    with serving(demo, limits) as address:
        yield address, tmp_path, limits


def frame() -> dict:
    file = io.BytesIO()
    Image.fromarray(smiling()).save(file, "jpeg")
    return {"url": "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()}


def test_cameras_that_went_keep_no_place_and_nobody_waiting(private):
    address, _, limits = private
    tabs = [Tab(address) for _ in range(limits.cameras + 1)]
    shown = [tab.post("see", event=frame(), route="run/predict").text for tab in tabs]
    assert all("data-smile" in text for text in shown[:-1])
    assert "All cameras are in use" in shown[-1]
    for tab in tabs[:-1]:  # joins that nobody reads
        for _ in range(16):
            tab.post("see", event=frame())
    start = time.monotonic()
    tabs[-1].talk("hello")
    assert tabs[-1].call("delete", {0: "no such key"})["success"]
    assert time.monotonic() - start < 30
    time.sleep(limits.camera_seconds)
    assert "data-smile" in tabs[-1].post("see", event=frame(), route="run/predict").text


def test_only_what_this_server_said_is_collected_and_seldom(private):
    address, folder, limits = private
    tab = Tab(address)
    rated = {3: 7, 4: True, 5: ""}
    tab.talk(*SAID[: RATED_TURNS - 1])
    assert not tab.call("rate", rated)["success"]  # too short
    tab.talk(SAID[-1])
    for number in (True, 0, 11, 7.5, "7", None, math.pi):
        assert not tab.call("rate", {3: number, 4: True, 5: ""})["success"], number
    for consent in (1, "yes", None):  # anything but the tick
        forged = {"turns": [{"role": "assistant", "text": "forged", "source": "aligned"}], "key": "mine"}
        other = Tab(address)
        other.post("send", {1: forged})
        other.call("rate", {0: forged, 3: 7, 4: consent, 5: ""})
    assert files(folder) == []
    assert tab.call("rate", rated)["success"]
    assert not tab.call("rate", rated)["success"]  # it is finished
    assert not tab.call("send", {0: "more"})["success"]
    [path] = files(folder)
    assert "forged" not in path.read_text()
    results = []
    for _ in range(limits.ratings_per_minute):
        another = Tab(address)
        another.talk(*SAID)
        results.append(another.call("rate", rated)["success"])
    assert not all(results)  # by address: new tabs change nothing


def test_half_an_emoji_hangs_nothing(private):
    tab = Tab(private[0])
    tab.talk("hello \ud83d", "and again")
    last = json.dumps(tab.call("download"))
    assert "success" in last


def test_events_of_other_messages_change_nothing(private):
    tab = Tab(private[0])
    tab.talk("hello")
    for index in (-1, 0, 2, 99, True, None, "1", [1, 0], 1e300):
        tab.call("feel", event={"index": index, "value": "", "liked": True})
        tab.call("copied", event={"index": index})
        tab.call("vote", event={"index": index, "value": str(index)})
        if index is True or index != 0:
            assert not tab.call("edit", event={"index": index, "value": "x", "previous_value": ""})["success"]
    tab.talk("still here")


def test_what_no_page_needs_is_closed(private):
    address, _, limits = private
    client = Tab(address).client
    assert client.post("gradio_api/upload", files={"files": ("a.txt", b"x")}).status_code == 404
    assert client.get("gradio_api/deep_link?session_hash=a").status_code == 404
    assert client.post("gradio_api/queue/join", content=b" " * (limits.body_bytes + 1)).status_code == 413
    assert client.post("gradio_api/run/predict", content=b"{").status_code in (400, 422, 500)


def test_addresses_behind_a_proxy_are_told_apart(private):
    address, _, limits = private
    first, other = Tab(address, **{"X-Forwarded-For": "1.2.3.4"}), Tab(address, **{"X-Forwarded-For": "5.6.7.8"})
    statuses = {
        first.client.post("gradio_api/cancel", content=b"{}").status_code for _ in range(limits.requests_per_minute)
    }
    assert 429 not in statuses
    assert first.client.post("gradio_api/cancel", content=b"{}").status_code == 429
    assert other.client.post("gradio_api/cancel", content=b"{}").status_code != 429


def test_no_file_of_the_server_can_be_read(served):
    routes = ("gradio_api/file=", "file=", "gradio_api/file/", "static/", "gradio_api/stream/")
    for path in ("/etc/hostname", "setup.cfg", "geli_hf/__init__.py", "../../etc/hostname"):
        for route in routes:
            with pytest.raises(HTTPError) as error:
                urllib.request.urlopen(f"{served[0]}{route}{path}")
            assert error.value.code in (403, 404, 405, 500)


def test_a_policy_alone_has_nothing_to_compare_with(app, tmp_path):
    models = tiny_models()
    del models.policies["base"]
    modes = [each for each in app.build_demo(models, Collection(tmp_path)).blocks.values() if each.elem_id == "mode"]
    assert BLIND not in [value for _, value in modes[0].choices]
