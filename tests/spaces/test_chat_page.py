"""The chat page in a browser."""

import json
import math
import re
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pytest
from browsing import (
    act,
    open_page,
    open_section,
    rewards,
    say,
    serving,
    slide,
    texts,
    tiny_models,
    wait_for_rewards,
    wait_for_toast,
)
from PIL import Image
from scripts import EXAMPLES, as_module
from tiny import backbone

from geli_hf import GeliRewardModel, load_sessions
from geli_hf.demo.collection import Collection
from geli_hf.sessions import null_to_nan, validate_session

pytestmark = pytest.mark.browser

HAPPY, QUIET = "I am so happy for you and your dog", "the old garden was quiet yesterday"


def numbers(page) -> list[float]:
    return [float(re.search(r"([+−]?\d\.\d),", chip)[1].replace("−", "-")) for chip in rewards(page)]


def files(folder) -> list:
    return sorted(folder.glob("*.jsonl"))


def screenshots(tmp_path_factory) -> Path:
    folder = tmp_path_factory.getbasetemp() / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder


def writing(page) -> None:
    """Wait until a part of the reply is there."""
    page.wait_for_function("(document.querySelector('.g-typing') || {textContent: ''}).textContent.length > 3")


# ------------------------------------------------------------------------------------------------ talking


def test_two_turns_and_their_rewards(page):
    say(page, "I saw your dog in the garden")
    wait_for_rewards(page, 1)
    say(page, "it was lovely")
    wait_for_rewards(page, 2)
    said = ["I saw your dog in the garden", f"{HAPPY} 1", "it was lovely", f"{HAPPY} 3"]
    assert texts(page) == said
    dialogue = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, said)]
    model = tiny_models().reward
    [expected] = model.score_sessions([{"messages": dialogue}])
    assert numbers(page) == pytest.approx(expected["turn_rewards"], abs=0.051)
    shares = [int(re.search(r"better than (\d+)", chip)[1]) for chip in rewards(page)]
    assert shares == [round(100 * model.percentile(reward)) for reward in expected["turn_rewards"]]
    shown = float(page.locator(".g-rating").get_attribute("data-score"))
    assert shown == pytest.approx(min(max(expected["score"], 1), 10), abs=1e-3)
    assert "give or take 1.2" in page.locator("#rated").inner_text()  # the checkpoint's `residual_std`
    assert page.locator("#chart .g-bar").count() == 2


def test_edit_retry_and_undo(page):
    """An edit changes rewards, the earlier ones stand beside them, and undo brings them back."""
    say(page, "I saw your dog in the garden")
    wait_for_rewards(page, 1)
    say(page, "it was lovely")
    wait_for_rewards(page, 2)
    before = rewards(page)
    act(page, "Edit message 2")
    page.locator(".g-edit").fill("I never liked the sad strange winter")
    page.get_by_role("button", name="Save and rescore").click()
    page.wait_for_function("document.querySelector('.g-assistant .g-who').textContent === 'Edited'")
    assert texts(page)[1] == "I never liked the sad strange winter"
    assert texts(page)[2:] == ["it was lovely", f"{HAPPY} 3"]
    assert rewards(page) != before
    assert "was" in page.locator(".g-foot").filter(has=page.locator(".g-was")).first.inner_text()
    page.get_by_role("button", name="Undo").click()
    page.wait_for_function("document.querySelector('.g-assistant .g-who').textContent !== 'Edited'")
    assert rewards(page) == before

    act(page, "Edit message 1")  # and think better of it
    page.keyboard.press("Escape")
    assert page.locator(".g-edit").count() == 0
    open_section(page, "Settings")
    slide(page, "Longest reply, in tokens", 8)
    page.get_by_role("button", name="Retry").click()
    page.wait_for_function("document.querySelectorAll('.g-text')[3].textContent === 'I am so happy for you and your'")
    wait_for_rewards(page, 2)
    page.get_by_role("button", name="Clear").click()
    page.wait_for_selector(".g-empty")


