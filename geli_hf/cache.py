"""Where what was computed once is kept: corpora as Arrow files, turn features as memory-mapped arrays."""

import os
from pathlib import Path


def cache_root() -> Path:
    """`$GELI_HF_CACHE`, or `~/.cache/geli_hf`."""
    return Path(os.environ.get("GELI_HF_CACHE") or Path.home() / ".cache" / "geli_hf")
