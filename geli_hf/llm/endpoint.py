"""A chat model behind an OpenAI-compatible endpoint or an Inference Provider, through `huggingface_hub`.

The key is never a part of an error, a log or a file: errors of the client are told anew in words of ours, without the
chain that leads to the request, and whatever the server says is searched for the key first.
"""

import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import InferenceClient, get_token
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError, OfflineModeIsEnabled

from ..sessions import Message
from .backend import Answer, BackendError, CallError

REFUSED = (400, 413, 422)  # this request, not the next
PASSING = (408, 409, 425, 429)  # and all from 500 on
LONGEST_BACKOFF = 60.0  # seconds
LONGEST_WAIT = 600.0  # seconds that a server may ask for
TOLD = 300  # characters of what a server says about an error
# A JSON object of a number per turn takes about ten tokens a turn.
TOKENS, TOKENS_PER_TURN = 64, 16


class _AsItIs(dict):
    """A `response_format` that the client does not translate.

    For a URL it would turn `json_schema` into a form of TGI's own, which others take for any JSON whatsoever.
    """

    def get(self, key, default=None):
        return default if key == "type" else super().get(key, default)


def _json_schema(schema: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "contributions", "strict": True, "schema": schema}}


# From the strictest down: how a server may be held to the schema.
FORMATS: tuple[Callable[[dict], dict | None], ...] = (
    _json_schema,
    lambda schema: {"type": "json_object"},
    lambda schema: None,
)


