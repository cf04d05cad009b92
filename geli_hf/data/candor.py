"""CANDOR: two people talk for half an hour, each rates the other's company, and a camera watches both.

Source: Reece et al., "The CANDOR corpus: Insights from a large multimodal dataset of naturalistic conversation",
Science Advances 2023, https://www.science.org/doi/10.1126/sciadv.adf3197; access on request.
Files: one folder, or one zip, for each conversation, with `survey.csv`, `transcription/transcript_*.csv` and
`audio_video_features.csv`. A zip is not unpacked, and not read beside a folder of its name.
Sessions: two for each conversation, one for each rater in the order in which they first speak: the rater is the `user`
who listens, the partner the `assistant`.
Score: the rater's answer in a column of the survey; of several rows of one person the first with a number.
Feedback: the listener's face, as `affect` and `affect_mean` (`geli_hf.affect.turns`); NaN where no face was seen.
Turn rating: from `turn_ratings.csv` (`turn_id`, `rating`), which CANDOR does not have and the sample does.
Skipped: conversations with a file that is absent or broken, or with other than two speakers, and sessions without an
answer from the rater.

A turn lasts from the least start of its rows to the greatest stop, in seconds. Turns may overlap. A turn that stops
before it starts keeps its times and has no feedback.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..affect.behaviour import behaviour_of_turns
from ..affect.emotions import FACE_COLUMNS
from ..affect.turns import affect_of_turns
from ..sessions import Session, session_features, time_span
from .candor_files import (
    FEATURES,
    RATINGS,
    SURVEY,
    Observed,
    Unreadable,
    find_conversations,
    open_conversation,
    read_observed,
    read_scores,
    read_turns,
)
from .reading import Corpus, Skipped, map_in_order, mean_known, session_of_turns

# Scales of the survey, where they are documented; a rating outside is no rating.
SCALES = {"overall_affect": (1, 9), "conversationalist": (0, 100), "good_for_advice": (0, 100)}
# Columns of the survey that identify or describe a person and are no rating of the conversation.
NO_RATINGS = {"user_id", "partner_id", "convo_id", "date", "sex", "age", "race", "edu", "politics", "employ"}

UNOBSERVED = Observed(np.zeros(0), np.zeros((0, len(FACE_COLUMNS))), {})


def open_corpus(
    data_dir: str | Path,
    *,
    score: str | Sequence[str] = "overall_affect",
    segmentation: str = "cliffhanger",
    behaviour: bool = False,
    num_proc: int = 1,
) -> Corpus:
    """Open CANDOR.

    Args:
        data_dir: holds one folder, or one zip, for each conversation; or is itself one conversation's.
        score: survey column that is the session's score. Of several columns the first is the score, and `scores` holds
            all of them, NaN where one of the others was not answered. A survey without one of them is not read.
        segmentation: of speech into turns: "cliffhanger", "backbiter" or "audiophile".
        behaviour: describe the listener's face, gaze, pitch and intensity in words (`geli_hf.affect.behaviour`), as in
            "listener smiles through most of this turn, looks away at the end".
        num_proc: processes that read; the rows and their order stay the same. Where Python starts processes afresh
            (macOS, Windows), a script has to call this under `if __name__ == "__main__":`.

    Raises:
        FileNotFoundError: there is no conversation.
        ValueError: `score` names no column, or one that describes a person.
    """
    scores = [score] if isinstance(score, str) else list(score)
    if not scores or NO_RATINGS.intersection(scores):
        raise ValueError(f"score: expected survey columns that rate the conversation and no person, found {score!r}")
    homes = find_conversations(Path(data_dir))
    features = session_features(
        ["affect", "affect_mean"],
        scores=[] if isinstance(score, str) else scores,
        times=True,
        behaviour=behaviour,
        turn_rating=any(map(_has_turn_ratings, homes)),
    )
    read = partial(_sessions, scores=scores, segmentation=segmentation, behaviour=behaviour)

    def rows() -> Iterator[Session | Skipped]:
        for sessions in map_in_order(read, homes, num_proc):
            for session in sessions:
                yield session if isinstance(session, Skipped) else {name: session[name] for name in features}

    names = (SURVEY, f"transcription/transcript_{segmentation}.csv", RATINGS, FEATURES)
    files = [file for home in homes for file in ([home / name for name in names] if home.is_dir() else [home])]
    return Corpus(files, features, rows, where=str(data_dir))


def _has_turn_ratings(home: Path) -> bool:
    try:
        return (open_conversation(home) / RATINGS).is_file()
    except Unreadable:  # counted when it is read
        return False


def _sessions(home: Path, *, scores: Sequence[str], segmentation: str, behaviour: bool) -> list[Session | Skipped]:
    """Read the two sessions of a conversation, with all columns; the options are those of `open_corpus`."""
    try:
        files = open_conversation(home)
        answers = read_scores(files, scores)
        turns = read_turns(files, segmentation)
        observed = read_observed(files, senses=behaviour)
        speakers = list(dict.fromkeys(turn.speaker for turn in turns))
        if len(speakers) != 2:
            raise Unreadable(f"speakers in the transcript: {len(speakers)}, not 2")
    except Unreadable as error:
        return [Skipped(str(error), home.name)] * 2
    conversation = home.name if home.is_dir() else home.stem
    start, stop = np.array([time_span(turn.rows) for turn in turns]).T

    def session_of_rater(rater: str, partner: str) -> Session | Skipped:
        ratings = {column: _on_scale(column, answers[column].get(rater, math.nan)) for column in scores}
        if math.isnan(ratings[scores[0]]):
            return Skipped(f"no {scores[0]} from the rater, or none on its scale")
        rewarded = np.array([turn.speaker == partner for turn in turns])
        spoken = [turn for turn in turns if turn.speaker == partner]
        words = np.array([len(turn.text.split()) for turn in spoken])
        seen = observed.get(rater, UNOBSERVED)
        affect, mean = affect_of_turns(seen.seconds, seen.probabilities, start[rewarded], stop[rewarded], words)
        looks = [""] * len(spoken)
        if behaviour:
            faces = {"probabilities": seen.probabilities, **seen.senses}
            looks = behaviour_of_turns(seen.seconds, start[rewarded], stop[rewarded], **faces)
        return session_of_turns(
            conversation,
            turns,
            partner,
            ratings[scores[0]],
            perspective=rater,
            rater_id=rater,
            scores=ratings,
            feedback={"affect": affect.tolist(), "affect_mean": mean.tolist()},
            start=start.tolist(),
            stop=stop.tolist(),
            behaviour=looks,
            turn_rating=[float(mean_known(row.rating for row in turn.rows)) for turn in spoken],
        )

    return [session_of_rater(*speakers), session_of_rater(*reversed(speakers))]


def _on_scale(column: str, answer: float) -> float:
    low, high = SCALES.get(column, (-math.inf, math.inf))
    return answer if low <= answer <= high else math.nan
