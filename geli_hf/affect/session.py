"""A session from a recording of a conversation: the table of the listener's face, and the transcript."""

import math

import numpy as np
import pandas as pd
from transformers.utils import logging

from ..sessions import Session, SessionError, merge_turns, time_span, validate_session
from .behaviour import behaviour_of_turns
from .emotions import FACE_COLUMNS
from .transcripts import Transcript, clean_name
from .turns import affect_of_turns, distinct_faces, rows_in_turns, rows_of_turns, smooth_faces, valence_of_turns

logger = logging.get_logger(__name__)

# Speakers' names that are roles.
LISTENERS = {"user", "human"}
AGENTS = {"assistant", "agent", "ai", "bot"}
MIN_SHARE = 0.25  # of the frames of a turn, which have to show the face
SMOOTH = 1.0  # seconds of the running median


def session_of_recording(
    table: pd.DataFrame,
    transcript: Transcript,
    *,
    listener: str | None = None,
    session_id: str | None = None,
    min_share: float = MIN_SHARE,
    smooth: float = SMOOTH,
    own_mean: bool = False,
) -> Session:
    """Make the Session row of a conversation of two whose listener was filmed.

    Args:
        table: of `VideoAffect`: `time` in seconds and `prob_face_*`, NaN where no face was seen.
        transcript: of the same recording, on the same clock.
        listener: name of the speaker whose face it is, who becomes the `user`, in upper or lower case. May be left out
            where the speakers' names are roles: of `LISTENERS`, and of `AGENTS`.
        session_id: of the row. Default: the name of the transcript's file.
        min_share: the rule of `affect_of_turns`, of which the published one is 0.
        smooth: seconds of the running median over the face (see `smooth_faces`), of which the published rule has none.
        own_mean: measure valence from the listener's own mean (see `valence_of_turns`).

    Returns:
        Successive utterances of one speaker are one message. `start` and `stop` are the least and the greatest of a
        message, so messages may overlap: the face counts for every turn of the `assistant` during which it is seen,
        but not while the listener talks, since a speaking mouth looks like a smile. `feedback` holds `affect`,
        `affect_mean` and `valence` (see `valence_of_turns`), NaN where nothing was seen, or after the end of the
        video, and `behaviour` the face in words (see `behaviour_of_turns`). The `score` is NaN.

    Raises:
        ValueError: the table lacks columns, or holds no frame.
        SessionError: the transcript does not say who listens, names more or fewer than two speakers, or all of it lies
            beyond the end of the video.
    """
    if missing := [column for column in ("time", *FACE_COLUMNS) if column not in table.columns]:
        raise ValueError(f"table: expected the columns of VideoAffect, found none called {', '.join(missing)}")
    times = table["time"].to_numpy(float)
    if np.isnan(times).all():
        raise ValueError("table: expected at least one frame with a time, found none")
    user = listener_of(transcript, listener)
    turns = merge_turns((each.speaker, each.text, each) for each in transcript.utterances)
    messages = [{"role": "user" if turn.speaker == user else "assistant", "content": turn.text} for turn in turns]
    start, stop = np.array([time_span(turn.rows) for turn in turns]).T
    _check_times(transcript, start, np.nanmax(times))

    spoken = np.array([turn.speaker != user for turn in turns])
    words = np.array([len(turn.text.split()) for turn in turns])
    times, faces = distinct_faces(times, table[FACE_COLUMNS].to_numpy(float))
    own = [(each.start, each.stop) for each in transcript.utterances if each.speaker == user]
    listens = ~rows_in_turns(len(times), *rows_of_turns(times, *np.reshape(own, (-1, 2)).T))
    times, faces = smooth_faces(times[listens], faces[listens], smooth)
    spans = start[spoken], stop[spoken]
    affect, mean = affect_of_turns(times, faces, *spans, words[spoken], min_share=min_share)
    valence = valence_of_turns(times, faces, *spans, min_share=min_share, own_mean=own_mean)
    name = session_id or transcript.path.stem
    session = {
        "session_id": name,
        "conversation_id": name,
        "rater_id": "" if user.lower() in LISTENERS else user,
        "score": math.nan,
        "messages": messages,
        "start": start.tolist(),
        "stop": stop.tolist(),
        "feedback": {"affect": affect.tolist(), "affect_mean": mean.tolist(), "valence": valence.tolist()},
        "behaviour": behaviour_of_turns(times, *spans, probabilities=faces),
    }
    validate_session(session, str(transcript.path), {})
    return session


def listener_of(transcript: Transcript, listener: str | None) -> str:
    """Find the speaker whose face the video shows.

    Args:
        transcript: of the recording.
        listener: their name, in upper or lower case; None if the speakers' names are roles.

    Returns:
        The name as the transcript has it; "" for a listener who says nothing.

    Raises:
        SessionError: the transcript doesn't say who listens, or names more or fewer than two speakers.
    """
    path = transcript.path
    if nameless := [each.where for each in transcript.utterances if not each.speaker]:
        raise SessionError(f"{path}, {nameless[0]}: no speaker; name who speaks in each utterance")
    speakers = list(dict.fromkeys(each.speaker for each in transcript.utterances))
    wanted = LISTENERS if listener is None else {clean_name(listener).lower()}
    users = [name for name in speakers if name.lower() in wanted]
    others = [name for name in speakers if name not in users]
    silent = not users and listener is None and others[0].lower() in AGENTS  # who listens and says nothing
    if len(others) != 1 or not (len(users) == 1 or silent):
        raise SessionError(
            f"listener: expected one of two speakers in {path}, or only 'assistant', found {listener!r} and "
            f"the speakers {', '.join(map(repr, speakers))}; say whose face the video shows"
        )
    return "" if silent else users[0]


def _check_times(transcript: Transcript, start: np.ndarray, end: float) -> None:
    """Refuse a transcript that lies beyond the end of the video, and warn of one that does in part."""
    beyond = np.flatnonzero(start > end)
    if len(beyond) and len(beyond) == np.count_nonzero(~np.isnan(start)):
        raise SessionError(
            f"{transcript.path}: every turn starts after the end of the video at {end:.1f} s; "
            "is it another recording's, or in milliseconds?"
        )
    if len(beyond):
        logger.warning(
            f"{transcript.path}: {len(beyond)} of {len(start)} turns start after the end of the video at {end:.1f} s"
        )
