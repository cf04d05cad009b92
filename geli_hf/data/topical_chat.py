"""Topical-Chat: two people chat over articles, say how they feel at each turn, and rate each other's turns and talk.

One JSON file per split. Each conversation gives two sessions, one per agent whose turns are rewarded (`assistant`);
the other one listens (`user`). `conversation_rating[agent]` is taken for the rating that this agent received, although
the corpus's own description has it the other way: it correlates .84 with the mean rating of the agent's own turns and
.02 with that of the partner's. Data: Gopalakrishnan et al., "Topical-Chat", Interspeech 2019.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..affect.sentiment import NextTurnSentiment
from ..sessions import Session, SessionError, Turn, merge_turns, session_features
from .reading import Corpus, Skipped, mean_known, read_json, split_files

RATINGS = {"Poor": 1.0, "Not Good": 2.0, "Passable": 3.0, "Good": 4.0, "Excellent": 5.0}
# How good a sign it is for the turn before that its listener says to feel so.
LABELS = {
    "Happy": 1.0,
    "Surprised": 0.5,
    "Curious to dive deeper": 0.5,
    "Neutral": 0.0,
    "Sad": -1.0,
    "Fearful": -1.0,
    "Angry": -1.0,
    "Disgusted": -1.0,
}


def open_corpus(
    data_dir: str | Path, *, split: str | Sequence[str] = "valid_freq", sentiment: bool | str = False
) -> Corpus:
    """
    Args:
        data_dir: holds `<split>.json`; or is itself such a file.
        split: one, or several: "train", "valid_freq", "valid_rare", "test_freq", "test_rare".
        sentiment: add feedback `sentiment` of the listener's next turn: VADER's if True, or a text classifier's, by
            name or path (`geli_hf.affect.NextTurnSentiment`).

    Feedback `label` is how the listener says to feel at the next turn, by `LABELS`. `turn_rating` is the listener's
    rating of the turn, 1 to 5, for evaluation only.
    """
    files = split_files(data_dir, split, ".json")
    features = session_features(["label", *(["sentiment"] if sentiment else [])], turn_rating=True)

    def rows() -> Iterator[Session | Skipped]:
        sentiment_of = NextTurnSentiment(None if sentiment is True else sentiment) if sentiment else None
        for file in files:
            conversations = read_json(file)
            if not isinstance(conversations, dict):
                raise SessionError(
                    f"{file}: expected an object with a conversation under each id, found a "
                    f"{type(conversations).__name__}; is it a Topical-Chat split?"
                )
            for name, conversation in conversations.items():
                yield from _sessions(name, conversation, sentiment_of)

    return Corpus(files, features, rows, where=str(data_dir))


def _sessions(name: str, conversation: Any, sentiment_of: NextTurnSentiment | None) -> Iterator[Session | Skipped]:
    try:
        turns = merge_turns((row["agent"], row["message"], row) for row in conversation["content"])
        ratings = dict(conversation["conversation_rating"])
    except (KeyError, TypeError, ValueError):
        yield from [Skipped("no content or conversation_rating in the published form")] * 2
        return
    agents = list(dict.fromkeys(turn.speaker for turn in turns))
    if len(agents) != 2:
        yield from [Skipped(f"{len(agents)} speaker{'s' * (len(agents) != 1)}, not 2")] * 2
        return
    for agent in sorted(agents):
        rating = ratings.get(agent)
        if not rating:
            yield Skipped("no conversation_rating")
        elif rating not in RATINGS:
            yield Skipped(f"a conversation_rating that is none of {', '.join(RATINGS)}")
        else:
            yield _session(name, agent, turns, RATINGS[rating], sentiment_of)


def _session(
    name: str, agent: str, turns: list[Turn], score: float, sentiment_of: NextTurnSentiment | None
) -> Session:
    messages = [{"role": "assistant" if turn.speaker == agent else "user", "content": turn.text} for turn in turns]
    answers = [*turns[1:], None]
    session = {
        "session_id": f"{name}/{agent}",
        "conversation_id": name,
        # Who sat behind "agent_1" is not published, and it is another person in every conversation.
        "rater_id": "",
        "messages": messages,
        "score": score,
        "feedback": {
            "label": [
                LABELS.get(answer.rows[0].get("sentiment"), math.nan) if answer else math.nan
                for turn, answer in zip(turns, answers)
                if turn.speaker == agent
            ]
        },
        "turn_rating": [
            mean_known(RATINGS.get(row.get("turn_rating"), math.nan) for row in turn.rows)
            for turn in turns
            if turn.speaker == agent
        ],
    }
    if sentiment_of:
        session["feedback"]["sentiment"] = sentiment_of(messages)
    return session
