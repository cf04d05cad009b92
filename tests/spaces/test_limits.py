"""Limits of an address, places of cameras, and bounds of a request."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geli_hf.demo import limits as module
from geli_hf.demo.limits import Cameras, Guard, Limits, Quota, network_of, replace_half_characters


@pytest.fixture
def clock(monkeypatch):
    """A clock that is put forward by hand."""

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_each_address_has_so_many_a_minute(clock):
    quota = Quota()
    assert [quota.take("a", "reply", 3) for _ in range(4)] == [True] * 3 + [False]
    assert quota.take("b", "reply", 3)
    assert quota.take("a", "rating", 3)
    clock.now = 60.1
    assert quota.take("a", "reply", 3)


def test_counts_of_addresses_that_went_are_forgotten(clock, monkeypatch):
    monkeypatch.setattr(module, "KEPT_ADDRESSES", 10)
    quota = Quota()
    for address in range(50):
        quota.take(str(address), "reply", 1)
        clock.now += 10
    assert len(quota._times) <= 12


def test_a_camera_that_sends_nothing_leaves_its_place(clock):
    cameras = Cameras(Limits(cameras=3, cameras_per_address=2, camera_seconds=10))
    assert [cameras.admit("a", tab) for tab in "xyz"] == [True, True, False]  # two of an address
    assert [cameras.admit(address, "x") for address in "bc"] == [True, False]  # three of all
    clock.now = 9
    assert cameras.admit("a", "x")
    clock.now = 11
    assert cameras.admit("c", "x")
    assert cameras.admit("d", "x")
    assert not cameras.admit("e", "x")


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("2001:db8:1:2:ffff::", "2001:0db8:0001:0002"),
        ("1.2.3.4:567", "1.2.3.4"),  # as some proxies write it
        ("", ""),
    ],
)
def test_requests_of_a_network_are_counted_together(host, network):
    assert network_of(host) == network


@given(st.text())
def test_whole_characters_stay(text):
    body = json.dumps({"data": [text]}).encode()
    assert json.loads(replace_half_characters(body)) == json.loads(body)


@pytest.mark.parametrize(
    "body", [b'{"data": ["a\\ud83d"]}', b'{"data": ["a\\UD83D"]}', b'{"data": ["a\xed\xa0\xbd"]}']
)
def test_half_characters_are_replaced(body):
    replaced = replace_half_characters(body)
    if b"\\U" in body:  # no JSON; Gradio says so
        assert replaced == body
    else:
        assert json.loads(replaced)["data"] == ["a?"]


def ask(guard: Guard, path: str, *parts: bytes, method: str = "POST", host: str = "1.2.3.4") -> tuple[int, bytes]:
    """Send a request through the guard, and return the status and the body that reached the application."""
    inbox = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    inbox.append({"type": "http.request", "body": b"", "more_body": False})
    sent = []

    async def receive():
        return inbox.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "client": (host, 1)}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


async def echo(scope, receive, send):
    """Answer with the body."""
    body, more = b"", scope["method"] != "GET"
    while more:
        message = await receive()
        body, more = body + message["body"], message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


JOIN = "/gradio_api/queue/join"


def test_the_body_is_bounded_and_reaches_the_page():
    guard = Guard(echo, Limits(body_bytes=10), uploads=False)
    assert ask(guard, JOIN, b"123", b"456") == (200, b"123456")
    status, body = ask(guard, JOIN, *[b"1234"] * 100)
    assert status == 413
    assert json.loads(body)["detail"]  # in the form that the page shows


@pytest.mark.parametrize("uploads", [True, False])
def test_only_what_the_page_uses_is_open(uploads):
    guard = Guard(echo, Limits(body_bytes=4), uploads=uploads)
    assert ask(guard, "/gradio_api/upload", b"a large file")[0] == (200 if uploads else 404)
    for method, path in (
        ("POST", "/gradio_api/deep_link"),
        ("GET", "/gradio_api/deep_link"),
        ("GET", "/gradio_api/deep_link/"),
        ("POST", "/gradio_api/component_server"),
        ("PUT", "/gradio_api/anything"),
    ):
        assert ask(guard, path, method=method)[0] == 404, path
    assert ask(guard, "/config", method="GET")[0] == 200
    assert ask(guard, "/gradio_api/run/predict", b"{}")[0] == 200


def test_requests_are_counted_by_address_and_not_by_tab():
    guard = Guard(echo, Limits(requests_per_minute=3), uploads=False)
    answers = [ask(guard, JOIN, json.dumps({"session_hash": tab}).encode())[0] for tab in "abcd"]
    assert answers == [200, 200, 200, 429]
    assert ask(guard, JOIN, host="5.6.7.8")[0] == 200
