"""`geli serve` in a thread of the tests."""

import socket
import threading

import uvicorn

from geli_hf import GeliRewardModel
from geli_hf.serving.app import create_app


class Server:
    """`create_app` behind uvicorn, in a thread."""

    def __init__(self, model: GeliRewardModel, port: int = 0, **options):
        self.socket = socket.create_server(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = uvicorn.Server(uvicorn.Config(create_app(model, "tiny", **options), log_level="critical"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End it, after what it has taken is answered."""
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()
