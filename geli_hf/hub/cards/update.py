"""Cards in folders: a save rewrites the generated parts and the figures, and keeps what a person wrote.

A person's words are all text outside the marks, marked parts that were taken out, and the front matter, except for
figures measured on the same data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import RepoCard
from transformers.utils import logging

from ...cache import write_text
from .base import CARD

logger = logging.get_logger(__name__)

NAMED = re.compile(r"^<!-- geli: (.+?) -->$", re.MULTILINE)
FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*$\n?", re.DOTALL | re.MULTILINE)
GENERATED = re.compile(r"<!-- generated: ([\w ]+) -->\n(.*?)<!-- /generated: \1 -->", re.DOTALL)


def save_card(card: RepoCard, folder: str | Path, *, earlier: str | None = None) -> str:
    """Write a card into a folder; see `updated` for the words that stay of the card that is there.

    A card whose front matter is not YAML stays as it is, with a warning.

    Args:
        card: the new card.
        folder: its folder.
        earlier: text of the folder's own card, where a trainer has overwritten it with a form.

    Returns:
        The text of the folder's card.
    """
    path = Path(folder) / CARD
    text, own = str(card), read_own_card(folder) or earlier
    if own is not None:
        try:
            text = updated(own, card)
        except ValueError as error:
            logger.warning(f"{path}: the card is left as it is: {error}")
            return own
    write_text(path, text)
    return text


def read_own_card(folder: str | Path) -> str | None:
    """Text of a folder's card; None if there is none, or only the form of a library."""
    path = Path(folder) / CARD
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8-sig")
    return None if is_form(text) else text


def is_form(card: str) -> bool:
    """True for the form that transformers, PEFT or a trainer writes for a person to fill in."""
    return ("[More Information Needed]" in card and "# Model Card for " in card) or "generated_from_trainer" in card


def keep_from_peft(model: Any) -> None:
    """Stop a `PeftModel` from adding its tags and the path of its base model to the card where it is saved."""
    model.create_or_update_model_card = lambda folder: None


def updated(card: str, new: RepoCard) -> str:
    """Update a card with the generated parts of a new one, if both have them.

    The front matter stays and gets what it lacks; results in `model-index` are the new ones, and old ones on other
    data. A card without any mark is a person's own and is returned as it is.

    Raises:
        ValueError: the front matter of the card is not YAML.
    """
    if not GENERATED.search(card):
        return card
    own, fresh = read_metadata(card), new.data.to_dict()
    parts = {found[1]: found[0] for found in GENERATED.finditer(new.content)}
    text = GENERATED.sub(lambda found: parts.get(found[1], found[0]), FRONT_MATTER.sub("", card, count=1))
    both = fresh | own
    if "model-index" in fresh:
        [model] = fresh["model-index"]
        measured = [result["dataset"] for result in model["results"]]
        old = [result for entry in own.get("model-index") or [] for result in entry.get("results", [])]
        others = [result for result in old if result["dataset"] not in measured]
        both["model-index"] = [model | {"results": [*model["results"], *others]}]
    return f"---\n{yaml.safe_dump(both, sort_keys=False, allow_unicode=True)}---\n{text}"


def read_metadata(card: str) -> dict[str, Any]:
    """The front matter of a card; {} without one.

    Raises:
        ValueError: it is not a YAML mapping.
    """
    found = FRONT_MATTER.match(card)
    try:
        data = (yaml.safe_load(found[1]) if found else None) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"the front matter is not YAML: {error}") from None
    if not isinstance(data, Mapping):
        raise ValueError(f"the front matter is not a mapping of names to values: {data!r:.80}")
    return dict(data)


def with_base(card: str, old: str, base: str) -> str:
    """Put the name of the base model on the Hub into an adapter's card, in place of its name here."""
    described = RepoCard(card.replace(f"`{old}`", f"`{base}`"), ignore_metadata_errors=True)
    described.data.base_model = base
    return str(described)


def for_repo(card: str, repo_id: str) -> str:
    """Put the name of a repository in place of the folder's: in the title and in the code that loads it."""
    found = NAMED.search(card)
    if not found:
        return card
    name = re.escape(found[1])
    card = re.sub(rf"^(# |- name: |<!-- geli: ){name}(?=$| -->$)", rf"\g<1>{repo_id}", card, flags=re.MULTILINE)
    return card.replace(f'"{found[1]}"', f'"{repo_id}"')
