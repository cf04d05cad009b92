"""HTTP application of a reward model: `/v1/turn_rewards`, vLLM's `/classify`, `/health` and `/metrics`.

No request's content reaches a log or a metric.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from transformers.utils import logging

from ..alignment.turn_rewards import TurnRewards
from ..models.geli_reward.modeling_geli import GeliRewardModel
from .batches import Batches, Full, Scored

logger = logging.get_logger(__name__)

INSIDE_95 = 1.96  # standard deviations, of a normal distribution
OPEN = ("/health", "/metrics")  # without a key
Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class RequestLimits:
    """Largest request: bytes, messages of a dialogue, dialogues."""

    body_bytes: int = 4_000_000
    messages: int = 2_000
    dialogues: int = 256


class TurnRewardsRequest(BaseModel):
    """A dialogue in OpenAI's format."""

    messages: list[dict[str, Any]]


class ClassifyRequest(BaseModel):
    """Texts that the chat template of the model's tokenizer wrote, or a dialogue in OpenAI's format."""

    input: str | list[str] | None = None
    messages: list[dict[str, Any]] | None = None


def create_app(
    model: GeliRewardModel,
    name: str,
    *,
    api_key: str | None = None,
    limits: RequestLimits = RequestLimits(),
    batch_tokens: int = 8_192,
    queue_tokens: int = 262_144,
) -> FastAPI:
    """Create the application.

    Args:
        model: the reward model, on its device.
        name: what clients call it.
        api_key: that requests must carry, as `Authorization: Bearer KEY`; None asks for none.
        limits: of a request.
        batch_tokens: tokens that are scored at once.
        queue_tokens: tokens that wait at most; beyond, the answer is 429.
    """
    turn_rewards, batches = TurnRewards(model), Batches(model, batch_tokens=batch_tokens, queue_tokens=queue_tokens)
    metrics = _Metrics(batches)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        yield
        await asyncio.to_thread(batches.close)

    app = FastAPI(title="geli serve", lifespan=lifespan)
    app.add_middleware(_Watch, api_key=api_key, metrics=metrics)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        return _refusal(error.status_code, error.detail, error.headers)

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        logger.error(f"{request.url.path}: {type(error).__name__}")  # its message may hold a user's words
        return _refusal(500, "the server failed; its log says where")

    async def read(request: Request, form: type[Body]) -> Body:
        """Read the body of a request, never more than is allowed."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limits.body_bytes:
                raise HTTPException(413, f"a request may have {limits.body_bytes:,} bytes; score fewer at once")
        try:
            return form.model_validate_json(bytes(body))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise HTTPException(400, f"{place}: {first['msg']}" if place else first["msg"]) from None

    def tokens_of(text: str) -> list[int]:
        return model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def tokens_of_dialogue(dialogue: Sequence[dict[str, str]]) -> list[int]:
        return tokens_of(model.tokenizer.apply_chat_template(dialogue, tokenize=False))

    def prepare(messages: Sequence[dict[str, Any]]):
        if len(messages) > limits.messages:
            raise HTTPException(413, f"a dialogue may have {limits.messages:,} messages, found {len(messages):,}")
        try:
            return turn_rewards.prepare(messages)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None

    async def score(request: Request, dialogues: Sequence[Sequence[int]]) -> list[Scored]:
        """Score dialogues, unless the client leaves before."""
        submitted: list[Future[Scored]] = []
        try:
            submitted += (batches.submit(ids) for ids in dialogues)
            results = asyncio.gather(*map(asyncio.wrap_future, submitted))
            gone = asyncio.ensure_future(request.receive())  # after the body, that the client left
            await asyncio.wait({results, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not results.done():
                raise HTTPException(499, "the client left")
            return results.result()
        except Full:
            raise HTTPException(429, "the queue is full; try again in a moment", {"Retry-After": "1"}) from None
        finally:
            for each in submitted:
                each.cancel()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def numbers() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        card = {"id": name, "object": "model", "owned_by": "geli_hf", "lowest_reward": turn_rewards.floor}
        return {"object": "list", "data": [card]}

    @app.post("/v1/turn_rewards", openapi_extra=_body(TurnRewardsRequest))
    async def rewards(request: Request) -> JSONResponse:
        prepared = prepare((await read(request, TurnRewardsRequest)).messages)
        scored = Scored([], math.nan, False)
        if prepared.places:
            [scored] = await score(request, [tokens_of_dialogue(prepared.dialogue)])
        found = prepared.finish(scored.rewards)
        metrics.turns.inc(len(scored.rewards))
        deviation = model.config.residual_std
        span = [scored.rating + side * INSIDE_95 * deviation for side in (-1, 1)] if deviation else None
        percentiles = [None if reward is None else _finite(model.percentile(reward)) for reward in found]
        return JSONResponse(
            {
                "model": name,
                "turn_rewards": found,
                "percentiles": percentiles,
                "score": _finite(scored.rating),
                "score_span": span if math.isfinite(scored.rating) else None,
                "cropped": scored.cropped,
            }
        )

    @app.post("/v1/classify", include_in_schema=False)
    @app.post("/classify", openapi_extra=_body(ClassifyRequest))
    async def classify(request: Request) -> JSONResponse:
        asked = await read(request, ClassifyRequest)
        if (asked.input is None) == (asked.messages is None):
            raise HTTPException(400, "expected either input or messages")
        if asked.messages is not None:
            prepared = prepare(asked.messages)
            if not prepared.places:
                raise HTTPException(400, "messages: no turn of the assistant has a word")
            texts = [tokens_of_dialogue(prepared.dialogue)]
        else:
            texts = list(map(tokens_of, [asked.input] if isinstance(asked.input, str) else asked.input))
        if len(texts) > limits.dialogues:
            raise HTTPException(413, f"input: at most {limits.dialogues} texts, found {len(texts)}")
        for number, ids in enumerate(texts):
            if model.config.assistant_token_id not in ids:
                form = "write it with the chat template of the model's tokenizer, or send messages"
                raise HTTPException(400, f"input {number}: no turn of the assistant in it; {form}")
        scored = await score(request, texts)
        metrics.turns.inc(len(scored))
        tokens = sum(map(len, texts))
        data = [
            {"index": index, "label": "reward", "probs": [_finite(each.rewards[-1])], "num_classes": 1}
            for index, each in enumerate(scored)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
        head = {"id": f"classify-{secrets.token_hex(16)}", "object": "list", "created": int(time.time())}
        return JSONResponse(head | {"model": name, "data": data, "usage": usage})

    return app


class _Metrics:
    """Counts for Prometheus."""

    def __init__(self, batches: Batches):
        self.registry = CollectorRegistry()
        shared = {"registry": self.registry}
        self._requests = Counter("geli_requests", "Requests", ["path", "status"], **shared)
        self._seconds = Histogram("geli_request_seconds", "Seconds until the answer", ["path"], **shared)
        self.turns = Counter("geli_turns", "Turns that were rewarded", **shared)
        queue = Gauge("geli_waiting_tokens", "Tokens in the queue", **shared)
        queue.set_function(lambda: batches.waiting_tokens)

    def count(self, path: str, status: int, seconds: float) -> None:
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)


class _Watch:
    """ASGI middleware that asks for the key and counts requests. Starlette's own kind takes three times as long."""

    def __init__(self, app, api_key: str | None, metrics: _Metrics):
        self.app, self.metrics = app, metrics
        self.expected = None if api_key is None else f"Bearer {api_key}".encode()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given, began, status = dict(scope["headers"]).get(b"authorization", b""), time.perf_counter(), 500
        known = self.expected is None or secrets.compare_digest(given, self.expected)
        app = self.app
        if not known and scope["path"] not in OPEN:
            app = _refusal(401, "send the key of this server, as `Authorization: Bearer KEY`")

        async def note(message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await app(scope, receive, note)
        finally:
            route = scope.get("route")
            self.metrics.count(route.path if route else "other", status, time.perf_counter() - began)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _refusal(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Answer with an error in OpenAI's form, which is vLLM's too."""
    return JSONResponse({"error": {"message": text, "code": status}}, status, headers)


def _body(form: type[BaseModel]) -> dict:
    """Describe a body, which is read by hand for its limit, for `/docs`."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": form.model_json_schema()}}}}
