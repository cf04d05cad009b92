"""Throughput of `geli serve` beside `geli score` over the same sessions, and the seconds until an answer.

    python benchmarks/serving_load.py --clients 64 --sessions 1024

Each client is a thread with a connection of its own, which asks again once it has its answer; all of them share a
process beside the server's. The two commands take turns, `--rounds` times, with the model that ships or `--model`.
Rewards of both are compared to 1e-4.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

import numpy as np

from geli_hf import load_sessions

GELI = [sys.executable, "-m", "geli_hf.cli"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--clients", type=int, default=64)
    add("--sessions", type=int, default=1024)
    add("--rounds", type=int, default=3)
    add("--model", default=None)
    options = parser.parse_args()
    model = [] if options.model is None else [options.model]
    rows = load_sessions("sample", conversations=options.sessions)["messages"][: options.sessions]
    turns = sum(message["role"] == "assistant" for row in rows for message in row)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "sessions.jsonl")
        file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
        empty = Path(folder, "one.jsonl")
        empty.write_text(file.read_text(encoding="utf-8").partition("\n")[0] + "\n", encoding="utf-8")
        offline, served, latencies = [], [], []
        for _ in range(options.rounds):
            # The time of a command that scores one session is that of its start.
            start, _ = score(empty, model)
            whole, expected = score(file, model)
            offline.append(whole - start)
            seconds, found, waited = serve(rows, model, options.clients)
            served.append(seconds)
            latencies += waited
            for one, other in zip(expected, found, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-4)
    ratio = median(before / after for before, after in zip(offline, served))
    print(f"{len(rows)} sessions, {turns} turns; {options.clients} clients; medians of {options.rounds} rounds")
    print(f"geli score  {turns / median(offline):7.0f} turns/s")
    print(f"geli serve  {turns / median(served):7.0f} turns/s, {ratio:.2f} of it")
    print("seconds until an answer: p50 {:.2f}, p95 {:.2f}".format(*np.percentile(latencies, [50, 95])))


def score(file: Path, model: list[str]) -> tuple[float, list[list[float]]]:
    """Run `geli score`, and return its seconds and the rewards."""
    named = ["--model", *model] if model else []
    began = time.perf_counter()
    done = subprocess.run([*GELI, "score", file, *named], check=True, capture_output=True)
    return time.perf_counter() - began, [json.loads(line)["turn_rewards"] for line in done.stdout.splitlines()]


def serve(rows: list, model: list[str], clients: int) -> tuple[float, list[list[float]], list[float]]:
    """Ask a server for all sessions, and return the seconds, the rewards and the seconds until each answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen([*GELI, "serve", *model, "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        connections = threading.local()

        def ask(messages: list) -> tuple[list[float], float]:
            # A light client, since it has the server's cores.
            if not hasattr(connections, "own"):
                connections.own = HTTPConnection("127.0.0.1", port, timeout=300)
            began = time.perf_counter()
            body = json.dumps({"messages": messages})
            connections.own.request("POST", "/v1/turn_rewards", body, {"Content-Type": "application/json"})
            answer = connections.own.getresponse()
            content = answer.read()
            assert answer.status == 200, content
            return json.loads(content)["turn_rewards"], time.perf_counter() - began

        ask(rows[0])
        with ThreadPoolExecutor(clients) as pool:
            began = time.perf_counter()
            answers = list(pool.map(ask, rows))
            seconds = time.perf_counter() - began
        return seconds, [rewards for rewards, _ in answers], [waited for _, waited in answers]
    finally:
        server.terminate()
        server.wait(60)


def wait_for(port: int) -> None:
    """Wait until the server answers."""
    for _ in range(600):
        try:
            with socket.create_connection(("127.0.0.1", port)):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("the server did not start")


if __name__ == "__main__":
    main()