class Endpoint:
    """A chat model on a server (vLLM, TGI, llama.cpp, ...) or at an Inference Provider.

    Args:
        model: its name, as the server or the Hub knows it.
        base_url: of an OpenAI-compatible server, as in `http://localhost:8000/v1`.
        provider: an Inference Provider of the Hub, or `"auto"` for the first that the account prefers. One of
            `base_url` and `provider`.
        token_variable: the environment variable that holds the key. Default for a provider: the token of the Hub
            (`HF_TOKEN`, or that of `hf auth login`); for a `base_url`: no key is sent, not that of the Hub either.
        parameters: of the request, over `temperature=0` and a `max_tokens` that is enough for the numbers alone
            (more for a model that thinks first); `None` leaves one out.
        timeout: seconds to wait for an answer.
        tries: of a request that meets a full, broken or silent server.
        backoff: seconds before the second try, on average three quarters of it; doubled for each further one.

    A server that refuses a JSON schema with 400 or 422 is asked for `json_object`, then for plain text, and from then
    on for what it took.

    Raises:
        ValueError: arguments that make no sense; the variable is not set.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        provider: str | None = None,
        token_variable: str | None = None,
        parameters: Mapping | None = None,
        timeout: float = 120.0,
        tries: int = 6,
        backoff: float = 1.0,
    ):
        if (base_url is None) == (provider is None):
            raise ValueError("base_url, provider: give one of them, to say who runs the model")
        if base_url is not None:
            url = urlsplit(base_url)
            if url.scheme not in ("http", "https") or not url.hostname:
                raise ValueError("base_url: expected a URL as in http://localhost:8000/v1")
            if url.username or url.password or url.query:
                raise ValueError(
                    "base_url: found a user, password or query in it; name the variable of the key in token_variable"
                )
        self._token = _token(token_variable, provider)
        self.model, self.base_url, self.provider = model, base_url, provider
        self.timeout, self.tries, self.backoff = timeout, tries, backoff
        self._parameters = dict(parameters or {})
        # A header of None takes out the token of the Hub that the client would send of its own accord.
        headers = {"authorization": None} if self._token is None else None
        options = {"base_url": base_url} if base_url is not None else {"provider": provider}
        self._client = InferenceClient(**options, token=self._token, timeout=timeout, headers=headers)
        self._formats = FORMATS
        self._not_before = 0.0  # of the monotonic clock: what a server asks one thread for, all do

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r}, base_url={self.base_url!r}, provider={self.provider!r})"

    @property
    def identity(self) -> dict:
        return {"model": self.model, "backend": f"provider {self.provider}" if self.provider else "endpoint"}

    def parameters(self, turns: int) -> dict:
        parameters = {"temperature": 0.0, "max_tokens": TOKENS + TOKENS_PER_TURN * turns} | self._parameters
        return {name: value for name, value in parameters.items() if value is not None}

    def ask(self, messages: list[Message], schema: dict, parameters: dict, stop: threading.Event) -> Answer:
        formats, refusal = self._formats, None
        for step, form in enumerate(formats):
            response_format = form(schema)
            if response_format is not None and self.base_url is not None:
                response_format = _AsItIs(response_format)
            try:
                answer = self._send(messages, response_format, parameters, stop)
            except _Refused as error:
                refusal = refusal or error
                continue
            if step:
                self._formats = formats[step:]
            return answer
        raise refusal

    def chat(self, messages: list[Message], parameters: Mapping, stop: threading.Event) -> Answer:
        """What the model says next, in its own words; arguments and errors as of `ask`, without a schema.

        Args:
            parameters: of the request; those that the endpoint was made with are laid over them.
        """
        merged = {**parameters, **self._parameters}
        return self._send(messages, None, {key: value for key, value in merged.items() if value is not None}, stop)

    def _send(self, messages, response_format, parameters: dict, stop: threading.Event) -> Answer:
        for tried in range(self.tries):
            self._wait(self._not_before - time.monotonic(), stop)
            asked_for = 0.0
            try:
                output = self._client.chat_completion(
                    messages, model=self.model, response_format=response_format, extra_body=parameters
                )
                return self._answer(output)
            except InferenceTimeoutError:
                problem = CallError("no answer in time", f"{self.timeout:g} s")
            except HfHubHTTPError as error:
                status, said = error.response.status_code, self._said(error)
                if status in REFUSED:
                    raise _Refused(f"the endpoint refuses the request ({status})", said) from None
                if status < 500 and status not in PASSING:
                    raise BackendError(self._fatal(status, said)) from None
                asked_for = _retry_after(error.response.headers.get("retry-after"))
                problem = CallError(f"the endpoint answers with an error ({status})", said)
            except OfflineModeIsEnabled:
                raise BackendError("HF_HUB_OFFLINE is set, and with it nothing is sent; unset it") from None
            except httpx2.ConnectError as error:
                problem = BackendError(f"nobody answers at {self._address}: {self._clean(error)}")
            except httpx2.HTTPError as error:
                problem = CallError("the connection broke off", self._clean(error))
            except (json.JSONDecodeError, TypeError, KeyError, AttributeError, IndexError):
                problem = CallError("the endpoint's reply is no chat completion")
            except ValueError as error:  # the client's own, about model, provider and key
                raise BackendError(self._clean(error)) from None
            if asked_for > LONGEST_WAIT:
                raise BackendError(f"{self._address} asks to come back in {asked_for:.0f} s; do so, and go on then")
            if asked_for:
                self._not_before = max(self._not_before, time.monotonic() + asked_for)
            if tried + 1 < self.tries:
                backoff = min(LONGEST_BACKOFF, self.backoff * 2**tried) * random.uniform(0.5, 1.0)
                self._wait(max(backoff, asked_for), stop)
        raise problem

    def _answer(self, output) -> Answer:
        choice, usage = output.choices[0], output.usage
        return Answer(
            self._clean(choice.message.content or ""),
            cut=choice.finish_reason == "length",
            prompt_tokens=usage.prompt_tokens if usage else 0,
            answer_tokens=usage.completion_tokens if usage else 0,
        )

    def _wait(self, seconds: float, stop: threading.Event) -> None:
        if stop.wait(max(0.0, seconds)):
            raise BackendError("the run has ended")

    @property
    def _address(self) -> str:
        return self.base_url or f"the provider {self.provider}"

    def _fatal(self, status: int, said: str) -> str:
        causes = {401: "the key", 402: "the account's credit", 403: "the key", 404: "the model's name or the URL"}
        cause = f"; look at {causes[status]}" if status in causes else ""
        if status in (401, 403) and self._token is None:
            cause = "; no key was sent: name the environment variable that holds it"
        return f"{self._address} answers {status} for the model {self.model}{cause}. It says: {said}"

    def _said(self, error: HfHubHTTPError) -> str:
        try:
            said = error.response.text
        except httpx2.StreamError:  # the client did not read it
            said = error.server_message or ""
        said = " ".join(self._clean(said).split())
        return said if len(said) <= TOLD else f"{said[:TOLD]}..."

    def _clean(self, text: object) -> str:
        return str(text).replace(self._token, "***") if self._token else str(text)


class _Refused(CallError):
    """In this form."""


def _token(variable: str | None, provider: str | None) -> str | None:
    if variable is None:
        return get_token() if provider is not None else None
    if not os.environ.get(variable):
        raise ValueError(f"token_variable: there is no environment variable {variable}, or it is empty")
    return os.environ[variable].strip()


def _retry_after(header: str | None) -> float:
    """Seconds, of a number or a date; 0 if it is neither."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
