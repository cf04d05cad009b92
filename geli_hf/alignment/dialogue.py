"""What reward, training and generation agree on: where a dialogue begins and where a reply ends.

Kept in one place, because a reply that is rewarded otherwise than it is shown teaches the policy something else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Many sessions begin with the agent, many chat templates insist on the user. So a dialogue that the agent begins is
# given to a policy with this first message of the user. The reward model reads it without: its chat template, which
# travels with it, leaves it out.
from ..models.geli_reward.modeling_geli import OPENING
from ..sessions import Message

# From the first of these on, a policy speaks for its partner. Names count at the beginning of a word only; the role
# tokens are those of common chat templates, ours first, which can be sampled out of place.
STOP_NAMES = ("User:", "USER:", "Human:", "HUMAN:")
STOP_TOKENS = (
    "<|user|>",
    "<|assistant|>",
    "<|im_start|>",
    "<|start_header_id|>",
    "<start_of_turn>",
    "[INST]",
)

_STOP = re.compile(
    rf"(?<!\w)(?:{'|'.join(map(re.escape, STOP_NAMES))})|{'|'.join(map(re.escape, STOP_TOKENS))}",
)


def cut_reply(text: str) -> str:
    """The part of a generated reply before it starts to speak for the user, without surrounding space.

    The markers are `STOP_NAMES` and `STOP_TOKENS`. The paper's reference run cuts at a generated "User:" too.
    """
    found = _STOP.search(text)
    return text[: found.start() if found else None].strip()


def open_with_user(messages: Sequence[Message]) -> list[Message]:
    """The dialogue as a policy gets it: one that the agent begins is preceded by `OPENING`."""
    messages = list(messages)
    if messages and messages[0]["role"] == "assistant":
        return [{"role": "user", "content": OPENING}, *messages]
    return messages


def without_opening(messages: Sequence[Message]) -> list[Message]:
    """The dialogue as people had it, the inverse of `open_with_user`: no system message, no `OPENING`."""
    spoken = [message for message in messages if message["role"] != "system"]
    if spoken and spoken[0] == {"role": "user", "content": OPENING}:
        return spoken[1:]
    return spoken


def context_window(messages: Sequence[Message], context_messages: int) -> list[Message]:
    """The last messages of a dialogue as a policy gets them, beginning with the user.

    Args:
        messages: dialogue so far, with alternating roles.
        context_messages: number of messages to keep, at least 1. Where the cut would leave a reply of the agent in
            front, one message less is kept; only a dialogue that is kept whole is opened with `OPENING`.
    """
    if context_messages < 1:
        raise ValueError(f"context_messages: expected 1 or more, found {context_messages}")
    messages = list(messages)
    window = messages[-context_messages:]
    if len(window) == len(messages):
        return open_with_user(window)
    return window[1:] if window[0]["role"] == "assistant" else window
