"""Recordings become Session rows: a video of the listener and a transcript in, a session with its feedback out.

Watching a video takes minutes and is done once: the table of what the face showed is kept in the cache, so that a run
that was stopped goes on where it was, and a broken file costs nothing of the others.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import multiprocessing
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import local
from typing import Any, TextIO

import numpy as np
import pandas as pd
from tqdm import tqdm
from transformers.utils import logging

from .affect import VideoAffect, face_classifier, face_detector, write_candor_features
from .affect.emotions import FACE_COLUMNS
from .affect.transcripts import SUFFIXES, Transcript, read_transcript
from .affect.turns import affect_of_turns
from .cache import cache_root, whole
from .data.rows import write_jsonl
from .sessions import Session, SessionError, merge_turns, validate_session

logger = logging.get_logger(__name__)

# Speakers by these names need no telling who listens.
LISTENERS, AGENTS = ("user", "human", "listener"), ("assistant", "agent", "bot", "robot", "system", "ai")
BEYOND = 1.0  # seconds that a turn may reach past the last frame; clocks and codecs round


@dataclass(frozen=True)
class Watching:
    """How videos are watched.

    Args:
        backend: what reads a face: see `geli_hf.affect.face_classifier`.
        detector: what finds it: see `geli_hf.affect.face_detector`.
        fps: frames looked at per second of video.
        face: which one, if several are seen: see `geli_hf.affect.VideoAffect`.
    """

    backend: str = "geli"
    detector: str = "cascade"
    fps: float = 5.0
    face: str = "largest"


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


def watch_all(
    videos: Sequence[Path], how: Watching, *, jobs: int = 1, progress: bool = True
) -> Iterator[pd.DataFrame | Exception]:
    """What the face showed in each video, in their order: a table of `VideoAffect`, or the error that came instead.

    Args:
        jobs: processes that watch. With one, the bar counts seconds of video, with several it counts videos. A
            process that dies takes its video with it, and no other.
    """
    if jobs == 1:
        for video in videos:
            try:
                table = _watch(video, how, progress)
            except Exception as error:
                yield error
            else:
                yield table
        return
    context, mine = multiprocessing.get_context("spawn"), local()

    def watch(video: Path) -> pd.DataFrame | Exception:
        # A pool of one for each thread: where a process dies, which file killed it is known.
        if not hasattr(mine, "pool"):
            mine.pool = ProcessPoolExecutor(1, mp_context=context, initializer=_one_thread)
        try:
            return mine.pool.submit(_watch, video, how, False).result()
        except BrokenProcessPool:
            del mine.pool
            return RuntimeError(f"{video}: the process that watched it died (out of memory?)")
        except Exception as error:
            return error

    with ThreadPoolExecutor(jobs) as threads:
        yield from tqdm(threads.map(watch, videos), total=len(videos), unit="video", disable=not progress)


def _one_thread() -> None:
    """Processes that share the cores must not take all of them each."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _watch(video: Path, how: Watching, progress: bool) -> pd.DataFrame:
    affect = _affect(how)
    kept = cache_root() / "affect" / f"{_key(video, affect)}.parquet"
    if not kept.exists():
        table = affect(video, progress=progress)
        with whole(kept) as partial:
            table.to_parquet(partial)
    return pd.read_parquet(kept)


@lru_cache(maxsize=1)
def _affect(how: Watching) -> VideoAffect:
    return VideoAffect(face_classifier(how.backend), face_detector(how.detector), fps=how.fps, face=how.face)


def _key(video: Path, affect: VideoAffect) -> str:
    status = video.stat()
    told = [str(video.resolve()), status.st_size, status.st_mtime_ns, affect.fingerprint]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


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
    who = _listener(transcript, listener)
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


def _listener(transcript: Transcript, listener: str | None) -> str:
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
    roles = [1 if name.lower() in LISTENERS else -1 if name.lower() in AGENTS else 0 for name in speakers]
    if sum(roles) == 0 and any(roles):
        return speakers[roles.index(1)]
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


