"""Conversations of the sample's simulated people as chat messages, made one by one without a corpus on disk."""

from collections.abc import Iterator, Sequence

import numpy as np

from ..sessions import Message
from .people import converse, draw_traits


def draw_pieces(
    seed: Sequence[int], lengths: Sequence[int], indices: Sequence[int]
) -> Iterator[dict[str, list[Message]]]:
    """Draw a piece of a conversation of two people for each index, as a row with `messages`.

    A piece that is no beginning begins with the user; one that is may begin with either. People are drawn anew for
    each conversation, whose words depend on the seed and its index alone.

    Args:
        seed: of all conversations.
        lengths: messages of a piece, by turns.
        indices: of the conversations.
    """
    for index in indices:
        rng = np.random.default_rng([*seed, index])
        talk = converse([draw_traits(rng), draw_traits(rng)], rng)
        length = min(lengths[index % len(lengths)], len(talk))
        first = int(rng.integers(len(talk) - length + 1))
        user = talk[first].speaker if first else int(rng.integers(2))
        roles = {user: "user", 1 - user: "assistant"}
        piece = talk[first : first + length]
        yield {"messages": [{"role": roles[message.speaker], "content": message.text} for message in piece]}


def draw_opening(seed: Sequence[int]) -> list[Message]:
    """Draw the first message of a user who begins a conversation, as a prompt."""
    rng = np.random.default_rng(seed)
    return [{"role": "user", "content": converse([draw_traits(rng), draw_traits(rng)], rng)[0].text}]
