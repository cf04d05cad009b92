"""`geli annotate-video`: from videos and transcripts to Session rows."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import pandas as pd

from ..affect import read_transcript, write_candor_features
from ..affect.annotate import Watching, affect_of, watch_all
from ..affect.session import listener_of, session_of_recording
from ..affect.transcripts import SUFFIXES, Transcript
from ..cache import whole
from ..data.rows import write_jsonl
from ..sessions import Session


def annotate(arguments: argparse.Namespace, out: TextIO) -> list[str]:
    """Run the command; what is done goes to `out`.

    Returns:
        What went wrong with single recordings.
    """
    videos = [Path(name) for name in arguments.videos]
    names = _names(videos)
    how = Watching(arguments.backend, arguments.detector, arguments.fps, arguments.face)
    scores = _read_scores(arguments.scores) if arguments.scores else {}
    if unknown := sorted(set(scores) - set(names)):
        raise ValueError(f"--scores: no video is called {unknown[0]!r}; there are {', '.join(names[:10])}")
    if arguments.plot and len(videos) > 1 and Path(arguments.plot).suffix:
        raise ValueError(f"--plot: for {len(videos)} videos name a folder, found {arguments.plot}")

    # What can be wrong with a transcript, or with the model, is found before hours of video are watched.
    problems: list[str] = []
    recordings: list[tuple[Path, Transcript, str]] = []
    for video, path, name in zip(videos, transcripts_of(videos, [Path(name) for name in arguments.transcript]), names):
        try:
            transcript = read_transcript(path)
            listener_of(transcript, arguments.listener)
        except (OSError, ValueError) as error:
            problems.append(_told(error, path))
        else:
            recordings.append((video, transcript, name))
    try:
        if recordings:
            affect_of(how)
    except RuntimeError as error:  # a DeepFace on two engines
        raise ValueError(str(error)) from None

    sessions: list[Session] = []
    tables = watch_all([video for video, *_ in recordings], how, jobs=arguments.jobs)
    for table, (video, transcript, name) in zip(tables, recordings):  # in this order the bar comes to its end
        if isinstance(table, Exception):
            problems.append(_told(table, video))
            continue
        try:
            session = session_of_recording(
                table,
                transcript,
                listener=arguments.listener,
                session_id=transcript.session.get("session_id", name),
                lag=arguments.lag,
                min_share=arguments.min_share,
            )
        except ValueError as error:
            problems.append(_told(error, transcript.path))
            continue
        if session["session_id"] in [other["session_id"] for other in sessions]:
            problems.append(f"{transcript.path}: another recording is the session {session['session_id']!r} too")
            continue
        if name in scores:
            session["score"] = scores[name]
        if broken_off := table.attrs.get("incomplete"):
            problems.append(f"{video}: {broken_off}; what was seen until then is written")
        sessions.append(session)
        try:
            if arguments.plot:
                _plot(table, session, Path(arguments.plot), len(videos))
            if arguments.features:
                person, folder = session["rater_id"] or "listener", Path(arguments.features) / _file_name(session)
                write_candor_features({person: table}, folder / "audio_video_features.csv")
        except OSError as error:  # the sessions are worth more than a picture
            problems.append(f"{video}: {error}")
    if sessions:
        write_jsonl(sessions, arguments.output)
        feedback = [value for session in sessions for value in session["feedback"]["affect"]]
        known = sum(not math.isnan(value) for value in feedback)
        out.write(
            f"{arguments.output}: {len(sessions)} of {len(videos)} recordings, "
            f"feedback for {known} of {len(feedback)} turns of the assistant\n"
        )
    return problems


def transcripts_of(videos: Sequence[Path], transcripts: Sequence[Path]) -> list[Path]:
    """The transcript of each video: the one in its place of the list, or the one that is named like it, in a folder.

    Args:
        transcripts: as many as videos; or one folder; or none, for those that lie beside the videos.

    Raises:
        ValueError: there are neither as many nor one folder.
        FileNotFoundError: a video has none.
    """
    folder = transcripts[0] if len(transcripts) == 1 and transcripts[0].is_dir() else None
    if transcripts and folder is None:
        if len(transcripts) != len(videos):
            raise ValueError(
                f"--transcript: expected one for each of {len(videos)} videos, or a folder, found {len(transcripts)}"
            )
        return list(transcripts)
    found = []
    for video in videos:
        home = folder or video.parent
        there = [home / f"{video.stem}{suffix}" for suffix in SUFFIXES]
        there = [path for path in there if path.is_file()]
        if len(there) != 1:
            wanted = ", ".join(f"{video.stem}{suffix}" for suffix in SUFFIXES)
            had = f"found {' and '.join(path.name for path in there)}" if there else "found none"
            raise FileNotFoundError(f"--transcript: {video} needs one of {wanted} in {home}, {had}")
        found += there
    return found


def _told(error: Exception, path: Path) -> str:
    """What is wrong, with the file's name, and with the kind of an error that nobody foresaw."""
    kind = "" if isinstance(error, (OSError, ValueError, RuntimeError)) else f"{type(error).__name__}: "
    return str(error) if str(path) in str(error) else f"{path}: {kind}{error}"


def _names(videos: Sequence[Path]) -> list[str]:
    """What the sessions are called: as the files, with their folders where that is not enough."""
    stems = [video.stem for video in videos]
    names = stems if len(set(stems)) == len(stems) else [video.with_suffix("").as_posix() for video in videos]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"VIDEO: {twice!r} is named twice")
    return names


def _read_scores(path: str) -> dict[str, float]:
    try:
        table = pd.read_csv(path, dtype={"session_id": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"--scores: {path} can't be read as CSV ({error})") from None
    if missing := {"session_id", "score"} - set(table.columns):
        raise ValueError(
            f"--scores: {path} has no column {', '.join(sorted(missing))}; found {', '.join(table.columns)}"
        )
    numbers = pd.to_numeric(table["score"], errors="coerce")
    if bad := [text for text, number in zip(table["score"], numbers) if pd.isna(number) and not pd.isna(text)]:
        raise ValueError(f"--scores: {path} has a score that is no number: {bad[0]!r}")
    return dict(zip(table["session_id"], numbers.astype(float)))


def _plot(table: pd.DataFrame, session: Session, path: Path, videos: int) -> None:
    from ..affect.plot import plot_affect

    target = path if videos == 1 and path.suffix else path / f"{_file_name(session)}.png"
    with whole(target) as partial:
        plot_affect(table, session, partial)


def _file_name(session: Session) -> str:
    return re.sub(r"[^\w.-]+", "_", session["session_id"])
