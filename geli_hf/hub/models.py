"""`push_to_hub` of models and of their trainers: what they save, with the project's card, in one commit."""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import CommitInfo, HfApi, ModelCard
from transformers import AutoImageProcessor
from transformers.utils import PushToHubMixin

from ..models.facial_affect.modeling_affect import FacialAffectModel
from ..models.geli_reward.modeling_geli import GeliRewardModel
from .cards import facial_affect_card, for_repo, own_card, rating_of, reward_model_card
from .folders import ModelPush, kind_and_config, model_push
from .push import CARD, full_name, read_card, send

if TYPE_CHECKING:
    from transformers import Trainer


def push_to_hub(
    model,
    repo_id: str,
    *,
    card: Callable[[str], ModelCard],
    loaded_from: str = "",
    beside: Sequence[PushToHubMixin] = (),
    commit_message: str | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    max_shard_size: int | str = "50GB",
    tags: Sequence[str] = (),
) -> CommitInfo:
    """As every model's; with the project's card, in which the words that somebody wrote on the Hub stay.

    Args:
        model: what `save_pretrained` makes a folder of.
        card: for the name of the repository the card of a model that nothing else is known of.
        loaded_from: a folder, whose own card is sent if the weights there are still these.
        beside: what is saved beside it, such as its image processor.

    Raises:
        OSError, ValueError: nothing was published; the message says what to do.
    """
    repo_id = full_name(repo_id, token)
    with tempfile.TemporaryDirectory(prefix="geli_push_") as scratch:
        folder = Path(scratch)
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        for part in beside:
            part.save_pretrained(folder)
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        files.pop(CARD, None)  # the form that PEFT leaves
        known = _card_of(Path(loaded_from), files) if loaded_from else None
        described = card(repo_id) if known is None else ModelCard(for_repo(known, repo_id))
        described.data.tags = list(dict.fromkeys([*(described.data.tags or []), *tags]))
        push = ModelPush(
            repo=repo_id,
            what=kind_and_config(folder)[0],
            files=files,
            card=str(described),
            private=bool(private),
            create_pr=create_pr,
            revision=revision,
            message=commit_message,
            description=commit_description,
            token=token,
        )
        return send(push).commit


def _card_of(folder: Path, files: Mapping[str, Path]) -> str | None:
    """The card in the folder if its weights are these; what it tells of others would be wrong."""
    weights = {name for name in files if name.endswith(".safetensors")}
    there = {path.name for path in folder.glob("*.safetensors")}
    if weights == there and all(filecmp.cmp(files[name], folder / name, shallow=False) for name in weights):
        return read_card(folder) and own_card(folder)
    return None


def push_reward_model(model: GeliRewardModel, repo_id: str, **how) -> CommitInfo:
    """`GeliRewardModel.push_to_hub`, with its tokenizer and code; see `push_to_hub`."""
    config = model.config
    card = partial(reward_model_card, base_model=config.text_config._name_or_path, rating=rating_of(config))
    return push_to_hub(model, repo_id, card=card, loaded_from=config._name_or_path, **how)


def push_face_classifier(model: FacialAffectModel, repo_id: str, **how) -> CommitInfo:
    """`FacialAffectModel.push_to_hub`, with its code, and with its image processor where that lies beside the weights
    that it was loaded from; a new one is pushed by itself. See `push_to_hub`."""
    config, beside = model.config, []
    if config._name_or_path:
        where = {"revision": getattr(config, "_commit_hash", None), "token": how.get("token")}
        with suppress(OSError):  # there is none
            beside = [AutoImageProcessor.from_pretrained(config._name_or_path, **where)]
    told = {name: getattr(processor, name) for processor in beside for name in ("scale", "shift")}
    card = partial(facial_affect_card, config=config, **told)
    return push_to_hub(model, repo_id, card=card, loaded_from=config._name_or_path, beside=beside, **how)


def push_output(
    trainer: Trainer,
    commit_message: str = "End of training",
    blocking: bool = True,
    token: str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    **card,
) -> CommitInfo | Future[CommitInfo] | None:
    """A trainer's `push_to_hub`: its output folder, without the checkpoints, in one commit, see `push_to_hub`.

    Returns:
        As the Trainer's: the commit, its future unless `blocking`, or None in all processes but one.
    """
    args = trainer.args
    trainer.callback_handler.on_push_begin(args, trainer.state, trainer.control)
    trainer.save_model(_internal_call=True)
    if not trainer.is_world_process_zero():
        return None
    trainer.create_model_card(**card)
    token = token or args.hub_token
    if trainer.hub_model_id is None:
        trainer.hub_model_id = full_name(args.hub_model_id or Path(args.output_dir).absolute().name, token)
    push = model_push(
        args.output_dir,
        trainer.hub_model_id,
        private=bool(args.hub_private_repo if private is None else private),
        revision=revision or args.hub_revision,
        message=commit_message,
        token=token,
    )
    trainer._finish_current_push()  # of a checkpoint
    return send(push).commit if blocking else HfApi().run_as_future(lambda: send(push).commit)
