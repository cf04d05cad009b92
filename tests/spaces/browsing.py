"""The apps in a browser, scripted policies, a tiny reward model, and the acts of a visitor."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import httpx
import pytest
import torch
from scripts import as_module
from tiny import reward_model

pytest.importorskip("gradio", reason="needs gradio, of the demo extra, for the browser tests")

from geli_hf.demo.conversation import ALIGNED, BASE
from geli_hf.demo.limits import Limits
from geli_hf.demo.policies import Models
from geli_hf.demo.serving import serve

ROOT = Path(__file__).parents[2]
PATIENCE = 120_000  # ms; a wait is no measurement, and the machine may be busy
# Toasts go after some seconds, in which a busy machine may not come to look; one that is closing is used for the next.
TOASTS_JS = """
window.toasts = [];
new MutationObserver((changes) => changes.forEach((change) => {
  const place = change.target instanceof Element ? change.target : change.target.parentElement;
  const written = place && place.closest('.toast-body');
  if (written) window.toasts.push(written);
  change.addedNodes.forEach((node) => {
    if (node instanceof Element) window.toasts.push(
      ...(node.matches('.toast-body') ? [node] : node.querySelectorAll('.toast-body')));
  });
})).observe(document, {childList: true, subtree: true, characterData: true});
"""


def load_app(name: str) -> ModuleType:
    """Import the app of that Space as a module."""
    pytest.importorskip("gradio", reason="needs gradio, of the demo extra, for the browser tests")
    return as_module(ROOT / "spaces" / name / "app.py")


@contextmanager
def serving(demo, limits: Limits | None = None, **options) -> Iterator[str]:
    """Serve the page at an address of this machine; `options` are those of `serve`."""
    serve(demo, limits or Limits(), prevent_thread_lock=True, quiet=True, **options)
    yield demo.local_url
    demo.close()


def new_context(browser, **options):
    """Open a browser window with a camera, long timeouts, and a list of all toasts."""
    context = browser.new_context(permissions=["camera"], **options)
    context.set_default_timeout(PATIENCE)
    context.add_init_script(TOASTS_JS)
    return context


@dataclass
class Scripted:
    """A policy that writes its line word by word; asked for "slowly", it goes on for minutes unless it is stopped."""

    line: str

    def stream(self, messages, *, max_new_tokens=60):
        words = f"{self.line} {len(messages)}".split()
        slowly = "slowly" in messages[-1]["content"]
        words = words * 40 if slowly else words[:max_new_tokens]
        for count in range(1, len(words) + 1):
            if slowly:
                time.sleep(0.3)
            if "break" in messages[-1]["content"]:
                raise RuntimeError(f"secret of the server: {messages[-1]['content']}")
            yield " ".join(words[:count])


def tiny_models() -> Models:
    model = reward_model("llama")
    model.config.reward_quantiles = torch.linspace(-2, 2, 101).tolist()
    model.config.score_mean, model.config.score_std, model.config.residual_std = 6.0, 1.5, 1.2
    policies = {
        ALIGNED: Scripted("I am so happy for you and your dog"),
        BASE: Scripted("the old garden was quiet yesterday"),
    }
    names = {ALIGNED: "after@1", BASE: "before@2", "reward": "judge@3"}
    return Models(policies, model.eval(), names)


class Tab:
    """A tab without a browser: posts events to the page, with its own inputs or those of an attacker."""

    def __init__(self, address: str, **headers: str):
        self.client = httpx.Client(base_url=address, headers=headers, timeout=60)
        self.session = secrets.token_hex(6)
        config = self.client.get("config").json()
        self.functions = {each["api_name"]: each for each in config["dependencies"] if each["api_name"]}
        self.components = {each["id"]: each for each in config["components"]}

    def post(self, name: str, data: dict[int, object] | None = None, event: object = None, route: str = "queue/join"):
        """Post an event; `data` replaces inputs by their place."""
        function = self.functions[name]
        asked = [self.components[each] for each in function["inputs"]]
        inputs = [None if each["type"] == "state" else each["props"].get("value") for each in asked]
        for place, value in (data or {}).items():
            inputs[place] = value
        body = {"fn_index": function["id"], "session_hash": self.session, "data": inputs, "event_data": event}
        # Of ASCII alone, so that half a character goes through as it is.
        content, kind = json.dumps(body | {"trigger_id": None}), {"Content-Type": "application/json"}
        return self.client.post(f"gradio_api/{route}", content=content, headers=kind)

    def call(self, name: str, data: dict[int, object] | None = None, event: object = None) -> dict:
        """Post an event, wait for its end, and return the last message of the queue."""
        joined = self.post(name, data, event)
        assert joined.status_code == 200, joined.text
        with self.client.stream("GET", "gradio_api/queue/data", params={"session_hash": self.session}) as lines:
            messages = (json.loads(line[5:]) for line in lines.iter_lines() if line.startswith("data:"))
            return next(message for message in messages if message["msg"] in ("process_completed", "close_stream"))

    def talk(self, *said: str) -> None:
        for text in said:
            assert self.call("send", {0: text})["success"]


def open_page(page, address: str) -> None:
    page.goto(address)
    page.get_by_label("Your message").wait_for()
    page.wait_for_function("!!window.sessionStorage")


def say(page, text: str) -> None:
    """Send a message."""
    box = page.get_by_label("Your message")
    box.fill(text)
    box.press("Enter")


def wait_for_toast(page, text: str) -> None:
    """Wait for a toast with this text, and close it: the same text makes no new one while the first is shown."""
    page.wait_for_function("text => toasts.some((toast) => toast.textContent.includes(text))", arg=text)
    page.evaluate("toasts.splice(0).forEach((toast) => toast.querySelector('.toast-close')?.click())")


def wait_for_rewards(page, count: int) -> None:
    page.wait_for_function(f"document.querySelectorAll('#chat .g-chip').length === {count}")


def texts(page) -> list[str]:
    """Return the messages on the page."""
    return [text.replace("\u2060", "") for text in page.locator("#chat .message-content").all_inner_texts()]


def talk(page, *said: str) -> None:
    """Say these messages, and wait for the reply to each."""
    for text in said:
        count = page.locator("#chat .g-chip").count()
        say(page, text)
        wait_for_rewards(page, count + 1)


def rewards(page) -> list[str]:
    return page.locator("#chat .g-chip").all_inner_texts()


def open_section(page, section: str) -> None:
    """Open one of the page's sections."""
    page.get_by_role("button", name=section).click()
