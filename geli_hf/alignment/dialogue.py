"""Bounds of dialogues and replies, shared by reward, training and generation.

A policy must be rewarded for the reply that people see, so all three cut it with the same function.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# First user message of a dialogue that the agent begins, for a policy: many chat templates insist on the user. The
# reward model's chat template leaves it out.
from ..models.geli_reward.modeling_geli import OPENING
from ..models.geli_reward.text_geli import without_thoughts
from ..sessions import Message

# Markers at which a policy begins to speak for the user. A name counts at the beginning of a word; the tokens are
# those of common chat templates, which can be sampled out of place.
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
    """Return what people see of a generated reply.

    Thoughts (see `without_thoughts`) are taken out, it ends at the first of `STOP_NAMES` and `STOP_TOKENS`, and white
    space around it is stripped. The paper's reference run also cuts at a generated "User:".
    """
    text = without_thoughts(text)
    found = _STOP.search(text)
    return text[: found.start() if found else None].strip()


def speaks_for_user(text: str) -> bool:
    """Tell whether a generated reply holds one of `STOP_NAMES` and `STOP_TOKENS`, at which `cut_reply` cuts it."""
    return _STOP.search(without_thoughts(text)) is not None


def open_with_user(messages: Sequence[Message]) -> list[Message]:
    """Put `OPENING` before a dialogue that the agent begins, as a policy needs it."""
    messages = list(messages)
    if messages and messages[0]["role"] == "assistant":
        return [{"role": "user", "content": OPENING}, *messages]
    return messages


def without_opening(messages: Sequence[Message]) -> list[Message]:
    """Remove system messages and `OPENING`: the inverse of `open_with_user`."""
    spoken = [message for message in messages if message["role"] != "system"]
    if spoken and spoken[0] == {"role": "user", "content": OPENING}:
        return spoken[1:]
    return spoken


def context_window(messages: Sequence[Message], context_messages: int) -> list[Message]:
    """Select the last messages of a dialogue for a policy, from a user's on.

    Args:
        messages: dialogue so far, with alternating roles.
        context_messages: number of messages to keep, at least 1. A cut before an agent's message keeps one less;
            only a dialogue that is not cut is opened with `OPENING`.
    """
    messages = list(messages)
    window = messages[-context_messages:]
    if len(window) == len(messages):
        return open_with_user(window)
    return window[1:] if window[0]["role"] == "assistant" else window
