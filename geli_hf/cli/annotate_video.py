"""`geli annotate-video`: Session rows from videos of the listener and their transcripts."""

import argparse
import math
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TextIO

from .common import add_device, count

CROWDED = 0.1  # share of the looks at a picture that show two faces of about the same size, from which it is told


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "annotate-video",
        help="read the listener's face in recordings, as feedback on each turn",
        description="Read the listener's face in recordings, match it with their transcripts, and write Session rows "
        "with the feedback `affect`, `affect_mean` and `valence` for every turn of the assistant. Images of faces "
        "stay in memory and are never written, unless --contact-sheet asks for it. The figures of a video are cached, "
        "so a run that was stopped continues. The exit status is 1 if a recording failed. Expressions are not "
        "feelings.",
    )
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="recordings of the listener, one for each session")
    add(
        "--transcript", nargs="+", default=[], metavar="T", help="one for each video (default: beside it, by its name)"
    )
    add("-o", "--output", required=True, help="JSON lines to write")
    add("--listener", help="name of the listener in the transcripts (default: user)")
    add("--scores", metavar="FILE", help="CSV with session_id (a video's name without its ending) and score")
    add("--backend", default="geli", help="geli, deepface, or an image classifier's folder or name")
    add("--detector", default="cascade", help="cascade, or a YuNet model's path")
    add("--fps", type=float, default=5.0, help="frames per second to look at (default: 5)")
    add("--face", default="largest", help="of several faces: largest, left or right")
    add_device(parser, default="cpu")
    add("--plot", metavar="PNG", help="picture of the face and the turns over time; for several videos a folder")
    add(
        "--contact-sheet",
        metavar="PNG",
        help="picture of the listener's face at the strongest moments, to check; for several videos a folder",
    )
    add("--own-mean", action="store_true", help="measure valence from the listener's mean over the recording")
    add("--jobs", type=count, default=1, help="videos at once (default: 1)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, out: TextIO) -> None:
    import numpy as np

    from ..affect.annotate import watch_all
    from ..affect.contact_sheet import draw_contact_sheet
    from ..affect.emotions import FACE_COLUMNS
    from ..affect.plot import plot_affect
    from ..affect.session import session_of_recording
    from ..cache import atomic_path
    from ..data.rows import write_jsonl
    from ..models.geli_reward.text_geli import valid_unicode

    videos = [Path(name) for name in arguments.videos]
    names = [valid_unicode(video.stem) for video in videos]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"VIDEO: {twice[0]!r} is named twice")
    scores = _read_scores(arguments.scores) if arguments.scores else {}
    if unknown := sorted(set(scores) - set(names)):
        raise ValueError(f"--scores: no video is called {unknown[0]!r}; there are {', '.join(names[:10])}")
    for flag, path in (("--plot", arguments.plot), ("--contact-sheet", arguments.contact_sheet)):
        if path and Path(path).suffix and len(videos) > 1:
            raise ValueError(f"{flag}: for {len(videos)} videos name a folder, found {path}")

    settings = arguments.backend, arguments.detector, arguments.fps, arguments.face, arguments.device
    recordings, problems = _open_recordings(arguments, dict(zip(names, videos)), settings)
    tables = watch_all([video for video, _ in recordings.values()], *settings, jobs=arguments.jobs)
    sessions: dict[str, dict] = {}
    seen: list[bool] = []  # of each frame, whether it shows a face that can be read
    for table, (name, (video, transcript)) in zip(tables, recordings.items()):  # in this order the bar is completed
        try:
            if isinstance(table, Exception):
                raise table
            session = session_of_recording(
                table, transcript, listener=arguments.listener, session_id=name, own_mean=arguments.own_mean
            )
            session["score"] = scores.get(name, math.nan)
            sessions[name] = session
            if cut := table.attrs.get("incomplete"):
                problems.append(f"{video}: {cut}; the session is written up to there")
            seen.extend(table[FACE_COLUMNS].notna().any(axis=1))
            if table.attrs["crowded"] > CROWDED:
                out.write(f"{video}: two faces of about the same size; the {arguments.face} one is read (--face)\n")
            sheet = partial(draw_contact_sheet, video=video, fps=arguments.fps)
            for path, draw in ((arguments.plot, plot_affect), (arguments.contact_sheet, sheet)):
                if path:
                    with atomic_path(Path(path) if Path(path).suffix else Path(path) / f"{name}.png") as picture:
                        draw(table, session, picture)
        except Exception as error:
            problems.append(_error_text(error, video))
    if sessions:
        write_jsonl(sessions.values(), arguments.output)
        feedback = [value for session in sessions.values() for value in session["feedback"]["affect"]]
        known = sum(not math.isnan(value) for value in feedback)
        out.write(
            f"{arguments.output}: {len(sessions)} of {len(videos)} recordings, "
            f"feedback for {known} of {len(feedback)} turns of the assistant, "
            f"a face in {np.mean(seen):.0%} of the frames\n"
        )
        if arguments.contact_sheet:
            out.write(f"{arguments.contact_sheet}: shows the listener's face; keep it as safe as the recording\n")
    if problems:
        out.flush()
        sys.exit("\n  ".join(["some recordings have problems:", *problems]))


