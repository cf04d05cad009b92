"""`RemoteRewardModel`: a reward model behind `geli serve`, for trainers on other machines."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import torch

from ..sessions import Message

AT_ONCE = 32  # requests of one batch
TEMPORARY = (429, 502, 503, 504)
LONGEST_PAUSE = 30.0  # seconds


class RemoteRewardModel:
    """Client of `geli serve` with the methods of `GeliRewardModel` that reward functions call.

    A request that meets a full queue, or a server that is being restarted, is sent again.

    Args:
        url: of the server, as `http://localhost:8000`.
        api_key: of the server, if it has one.
        timeout: seconds for an answer.
        tries: of a request, with pauses that double from half a second to half a minute.

    Raises:
        OSError: the server can't be reached, or is none of `geli serve`.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 120.0, tries: int = 8):
        self.url, self.tries = url.rstrip("/"), tries
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout)
        try:
            card = self._request("GET", "/v1/models")["data"][0]
            self.name, self.floor = str(card["id"]), float(card["lowest_reward"])
        except (KeyError, IndexError, TypeError) as error:
            raise OSError(f"{self.url}: expected a server of `geli serve`, found another one") from error

    def turn_rewards(self, messages: Sequence[Message]) -> dict[str, Any]:
        """Ask for a dialogue's rewards.

        Args:
            messages: in OpenAI's format.

        Returns:
            `turn_rewards`, one for each message of the assistant, `percentiles`, `score`, `score_span`, `cropped`;
            see `docs/serve.md`.

        Raises:
            ValueError: the server refuses the dialogue.
            OSError: it can't be reached, or fails.
        """
        return self._request("POST", "/v1/turn_rewards", json={"messages": list(messages)})

    def score_messages(self, dialogues: Sequence[Sequence[Message]]) -> torch.Tensor:
        """Reward the last turn of each dialogue, (dialogues,); NaN where it has no number."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = [row["turn_rewards"][-1] for row in pool.map(self.turn_rewards, dialogues)]
        return torch.tensor([math.nan if reward is None else reward for reward in found])

    def _request(self, method: str, path: str, **content: Any) -> Any:
        for attempt in range(self.tries):
            try:
                response = self._client.request(method, path, **content)
            except httpx2.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if response.status_code not in TEMPORARY:
                    return self._read(response)
                problem = f"status {response.status_code}"
            time.sleep(min(LONGEST_PAUSE, 0.5 * 2**attempt) * random.uniform(0.5, 1.0))
        raise OSError(f"{self.url}: no answer after {self.tries} tries ({problem})")

    def _read(self, response: httpx2.Response) -> Any:
        try:
            found = response.json()
        except ValueError as error:
            raise OSError(f"{self.url}: expected JSON, found status {response.status_code}") from error
        if response.is_success:
            return found
        message = found.get("error", {}).get("message", "") if isinstance(found, dict) else ""
        kind = ValueError if response.status_code in (400, 413) else OSError
        raise kind(f"{self.url} answers {response.status_code}: {message}")
