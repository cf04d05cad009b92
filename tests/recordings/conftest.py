"""Recordings to annotate: an astronaut who is seen, then not, and what was said meanwhile."""

from pathlib import Path

import av
import numpy as np
import pytest
from faces import grey_astronaut

TRANSCRIPT = """WEBVTT

00:00.000 --> 00:00.900
Robot: I taught my vacuum cleaner to sing, and now it never stops.

00:01.000 --> 00:01.900
Anna: Oh dear.

00:02.000 --> 00:02.900
Robot: The neighbours have begun to dance.
"""


def film(path: Path, *, seconds: float = 3.0, gone: float = 2.0, rate: int = 10) -> Path:
    """A face in the picture until `gone` seconds, then a wall."""
    face, wall = grey_astronaut()[:256, 64:384], np.full((256, 320), 128, np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 320, 256, "yuv420p"
        for number in range(int(seconds * rate)):
            image = face if number / rate < gone else wall
            frame = av.VideoFrame.from_ndarray(np.repeat(image[..., None], 3, 2), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def recordings(tmp_path, monkeypatch) -> Path:
    """A folder with two recordings, `one` and `two`, and their transcripts; the cache is empty."""
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name, gone in (("one", 2.0), ("two", 0.5)):
        film(folder / f"{name}.mp4", gone=gone)
        (folder / f"{name}.vtt").write_text(TRANSCRIPT, encoding="utf-8")
    return folder
