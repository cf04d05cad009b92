"""The cache folder of the package, and atomic writing of files and folders.

A file or folder that exists is complete. A writer may be killed at any moment: its incomplete file has another name,
and is never read.
"""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from huggingface_hub import constants


def cache_root() -> Path:
    """Return `$GELI_HF_CACHE`, or `~/.cache/geli_hf`."""
    return Path(os.environ.get("GELI_HF_CACHE") or Path.home() / ".cache" / "geli_hf")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path to write a file or a folder to, and rename it to `target` when the block succeeds.

    A file replaces an existing one. A folder does not: another process was faster, and wrote the same.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}{_suffix(os.getpid())}")
    for path in target.parent.glob(f".*{_suffix('[0-9]*')}"):
        if path == partial or not psutil.pid_exists(int(path.suffixes[-2][1:])):
            _remove(path)
    try:
        yield partial
        try:
            os.replace(partial, target)
        except OSError:
            if not (partial.is_dir() and target.is_dir()):
                raise
    finally:
        _remove(partial)


def write_text(file: Path, text: str) -> None:
    """Write a file, of which no part is left if the write is interrupted."""
    with atomic_path(file) as partial:
        partial.write_text(text, encoding="utf-8")


def offline_hint(name: str | os.PathLike, command: str = "hf download {}") -> str:
    """Say what to do about a `name` that is not in the cache while HF_HUB_OFFLINE is set; "" if it is not set.

    Args:
        name: repository on the Hub, or a folder.
        command: fetches it, with `{}` in the place of its name.
    """
    on_hub = not os.path.exists(name) and re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", os.fspath(name)) is not None
    if not (constants.HF_HUB_OFFLINE and on_hub):
        return ""
    return (
        f" HF_HUB_OFFLINE is set: unset it, run `{command.format(name)}` once while the Hub can be reached, or give a "
        "local folder."
    )


def _suffix(process: int | str) -> str:
    """Name process and machine: only this machine's processes can be asked if they are running."""
    return f".{socket.gethostname()}.{process}.partial"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
