"""Private data in texts, found by pattern: mail, phone and card numbers, links, street addresses and handles.

Patterns find what has a form. Names, places and employers have none, and remain.
"""

import re
from collections import Counter

from ..sessions import Message

PATTERNS = {
    "mail": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "link": re.compile(r"(?:https?://|www\.)\S+|\b[\w-]+\.(?:com|org|net|edu|gov|io|me|co\.\w\w)\b(?:/\S*)?", re.I),
    "card": re.compile(r"(?<![\d+])\d(?:[ -]?\d){12,18}(?!\d)"),
    "phone": re.compile(r"(?<![\d.])(?:\+\d{1,3}[ .-]?)?\(?\d{3}\)?[ .-]?\d{3}[ .-]?\d{4}(?!\d)|\+\d{8,14}(?!\d)"),
    "address": re.compile(  # names of streets begin with a capital, "a 2 hour drive" is none
        r"\b\d{1,5}(?: [NSEW]\.?)?(?: (?:[A-Z]\w+|\d+(?:st|nd|rd|th))){1,3}"
        r" (?i:street|st|avenue|ave|road|rd|lane|ln|drive|boulevard|blvd)\b"
    ),
    "handle": re.compile(r"(?<![\w@.])@\w{2,}"),
}

MASKED = ("mail", "link", "card", "phone")  # what `redact` replaces, in this order: a mail address has a link's form


def redact(text: str) -> tuple[str, Counter[str]]:
    """Replace mail addresses, links, card and phone numbers by "[mail]" and the like; names remain.

    Returns:
        The text, and how many of each kind were replaced.
    """
    counts = Counter()
    for kind in MASKED:
        text, counts[kind] = PATTERNS[kind].subn(f"[{kind}]", text)
    return text, counts


def private_kinds(messages: list[Message]) -> set[str]:
    """Return the names of the [`PATTERNS`] that a dialogue's messages match."""
    return {name for message in messages for name, each in PATTERNS.items() if each.search(message["content"])}
