"""What the code of every checkpoint has in common: the version that wrote it, and what to do where it can't be had.

This file travels with every checkpoint, beside what imports it: it imports nothing of the package.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants

TOOLKIT_VERSION = "0.1.0"  # of the geli_hf that writes a configuration; a newer one's may mean what this can't know


class OfToolkit:
    """Of a configuration: it says which version wrote it, and one of a newer version is refused."""

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """As every configuration's.

        Raises:
            ValueError: a newer geli_hf wrote it.
        """
        written = str(config_dict.get("geli_hf_version") or TOOLKIT_VERSION)
        if _release(written) > _release(TOOLKIT_VERSION):
            raise ValueError(
                f"this {cls.model_type} was written by geli-hf {written}, which is newer than {TOOLKIT_VERSION} here. "
                "Upgrade geli-hf; or, where it isn't imported, load with trust_remote_code=True the code that lies "
                "beside the weights"
            )
        return super().from_dict(config_dict, **kwargs)

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.geli_hf_version = TOOLKIT_VERSION


@contextmanager
def loading(name: str | os.PathLike, /, **where) -> Iterator[None]:
    """Something is loaded in this block, whose errors say what to do.

    Args:
        name, where: as of `what_to_do`.

    Raises:
        OSError: as it was, or with more to its message; also where safetensors are damaged.
    """
    try:
        yield
    except OSError as error:
        hint = what_to_do(error, name, **where)
        # One door leads to another, and meanwhile others fill or empty the disk: how much is free may not be the same.
        if not hint or hint.partition(":")[0] in str(error):
            raise
        raise OSError(f"{error}{hint}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # known by its name: a file that travels imports little
            raise
        raise OSError(
            f"{name}: the weights can't be read ({error}): their file is damaged, or was cut short. Fetch it or save "
            "the model again"
        ) from error


def what_to_do(error: Exception, name: str | os.PathLike, /, *, repo_type: str = "model", **where) -> str:
    """What to say beside an error of the Hub's client: that its cache is full, or that the Hub may not be asked.

    Args:
        name: of a repository, or a folder.
        where: `cache_dir`, `revision` and `token`, as it was loaded with; other arguments are not looked at.

    Returns:
        Words to put behind the message; none if it is something else.
    """
    if no_room(error):
        folder = Path(where.get("cache_dir") or constants.HF_HUB_CACHE)
        takes = _size(str(name), repo_type, where.get("revision"), where.get("token"))
        return (
            f"\nThere is no room left for it in {folder}: {_megabytes(_free(folder))} are free there{takes}. Delete "
            "something (`hf cache ls` lists what lies there, `hf cache rm` and `hf cache prune` delete it), or let "
            "HF_HOME name a folder on a larger disk, and load it again: what was written by half is not used."
        )
    if constants.HF_HUB_OFFLINE and _may_be_on_hub(name):
        command = f"run `hf download {name}`" if repo_type == "model" else "load it"
        return (
            " HF_HUB_OFFLINE is set, so that only what was loaded here before can be: unset it, or "
            f"{command} once while the Hub can be reached, or give a local folder."
        )
    return ""


def no_room(error: BaseException | None) -> bool:
    """Whether this is about a disk that is full, a quota, or a limit to the size of a file."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        error = error.__cause__ or error.__context__
    return False


def _may_be_on_hub(name: str | os.PathLike) -> bool:
    return not os.path.exists(name) and re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", os.fspath(name)) is not None


def _size(name: str, repo_type: str, revision: str | None, token) -> str:
    """How much all files of a repository take, in words, if the Hub tells."""
    try:
        info = HfApi(token=token).repo_info(name, repo_type=repo_type, revision=revision, files_metadata=True)
        return f", and all of {name} takes {_megabytes(sum(file.size for file in info.siblings))}"
    except Exception:
        return ""


def _free(folder: Path) -> int:
    """Bytes, where the folder is or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _release(version: str) -> tuple[int, ...]:
    """What may change the meaning of a configuration: major and minor version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
