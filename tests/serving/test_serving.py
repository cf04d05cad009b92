"""`geli serve`: the model's own rewards over HTTP, and a clear answer to whatever clients send."""

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reward_server import Server
from starlette.testclient import TestClient
from tiny import reward_model as tiny_model
from tiny import talk

from geli_hf.alignment import GeliReward, TurnRewards
from geli_hf.alignment.remote import RemoteRewardModel
from geli_hf.serving.app import RequestLimits, create_app
from geli_hf.serving.batches import Batches, Full

SECRET = "my dog is called Bartholomew"


@pytest.fixture(scope="module")
def model():
    model = tiny_model("llama")
    model.config.reward_quantiles = [-1.0, -0.5, 0.0, 0.5, 1.0]
    model.config.residual_std = 2.0
    return model


@pytest.fixture(scope="module")
def client(model):
    with TestClient(create_app(model, "tiny"), raise_server_exceptions=False) as client:
        yield client


def ids(model, messages):
    text = model.tokenizer.apply_chat_template(messages, tokenize=False)
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def error(response) -> str:
    assert response.headers["content-type"] == "application/json"
    return response.json()["error"]["message"]


def test_the_rewards_are_the_models(client, model):
    for messages in (talk(4), talk(9), talk(6, first="assistant")):
        answer = client.post("/v1/turn_rewards", json={"messages": messages})
        [expected] = model.score_sessions([{"messages": messages}])
        found = answer.json()
        assert found["turn_rewards"] == pytest.approx(expected["turn_rewards"], abs=1e-5)
        assert found["score"] == pytest.approx(expected["score"], abs=1e-5)
        assert found["percentiles"] == [model.percentile(reward) for reward in expected["turn_rewards"]]
        low, high = found["score_span"]
        assert (low + high) / 2 == pytest.approx(found["score"])
        assert high - low == pytest.approx(2 * 1.96 * 2.0)
        assert found["cropped"] is False
        assert found["model"] == "tiny"


def test_a_dialogue_beyond_the_context_is_said_to_be_cropped(client):
    assert client.post("/v1/turn_rewards", json={"messages": talk(80, words=30)}).json()["cropped"] is True


def test_a_dialogue_without_a_word_of_the_assistant(client, model):
    messages = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": ""}]
    found = client.post("/v1/turn_rewards", json={"messages": messages}).json()
    assert found["turn_rewards"] == [TurnRewards(model).floor]
    assert found["score"] is found["score_span"] is None
    assert client.post("/v1/turn_rewards", json={"messages": []}).json()["turn_rewards"] == []


def test_classify_speaks_as_vllm_does(client, model):
    talks = [talk(4), talk(6)]
    texts = [model.tokenizer.apply_chat_template(messages, tokenize=False) for messages in talks]
    expected = model.score_messages(talks).tolist()
    found = client.post("/classify", json={"model": "tiny", "input": texts}).json()
    assert [row["probs"] for row in found["data"]] == [[pytest.approx(reward, abs=1e-5)] for reward in expected]
    assert [row["index"] for row in found["data"]] == [0, 1]
    assert {row["num_classes"] for row in found["data"]} == {1}
    assert found["usage"]["prompt_tokens"] == sum(len(ids(model, messages)) for messages in talks)
    assert found["object"] == "list"
    one = client.post("/v1/classify", json={"messages": talks[0]}).json()
    assert one["data"][0]["probs"] == [pytest.approx(expected[0], abs=1e-5)]
    assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"