def test_stop_keeps_the_reply_so_far(page):
    say(page, "tell me slowly about the train")
    writing(page)
    page.get_by_role("button", name="Stop").click()
    wait_for_rewards(page, 1)
    reply = texts(page)[1]
    whole = f"{HAPPY} 1 " * 40
    assert reply
    assert whole.startswith(reply)
    assert reply != whole


def test_a_message_sent_during_a_reply_waits_for_its_end(page):
    say(page, "tell me slowly about the train")
    writing(page)
    say(page, "it was lovely")
    box = page.get_by_label("Your message")
    before = page.locator(".g-typing").inner_text()
    page.wait_for_function("before => document.querySelector('.g-typing').textContent !== before", arg=before)
    assert box.input_value() == "it was lovely"
    page.get_by_role("button", name="Stop").click()
    wait_for_rewards(page, 2)
    assert texts(page)[2:] == ["it was lovely", f"{HAPPY} 3"]
    assert box.input_value() == ""


@pytest.mark.parametrize("name", ["Undo", "Clear"])
def test_a_change_abandons_the_reply_that_is_written(page, name):
    say(page, "tell me slowly about the train")
    writing(page)
    page.get_by_role("button", name=name).click()
    page.wait_for_selector(".g-empty")
    say(page, "I saw your dog in the garden")
    wait_for_rewards(page, 1)
    assert texts(page) == ["I saw your dog in the garden", f"{HAPPY} 1"]


def test_side_by_side_continues_with_the_chosen_reply(page):
    page.get_by_label("Side by side").check()
    say(page, "I saw your dog in the garden")
    wait_for_rewards(page, 2)
    assert texts(page)[1:] == [f"{HAPPY} 1", f"{QUIET} 1"]
    act(page, "Go on with the reply of the base policy")
    wait_for_rewards(page, 1)
    assert texts(page)[:2] == ["I saw your dog in the garden", f"{QUIET} 1"]


def test_blind_vote_is_revealed_afterwards(page):
    page.get_by_label("Blind A/B").check()
    say(page, "I saw your dog in the garden")
    page.wait_for_selector("[data-act=vote]")
    thread = page.locator(".g-thread")
    assert not re.search("aligned|base", thread.inner_html(), re.IGNORECASE)
    assert rewards(page) == []  # a reward would give it away
    say(page, "and now?")
    wait_for_toast(page, "Vote first")
    first = texts(page)[1]
    act(page, "Reply A is better")
    wait_for_rewards(page, 1)
    assert texts(page)[1] == first
    preferred = "aligned" if first.startswith(HAPPY) else "base"
    assert f"you preferred the {preferred} policy" in thread.inner_text()
    assert page.locator(".g-votes").inner_text() == (
        "Aligned 1 · base 0 · alike 0" if preferred == "aligned" else "Aligned 0 · base 1 · alike 0"
    )


# ------------------------------------------------------------------------------------------------ sessions


