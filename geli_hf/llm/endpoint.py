"""Chat model behind an OpenAI-compatible endpoint or an Inference Provider, through `huggingface_hub`.

The key is never part of an error, a log or a file: errors of the client are replaced by our own, without the chain
that leads to the request, and the key is removed from every text of the server.
"""

import json
import os
import random
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import InferenceClient, get_token
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError, OfflineModeIsEnabled

from ..models.geli_reward.text_geli import message_text
from ..sessions import Message
from .backend import Answer, BackendError, CallError, default_max_tokens

REFUSED = (400, 413, 422)  # this request, not the next
TEMPORARY = (408, 409, 425, 429)  # and all from 500 on
LONGEST_BACKOFF = 60.0  # seconds
LONGEST_WAIT = 600.0  # seconds that a server may ask for
SHOWN = 300  # characters of a server's error


class _Unchanged(dict):
    """A `response_format` that the client does not translate.

    For a URL it would turn `json_schema` into a form of TGI's own, which other servers take for any JSON.
    """

    def get(self, key, default=None):
        return default if key == "type" else super().get(key, default)


class _Refused(CallError):
    """The server refuses this form of the request."""


class _Temporary(Exception):
    """An error that another try may not meet."""

    def __init__(self, problem: CallError | BackendError, delay: float = 0.0):
        self.problem, self.delay = problem, delay  # seconds that the server asks for


