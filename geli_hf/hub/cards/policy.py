"""Cards of policies and of their adapters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard

from ...evaluation.comparison import OWN_REWARD, policy_table
from .base import NOT_TOLD, Measured, card_title, hub_name, render_card


def policy_card(
    repo_id: str,
    *,
    base_model: str = "",
    adapter: bool = False,
    method: str | None = None,
    reward_model: str | None = None,
    training_data: str = NOT_TOLD,
    recipe: str | None = None,
    made: Mapping | None = None,
    comparison: Mapping[str, Any] | None = None,
    table: str | None = None,
    held_out: str | None = None,
    measured_on: Mapping[str, str] | None = None,
    limits: str | None = None,
    **metadata,
) -> ModelCard:
    """Render the card of a policy.

    Args:
        repo_id: title, and the name that its code loads.
        base_model: name of the base model on the Hub; the card of an adapter also names a folder.
        adapter: True for an adapter to `base_model`.
        method: "grpo", "rloo" or "sft".
        reward_model: name of the reward model that it was aligned to.
        training_data: description of the sessions.
        recipe: how it was made, in words.
        made: see `made`.
        comparison: figures of a `PolicyComparison`.
        table: figures in Markdown. Default: those of `comparison`.
        held_out: description of the evaluation data.
        measured_on: see `render_card`.
        limits: more limits, in words.
        metadata: `license`, `language`, `datasets`.
    """
    figures, judge = [], None
    if comparison:
        judge = comparison["judge"]
        figures = [
            Measured(f"Win rate over the policy before alignment, by {judge}", "win_rate", comparison["win_rate"])
        ]
        figures = [figure for figure in figures if not math.isnan(figure.estimate)]
        if judge == OWN_REWARD and reward_model:
            judge = f"`{reward_model}`, the reward model that the policy was trained with"
    card = render_card(
        "policy",
        repo_id,
        figures=figures,
        measured_on=measured_on,
        metadata=metadata | {"base_model": hub_name(base_model)},
        method=method,
        reward_model=reward_model,
        training_data=training_data,
        recipe=recipe,
        made=made,
        judge=judge,
        held_out=held_out,
        figures_table=policy_table(comparison) if comparison and table is None else table,
        adapter=adapter,
        base=f"`{card_title(base_model)}`" if base_model else "that it was trained on",
        limits=limits,
    )
    card.data.tags += ["trl", method] if method else []
    if adapter:
        card.data.library_name = "peft"
    return card
