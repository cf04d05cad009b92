"""Pushes of models: one commit, with the project's card."""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import CommitInfo, ModelCard

from ..models.attribution import HindsightAttribution
from ..models.geli_reward.modeling_geli import GeliRewardModel
from .cards import for_repo, read_own_card, reward_model_card
from .folders import ModelPush, open_folder
from .push import full_name, send


def push_to_hub(
    model: GeliRewardModel | HindsightAttribution,
    repo_id: str,
    *,
    max_shard_size: int | str = "50GB",
    tags: Sequence[str] = (),
    token: str | bool | None = None,
    **how,
) -> CommitInfo:
    """Push a model, its tokenizer and its code with the project's card; transformers' method writes no card.

    The card is that of the folder that the model was loaded from, as long as the weights there are the model's.

    Args:
        model: a reward model; or an attribution, which goes with its reward model's files.
        repo_id: name of the repository; without an owner, the token's.
        max_shard_size: of a file of weights.
        tags: further tags of the card.
        token: in place of this machine's.
        how: `commit_message`, `commit_description`, `private`, `revision` and `create_pr`, see `Push`.

    Raises:
        OSError, ValueError: nothing was published.
    """
    repo_id = full_name(repo_id, token)
    reward_model, signals = (model, None) if isinstance(model, GeliRewardModel) else (model.model, model.signals)
    config = reward_model.config
    with tempfile.TemporaryDirectory(prefix="geli_push_") as scratch:
        folder = Path(scratch)
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        kind, files = open_folder(folder)
        known = _card_with_weights(Path(config._name_or_path), files) if config._name_or_path else None
        card = reward_model_card(repo_id, config=config, signals=signals)
        described = card if known is None else ModelCard(for_repo(known, repo_id))
        described.data.tags = list(dict.fromkeys([*(described.data.tags or []), *tags]))
        push = ModelPush(repo=repo_id, what=kind, files=files, card=str(described), token=token, **how)
        return send(push).commit


def _card_with_weights(folder: Path, files: Mapping[str, Path]) -> str | None:
    """The folder's own card if its weights are these: it would be wrong about others."""
    weights = {name for name in files if name.endswith(".safetensors")}
    there = {path.name for path in folder.glob("*.safetensors")}
    if weights == there and all(filecmp.cmp(files[name], folder / name, shallow=False) for name in weights):
        return read_own_card(folder)
    return None