@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        ("/v1/turn_rewards", b"{", 400, "JSON"),
        ("/v1/turn_rewards", b"{}", 400, "messages"),
        ("/v1/turn_rewards", b'{"messages": "Hi"}', 400, "messages"),
        ("/v1/turn_rewards", b'{"messages": [{"content": "Hi"}]}', 400, "role"),
        ("/v1/turn_rewards", b'{"messages": [{"role": "robot", "content": "Hi"}]}', 400, "robot"),
        ("/v1/turn_rewards", b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', 400, "image"),
        ("/v1/turn_rewards", b'{"messages": [{"role": "user", "content": 5}]}', 400, "content"),
        ("/classify", b"{}", 400, "input"),
        ("/classify", b'{"input": "Hello"}', 400, "template"),
        ("/classify", b'{"input": [1, 2]}', 400, "input"),
        ("/classify", b'{"messages": [{"role": "user", "content": "Hi"}]}', 400, "assistant"),
        ("/classify", b'{"messages": []}', 400, "assistant"),
        ("/v1/turn_rewards", b" " * 5_000_000, 413, "4,000,000"),
        ("/nowhere", b"{}", 404, "Not Found"),
    ],
)
def test_each_wrong_request_has_a_clear_answer(client, path, body, status, named):
    answer = client.post(path, content=body)
    assert answer.status_code == status
    assert named in error(answer)


def test_large_requests_are_refused(model):
    limits = RequestLimits(messages=4, dialogues=1)
    with TestClient(create_app(model, "tiny", limits=limits)) as client:
        answer = client.post("/v1/turn_rewards", json={"messages": talk(6)})
        assert (answer.status_code, "4 messages" in error(answer)) == (413, True)
        text = model.tokenizer.apply_chat_template(talk(2), tokenize=False)
        assert client.post("/classify", json={"input": [text, text]}).status_code == 413


def test_a_key_is_asked_for(model):
    with TestClient(create_app(model, "tiny", api_key="kö")) as client:
        body = {"json": {"messages": talk(2)}}
        assert client.post("/v1/turn_rewards", **body).status_code == 401
        wrong = {"headers": {"Authorization": "Bearer x"}}
        assert "Bearer" in error(client.post("/v1/turn_rewards", **body, **wrong))
        assert client.get("/v1/models").status_code == 401
        right = {"headers": {"Authorization": "Bearer kö".encode()}}
        assert client.post("/v1/turn_rewards", **body, **right).status_code == 200
        assert client.get("/health").json() == {"status": "ok"}


