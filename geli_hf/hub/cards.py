"""The card that goes with a push: the folder's own, or else a template filled with what its files tell."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset, DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from .folders import ModelFolder

TEMPLATES = Path(__file__).parent / "templates"  # model_cards/ of the repository
TEMPLATE_OF = {
    "reward model": "reward_model",
    "attribution": "attribution",
    "policy": "policy",
    "adapter": "policy",
}
NOT_TOLD = "Not told."
MEANING = {
    "session_id": "of its own for every row",
    "conversation_id": "the conversation that was rated, perhaps by several people",
    "messages": "`role` and `content`; the assistant is the one whose turns are rewarded, the user is the rater",
    "score": "the rating of the session",
    "scores": "further ratings of the session, by name",
    "rater_id": "who rated",
    "feedback": "signals by name, each with one number per turn of the assistant",
    "start": "seconds, one per message",
    "stop": "seconds, one per message",
    "behaviour": "the listener's behaviour in words, one text per turn of the assistant",
    "turn_rating": "a rating per turn of the assistant: for evaluation, never for training",
}


def own_card(folder: Path) -> str | None:
    """The text of the folder's README.md; None if there is none, or only the empty form that PEFT leaves."""
    path = folder / "README.md"
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8")
    form = ModelCard.from_template(ModelCardData()).text.strip()
    body = re.sub(r"\A---\n.*?^---\n", "", text, flags=re.DOTALL | re.MULTILINE).strip()
    if body.startswith(form) and re.fullmatch(
        r"\s*(### Framework versions\s+- PEFT \S+)?\s*", body.removeprefix(form)
    ):
        return None
    return text


def model_card(folder: ModelFolder, repo: str) -> str:
    """A card of what the folder's own files tell. What they do not tell is said to be unknown, or left out.

    Raises:
        FileNotFoundError: a face classifier has no card that could be written without its figures.
    """
    if folder.kind not in TEMPLATE_OF:
        raise FileNotFoundError(
            f"{folder.path}: no README.md, and the card of a {folder.kind} is nothing without figures. "
            "examples/train_affect.py writes one beside the model that it chose; or write a README.md there"
        )
    if folder.kind == "adapter":
        base = folder.config["base_model_name_or_path"]
    else:
        base = (folder.config.get("text_config") or {}).get("_name_or_path") or ""
    filled = {"signals": "none", "rating": NOT_TOLD}
    if "score_mean" in folder.config:
        mean, std = folder.config["score_mean"], folder.config["score_std"]
        filled["rating"] = f"{NOT_TOLD} In training its mean was {mean:.3g}, and its standard deviation {std:.3g}."
    if folder.kind == "attribution":
        signals = json.loads(folder.files["hindsight.json"].read_text(encoding="utf-8"))["signals"]
        filled["signals"] = ", ".join(f"`{name}`" for name in signals) or "none"
    card = ModelCard.from_template(
        ModelCardData(),
        template_path=str(TEMPLATES / f"{TEMPLATE_OF[folder.kind]}.md"),
        repo_id=repo,
        license="other",
        language="en",
        base_model=base or "none/none",
        method="trl",
        training_data=NOT_TOLD,
        recipe=NOT_TOLD,
        **filled,
    )
    # Nobody has said under which licence this may be given on, or in which language the sessions are.
    card.data.license = card.data.language = None
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", base) or Path(base).exists():
        card.data.base_model = None
    if folder.kind in ("policy", "adapter"):  # by which method it was made, or with TRL at all, was not told
        card.data.tags = [tag for tag in card.data.tags if tag != "trl"]
    if folder.kind == "adapter":
        card.data.library_name = "peft"
    return str(card)


def dataset_card(splits: Mapping[str, Dataset], repo: str, *, source: str, raters: str) -> str:
    features = next(iter(splits.values())).features
    card = DatasetCard.from_template(
        DatasetCardData(),
        template_path=str(TEMPLATES / "dataset.md"),
        repo_id=repo,
        license="other",
        language="en",
        source=source,
        raters=raters,
        columns=_table(("column", ""), [(f"`{name}`", MEANING[name]) for name in features]),
        sizes=_table(
            ("split", "sessions", "conversations"),
            [(f"`{name}`", len(part), len(set(part["conversation_id"]))) for name, part in splits.items()],
        ),
    )
    card.data.license = card.data.language = None
    return str(card)


def with_schema(card: str, features: Features, sizes: Mapping[str, tuple[int, int]], download: int) -> str:
    """The card, whoever wrote it, with `configs` and `dataset_info` in its front matter; nothing else of it changes.

    Args:
        sizes: rows and bytes of each split.
        download: bytes of all files.
    """
    described = DatasetCard(card, ignore_metadata_errors=True)
    for stale in ("configs", "dataset_info"):
        if stale in described.data:
            described.data[stale] = None
    splits = SplitDict()
    for name, (rows, size) in sizes.items():
        splits.add(SplitInfo(name, num_bytes=size, num_examples=rows))
    total = sum(size for _, size in sizes.values())
    info = DatasetInfo(features=features, splits=splits, download_size=download, dataset_size=total)
    DatasetInfosDict({"default": info}).to_dataset_card_data(described.data)
    files = [{"split": name, "path": f"data/{name}-*"} for name in sizes]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(described.data)
    return str(described)


def _table(head: tuple, rows: list[tuple]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
