"""Finished models, as commands take them: opened by folder or name, and run on sessions one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub.errors import GatedRepoError
from transformers.utils import cached_file, logging

from ..cache import offline_hint
from ..sessions import Session, assistant_turns
from .geli_reward import modeling_geli
from .geli_reward.configuration_geli import GeliRewardConfig
from .geli_reward.modeling_geli import GeliRewardModel

if TYPE_CHECKING:  # training is much to import for who has a reward model
    from .attribution import HindsightAttribution

logger = logging.get_logger(__name__)
ATTRIBUTION_FILE = "hindsight.json"  # beside the reward model's own files


def is_attribution(name: str, argument: str = "--model", **where) -> bool:
    """Whether an attribution is in this folder or on the Hub, and not a reward model. Loads no weights.

    Args:
        where: `revision`, `token` and the like, as of every model's `from_pretrained`.

    Raises:
        OSError, ValueError: nothing is there by this name, or something else; the message names the argument.
    """
    if not Path(name).exists() and (name.count("/") > 1 or name.startswith((".", "/"))):
        raise FileNotFoundError(f"{argument}: there is no folder {name}")
    try:
        config, _ = GeliRewardConfig.get_config_dict(name, **where)
    except (OSError, ValueError) as error:
        gated = isinstance(error.__cause__, GatedRepoError)
        hint = "\nAsk for access on its page, and log in as who has it: `hf auth login`, or HF_TOKEN" if gated else ""
        hint += offline_hint(name)
        raise OSError(
            f"{argument}: no reward model {name!r}, neither as a folder nor on the Hub: {error}{hint}"
        ) from None
    if config.get("model_type") != GeliRewardConfig.model_type:
        raise ValueError(
            f"{argument}: {name} is no reward model of geli_hf (its type is {config.get('model_type')!r})"
        )
    try:
        return cached_file(name, ATTRIBUTION_FILE, **where) is not None
    except OSError:
        return False


def open_model(name: str, **where) -> GeliRewardModel | HindsightAttribution:
    """The reward model, or the attribution, in a folder or on the Hub, on the accelerator if there is one.

    Args:
        where: as of `is_attribution`.

    Raises:
        OSError, ValueError: as of `is_attribution`.
    """
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    if not is_attribution(name, **where):
        return GeliRewardModel.from_pretrained(name, **where).to(device)
    from .attribution import HindsightAttribution

    attribution = HindsightAttribution.from_pretrained(name, **where)
    attribution.model.to(device)
    return attribution


def iter_explained(
    attribution: HindsightAttribution, sessions: Iterable[Session], *, batch_size: int = 32
) -> Iterator[dict]:
    """What `attribution.score_sessions` returns, one session after the other and in memory that does not grow with
    their number; it reads a batch ahead. What there is to warn of is said once, at the end.
    """
    sessions, number, cropped = iter(sessions), 0, 0
    absent = {name for name, signal in attribution.signals.items() if signal.beta}
    carried: set[str] = set()
    while rows := list(islice(sessions, batch_size)):
        feedback = [row.get("feedback") or {} for row in rows]
        observed = {name for felt in feedback for name, values in felt.items() if values is not None}
        absent, carried = absent - observed, carried | observed
        for explained in _explained(attribution, rows, batch_size):
            cropped += explained["cropped"]
            yield explained
        number += len(rows)
    for name in sorted(absent if number else ()):
        there = f"they carry {', '.join(sorted(carried))}" if carried else "they carry no signal"
        logger.warning(f"no session has feedback {name!r}, so turns were explained without it ({there})")
    if cropped:
        logger.warning(
            f"{cropped} of {number} sessions are longer than the model's context of "
            f"{attribution.model.config.max_length} tokens: some turns were explained without the beginning."
        )


def _explained(attribution: HindsightAttribution, rows: list[Session], batch_size: int) -> list[dict]:
    """One batch, without a warning of its own."""
    filled = []
    for row in rows:
        nothing = [math.nan] * len(assistant_turns(row["messages"]))
        felt = row.get("feedback") or {}
        known = {name: nothing if felt.get(name) is None else felt[name] for name in attribution.signals}
        filled.append({"messages": row["messages"], "feedback": known})
    modeling_geli.logger.disabled = True
    try:
        return attribution.score_sessions(filled, batch_size=batch_size)
    finally:
        modeling_geli.logger.disabled = False