def annotate(arguments: Any, out: TextIO) -> int:
    """Run `geli annotate-video`: videos and transcripts to Session rows.

    Returns:
        How many recordings failed, or could not be watched to their end.
    """
    videos = [Path(name) for name in arguments.videos]
    how = Watching(arguments.backend, arguments.detector, arguments.fps, arguments.face)
    scores = _read_scores(arguments.scores) if arguments.scores else {}
    if arguments.plot and len(videos) > 1 and Path(arguments.plot).suffix:
        raise ValueError(f"--plot: for {len(videos)} videos name a folder, found {arguments.plot}")
    problems: list[str] = []

    def made(path: Path, make: Callable[[], Any]) -> Any:
        """What is wrong with one recording is told at the end."""
        try:
            return make()
        except (OSError, ValueError) as error:
            problems.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            return None

    # What can be wrong with a transcript is found before hours of video are watched.
    names = _names(videos)
    paths = transcripts_of(videos, [Path(name) for name in arguments.transcript])
    jobs = []
    for video, path, name in zip(videos, paths, names):
        transcript = made(path, lambda path=path: _with_listener(read_transcript(path), arguments.listener))
        if transcript is not None:
            jobs.append((video, transcript, name))
    if unknown := sorted(set(scores) - set(names)):
        raise ValueError(f"--scores: no video is called {unknown[0]!r}; there are {', '.join(names[:10])}")
    _affect(how)  # a classifier that isn't there is no fault of the first video

    sessions, seen = [], {}
    watched = watch_all([video for video, *_ in jobs], how, jobs=arguments.jobs)
    for (video, transcript, name), table in zip(jobs, watched):
        if isinstance(table, Exception):
            if isinstance(table, (OSError, ValueError, RuntimeError)):
                problems.append(str(table) if str(video) in str(table) else f"{video}: {table}")
            else:
                problems.append(f"{video}: {type(table).__name__}: {table}")
            continue
        session = made(
            video,
            lambda table=table, transcript=transcript, name=name: session_of_recording(
                table,
                transcript,
                listener=arguments.listener,
                session_id=name,
                score=scores.get(name, math.nan),
                lag=arguments.lag,
                min_share=arguments.min_share,
            ),
        )
        if session is None:
            continue
        if session["session_id"] in seen:
            problems.append(f"{transcript.path}: session_id {session['session_id']!r} is also that of {seen[name]}")
            continue
        seen[session["session_id"]] = transcript.path
        if table.attrs.get("incomplete"):
            problems.append(f"{video}: {table.attrs['incomplete']}; its turns until then were written")
        sessions.append(session)
        if arguments.plot:
            _plot(table, session, Path(arguments.plot), len(videos))
        if arguments.features:
            _write_features(table, session, Path(arguments.features))
    if sessions:
        write_jsonl(sessions, arguments.output)
    known = sum(not math.isnan(value) for session in sessions for value in session["feedback"]["affect"])
    turns = sum(len(session["feedback"]["affect"]) for session in sessions)
    out.write(
        f"{arguments.output}: {len(sessions)} of {len(videos)} recordings, feedback for {known} of {turns} turns\n"
    )
    if problems:
        out.write("not all is well:\n" + "".join(f"  {problem}\n" for problem in problems))
    return len(problems)


def _with_listener(transcript: Transcript, listener: str | None) -> Transcript:
    _listener(transcript, listener)
    return transcript


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
    from .evaluation.affect_plot import plot_affect

    target = path if videos == 1 and path.suffix else path / f"{_file_name(session['session_id'])}.png"
    with whole(target) as partial:
        plot_affect(table, session, partial)


def _write_features(table: pd.DataFrame, session: Session, folder: Path) -> None:
    """As a folder of CANDOR's, one per conversation."""
    person = session["rater_id"] or "listener"
    write_candor_features({person: table}, folder / _file_name(session["session_id"]) / "audio_video_features.csv")


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
