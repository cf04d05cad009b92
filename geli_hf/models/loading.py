"""Trained reward models and attributions, opened by folder or name on the Hub."""

from __future__ import annotations

import torch
from transformers.utils import cached_file

from ..cache import offline_hint
from .attribution import SIGNALS_FILE, HindsightAttribution
from .geli_reward.configuration_geli import GeliRewardConfig
from .geli_reward.modeling_geli import GeliRewardModel, refuse_adapter


def is_attribution(name: str, argument: str = "--model", **kwargs) -> bool:
    """Tell an attribution from a reward model, without loading its weights.

    Args:
        name: folder, or repository on the Hub.
        argument: what an error calls it.
        kwargs: `revision`, `token` and the like, as for every `from_pretrained`.

    Raises:
        OSError: there is no such model, or it can't be reached.
        ValueError: it is another model.
    """
    refuse_adapter(name)
    try:
        config, _ = GeliRewardConfig.get_config_dict(name, **kwargs)
    except (OSError, ValueError) as error:
        hint = offline_hint(name)
        raise OSError(
            f"{argument}: no reward model {name!r}, neither as a folder nor on the Hub: {error}{hint}"
        ) from None
    if config.get("model_type") != GeliRewardConfig.model_type:
        raise ValueError(
            f"{argument}: {name} is no reward model of geli_hf (its type is {config.get('model_type')!r})"
        )
    try:
        return cached_file(name, SIGNALS_FILE, **kwargs) is not None
    except OSError:
        return False


def default_device() -> torch.device | str:
    """Return the accelerator if there is one, else the CPU."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"


def open_model(
    name: str, *, device: str | None = None, dtype: str | None = None, **kwargs
) -> GeliRewardModel | HindsightAttribution:
    """Load the reward model or the attribution of this name.

    Args:
        name: folder, or repository on the Hub.
        device: of the model. Default: the accelerator if there is one.
        dtype: of the backbone, such as "bfloat16"; the head is always float32. Default: as it was saved.
        kwargs: `revision`, `token` and the like, as for every `from_pretrained`.

    Raises:
        OSError: see `is_attribution`.
        ValueError: see `is_attribution`.
    """
    cls = HindsightAttribution if is_attribution(name, **kwargs) else GeliRewardModel
    opened = cls.from_pretrained(name, **kwargs)
    model = opened.model if isinstance(opened, HindsightAttribution) else opened
    model.to(device or default_device())
    if dtype is not None:
        model.model.to(getattr(torch, dtype))
    return opened
