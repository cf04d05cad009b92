"""Sessions to push: split by split, with hashed ids of raters, as Parquet."""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from huggingface_hub import DatasetCard

from ..cache import atomic_path, cache_root
from ..data import CORPORA, load_sessions
from ..data.rows import files_of_rows
from .push import Push

SPLITS = ("train", "validation", "test")
# CANDOR's conversations are UUIDs, its people have the 24 hexadecimal digits of a crowd-working platform.
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
PERSON = re.compile(r"[0-9a-f]{24}", re.IGNORECASE)


def read_splits(name: str, *, data_dir: str | None, options: Mapping) -> dict[str, Dataset]:
    """Read sessions by split: those of a folder whose file names begin with a split, else all as "train".

    Args:
        name: corpus, file or folder, see `load_sessions`.
        data_dir: folder of the corpus.
        options: of the reader; a `split` selects one.
    """
    folder = Path(name)
    if name not in CORPORA and folder.is_dir() and "split" not in options:
        files = files_of_rows(folder)
        found = [split for split in SPLITS if any(file.name.startswith(split) for file in files)]
        if found:
            return {split: load_sessions(name, split=split, **options) for split in found}
    split = options.get("split")
    title = split if isinstance(split, str) and re.fullmatch(r"\w+(\.\w+)*", split) else "train"
    return {title: load_sessions(name, data_dir=data_dir, **options)}


def from_candor(name: str, splits: Mapping[str, Dataset]) -> bool:
    """True for rows of CANDOR, by the name of the corpus or by the form of the ids.

    The sample's ids have the same form: in a file it passes for CANDOR.

    Args:
        name: see `read_splits`.
        splits: Session rows by split.
    """
    if name in CORPORA:
        return name == "candor"
    for sessions in splits.values():
        columns = [sessions["conversation_id"], sessions["session_id"]]
        for conversation, session in zip(*columns):
            of_person = session.removeprefix(f"{conversation}/")
            if UUID.fullmatch(conversation) and of_person != session:
                return True
        if "rater_id" in sessions.column_names and any(map(PERSON.fullmatch, sessions.unique("rater_id"))):
            return True
    return False


def hash_raters(sessions: Dataset) -> Dataset:
    """Replace the ids of raters by keyed hashes, in `rater_id` and where it is a word of `session_id`.

    A rater has the same hash in every push from this machine. The key stays in the cache of `geli_hf`; without it
    nobody can search for a known id.
    """
    if "rater_id" not in sessions.column_names:
        return sessions
    key = _key()

    def renamed(row: dict) -> dict:
        if not row["rater_id"]:
            return {"rater_id": "", "session_id": row["session_id"]}
        name = hmac.new(key, row["rater_id"].encode(), hashlib.sha256).hexdigest()[:16]
        whole_word = rf"(?<![^\W_]){re.escape(row['rater_id'])}(?![^\W_])"
        return {"rater_id": name, "session_id": re.sub(whole_word, name, row["session_id"])}

    return sessions.map(renamed, features=sessions.features, load_from_cache_file=False, keep_in_memory=True)


def _key() -> bytes:
    path = cache_root() / "hub" / "rater_key"
    if not path.exists():
        with atomic_path(path) as partial, open(os.open(partial, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
    return path.read_bytes()


@dataclass(frozen=True, kw_only=True)
class SessionsPush(Push):
    """A push of sessions: Parquet files of an earlier push go, and what the card on the Hub says of their columns."""

    repo_type = "dataset"
    stale = ("data/*.parquet",)

    def merged(self, card: str) -> str:
        return without_schema(card)


def write_parquet(splits: Mapping[str, Dataset], folder: Path) -> dict[str, Path]:
    """Write each split as one Parquet file.

    Args:
        splits: Session rows by split.
        folder: where to write.

    Returns:
        The files by their path in the repository.
    """
    files = {}
    for split, sessions in splits.items():
        name = f"data/{split}-00000-of-00001.parquet"
        files[name] = folder / name
        files[name].parent.mkdir(exist_ok=True)
        sessions.to_parquet(files[name])
    return files


def without_schema(card: str) -> str:
    """Take out of a card's front matter what it says of files and columns, which the Parquet files tell themselves."""
    described = DatasetCard(card, ignore_metadata_errors=True)
    for stale in ("configs", "dataset_info"):
        if stale in described.data:
            described.data[stale] = None
    return str(described)
