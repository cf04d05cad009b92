"""Topical-Chat: two people chat over articles, say how they feel at each turn, and rate each other.

Source: Gopalakrishnan et al., "Topical-Chat: Towards Knowledge-Grounded Open-Domain Conversations", Interspeech 2019,
arXiv 2308.11995; https://github.com/alexa/Topical-Chat; CDLA-Sharing 1.0.
Files: one JSON object for each split, with a conversation under each id.
Sessions: two for each conversation, one for each agent as the `assistant`; the other agent listens (`user`).
Score: `conversation_rating[agent]`, "Poor" to "Excellent", as 1 to 5. It is taken for the rating that the agent
received, although the corpus describes it the other way round: it correlates .84 with the mean rating of the agent's
own turns and .02 with that of the partner's.
Feedback: `label`, from -1 to 1: the listener's own word for how they feel at their next turn (`LABELS`).
Turn rating: the listener's rating of the turn, 1 to 5, for evaluation only.
Skipped: sessions without a rating, and conversations of another form or not of two agents.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..sessions import Session, Turn, merge_turns
from .reading import (
    Corpus,
    Skipped,
    find_files,
    mean_known,
    read_json,
    session_of_turns,
    text_corpus,
    turns_and_replies,
)

RATINGS = {"Poor": 1.0, "Not Good": 2.0, "Passable": 3.0, "Good": 4.0, "Excellent": 5.0}
LABELS = {"Happy": 1.0, "Surprised": 0.5, "Curious to dive deeper": 0.5, "Neutral": 0.0}
LABELS |= dict.fromkeys(("Sad", "Fearful", "Angry", "Disgusted"), -1.0)


def open_corpus(data_dir: str | Path, *, split: str | Sequence[str] = "valid_freq", sentiment: bool = False) -> Corpus:
    """Open Topical-Chat.

    Args:
        data_dir: holds `<split>.json`; or is such a file.
        split: one or several of "train", "valid_freq", "valid_rare", "test_freq" and "test_rare".
        sentiment: add feedback `sentiment` of the listener's next turn, from -1 to 1 (`NextTurnSentiment`).

    Raises:
        FileNotFoundError: a split is not there.
        SessionError: when the rows are read, a file holds no JSON object.
    """
    files = find_files(data_dir, [f"{name}.json" for name in ([split] if isinstance(split, str) else split)])

    def rows() -> Iterator[Session | Skipped]:
        for file in files:
            for name, conversation in read_json(file, dict).items():
                yield from _sessions(name, conversation)

    return text_corpus(files, rows, where=data_dir, signals=["label"], turn_rating=True, sentiment=sentiment)


def _sessions(name: str, conversation: Any) -> list[Session | Skipped]:
    try:
        turns = merge_turns((row["agent"], row["message"], row) for row in conversation["content"])
        ratings = dict(conversation["conversation_rating"])
    except (KeyError, TypeError, ValueError):
        return [Skipped("no content or conversation_rating in the published form")] * 2
    agents = sorted({turn.speaker for turn in turns})
    if len(agents) != 2:
        return [Skipped(f"speakers: {len(agents)}, not 2")] * 2
    return [_session(name, agent, turns, ratings.get(agent)) for agent in agents]


def _session(name: str, agent: str, turns: list[Turn], rating: str | None) -> Session | Skipped:
    if not rating:
        return Skipped("no conversation_rating")
    if rating not in RATINGS:
        return Skipped(f"a conversation_rating that is none of {', '.join(RATINGS)}")
    pairs = turns_and_replies(turns, agent)
    labels = [LABELS.get(reply.rows[0].get("sentiment"), math.nan) if reply else math.nan for _, reply in pairs]
    ratings = [mean_known(RATINGS.get(row.get("turn_rating"), math.nan) for row in turn.rows) for turn, _ in pairs]
    # The rater has no id: "agent_1" is another person in every conversation.
    return session_of_turns(
        name,
        turns,
        agent,
        RATINGS[rating],
        perspective=agent,
        feedback={"label": labels},
        turn_rating=ratings,
    )
