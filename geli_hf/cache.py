"""Where what was computed once is kept, and how it is written: corpora, features, models and reports of a run.

What is there is whole. A writer may be killed at any moment; what it leaves has another name and is never read.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .toolkit_geli import no_room


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
    except OSError as error:
        if not no_room(error):
            raise
        raise OSError(
            f"{target}: there is no room left for it ({error}), and nothing of it was kept. Delete something, or name "
            "a folder on a larger disk; that of the cache is GELI_HF_CACHE"
        ) from error
    finally:
        _remove(partial)


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
