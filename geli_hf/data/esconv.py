"""ESConv: a supporter talks with a person in distress, who rates the help while they talk and all of it at the end.

One JSON list per file, one session per conversation: the supporter is the `assistant`, the seeker the `user`.
Data: Liu et al., "Towards Emotional Support Dialog Systems", ACL 2021.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..affect.sentiment import NextTurnSentiment
from ..sessions import Session, SessionError, merge_turns, session_features
from .reading import Corpus, Skipped, mean_known, read_json

# The published file of failed conversations names the same two people by other words.
ROLES = {"seeker": "user", "speaker": "user", "supporter": "assistant", "listener": "assistant"}


def open_corpus(data_dir: str | Path, *, score: str = "empathy", sentiment: bool | str = False) -> Corpus:
    """
    Args:
        data_dir: holds JSON files of conversations; or is itself such a file.
        score: the answer in `survey_score.seeker` that is the session's score, 1 to 5: "empathy", "relevance",
            "initial_emotion_intensity" or "final_emotion_intensity" (of which less is better).
        sentiment: add feedback `sentiment` of the seeker's next turn: VADER's if True, or a text classifier's, by
            name or path (`geli_hf.affect.NextTurnSentiment`).

    `turn_rating` is the seeker's feedback, 1 to 5, which holds for the supporter's turns since the last feedback; NaN
    for those that no feedback came after. The conversations have no names and are counted from 0.
    """
    path = Path(data_dir)
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    if not files:
        raise FileNotFoundError(f"data_dir: no JSON file at {path}")
    features = session_features(["sentiment"] if sentiment else [], turn_rating=True)

    def rows() -> Iterator[Session | Skipped]:
        sentiment_of = NextTurnSentiment(None if sentiment is True else sentiment) if sentiment else None
        answers: set[str] = set()
        for file in files:
            conversations = read_json(file)
            if not isinstance(conversations, list):
                raise SessionError(
                    f"{file}: expected a list of conversations, found a {type(conversations).__name__}; is it ESConv?"
                )
            for number, conversation in enumerate(conversations):
                yield _session(f"{file.stem}-{number}", conversation, score, answers, sentiment_of)
        if answers and score not in answers:
            raise SessionError(
                f"score: no seeker in {data_dir} answered {score!r}; there are {', '.join(sorted(answers))}"
            )

    return Corpus(files, features, rows, where=str(data_dir))


def _session(
    name: str, conversation: Any, score: str, answers: set[str], sentiment_of: NextTurnSentiment | None
) -> Session | Skipped:
    try:
        survey = dict((conversation.get("survey_score") or {}).get("seeker") or {})
        rows = [(ROLES[row["speaker"]], row["content"], value) for row, value in _ratings(conversation["dialog"])]
    except (AttributeError, KeyError, TypeError, ValueError):
        return Skipped("no dialog of seeker and supporter in the published form")
    answers |= set(survey)
    if survey.get(score) in (None, ""):
        return Skipped(f"no {score} from the seeker")
    given = _rating(survey[score])
    if math.isnan(given):
        return Skipped(f"{score} outside of 1..5")
    turns = merge_turns(rows)
    if missing := {"user", "assistant"} - {turn.speaker for turn in turns}:
        return Skipped(f"no turn of the {'supporter' if 'assistant' in missing else 'seeker'}")
    messages = [{"role": turn.speaker, "content": turn.text} for turn in turns]
    session = {
        "session_id": name,
        "conversation_id": name,
        "rater_id": "",
        "messages": messages,
        "score": given,
        "turn_rating": [mean_known(turn.rows) for turn in turns if turn.speaker == "assistant"],
    }
    if sentiment_of:
        session["feedback"] = {"sentiment": sentiment_of(messages)}
    return session


def _ratings(dialog: list[dict]) -> list[tuple[dict, float]]:
    """Each row of the dialog with the rating that its supporter got; a seeker's rows get none."""
    ratings = [math.nan] * len(dialog)
    waiting: list[int] = []
    for index, row in enumerate(dialog):
        if ROLES[row["speaker"]] == "assistant":
            waiting.append(index)
        elif (feedback := (row.get("annotation") or {}).get("feedback")) not in (None, ""):
            for earlier in waiting:
                ratings[earlier] = _rating(feedback)
            waiting = []
    return list(zip(dialog, ratings))


def _rating(answer: Any) -> float:
    """A number from 1 to 5, which the files hold as text; anything else is no rating."""
    try:
        value = float(answer)
    except (TypeError, ValueError):
        return math.nan
    return value if 1 <= value <= 5 else math.nan