def test_rate_collect_train_and_delete(page, served, tmp_path, monkeypatch):
    """Four sessions with consent and one without; the script trains on the collected ones; and one is deleted."""
    folder = served[1]
    for path in files(folder):  # of another test
        path.unlink()
    beginnings = {8: "I saw your lovely dog", 2: "I lost my old letter", 5: "we walked"}
    for count, score in enumerate((8, 2, 8, 2, 5)):
        consent = score != 5
        say(page, beginnings[score])
        wait_for_rewards(page, 1)
        say(page, "it was lovely")
        wait_for_rewards(page, 2)
        assert len(files(folder)) == count  # nothing of a session that is not closed
        page.get_by_label(str(score), exact=True).check()
        page.get_by_label(re.compile("Keep this session")).set_checked(consent)
        page.get_by_role("button", name="Rate and close").click()
        page.wait_for_selector("#note .g-note")
        if consent:
            assert page.locator("#note .g-key").inner_text() not in "".join(path.name for path in files(folder))
        else:
            assert "Nothing was kept" in page.locator("#note").inner_text()
        say(page, "and more")
        wait_for_toast(page, "closed")
        page.get_by_role("button", name="Clear").click()
        page.wait_for_selector(".g-empty")

    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    sessions = load_sessions(folder)
    assert sorted(sessions["score"]) == [2, 2, 8, 8]
    row = next(row for row in sessions if row["score"] == 8)
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * 2
    settings = {
        "output_dir": tmp_path / "run",
        "stages": "[reward]",
        "data.corpus": folder,
        "data.eval_share": 0.25,  # one of four: whichever it is, both scores are left to learn from
        "data.test_options": "{}",
        "model.backbone": backbone("bert"),
        "model.preset": "geli",
        "reward.li_weight": 0,
        "reward.num_train_epochs": 8,
        "reward.learning_rate": 1e-2,
    }
    train_geli = as_module(EXAMPLES / "train_geli.py")
    train_geli.main([part for name, value in settings.items() for part in (f"--{name}", str(value))])
    model = GeliRewardModel.from_pretrained(tmp_path / "run" / "reward_model")
    predicted = [row["score"] for row in model.score_sessions(sessions)]
    assert predicted[sessions["score"][:].index(8)] > predicted[sessions["score"][:].index(2)] + 0.1

    say(page, "one more about your dog")
    wait_for_rewards(page, 1)
    page.get_by_label("10", exact=True).check()
    page.get_by_label(re.compile("Keep this session")).check()
    page.get_by_role("button", name="Rate and close").click()
    page.wait_for_selector("#note .g-key")
    assert len(files(folder)) == 5
    key = page.locator("#note .g-key").inner_text()
    open_section(page, "Your data")
    assert page.get_by_label("Key of a session").input_value() == key
    page.get_by_role("button", name="Delete my session").click()
    page.wait_for_selector("#deleted .g-note")
    assert "is deleted" in page.locator("#deleted").inner_text()
    assert len(files(folder)) == 4


def test_a_conversation_is_exported_as_a_row(page, tmp_path):
    say(page, "I saw your dog & <b>my</b> cat")
    wait_for_rewards(page, 1)
    dialogue = texts(page)
    open_section(page, "Your data")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export JSONL").click()
    path = tmp_path / "conversation.jsonl"
    download.value.save_as(path)
    row = null_to_nan(json.loads(path.read_text()))
    validate_session(row, "the download", {})
    assert math.isnan(row["score"])
    assert [message["content"] for message in row["messages"]] == dialogue


# ------------------------------------------------------------------------------------------------ camera


def test_the_smile_meter_rises_with_a_smile(page, served):
    """The camera shows two seconds of each face, over and over."""
    assert page.locator("#meter").count() == 0  # off until it is asked for
    open_section(page, "Camera")
    page.get_by_label("Use my camera").check()
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_text("Record", exact=True).click()
    seen = "[...document.querySelectorAll('[data-smile]')].map(e => Number(e.dataset.smile))[0]"

    def both_faces() -> None:
        page.wait_for_function(f"{seen} < 0.4")
        page.wait_for_function(f"{seen} > 0.8")

    both_faces()
    say(page, "I saw your dog in the garden")
    wait_for_rewards(page, 1)
    both_faces()
    both_faces()
    page.get_by_label("7", exact=True).check()
    page.get_by_label(re.compile("Keep this session")).check()
    page.get_by_role("button", name="Rate and close").click()
    page.wait_for_selector("#note .g-key")
    newest = max(files(served[1]), key=lambda path: path.stat().st_mtime)
    row = json.loads(newest.read_text())
    validate_session(null_to_nan(row), "what was collected", {})
    [smile] = row["feedback"]["affect_mean"]
    assert 0.2 < smile < 0.9  # some of the time
    assert page.locator("#chart .g-signal").count() == 1


# ------------------------------------------------------------------------------------------------ robustness


