"""Many videos through `VideoAffect`, which takes minutes each.

The cache keeps the tables, so that a run that was stopped goes on. A broken file costs nothing of the others.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from ..cache import atomic_path, cache_root
from . import VideoAffect, face_classifier, face_detector

VERSION = 2  # to be raised when the same video and settings give another table


def watch_all(videos: Sequence[Path], *how: Any, jobs: int = 1) -> Iterator[pd.DataFrame | Exception]:
    """Read the face in each video, in their order, with a bar.

    Args:
        videos: paths.
        how: settings, as `load_video_affect` takes them.
        jobs: processes. With one, the bar counts seconds of video, with several it counts videos.

    Yields:
        A table of `VideoAffect`, or the error that came instead.
    """
    if jobs == 1:
        for video in videos:
            try:
                yield _watch(video, *how, progress=True)
            except Exception as error:
                yield error
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_take_one_core) as pool:
        tables = [pool.submit(_watch, video, *how, progress=False) for video in videos]
        for table in tqdm(tables, unit="video"):
            yield table.exception() or table.result()


def _take_one_core() -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _watch(video: Path, *how: Any, progress: bool) -> pd.DataFrame:
    affect = load_video_affect(*how)
    cached = cache_root() / "affect" / f"{_key(video, affect)}.parquet"
    if not cached.exists():
        table = affect(video, progress=progress)
        with atomic_path(cached) as partial:
            table.to_parquet(partial)
    return pd.read_parquet(cached)


@lru_cache(maxsize=1)
def load_video_affect(
    backend: str = "geli", detector: str = "cascade", fps: float = 5.0, face: str = "largest", device: str = "cpu"
) -> VideoAffect:
    """Load the reader of videos with these settings, once in each process.

    Args:
        backend: reads a face: see `geli_hf.affect.face_classifier`.
        detector: finds it: see `geli_hf.affect.face_detector`.
        fps: frames looked at per second of video.
        face: which one, if several are seen: see `geli_hf.affect.VideoAffect`.
        device: of the backend. It is no part of the cache's key: figures differ by rounding alone.

    Raises:
        ImportError, OSError, RuntimeError, ValueError: see `face_classifier`, `face_detector` and `VideoAffect`.
    """
    return VideoAffect(face_classifier(backend, device), face_detector(detector), fps=fps, face=face)


def _key(video: Path, affect: VideoAffect) -> str:
    status = video.stat()
    key = [VERSION, str(video.resolve()), status.st_size, status.st_mtime_ns, affect.fingerprint]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
