"""Requests to a server that works, is full, broken or silent, or wants another form."""

import json
import logging
import threading
import traceback

import huggingface_hub.constants
import pytest
from chat_server import ChatServer, Reply

from geli_hf.llm import BackendError, CallError, Endpoint
from geli_hf.llm.answers import answer_schema

QUESTION = [{"role": "user", "content": "rated once: 5, ...\n[1] Agent: good\n[2] Agent: bad"}]
SCHEMA = answer_schema(range(2))
ANSWER = '{"1": 6.0, "2": 4.0}'
SECRET = "sk-very-secret-0123456789"


def endpoint(server: ChatServer, **options) -> Endpoint:
    return Endpoint("m", base_url=server.url, **{"backoff": 0.001, "timeout": 5.0, "tries": 3} | options)


def ask(backend: Endpoint, stop=None):
    return backend.ask(QUESTION, SCHEMA, backend.parameters(2), stop or threading.Event())


def test_an_answer_and_its_request(server):
    running = server()
    answer = ask(endpoint(running))
    assert (answer.text, answer.cut, answer.prompt_tokens, answer.answer_tokens) == (ANSWER, False, 100, 10)
    [body] = running.requests
    assert body == {
        "model": "m",
        "messages": QUESTION,
        "temperature": 0.0,
        "max_tokens": 64 + 16 * 2,
        "stream": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "contributions", "strict": True, "schema": SCHEMA},
        },
    }


def test_own_parameters_replace_the_defaults(server):
    running = server()
    own = {"temperature": None, "max_tokens": None, "max_completion_tokens": 500, "reasoning": {"effort": "low"}}
    ask(endpoint(running, parameters=own))
    [body] = running.requests
    assert {"max_completion_tokens": 500, "reasoning": {"effort": "low"}}.items() <= body.items()
    assert {"temperature", "max_tokens"}.isdisjoint(body)


@pytest.mark.parametrize("status", [400, 422])
def test_a_refused_schema_falls_back_to_plain_text(server, status):
    running = server(status)
    backend = endpoint(running)
    assert ask(backend).text == ANSWER
    assert ask(backend).text == ANSWER
    formats = [body.get("response_format") for body in running.requests]
    assert formats[0]["type"] == "json_schema"
    assert formats[1:] == [None, None]


def test_a_question_refused_in_every_form_keeps_the_schema(server):
    too_long = Reply(status=400, body=json.dumps({"object": "error", "message": "context of 4096 exceeded"}))
    running = server(*[too_long] * 2)
    backend = endpoint(running)
    with pytest.raises(CallError, match=r"refuses the request \(400\): .*context of 4096 exceeded"):
        ask(backend)
    assert ask(backend).text == ANSWER
    assert running.requests[-1]["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    "reply",
    [429, 500, 503, 408, Reply(drop=True), Reply(body="<html>"), Reply(body="{}"), Reply(body='{"choices": []}')],
    ids=str,
)
def test_temporary_errors_are_tried_again(server, reply):
    running = server(reply, reply)
    assert ask(endpoint(running)).text == ANSWER
    assert len(running.requests) == 3


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (429, r"the endpoint answers with an error \(429\)"),
        (Reply(status=500, body="out of memory"), r"the endpoint answers with an error \(500\)"),
        (Reply(drop=True), "the connection broke off"),
        (Reply(body="<html>"), "the endpoint's reply is no chat completion"),
    ],
    ids=str,
)
def test_lasting_errors_are_given_up(server, reply, reason):
    running = server(answer=lambda body: reply)
    with pytest.raises(CallError, match=reason):
        ask(endpoint(running))
    assert len(running.requests) == 3


def test_a_late_answer(server):
    running = server(Reply(late=0.3), Reply(late=0.3))
    with pytest.raises(CallError, match=r"no answer in time: 0.05 s"):
        ask(endpoint(running, timeout=0.05, tries=2))
    running = server(Reply(late=0.3))
    assert ask(endpoint(running, timeout=0.1)).text == ANSWER


def test_retry_after_is_waited_for(server):
    running = server(Reply(status=429, body="full", headers={"Retry-After": "1"}))
    assert ask(endpoint(running)).text == ANSWER
    first, second = running.times
    assert second - first >= 1


def test_a_long_retry_after_ends_the_run(server):
    running = server(Reply(status=429, body="full", headers={"Retry-After": "86400"}))
    with pytest.raises(BackendError, match="86400 s"):
        ask(endpoint(running))


def test_the_waits_grow(server):
    running = server(500, 500, 500)
    ask(endpoint(running, tries=4, backoff=0.04))
    waits = [after - before for before, after in zip(running.times, running.times[1:])]
    assert all(wait >= 0.04 * 2**tried / 2 for tried, wait in enumerate(waits))


def test_a_wait_ends_when_the_run_does(server):
    running, stop = server(500), threading.Event()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(BackendError, match="the run has ended"):
        ask(endpoint(running, backoff=60.0), stop)


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_refused_key_or_model_ends_the_run(server, status):
    running = server(Reply(status=status, body="no"))
    with pytest.raises(BackendError, match=f"{running.url} answers {status} for the model m; no key was sent: no"):
        ask(endpoint(running))
    assert len(running.requests) == 1


def test_no_server():
    with ChatServer() as server:
        pass
    with pytest.raises(BackendError, match=f"nobody answers at {server.url}"):
        ask(endpoint(server, tries=2))


