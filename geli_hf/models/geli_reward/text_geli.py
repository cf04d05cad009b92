"""Text of chat messages as people see it: content parts joined, thoughts taken out, valid Unicode.

This file travels with every checkpoint, beside `modeling_geli.py`. It imports nothing of the package.
"""

import re
from collections.abc import Iterable, Mapping

ROLES = ("user", "assistant", "system")
TEXT_PARTS = ("text", "input_text", "output_text")
THOUGHT_PARTS = ("thinking", "redacted_thinking", "reasoning")
_OPEN, _CLOSE = r"<think(?:ing)?>", r"</think(?:ing)?>"
# A whole thought; all before the end of one that the prompt opened; all after the beginning of one that was cut.
_THOUGHTS = [re.compile(p, re.DOTALL | re.IGNORECASE) for p in (f"{_OPEN}.*?{_CLOSE}", f".*{_CLOSE}", f"{_OPEN}.*")]


def valid_unicode(text: str) -> str:
    """Replace what is no valid Unicode, such as half an emoji, by U+FFFD; two halves side by side become one again."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def without_thoughts(text: str) -> str:
    """Take out what a reasoning model thinks before it speaks, in `<think>` and `</think>`, and strip white space.

    A bare `</think>` ends a thought that the prompt began, and a bare `<think>` begins one that was cut.
    """
    for thought in _THOUGHTS:
        text = thought.sub("", text)
    return text.strip()


def message_text(content, where: str = "content") -> str:
    """Return the text of a message's content.

    Args:
        content: text, or a list of parts of the kinds in `TEXT_PARTS`, which are joined by line breaks; parts of the
            kinds in `THOUGHT_PARTS` are left out.
        where: name of the message in an error.

    Raises:
        ValueError: it is anything else.
    """
    if isinstance(content, str):
        return valid_unicode(content)
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"{where}: expected text or a list of text parts as content, found {content!r:.80}")
    texts = []
    for part in content:
        if isinstance(part, str):
            part = {"type": "text", "text": part}
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in THOUGHT_PARTS:
            continue
        if kind not in TEXT_PARTS or not isinstance(part.get("text"), str):
            found = f"a part of the type {kind!r}" if kind else f"{part!r:.80}"
            raise ValueError(
                f"{where}: expected text parts, found {found}; leave it out, or say in words what it shows"
            )
        texts.append(part["text"])
    return valid_unicode("\n".join(texts))


def plain_messages(messages: Iterable[Mapping], where: str = "dialogue") -> list[dict[str, str]]:
    """Return messages with a known role and text as content.

    Args:
        messages: of a dialogue, with `role` and `content`; see `message_text`.
        where: name of the dialogue in an error.

    Raises:
        ValueError: a message is of another form, or its role is none of `ROLES`.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Iterable):
        raise ValueError(f"{where}: expected a list of messages with role and content, found {messages!r:.80}")
    plain = []
    for index, message in enumerate(messages):
        at = f"{where}, message {index}"
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ROLES:
            found = f"the role {role!r}" if role is not None else f"{message!r:.80}"
            raise ValueError(f"{at}: expected the role 'user', 'assistant' or 'system', found {found}")
        plain.append({"role": role, "content": message_text(message.get("content"), at)})
    return plain