KEYS = st.sampled_from(["messages", "role", "content", "type", "text", "tool_calls", "input"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["user", "assistant", "text"]) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(body=VALUES)
def test_no_body_breaks_the_server(client, body):
    for path in ("/v1/turn_rewards", "/classify"):
        wrapped = {"messages": [body], "input": body if path == "/classify" else None}
        for content in (body, wrapped):
            answer = client.post(path, content=json.dumps(content))
            assert answer.status_code in (200, 400)


def test_metrics_count_and_nothing_said_is_logged(model, caplog, capfd):
    with (
        TestClient(create_app(model, "tiny"), raise_server_exceptions=False) as client,
        caplog.at_level(logging.DEBUG),
    ):
        client.post("/v1/turn_rewards", json={"messages": [{"role": "user", "content": SECRET}, *talk(5)[1:]]})
        client.post("/v1/turn_rewards", json={"messages": [{"role": SECRET}]})
        client.post(f"/{SECRET}")
        text = client.get("/metrics").text
    assert 'geli_requests_total{path="/v1/turn_rewards",status="200"} 1.0' in text
    assert 'geli_requests_total{path="/v1/turn_rewards",status="400"} 1.0' in text
    assert "geli_turns_total 2.0" in text
    assert "geli_request_seconds_count" in text
    out, err = capfd.readouterr()
    assert SECRET not in text + out + err
    assert not [record for record in caplog.records if record.name.startswith("geli") and SECRET in record.message]


# ---------------------------------------------------------------- batches


class Slow:
    """A reward model that waits for `go`, and counts its batches."""

    def __init__(self, model):
        self.model, self.go, self.sizes, self.device = model, threading.Event(), [], model.device

    def __call__(self, input_ids, attention_mask):
        self.go.wait(10)
        self.sizes.append(len(input_ids))
        return self.model(input_ids, attention_mask)

    def predict_score(self, *args):
        return self.model.predict_score(*args)


def test_what_waits_is_scored_together(model):
    slow = Slow(model)
    batches = Batches(slow, batch_tokens=10**6)
    talks = [talk(2 + 2 * number, seed=number) for number in range(6)]
    results = [batches.submit(ids(model, messages)) for messages in talks]
    slow.go.set()
    for messages, result in zip(talks, results):
        [expected] = model.score_sessions([{"messages": messages}])
        assert result.result(10).rewards == pytest.approx(expected["turn_rewards"], abs=1e-5)
        assert result.result().rating == pytest.approx(expected["score"], abs=1e-5)
    assert len(slow.sizes) <= 2
    batches.close()
    with pytest.raises(Full):
        batches.submit([1])


def test_a_batch_holds_so_many_tokens_and_the_queue_too(model):
    slow, one = Slow(model), ids(model, talk(4))
    batches = Batches(slow, batch_tokens=2 * len(one), queue_tokens=4 * len(one))
    first = batches.submit(one)
    while batches.waiting_tokens:  # until the first batch has begun
        time.sleep(0.01)
    waiting = [batches.submit(one) for _ in range(4)]
    with pytest.raises(Full):
        batches.submit(one)
    waiting[1].cancel()
    slow.go.set()
    batches.close()
    assert slow.sizes == [1, 1, 2]
    assert first.done()
    assert [each.cancelled() for each in waiting] == [False, True, False, False]


def test_an_error_of_the_model_is_that_of_its_batch_alone(model):
    slow = Slow(model)
    slow.go.set()
    batches = Batches(slow)
    failed = batches.submit([model.config.user_token_id])  # no turn of the assistant
    with pytest.raises(ValueError, match="no assistant turn"):
        failed.result(10)
    assert len(batches.submit(ids(model, talk(4))).result(10).rewards) == 2
    batches.close()


# ---------------------------------------------------------------- a server and its clients


@pytest.fixture
def server(model):
    server = Server(model)
    yield server
    server.stop()


def test_a_remote_model_rewards_as_the_model_itself(model, server):
    talks = [talk(2 + 2 * number, seed=number) for number in range(20)]
    assert torch.allclose(RemoteRewardModel(server.url).score_messages(talks), model.score_messages(talks), atol=1e-5)
    prompts, completions = [messages[:-1] for messages in talks], [messages[-1:] for messages in talks]
    completions[3] = [{"role": "assistant", "content": ""}]
    near, far = GeliReward(model), GeliReward(server=server.url)
    assert far(prompts, completions) == pytest.approx(near(prompts, completions), abs=1e-5)
    assert far.floor == near.floor == -1.0


def test_where_a_reward_comes_from_is_said_once(model):
    for arguments in ({}, {"model": model, "server": "http://localhost:1"}):
        with pytest.raises(ValueError, match="model, server"):
            GeliReward(**arguments)


def test_a_server_that_is_restarted_keeps_its_clients(model):
    first = Server(model)
    remote = RemoteRewardModel(first.url)
    talks = [talk(4, seed=number) for number in range(40)]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: [remote.score_messages([messages]).item() for messages in talks])
        time.sleep(0.2)
        first.stop()
        second = Server(model, first.port)
        assert running.result(60) == pytest.approx(model.score_messages(talks).tolist(), abs=1e-5)
    second.stop()


def test_a_full_queue_says_so_and_a_client_tries_again(model):
    server = Server(model, batch_tokens=1, queue_tokens=1)
    dialogue = {"messages": talk(8)}
    with ThreadPoolExecutor(12) as pool:
        asked = [
            pool.submit(httpx2.post, f"{server.url}/v1/turn_rewards", json=dialogue, timeout=60) for _ in range(24)
        ]
        answers = [each.result() for each in asked]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    assert all(answer.status_code in (200, 429) for answer in answers)
    talks = [talk(8, seed=number) for number in range(8)]
    assert RemoteRewardModel(server.url).score_messages(talks).isfinite().all()
    server.stop()


def test_errors_of_a_client(server, model):
    remote = RemoteRewardModel(server.url)
    with pytest.raises(ValueError, match=r"400.*robot"):
        remote.turn_rewards([{"role": "robot", "content": "Hi"}])
    with pytest.raises(OSError, match="tries"):
        RemoteRewardModel("http://127.0.0.1:1", tries=1)
    locked = Server(model, api_key="k")
    with pytest.raises(OSError, match="401"):
        RemoteRewardModel(locked.url)
    assert RemoteRewardModel(locked.url, api_key="k").name == "tiny"
    locked.stop()
