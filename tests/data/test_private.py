"""Private data in texts, by pattern."""

import pytest

from geli_hf.data.private import PATTERNS, private_kinds, redact

FOUND = {
    "mail": ["write to a.b+c@example.co.uk please", "me@my-host.org"],
    "link": ["see https://example.com/a?b=c now", "www.example.org/x", "it is on example.com", "byu.edu/room"],
    "card": ["4111 1111 1111 1111", "my card: 4111-1111-1111-1111", "4111111111111111"],
    "phone": ["(808) 555-0157", "call 808-555-0157", "808.555.0157", "+44 808 555 0157", "+4915112345678"],
    "address": ["I live at 12 North Main Street", "405 E. Maple Ave", "at 1600 5th Avenue"],
    "handle": ["I am @heardatbyu there", "@ben hi"],
}
CLEAN = [
    "a 2 hour drive, 40 minutes to drive to the road",
    "I was born in 1987, have 12,500 followers and ran 3.14159 miles",
    "Ann met Bo at 5.30 pm... it was great.that is all",
    "10/10 would do it again :)",
    "she said no@ all",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_a_pattern_finds_its_kind(kind, text):
    assert kind in private_kinds([{"role": "assistant", "content": "Hm."}, {"role": "user", "content": text}])


@pytest.mark.parametrize("text", CLEAN)
def test_other_text_is_not_private(text):
    assert private_kinds([{"role": "user", "content": text}]) == set()


def test_every_pattern_has_cases():
    assert set(FOUND) == set(PATTERNS)


@pytest.mark.parametrize("kind", ["mail", "link", "card", "phone"])
def test_redaction_leaves_nothing_of_its_kind(kind):
    for text in FOUND[kind]:
        masked, counts = redact(text)
        assert f"[{kind}]" in masked
        assert counts[kind] == counts.total() == 1
        assert kind not in private_kinds([{"role": "user", "content": masked}])


def test_redaction_leaves_other_text_alone():
    assert [redact(text)[0] for text in CLEAN] == CLEAN
