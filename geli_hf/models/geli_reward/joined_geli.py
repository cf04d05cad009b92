"""A head that is kept without its backbone, and joined with it when it is loaded. Travels with every checkpoint.

A small head over a large public backbone need not carry the backbone: the folder names it and holds the digest of its
weights. `save_pretrained` and a push write the whole model.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig

HEAD_FILE, BACKBONE_FILE = "head.safetensors", "backbone.json"
BACKBONE_PREFIX = "model."
# What `from_backbone` reads from the backbone; the rest of a configuration is the head's.
OF_BACKBONE = {"text_config", "causal", "user_token_id", "assistant_token_id", "prefix_token_ids"}


def weights_digest(module: torch.nn.Module) -> str:
    """Compute a digest of names, types, shapes and bytes of a module's weights."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_head(model, folder: str | Path, backbone: str) -> None:
    """Save a reward model without its backbone.

    Args:
        model: a `GeliRewardModel` whose backbone is as `from_backbone` loads it, in float32.
        folder: gets `config.json`, `head.safetensors` and `backbone.json`.
        backbone: name of the backbone on the Hub.

    Raises:
        OSError: the folder holds a whole model.
    """
    folder = Path(folder)
    if _holds_weights(folder):
        raise OSError(f"{folder}: found a whole model, which a head would not replace; choose another folder")
    model.config.save_pretrained(folder)
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(BACKBONE_PREFIX)}
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / HEAD_FILE)
    named = {"backbone": backbone, "digest": weights_digest(model.model)}
    (folder / BACKBONE_FILE).write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")


def is_head(folder: str | Path) -> bool:
    """Tell a folder of `save_head`, unless a whole model was saved into it afterwards."""
    return (Path(folder) / BACKBONE_FILE).is_file() and not _holds_weights(Path(folder))


def _holds_weights(folder: Path) -> bool:
    return any(folder.glob("model*.safetensors"))


def join_head(model_class, folder: str | Path, default: str, dtype=None):
    """Load a head, and join it with its backbone.

    Args:
        model_class: `GeliRewardModel`.
        folder: of `save_head`.
        default: name of the backbone that `from_backbone` finds by itself, be it in a package.
        dtype: of the backbone, once it is checked; a type of torch or its name. Default: float32.

    Raises:
        OSError: the backbone can't be found, its weights are others, or the head is damaged.
        ValueError: a newer geli_hf wrote the configuration, or it has a wrong value.
    """
    folder, config_class = Path(folder), model_class.config_class
    try:
        named = json.loads((folder / BACKBONE_FILE).read_text(encoding="utf-8"))
        name, digest = named["backbone"], named["digest"]
        config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        weights = load_file(folder / HEAD_FILE)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise OSError(f"{folder}: the head is damaged ({type(error).__name__}: {error}); fetch it again") from error
    config = config_class.from_dict(config)
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    fields = {field.name for field in dataclasses.fields(config_class)} - inherited - OF_BACKBONE
    own = {field: getattr(config, field) for field in fields}
    try:
        model = model_class.from_backbone(None if name == default else name, **own)
    except OSError as error:
        raise OSError(f"{folder}: the head needs the backbone {name}, which can't be loaded: {error}") from error
    if (found := weights_digest(model.model)) != digest:
        raise OSError(
            f"{folder}: the head was learned on a backbone {name} with the digest {digest}, found one with {found}. "
            "Fetch that backbone, or learn a head anew"
        )
    expected = {name for name in model.state_dict() if not name.startswith(BACKBONE_PREFIX)}
    if different := sorted(expected ^ set(weights)):
        raise OSError(f"{folder}: the head lacks weights, or has others: {different[0]}; fetch it again")
    try:
        model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise OSError(f"{folder}: the head does not fit its configuration ({error}); fetch it again") from error
    if dtype not in (None, "auto"):
        model.model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    return model.eval()