class Endpoint:
    """Chat model on a server (vLLM, TGI, llama.cpp, ...) or at an Inference Provider.

    A server that refuses a JSON schema is asked for plain text from then on.

    Args:
        model: its name, as the server or the Hub knows it.
        base_url: of an OpenAI-compatible server, as in `http://localhost:8000/v1`.
        provider: an Inference Provider of the Hub, or `"auto"` for the first that the account prefers. Give one of
            `base_url` and `provider`.
        token_variable: the environment variable that holds the key. Default for a provider: the token of the Hub
            (`HF_TOKEN`, or that of `hf auth login`); for a `base_url`: no key is sent, not that of the Hub either.
        parameters: of the request, over `temperature=0` and a `max_tokens` that is enough for the numbers alone
            (more for a model that thinks first); `None` removes one.
        timeout: seconds to wait for an answer.
        tries: of a request that meets a full, broken or silent server.
        backoff: seconds before the second try, on average three quarters of it; doubled for each further one.

    Raises:
        ValueError: the arguments do not fit together, the URL is invalid or holds a secret, or the variable is not
            set.
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
            raise ValueError("base_url, provider: give one of them, to say where the model runs")
        if base_url is not None:
            url = urlsplit(base_url)
            if url.scheme not in ("http", "https") or not url.hostname:
                raise ValueError("base_url: expected a URL as in http://localhost:8000/v1")
            if url.username or url.password or url.query:
                raise ValueError("base_url: found a user, password or query in it; give the key in token_variable")
        self._token = _read_token(token_variable, provider)
        self.model, self.base_url, self.provider = model, base_url, provider
        self.timeout, self.tries, self.backoff = timeout, tries, backoff
        self._parameters = dict(parameters or {})
        # A header of None removes the token of the Hub that the client would send of its own accord.
        headers = {"authorization": None} if self._token is None else None
        where = {"base_url": base_url, "provider": provider}
        self._client = InferenceClient(**where, token=self._token, timeout=timeout, headers=headers)
        self._takes_schema = True

    @property
    def identity(self) -> dict:
        return {"model": self.model, "backend": f"provider {self.provider}" if self.provider else "endpoint"}

    def parameters(self, turns: int) -> dict:
        return self._over({"temperature": 0.0, "max_tokens": default_max_tokens(turns)})

    def ask(self, messages: list[Message], schema: dict, parameters: dict, stop: threading.Event) -> Answer:
        """Ask for an answer of this schema, or for plain text if the server refuses it; see `Backend.ask`."""
        if self._takes_schema:
            json_schema = {"name": "contributions", "strict": True, "schema": schema}
            form = (dict if self.base_url is None else _Unchanged)(type="json_schema", json_schema=json_schema)
            try:
                return self._send(messages, form, parameters, stop)
            except _Refused:
                pass
        answer = self._send(messages, None, parameters, stop)
        self._takes_schema = False
        return answer

    def chat(self, messages: list[Message], parameters: Mapping, stop: threading.Event) -> Answer:
        """Ask for the next message of a chat, without a schema; arguments and errors as `Backend.ask`.

        Args:
            messages: the chat so far.
            parameters: of the request; those of the endpoint replace them.
            stop: set when the answer is no longer needed.
        """
        return self._send(messages, None, self._over(parameters), stop)

    def _over(self, defaults: Mapping) -> dict:
        """Put the endpoint's own parameters over the defaults."""
        merged = {**defaults, **self._parameters}
        return {name: value for name, value in merged.items() if value is not None}

    def _send(self, messages, response_format, parameters: dict, stop: threading.Event) -> Answer:
        """Send a request, again after a temporary error."""
        delay = 0.0
        for attempt in range(self.tries):
            if stop.wait(delay):
                raise BackendError("the run has ended")
            try:
                return self._request(messages, response_format, parameters)
            except _Temporary as error:
                problem, asked = error.problem, error.delay
            if asked > LONGEST_WAIT:
                raise BackendError(f"{self._address} asks for a pause of {asked:.0f} s; try again after that")
            delay = max(asked, min(LONGEST_BACKOFF, self.backoff * 2**attempt) * random.uniform(0.5, 1.0))
        raise problem

    def _request(self, messages, response_format, parameters: dict) -> Answer:
        """Send a request once. No error holds the client's own, which leads to the key."""
        try:
            output = self._client.chat_completion(
                messages, model=self.model, response_format=response_format, extra_body=parameters
            )
            choice, usage = output.choices[0], output.usage
            return Answer(
                self._clean(_text(choice.message.content)),
                cut=choice.finish_reason in ("length", "max_tokens", "model_length"),
                prompt_tokens=_count(usage, "prompt_tokens"),
                answer_tokens=_count(usage, "completion_tokens"),
            )
        except InferenceTimeoutError:
            raise _Temporary(CallError("no answer in time", f"{self.timeout:g} s")) from None
        except HfHubHTTPError as error:
            raise self._http_problem(error) from None
        except OfflineModeIsEnabled:
            raise BackendError("HF_HUB_OFFLINE is set, and with it nothing is sent; unset it") from None
        except httpx2.ConnectError as error:
            raise _Temporary(BackendError(f"nobody answers at {self._address}: {self._clean(error)}")) from None
        except httpx2.HTTPError as error:
            raise _Temporary(CallError("the connection broke off", self._clean(error))) from None
        except (json.JSONDecodeError, TypeError, KeyError, AttributeError, IndexError):
            raise _Temporary(CallError("the endpoint's reply is no chat completion")) from None
        except ValueError as error:  # the client's own, about model, provider and key
            raise BackendError(self._clean(error)) from None

    def _http_problem(self, error: HfHubHTTPError) -> Exception:
        status = error.response.status_code
        try:
            text = error.response.text
        except httpx2.StreamError:  # the client did not read it
            text = error.server_message or ""
        text = " ".join(self._clean(text).split())[:SHOWN]
        if status in REFUSED:
            return _Refused(f"the endpoint refuses the request ({status})", text)
        if status >= 500 or status in TEMPORARY:
            wait = error.response.headers.get("retry-after", "")
            delay = float(wait) if wait.isdecimal() else 0.0  # a date is not awaited
            return _Temporary(CallError(f"the endpoint answers with an error ({status})", text), delay)
        key = "; no key was sent" if self._token is None else ""
        return BackendError(f"{self._address} answers {status} for the model {self.model}{key}: {text}")

    @property
    def _address(self) -> str:
        return self.base_url or f"the provider {self.provider}"

    def _clean(self, text: object) -> str:
        return str(text).replace(self._token, "***") if self._token else str(text)


def _text(content: object) -> str:
    """Return the text of an answer; "" where a server says none."""
    try:
        return "" if content is None else message_text(content)
    except ValueError as error:
        raise _Temporary(CallError("the endpoint's answer is no text", str(error))) from None


def _count(usage: object, name: str) -> int | None:
    """Return a number of tokens; None where a server does not say it."""
    count = getattr(usage, name, None)
    return count if isinstance(count, int) else None


def _read_token(variable: str | None, provider: str | None) -> str | None:
    if variable is None:
        return get_token() if provider is not None else None
    if not os.environ.get(variable):
        raise ValueError(f"token_variable: there is no environment variable {variable}, or it is empty")
    return os.environ[variable].strip()
