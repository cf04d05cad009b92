"""Pushes of models: one commit, with the project's card."""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import CommitInfo, ModelCard

from ..models.geli_reward.modeling_geli import GeliRewardModel
from .cards import for_repo, read_own_card, reward_model_card
from .folders import ModelPush, open_folder
from .push import full_name, send

if TYPE_CHECKING:
    from ..models.attribution import HindsightAttribution


def push_to_hub(
    model,
    repo_id: str,
    *,
    card: Callable[[str], ModelCard],
    loaded_from: str = "",
    max_shard_size: int | str = "50GB",
    tags: Sequence[str] = (),
    token: str | bool | None = None,
    **how,
) -> CommitInfo:
    """Push a model with the project's card, as transformers' method of this name does without.

    Args:
        model: anything with `save_pretrained`.
        repo_id: name of the repository; without an owner, the token's.
        card: renders the card for a name of a repository.
        loaded_from: folder of the model, whose own card is sent while the weights there are the model's.
        max_shard_size: of a file of weights.
        tags: further tags of the card.
        token: in place of this machine's.
        how: `commit_message`, `commit_description`, `private`, `revision` and `create_pr`, see `Push`.

    Raises:
        OSError, ValueError: nothing was published.
    """
    repo_id = full_name(repo_id, token)
    with tempfile.TemporaryDirectory(prefix="geli_push_") as scratch:
        folder = Path(scratch)
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        kind, files = open_folder(folder)
        known = _card_with_weights(Path(loaded_from), files) if loaded_from else None
        described = card(repo_id) if known is None else ModelCard(for_repo(known, repo_id))
        described.data.tags = list(dict.fromkeys([*(described.data.tags or []), *tags]))
        push = ModelPush(repo=repo_id, what=kind, files=files, card=str(described), token=token, **how)
        return send(push).commit


def push_reward_model(model: GeliRewardModel, repo_id: str, **how) -> CommitInfo:
    """Push a reward model, its tokenizer and its code; see `push_to_hub` for the arguments."""
    config = model.config
    card = partial(reward_model_card, config=config)
    return push_to_hub(model, repo_id, card=card, loaded_from=config._name_or_path, **how)


def push_attribution(attribution: HindsightAttribution, repo_id: str, **how) -> CommitInfo:
    """Push an attribution, with its reward model's files; see `push_to_hub` for the arguments."""
    config = attribution.model.config
    card = partial(reward_model_card, config=config, signals=attribution.signals)
    return push_to_hub(attribution, repo_id, card=card, loaded_from=config._name_or_path, **how)


def _card_with_weights(folder: Path, files: Mapping[str, Path]) -> str | None:
    """The folder's own card if its weights are these: it would be wrong about others."""
    weights = {name for name in files if name.endswith(".safetensors")}
    there = {path.name for path in folder.glob("*.safetensors")}
    if weights == there and all(filecmp.cmp(files[name], folder / name, shallow=False) for name in weights):
        return read_own_card(folder)
    return None
