"""Readers of rated dialogue corpora: each gives Session rows (`geli_hf.sessions`)."""

from importlib import import_module
from inspect import signature
from pathlib import Path

from datasets import Dataset

from ..cache import cache_root, whole
from .reading import ReadReport, read_corpus, read_report

__all__ = ["CORPORA", "ReadReport", "load_sessions", "read_report"]

CORPORA = ("sample", "candor", "topical_chat", "uss", "esconv", "soda")
ON_THE_HUB = {"soda": "allenai/soda"}
SAMPLE_CONVERSATIONS = 300
# Part of the sample's name on disk: raise it when `write_sample` writes something else for the same arguments.
SAMPLE_VERSION = 1


def load_sessions(
    name_or_path: str | Path,
    *,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **options,
) -> Dataset:
    """Rated sessions of a corpus as a `datasets.Dataset` of Session rows, memory-mapped.

    Args:
        name_or_path: `"candor"`, `"topical_chat"`, `"uss"` or `"esconv"`, which are read from `data_dir`; `"soda"`,
            from there or else from the Hub; `"sample"`, which the project makes itself; or else rows that have the
            Session columns already: a `.jsonl` or `.parquet` file, a folder of such, or a dataset on the Hub.
        data_dir: where the corpus lies, as it was published.
        cache_dir: where what was read is kept. Default: `sessions` under `geli_hf.cache.cache_root()`.
        options: of the reader, see `geli_hf.data.<name>.open_corpus`; of the sample: `conversations` and `seed`.

    Raises:
        SessionError: no session could be read; the message holds a table of reasons.
        FileNotFoundError, TypeError, ValueError: the corpus is not there, or an option does not exist.

    `read_report(sessions)` tells how many sessions were read, and how many were skipped and why.
    """
    name = str(name_or_path)
    if name == "sample":
        if data_dir is not None:
            raise ValueError("data_dir: the sample is made, not read from a folder; use cache_dir to say where")
        data_dir, options = _sample(cache_dir, **options)
    elif name in ON_THE_HUB and data_dir is None:
        data_dir = ON_THE_HUB[name]
    elif name in CORPORA and data_dir is None:
        raise ValueError(f"data_dir: say where {name} lies, as in load_sessions({name!r}, data_dir=...)")
    elif name not in CORPORA:
        if data_dir is not None:
            raise ValueError(
                f"name_or_path: {name!r} is no corpus that is read from a data_dir; those are {', '.join(CORPORA[1:])}"
            )
        data_dir = name
    module = {"sample": "candor"}.get(name, name) if name in CORPORA else "rows"
    open_corpus = import_module(f".{module}", __name__).open_corpus
    known = list(signature(open_corpus).parameters)[1:]
    if unknown := set(options) - set(known):
        if name == "sample":
            known += ["conversations", "seed"]
        raise TypeError(f"{name}: no option {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    corpus = open_corpus(data_dir, **options)
    options.pop("num_proc", None)  # the same rows, whoever reads them
    return read_corpus(corpus, {"reader": module, **options}, cache_dir)


def _sample(cache_dir, *, conversations: int = SAMPLE_CONVERSATIONS, seed: int = 0, **options) -> tuple[Path, dict]:
    """Where the sample lies in CANDOR's layout, made if it isn't there, and the options left for its reader."""
    from ..simulator.corpus import write_sample

    folder = Path(cache_dir or cache_root()) / "sample" / f"v{SAMPLE_VERSION}-{conversations}-{seed}"
    if not folder.exists():
        with whole(folder) as partial:
            write_sample(partial, conversations=conversations, seed=seed)
    return folder, options
