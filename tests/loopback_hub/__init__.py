"""A small Hugging Face Hub on 127.0.0.1, to push to and load from with the clients as they are.

    with Hub(folder) as hub:
        HfApi(hub.url, token="hf_owner").create_repo("owner/model")

By hand, from the root of the repository, until it is interrupted:

    python -m tests.loopback_hub --port 8899
    HF_ENDPOINT=http://127.0.0.1:8899 HF_TOKEN=hf_owner HF_HUB_DISABLE_XET=1 python ...

It keeps repositories of models, datasets and Spaces with commits, branches, pull requests and LFS files; it
knows who may read and write; it refuses cards that the Hub refuses; and it fails in the ways a test asks for. What it
does not have: Xet (hence the variable), tags, merges, discussions, search, the dataset viewer, webhooks, and running
Spaces.
"""

import re
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse

from .access import Account
from .files import Files
from .manage import Manage
from .spaces import Spaces
from .store import HubError, Store

ACCOUNTS = {
    "hf_owner": Account("owner", organisations=("org",)),
    "hf_reader": Account("owner", can_write=False, organisations=("org",)),  # a read-only token
    "hf_stranger": Account("stranger"),
}


@dataclass
class Fault:
    """An answer given in place of the real one, or none."""

    request: str  # a regular expression that is looked for in "METHOD /path"
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    drop: str = ""  # "request": break off when its body begins to arrive; "answer": when half of it was sent
    times: int = 1


@dataclass(frozen=True)
class Logged:
    method: str
    path: str  # decoded, without the query
    token: bool  # whether one came along, never which
    status: int | None  # None: broken off


class Hub:
    """
    Args:
        folder: where to keep everything.
        port: 0 takes a free one.
        accounts: by token.
    """

    def __init__(self, folder: str | Path, port: int = 0, accounts: dict[str, Account] = ACCOUNTS):
        self.store = Store(folder)
        self.requests: list[Logged] = []
        self.faults: list[Fault] = []
        routes = [route for part in (Manage, Files, Spaces) for route in part(self.store, accounts).routes()]
        self._app = Starlette(routes=routes, exception_handlers={HubError: _say})
        self._socket = socket.create_server(("127.0.0.1", port))
        # Connections inherit it. Without, each answer's body waits 40 ms for the client's delayed ACK: where a socket
        # doesn't name its protocol, like this one, asyncio leaves it out.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        config = uvicorn.Config(self, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> "Hub":
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)
        return self

    def __exit__(self, *_) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def restart(self, folder: str | Path) -> None:
        """Act as a new server on this folder, without the time that a real restart takes."""
        self.store.open(folder)
        self.requests, self.faults = [], []

    def wait(self) -> None:
        """Serve until interrupted."""
        while self._thread.is_alive():
            self._thread.join(0.2)

    def fail(self, request: str, **how) -> None:
        """Let the next matching request go wrong, see `Fault`."""
        self.faults.append(Fault(request, **how))

    async def __call__(self, scope, receive, send) -> None:
        """The application: faults, then the endpoints, which see the path as it was sent (`refs%2Fpr%2F1`)."""
        scope["path"] = scope["raw_path"].decode()
        method, path = scope["method"], unquote(scope["path"])
        token = b"authorization" in dict(scope["headers"])
        fault = next((fault for fault in self.faults if re.search(fault.request, f"{method} {path}")), None)
        if fault:
            fault.times -= 1
            self.faults = [fault for fault in self.faults if fault.times > 0]

        async def answer(message: dict) -> None:
            if message["type"] == "http.response.start":  # what was done is written down before it is told
                dropped = fault and fault.drop
                self.requests.append(Logged(method, path, token, None if dropped else message["status"]))
            elif fault and fault.drop:
                await send(message | {"body": message["body"][: len(message["body"]) // 2], "more_body": True})
                raise _BrokenOff
            await send(message)

        try:
            if fault is None or fault.drop == "answer":
                await self._app(scope, receive, answer)
            elif fault.drop:
                await receive()
                self.requests.append(Logged(method, path, token, None))
                raise _BrokenOff
            else:
                text = {"error": f"asked to answer {fault.status}"}
                await JSONResponse(text, fault.status, fault.headers)(scope, receive, answer)
        except _BrokenOff:
            receive.__self__.transport.abort()  # uvicorn's own; ASGI has no word for it


class _BrokenOff(Exception):
    pass


async def _say(request: Request, error: HubError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, error.status, error.headers)
