"""The Session row of a recording: what was said, and what the listener's face showed meanwhile."""

from __future__ import annotations

import difflib
import math

import numpy as np
import pandas as pd
from transformers.utils import logging

from ..affect.emotions import FACE_COLUMNS
from ..affect.transcripts import Transcript
from ..affect.turns import affect_of_turns
from ..sessions import Session, SessionError, merge_turns, validate_session

logger = logging.get_logger(__name__)

# Speakers by these names need no telling who listens.
LISTENERS, AGENTS = ("user", "human", "listener"), ("assistant", "agent", "bot", "robot", "system")
BEYOND = 1.0  # seconds that a turn may reach past the last frame; clocks and codecs round


def session_of_recording(
    table: pd.DataFrame,
    transcript: Transcript,
    *,
    listener: str | None = None,
    session_id: str | None = None,
    score: float = math.nan,
    lag: float = 0.0,
    min_share: float = 0.5,
) -> Session:
    """The Session row of a recording: the listener is the `user`, the other one the `assistant`.

    Args:
        table: what the listener's face showed: `time` and `prob_face_*`, as `VideoAffect` makes it.
        transcript: what was said. Utterances of one speaker in a row become one message, from the first's start to the
            latest stop; they may overlap those of the other.
        listener: the speaker whose face it is; needed unless the speakers are called user and assistant, or alike.
        session_id: of the row, unless the transcript has one. Default: the name of its file.
        score: the session's rating, unless the transcript has one.
        lag, min_share: see `affect_of_turns`. What lies in a stretch that the video doesn't cover is missing.

    Returns:
        A row with feedback `affect` and `affect_mean`, one value per turn of the assistant.

    Raises:
        ValueError: the speakers or times can't be those of this recording.
    """
    who = listener_of(transcript, listener)
    turns = merge_turns((utterance.speaker, utterance.text, utterance) for utterance in transcript.utterances)
    # Unknown if one of its utterances is.
    start = np.array([np.min([utterance.start for utterance in turn.rows]) for turn in turns])
    stop = np.array([np.max([utterance.stop for utterance in turn.rows]) for turn in turns])
    rewarded = np.array([turn.speaker != who for turn in turns])
    _check_length(table, transcript, start, stop, rewarded)
    hard, graded = affect_of_turns(
        table["time"].to_numpy(float),
        table[FACE_COLUMNS].to_numpy(float),
        start[rewarded],
        stop[rewarded],
        np.array([len(turn.text.split()) for turn in turns if turn.speaker != who]),
        lag=lag,
        min_share=min_share,
        short_words=0,  # frames tell whether a face answered; seconds can't
    )
    name = session_id or transcript.path.stem
    given = transcript.row
    session = {
        "session_id": name,
        "conversation_id": name,
        "rater_id": "" if who.lower() in LISTENERS else who,
        "score": score,
        **given,
        "messages": [{"role": "user" if turn.speaker == who else "assistant", "content": turn.text} for turn in turns],
        "start": start.tolist(),
        "stop": stop.tolist(),
    }
    session["feedback"] = {**given.get("feedback", {}), "affect": hard.tolist(), "affect_mean": graded.tolist()}
    try:
        validate_session(session, str(transcript.path), {})
    except SessionError as error:
        raise ValueError(str(error)) from None
    return session


def listener_of(transcript: Transcript, listener: str | None) -> str:
    """The speaker whose face the video shows, as the transcript calls them.

    Args:
        listener: how the user calls them; None if their names tell.

    Raises:
        ValueError: they don't, or nobody is called so, or there are not two speakers.
    """
    speakers = list(dict.fromkeys(utterance.speaker for utterance in transcript.utterances))
    named = ", ".join(map(repr, speakers))
    if len(speakers) != 2:
        advice = "one row needs two; cut it to two speakers" if len(speakers) > 2 else "who listens says nothing in it"
        found = f"{len(speakers)} speaker{'s' * (len(speakers) > 1)} ({named})"
        raise ValueError(f"{transcript.path}: {found}, expected the listener and the one who is listened to; {advice}")
    if listener is not None:
        for speaker in speakers:
            if speaker.lower() == listener.lower():
                return speaker
        close = difflib.get_close_matches(listener.lower(), [speaker.lower() for speaker in speakers], 1, 0.6)
        hint = f"; did you mean {next(s for s in speakers if s.lower() == close[0])!r}?" if close else ""
        raise ValueError(f"listener: {listener!r} says nothing in {transcript.path}; there speak {named}{hint}")
    listening = [name for name in speakers if name.lower() in LISTENERS]
    others = [name for name in speakers if name.lower() not in AGENTS]
    for known in (listening, others):
        if len(known) == 1:
            return known[0]
    raise ValueError(f"listener: whose face does the video show? Name the speaker; in {transcript.path} speak {named}")


def _check_length(
    table: pd.DataFrame, transcript: Transcript, start: np.ndarray, stop: np.ndarray, rewarded: np.ndarray
) -> None:
    if np.isnan(start).all() or np.isnan(stop).all():
        raise ValueError(f"{transcript.path}: no utterance has times, so that no face can be matched with it")
    end = float(table["time"].max()) if len(table) else 0.0
    beyond = rewarded & (stop > end + BEYOND)
    count = int(beyond.sum())
    if not count:
        return
    if np.nanmin(start) > end + BEYOND:
        raise ValueError(
            f"{transcript.path}: it begins at {np.nanmin(start):.1f} s and the video ends at {end:.1f} s; is it "
            "another recording's transcript?"
        )
    logger.warning(
        f"{transcript.path}: {count} of {int(rewarded.sum())} turns of the assistant reach beyond the end of the "
        f"video, {end:.1f} s; what lies past it was not seen"
    )
