"""Conversations with rewards that are easy to compute."""

from geli_hf.demo.conversation import ALIGNED, Conversation, Turn


def lengths(messages) -> list[float]:
    """Return the length of each turn of the assistant as its reward."""
    return [float(len(message["content"])) for message in messages if message["role"] == "assistant"]


def mean(messages) -> float:
    """Return the mean of these rewards as the rating."""
    return sum(lengths(messages)) / len(lengths(messages))


def dialogue(*texts: str) -> Conversation:
    """Return a conversation whose messages appear one a second; the user begins."""
    conversation = Conversation()
    for second, text in enumerate(texts):
        if second % 2:
            conversation = conversation.add_reply(Turn("assistant", text, ALIGNED, float(second)))
        else:
            conversation = conversation.add_message(text, float(second))
    return conversation.rescore(lengths, mean)
