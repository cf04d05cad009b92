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


def open_model(name: str, **kwargs) -> GeliRewardModel | HindsightAttribution:
    """Load the reward model or the attribution of this name, onto the accelerator if there is one.

    Args:
        name: folder, or repository on the Hub.
        kwargs: `revision`, `token` and the like, as for every `from_pretrained`.

    Raises:
        OSError: see `is_attribution`.
        ValueError: see `is_attribution`.
    """
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    if not is_attribution(name, **kwargs):
        return GeliRewardModel.from_pretrained(name, **kwargs).to(device)
    attribution = HindsightAttribution.from_pretrained(name, **kwargs)
    attribution.model.to(device)
    return attribution