def test_the_place_in_the_queue_is_shown(app, context, tmp_path, tmp_path_factory):
    """Two visitors: three tabs of one browser would have no connection left."""
    talking, waiting = context.new_page(), context.new_page()
    with serving(app.build_demo(tiny_models(), Collection(tmp_path)), app.LAUNCH, at_once=1) as address:
        for page in (talking, waiting):
            open_page(page, address)
        say(talking, "tell me slowly about the train")
        writing(talking)
        say(waiting, "I saw your dog in the garden")
        place = waiting.locator("#message").get_by_text("queue: 1/1")
        place.wait_for()
        around, button = place.bounding_box(), waiting.get_by_role("button", name="Send").bounding_box()
        assert around["y"] + around["height"] <= button["y"]
        waiting.screenshot(path=screenshots(tmp_path_factory) / "chat-queue.png")
        talking.get_by_role("button", name="Stop").click()
        wait_for_rewards(waiting, 1)
        place.wait_for(state="detached")
        talking.close()
        waiting.close()


def test_text_is_never_executed(page):
    evil = (
        "<img src=x onerror=alert(1)><script>alert(2)</script>${alert(3)}{{alert(4)}}{{#each}} `x` javascript:alert(5)"
    )
    say(page, evil)
    wait_for_rewards(page, 1)
    assert texts(page)[0] == evil
    assert page.locator(".g-thread img, .g-thread script").count() == 0
    act(page, "Edit message 2")
    page.locator(".g-edit").fill(evil)
    page.get_by_role("button", name="Save and rescore").click()
    page.wait_for_function("document.querySelector('.g-assistant .g-who').textContent === 'Edited'")
    assert texts(page) == [evil, evil]


def test_an_error_is_reported_without_its_message(page, caplog):
    say(page, "break my password hunter2")
    wait_for_toast(page, "Something went wrong")
    assert "secret of the server" not in page.content()
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text
    page.get_by_role("button", name="Undo").click()
    page.wait_for_selector(".g-empty")
    say(page, "hello again my friend")
    wait_for_rewards(page, 1)


def test_no_file_of_the_server_can_be_read(served):
    routes = ("gradio_api/file=", "file=", "gradio_api/file/", "static/", "gradio_api/stream/")
    for path in ("/etc/hostname", "setup.cfg", "geli_hf/__init__.py", "../../etc/hostname"):
        for route in routes:
            with pytest.raises(HTTPError) as error:
                urllib.request.urlopen(f"{served[0]}{route}{path}")
            assert error.value.code in (403, 404, 405, 500)


def test_the_keyboard_is_enough(page):
    """Tab reaches the message, what the conversation offers, and the rating."""
    page.get_by_label("Your message").focus()
    page.keyboard.type("I saw your dog in the garden")
    page.keyboard.press("Enter")
    wait_for_rewards(page, 1)
    page.locator(".g-thread").focus()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("(e => e.getAttribute('aria-label') || e.innerText || e.name)(document.activeElement)")
        )
    reached = " | ".join(map(str, reached))
    for name in ("Edit message 1", "Edit message 2", "Stop", "Undo", "Rate and close"):
        assert name in reached
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, textarea, select, img, [role=img]')].filter(e =>
        e.offsetParent && !(e.getAttribute('aria-label') || e.getAttribute('alt') || e.title || e.innerText ||
        (e.labels && e.labels.length) || e.closest('label'))).map(e => e.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_page_fits_a_phone_and_a_laptop(page, width, scheme, tmp_path_factory):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    page.reload()
    page.wait_for_selector(".g-thread")
    say(page, "I saw your dog in the garden")
    wait_for_rewards(page, 1)
    page.get_by_label("Side by side").check()
    say(page, "it was lovely, and " + "longer" * 20)
    wait_for_rewards(page, 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    numbers = page.locator("#rating .wrap label").all()
    assert [number.inner_text() for number in numbers] == [str(number) for number in range(1, 11)]
    assert len({number.bounding_box()["y"] for number in numbers}) == 1  # in one row
    picture = screenshots(tmp_path_factory) / f"chat-{width}-{scheme}.png"
    page.screenshot(path=picture, full_page=True)
    corner = np.asarray(Image.open(picture).convert("L"))[:40, :8]
    assert (corner.mean() > 128) == (scheme == "light")
