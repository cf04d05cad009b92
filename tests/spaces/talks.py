"""Conversations, and rewards that are easy to tell: what the tests of the demos are made of."""

from geli_hf.demo.conversation import ALIGNED, Conversation, Reply


def lengths(messages) -> list[float]:
    """Rewards that are easy to tell: the length of each turn of the assistant."""
    return [float(len(message["content"])) for message in messages if message["role"] == "assistant"]


def mean(rewards) -> float:
    return sum(rewards) / len(rewards)


def talked(*texts: str) -> Conversation:
    conversation = Conversation()
    for index, text in enumerate(texts):
        if index % 2:
            conversation = conversation.replied(Reply(ALIGNED, text), float(index))
        else:
            conversation = conversation.said(text, float(index))
    return conversation.scored(lengths, mean)