def test_an_offline_client(server, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackendError, match="HF_HUB_OFFLINE is set"):
        ask(endpoint(server()))


# ------------------------------------------------------------------------------------------------ the key


def test_only_a_named_key_is_sent_to_a_url(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_not_for_strangers")
    monkeypatch.setenv("MY_KEY", SECRET)
    running = server()
    ask(endpoint(running))
    ask(endpoint(running, token_variable="MY_KEY"))
    ask(endpoint(running, token_variable="HF_TOKEN"))
    sent = [headers.get("authorization") for headers in running.headers]
    assert sent == [None, f"Bearer {SECRET}", "Bearer hf_not_for_strangers"]


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_errors_and_logs_hold_no_key(server, monkeypatch, caplog, status):
    monkeypatch.setenv("MY_KEY", SECRET)
    running = server(answer=lambda body: Reply(status=status, body=f"Incorrect API key provided: {SECRET}"))
    backend = endpoint(running, token_variable="MY_KEY", tries=2)
    with caplog.at_level(logging.DEBUG), pytest.raises((CallError, BackendError)) as caught:
        ask(backend)
    told = "".join(traceback.format_exception(caught.value))
    assert "***" in told
    for text in (told, repr(backend), str(vars(caught.value)), caplog.text, json.dumps(backend.identity)):
        assert SECRET not in text


def test_a_key_in_an_answer_is_removed(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    assert ask(endpoint(server(f"It is {SECRET}."), token_variable="MY_KEY")).text == "It is ***."


def test_a_variable_that_is_not_set(monkeypatch):
    with pytest.raises(ValueError, match="there is no environment variable NO_KEY"):
        Endpoint("m", base_url="http://localhost/v1", token_variable="NO_KEY")


@pytest.mark.parametrize(
    "url", [f"http://me:{SECRET}@localhost/v1", f"http://localhost/v1?key={SECRET}", "localhost:8000", "file:///x"]
)
def test_an_invalid_url_or_one_with_a_secret(url):
    with pytest.raises(ValueError, match="base_url: ") as caught:
        Endpoint("m", base_url=url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"base_url": "http://localhost/v1", "provider": "auto"}])
def test_one_of_url_and_provider_is_required(options):
    with pytest.raises(ValueError, match="give one of them"):
        Endpoint("m", **options)


# ------------------------------------------------------------------------------------------------ providers


def test_a_provider_gets_the_token_of_the_hub(server, monkeypatch):
    running = server()
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    backend = Endpoint("owner/name", provider="auto", backoff=0.001)
    from huggingface_hub.inference._providers import CONVERSATIONAL_AUTO_ROUTER

    monkeypatch.setattr(CONVERSATIONAL_AUTO_ROUTER, "base_url", running.url.removesuffix("/v1"))
    assert ask(backend).text == ANSWER
    assert running.headers[0]["authorization"] == "Bearer hf_mine"
    assert running.requests[0]["model"] == "owner/name"
    assert running.requests[0]["response_format"]["type"] == "json_schema"
    assert backend.identity == {"model": "owner/name", "backend": "provider auto"}


def test_a_provider_without_a_key_or_an_unknown_one(monkeypatch):
    monkeypatch.setattr("geli_hf.llm.endpoint.get_token", lambda: None)
    monkeypatch.setattr("huggingface_hub.inference._providers._common.get_token", lambda: None)
    with pytest.raises(BackendError, match="You must provide an api_key"):
        ask(Endpoint("owner/name", provider="auto"))
    with pytest.raises((BackendError, ValueError), match="nobody"):
        ask(Endpoint("owner/name", provider="nobody"))


def completion(message: dict, **fields) -> Reply:
    return Reply(body=json.dumps({"choices": [{"message": message} | fields.pop("choice", {})]} | fields))


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({}, (None, None)),
        ({"usage": None, "id": None, "model": None, "created": None, "object": None}, (None, None)),
        ({"usage": {}}, (None, None)),
        ({"usage": {"prompt_tokens": 7}}, (7, None)),
        ({"usage": {"prompt_tokens": None, "completion_tokens": 3}}, (None, 3)),
        ({"usage": {"prompt_tokens": "7", "completion_tokens": 3}}, (None, 3)),
        ({"choice": {"finish_reason": None, "index": None, "logprobs": None}}, (None, None)),
    ],
)
def test_what_a_server_leaves_out_is_unknown(server, fields, counts):
    answer = ask(endpoint(server(completion({"content": ANSWER}, **fields))))
    assert (answer.text, answer.cut, answer.prompt_tokens, answer.answer_tokens) == (ANSWER, False, *counts)


def test_an_answer_that_is_no_text_fails_alone(server):
    running = server(answer=lambda body: completion({"content": [{"type": "image_url"}]}))
    with pytest.raises(CallError, match=r"the endpoint's answer is no text: .*'image_url'"):
        ask(endpoint(running))
    assert len(running.requests) == 3


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None}, ""),
        ({"content": None, "reasoning_content": "She is sad."}, ""),
        ({"content": ANSWER, "reasoning_content": "She is sad.", "tool_calls": None, "refusal": None}, ANSWER),
        ({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": ANSWER}]}, ANSWER),
        ({"content": "half \ud83d"}, "half \ufffd"),
    ],
)
def test_the_answer_is_the_text_of_a_message(server, message, text):
    assert ask(endpoint(server(completion(message)))).text == text
