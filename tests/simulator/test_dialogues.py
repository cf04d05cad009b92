"""Pieces and openings of simulated conversations."""

from collections import Counter

from geli_hf.simulator.corpus import true_turn_value
from geli_hf.simulator.dialogues import draw_opening, draw_pieces


def test_pieces_begin_with_the_user_unless_they_are_beginnings():
    rows = list(draw_pieces([0, 3], [4, 6], list(range(60))))
    assert [len(row["messages"]) for row in rows] == [4, 6] * 30
    assert rows[7] == next(draw_pieces([0, 3], [4, 6], [7]))
    assert rows[7] != next(draw_pieces([0, 4], [4, 6], [7]))
    first = Counter(row["messages"][0]["role"] for row in rows)
    assert first["user"] > first["assistant"] > 0
    for messages in (row["messages"] for row in rows):
        assert [m["role"] for m in messages[::2]] == [messages[0]["role"]] * len(messages[::2])
        if messages[0]["role"] == "assistant":  # only a beginning is worth something as one
            assert true_turn_value(messages[:1]).act in ("opening", "odd_opening")


def test_an_opening_depends_on_its_seed_alone():
    assert draw_opening([1, 2]) == draw_opening([1, 2]) != draw_opening([1, 3])
    assert [message["role"] for message in draw_opening([1, 2])] == ["user"]
