"""Readers of rated dialogue corpora; each gives Session rows (`geli_hf.sessions`)."""

from importlib import import_module
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..cache import atomic_path, cache_root
from .reading import ReadReport, read_corpus, read_report

__all__ = ["CORPORA", "ReadReport", "load_sessions", "read_report"]

CORPORA = ("sample", "candor", "topical_chat", "uss", "esconv", "chitchat")
SAMPLE_CONVERSATIONS = 300
# Part of the sample's name on disk: raise it when `write_sample` writes something else for the same arguments.
SAMPLE_VERSION = 1


def load_sessions(
    name_or_path: str | Path,
    *,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **options: Any,
) -> Dataset:
    """Load the rated sessions of a corpus as a memory-mapped `datasets.Dataset` of Session rows.

    `read_report(sessions)` says how many sessions were read, and how many were skipped and why.

    Args:
        name_or_path: `"candor"`, `"topical_chat"`, `"uss"` or `"esconv"`, which are read from `data_dir`;
            `"chitchat"`, from there or else from the package `chitchat-dataset`; `"sample"`, which the project makes
            itself; or rows that have the Session columns already: a `.jsonl` or `.parquet` file, a folder of such
            files, or a dataset on the Hub; or, with `format`, a chat log.
        data_dir: folder of the corpus as it was published.
        cache_dir: folder for what was read. Default: `sessions` under `geli_hf.cache.cache_root()`.
        options: of the reader, see `geli_hf.data.<name>.open_corpus`; of the sample: `conversations` and `seed`; of a
            chat log: `format`, as "auto", and what else `geli_hf.data.logs.open_corpus` takes.

    Returns:
        One row for each session and rater.

    Raises:
        SessionError: no session could be read; the message holds a table of reasons.
        FileNotFoundError: the corpus is not there.
        TypeError: the reader has no such option.
        ValueError: `data_dir` is missing or makes no sense, or an option can't have this value.
    """
    name = reader = str(name_or_path)
    if data_dir is not None and name not in CORPORA[1:]:
        raise ValueError(f"data_dir: {name!r} is read from no folder; of the corpora {', '.join(CORPORA[1:])} are")
    if name == "sample":
        reader = "candor"
        data_dir, options = _sample(cache_dir, **options)
    elif name not in CORPORA:
        reader, data_dir = "logs" if "format" in options else "rows", name
    elif data_dir is None and name != "chitchat":
        raise ValueError(f"data_dir: say where {name} lies, as in load_sessions({name!r}, data_dir=...)")
    open_corpus = import_module(f".{reader}", __name__).open_corpus
    corpus = open_corpus(data_dir, **options)
    options.pop("num_proc", None)  # it changes no row
    return read_corpus(corpus, {"reader": reader, **options}, cache_dir)


def _sample(
    cache_dir: str | Path | None, *, conversations: int = SAMPLE_CONVERSATIONS, seed: int = 0, **options: Any
) -> tuple[Path, dict[str, Any]]:
    """Write the sample in CANDOR's layout unless it is there; return its folder and the options of its reader."""
    from ..simulator.corpus import write_sample

    folder = Path(cache_dir or cache_root()) / "sample" / f"v{SAMPLE_VERSION}-{conversations}-{seed}"
    if not folder.exists():
        with atomic_path(folder) as partial:
            write_sample(partial, conversations=conversations, seed=seed)
    return folder, options
