"""A head that is kept without its backbone, and joined with it when it is loaded. Travels with every checkpoint.

A small head over a large public backbone need not carry the backbone: the folder names it and holds the digest of its
weights. `save_pretrained` and a push write the whole model.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HEAD_FILE, BACKBONE_FILE = "head.safetensors", "backbone.json"
# What `from_backbone` reads from the backbone; the rest of a configuration is the head's.
FROM_BACKBONE = {"text_config", "causal", "user_token_id", "assistant_token_id", "prefix_token_ids"}


def weights_digest(module: torch.nn.Module) -> str:
    """Compute a digest of names, types, shapes and bytes of a module's weights."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def save_head(model, folder: str | Path, backbone: str) -> None:
    """Save a reward model without its backbone.

    Args:
        model: a `GeliRewardModel` whose backbone is frozen and in float32.
        folder: gets `config.json`, `head.safetensors` and `backbone.json`.
        backbone: the name of the backbone on the Hub.
    """
    folder = Path(folder)
    model.config.save_pretrained(folder)
    # Heads of a name on the Hub are small, and half of the precision of float32 would move no reward visibly.
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("model.")}
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / HEAD_FILE)
    named = {"backbone": backbone, "digest": weights_digest(model.model)}
    (folder / BACKBONE_FILE).write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")


def is_head(folder: str | Path) -> bool:
    """Tell a folder of `save_head`."""
    return (Path(folder) / BACKBONE_FILE).is_file()


def join_head(cls, folder: str | Path, default_backbone: tuple[str, str], **kwargs):
    """Load a head with its backbone.

    Args:
        cls: `GeliRewardModel`.
        folder: of `save_head`.
        default_backbone: name of the default backbone on the Hub, and where it is found here.
        kwargs: of `from_backbone`.

    Raises:
        OSError: the backbone can't be found, its weights are others, or the head is damaged.
    """
    folder = Path(folder)
    try:
        named = json.loads((folder / BACKBONE_FILE).read_text(encoding="utf-8"))
        config = cls.config_class.from_pretrained(folder)
        weights = load_file(folder / HEAD_FILE)
        name, digest = named["backbone"], named["digest"]
    except Exception as error:
        if isinstance(error, FileNotFoundError | ValueError | KeyError) or type(error).__name__ == "SafetensorError":
            raise OSError(f"{folder}: the head is damaged ({error}); fetch it again") from error
        raise
    own = {key: value for key, value in config.to_diff_dict().items() if key in cls.config_class.__annotations__}
    own = {key: value for key, value in own.items() if key not in FROM_BACKBONE}
    model = cls.from_backbone(default_backbone[1] if name == default_backbone[0] else name, **own | kwargs)
    if (found := weights_digest(model.model)) != digest:
        raise OSError(
            f"{folder}: the head was learned on the backbone {name} with the digest {digest}, found {found}. Fetch "
            "the backbone as it was, or learn a head anew"
        )
    model.load_state_dict(weights, strict=False)
    return model
