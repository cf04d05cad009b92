"""ESConv: a supporter talks with a person in distress, who rates the help during the talk and at its end.

Source: Liu et al., "Towards Emotional Support Dialog Systems", ACL 2021, arXiv 2106.01144;
https://github.com/thu-coai/Emotional-Support-Conversation; CC BY-NC 4.0.
Files: JSON lists of conversations with `dialog` and `survey_score`.
Sessions: one for each conversation; the supporter is the `assistant`, the seeker the `user`. Conversations are counted
from 0, as in "ESConv-17".
Score: one answer of the seeker's survey, 1 to 5.
Feedback: none but `sentiment`.
Turn rating: the seeker's feedback, 1 to 5, which holds for the supporter's turns since the last feedback; NaN for
turns that no feedback follows.
Skipped: conversations without that answer, without a turn of either side, or of another form.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..sessions import Session, merge_turns
from .reading import Corpus, Skipped, find_files, mean_known, number, read_json, session_of_turns, text_corpus

# The published file of failed conversations has other words for the same two people.
ROLES = {"seeker": "user", "speaker": "user", "supporter": "assistant", "listener": "assistant"}


def open_corpus(data_dir: str | Path, *, score: str = "empathy", sentiment: bool = False) -> Corpus:
    """Open ESConv.

    Args:
        data_dir: holds JSON files of conversations; or is such a file.
        score: the answer in `survey_score.seeker` that is the session's score, 1 to 5: "empathy", "relevance",
            "initial_emotion_intensity" or "final_emotion_intensity" (of which less is better).
        sentiment: add feedback `sentiment` of the seeker's next turn, from -1 to 1 (`NextTurnSentiment`).

    Raises:
        FileNotFoundError: there is no JSON file.
        SessionError: when the rows are read, a file holds no list of conversations.
    """
    files = find_files(data_dir, ["*.json"])

    def rows() -> Iterator[Session | Skipped]:
        for file in files:
            for place, conversation in enumerate(read_json(file, list)):
                yield _session(f"{file.stem}-{place}", conversation, score)

    return text_corpus(files, rows, where=data_dir, turn_rating=True, sentiment=sentiment)


def _session(name: str, conversation: Any, score: str) -> Session | Skipped:
    try:
        survey = dict((conversation.get("survey_score") or {}).get("seeker") or {})
        dialog = conversation["dialog"]
        turns = merge_turns(
            (ROLES[row["speaker"]], row["content"], rating) for row, rating in zip(dialog, _turn_ratings(dialog))
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return Skipped("no dialog of seeker and supporter in the published form")
    if survey.get(score) in (None, ""):
        return Skipped(f"no {score} from the seeker")
    rating = _rating(survey[score])
    if math.isnan(rating):
        return Skipped(f"{score} outside of 1..5")
    if len({turn.speaker for turn in turns}) < 2:
        return Skipped("no turn of the seeker or of the supporter")
    turn_ratings = [mean_known(turn.rows) for turn in turns if turn.speaker == "assistant"]
    return session_of_turns(name, turns, "assistant", rating, turn_rating=turn_ratings)


def _turn_ratings(dialog: list[dict]) -> list[float]:
    """Give each row of the supporter the seeker's next feedback; NaN for the seeker's own rows."""
    ratings = [math.nan] * len(dialog)
    unrated: list[int] = []
    for index, row in enumerate(dialog):
        if ROLES[row["speaker"]] == "assistant":
            unrated.append(index)
        elif (feedback := (row.get("annotation") or {}).get("feedback")) not in (None, ""):
            for earlier in unrated:
                ratings[earlier] = _rating(feedback)
            unrated = []
    return ratings


def _rating(answer: Any) -> float:
    """Convert an answer, which the files hold as text, to a number from 1 to 5; anything else is NaN."""
    value = number(answer)
    return value if 1 <= value <= 5 else math.nan
