"""Where what was computed once is kept, and how it is written: corpora, features, models and reports of a run.

What is there is whole. A writer may be killed at any moment; what it leaves has another name and is never read.
"""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants


def cache_root() -> Path:
    """`$GELI_HF_CACHE`, or `~/.cache/geli_hf`."""
    return Path(os.environ.get("GELI_HF_CACHE") or Path.home() / ".cache" / "geli_hf")


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A path to write a file or a folder to. It is renamed to `target` at the end of the block, unless that fails.

    A file replaces one that is there. A folder does not: another process was faster, and what it wrote is the same.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}{_suffix(os.getpid())}")
    for left in target.parent.glob(f".*{_suffix('[0-9]*')}"):
        if left == partial or not _runs(int(left.suffixes[-2][1:])):
            _remove(left)
    try:
        yield partial
        try:
            os.replace(partial, target)
        except OSError:
            if not (partial.is_dir() and target.is_dir()):
                raise
    finally:
        _remove(partial)


def offline_hint(name: str | os.PathLike, command: str = "hf download {}") -> str:
    """Return what to do if `name` is not in the cache and the Hub may not be asked; "" where that is not the cause.

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
    """With the machine's name: a process of another one that shares the folder can't be asked whether it runs."""
    return f".{socket.gethostname()}.{process}.partial"


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
