"""Recordings to annotate: an astronaut who is seen, then not, and what was said meanwhile."""

from pathlib import Path

import pytest
from faces import TRANSCRIPT, film


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