def _open_recordings(arguments: argparse.Namespace, videos: Mapping[str, Path], settings) -> tuple[dict, list[str]]:
    """Read the transcripts and load the models, so that errors come before hours of video are read.

    Returns:
        The video and the transcript of each session, and the errors of the others.
    """
    from ..affect.annotate import load_video_affect
    from ..affect.session import listener_of
    from ..affect.transcripts import read_transcript

    recordings, problems = {}, []
    if (given := len(arguments.transcript)) not in (0, len(videos)):
        raise ValueError(f"--transcript: expected one for each of {len(videos)} videos, found {given}")
    paths = dict(zip(videos, map(Path, arguments.transcript)))
    for name, video in videos.items():
        path = video
        try:
            if not video.exists():
                raise FileNotFoundError(f"{video}: there is no such file")
            path = paths.get(name) or _find_transcript(video)
            transcript = read_transcript(path)
            listener_of(transcript, arguments.listener)
            recordings[name] = video, transcript
        except (OSError, ValueError) as error:
            problems.append(_error_text(error, path))
    if recordings:
        load_video_affect(*settings)
    return recordings, problems


def _find_transcript(video: Path) -> Path:
    """Find the transcript beside a video, by the video's name."""
    from ..affect.transcripts import SUFFIXES

    paths = [video.parent / f"{video.stem}{suffix}" for suffix in SUFFIXES]
    found = [path for path in paths if path.is_file()]
    if len(found) != 1:
        names, there = (", ".join(path.name for path in each) or "none" for each in (paths, found))
        raise FileNotFoundError(f"--transcript: expected one of {names} in {video.parent}, found {there}")
    return found[0]


def _error_text(error: Exception, path: Path) -> str:
    return str(error) if str(path) in str(error) else f"{path}: {type(error).__name__}: {error}"


def _read_scores(path: str) -> dict[str, float]:
    """Read the scores by session_id; NaN where the field is empty."""
    from ..affect.transcripts import MISSING, read_csv, read_text
    from ..sessions import is_number

    names, rows = read_csv(Path(path), read_text(Path(path)))
    if missing := {"session_id", "score"}.difference(names):
        raise ValueError(
            f"--scores: {path}, line 1: expected the columns session_id and score, found no {min(missing)}"
        )
    scores: dict[str, float] = {}
    for line, row in rows:
        where = f"{path}, {line}"
        name, text = row["session_id"].strip(), row["score"].strip()
        if not name and not text:
            continue
        if not name or name in scores:
            raise ValueError(f"--scores: {where}: expected another session_id in each row, found {name!r}")
        try:
            scores[name] = math.nan if text.lower() in MISSING else float(text)
        except ValueError:
            scores[name] = math.inf
        if not is_number(scores[name]):
            raise ValueError(f"--scores: {where}: expected a finite number as the score, found {text!r:.80}")
    return scores
