"""An OpenAI-compatible server on loopback: a tiny stand-in that answers well, or badly, as a test scripts it.

    with ChatServer() as server:
        Endpoint("m", base_url=server.url)

A test gives `script`, a list of replies for the first requests; after them every request is answered well. A reply is
a text (the model's words), a status, a `Reply`, or a function of the request's body that gives one of these.
"""

import json
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    text: str = ""
    status: int = 200
    headers: dict = field(default_factory=dict)
    late: float = 0.0  # seconds
    finish: str = "stop"
    body: str | None = None  # in place of a chat completion
    drop: bool = False  # break the connection off


def turns_asked_for(body: dict) -> list[int]:
    """The numbers of the turns in the question."""
    return [int(number) for number in re.findall(r"^\[(\d+)\] Agent:", body["messages"][0]["content"], re.MULTILINE)]


def well(body: dict) -> str:
    """A number for each turn: 1 for one with "good" in it, -1 for one with "bad", else 0; the score is added."""
    question = body["messages"][0]["content"]
    score = float(re.search(r"once: (-?[\d.]+),", question)[1])
    lines = re.findall(r"^\[(\d+)\] Agent: (.*)$", question, re.MULTILINE)
    return json.dumps({number: score + ("good" in words) - ("bad" in words) for number, words in lines})


class ChatServer:
    def __init__(self, script=(), answer=well):
        self.script, self.answer = list(script), answer
        self.requests: list[dict] = []  # bodies
        self.headers: list[dict] = []
        self.times: list[float] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def _handler(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.requests.append(body)
                    server.headers.append({name.lower(): value for name, value in self.headers.items()})
                    server.times.append(time.monotonic())
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                    reply = server.script.pop(0) if server.script else server.answer
                with suppress(BrokenPipeError, ConnectionResetError):  # the client was gone
                    self._reply(reply(body) if callable(reply) else reply)

            def _reply(self, reply):
                if isinstance(reply, str):
                    reply = Reply(reply)
                if isinstance(reply, int):
                    reply = Reply(status=reply, body=json.dumps({"error": f"status {reply}"}))
                time.sleep(reply.late)
                with server._lock:  # now, since who is answered may ask again before this thread goes on
                    server.at_once -= 1
                if reply.drop:
                    self.close_connection = True
                    return
                completion = {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "m",
                    "choices": [
                        {
                            "index": 0,
                            "message": {"role": "assistant", "content": reply.text},
                            "finish_reason": reply.finish,
                        }
                    ],
                    "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
                }
                data = (json.dumps(completion) if reply.body is None else reply.body).encode()
                self.send_response(reply.status)
                for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        return Handler
