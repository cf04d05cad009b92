"""Watching many videos. It takes minutes each and is done once: what the faces showed is kept in the cache, so that a
run that was stopped goes on where it was, and a broken file costs nothing of the others."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import local

import pandas as pd
from tqdm import tqdm

from ..cache import cache_root, whole
from . import VideoAffect, face_classifier, face_detector

VERSION = 1  # of what a video is made into; to be raised when the same video and settings give another table


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
    affect = affect_of(how)
    kept = cache_root() / "affect" / f"{_key(video, affect)}.parquet"
    if not kept.exists():
        table = affect(video, progress=progress)
        with whole(kept) as partial:
            table.to_parquet(partial)
    return pd.read_parquet(kept)


@lru_cache(maxsize=1)
def affect_of(how: Watching) -> VideoAffect:
    """What watches, loaded once in each process."""
    return VideoAffect(face_classifier(how.backend), face_detector(how.detector), fps=how.fps, face=how.face)


def _key(video: Path, affect: VideoAffect) -> str:
    status = video.stat()
    told = [VERSION, str(video.resolve()), status.st_size, status.st_mtime_ns, affect.fingerprint]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
