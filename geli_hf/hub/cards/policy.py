"""Cards of policies and of their adapters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard

from ...evaluation.comparison import OWN_REWARD, policy_table
from .base import Measured, card_title, hub_name, render_card


def policy_card(
    repo_id: str,
    *,
    base_model: str = "",
    adapter: bool = False,
    method: str | None = None,
    reward_model: str | None = None,
    comparison: Mapping[str, Any] | None = None,
    table: str | None = None,
    **facts: Any,
) -> ModelCard:
    """Render the card of a policy.

    Args:
        repo_id: title, and the name that its code loads.
        base_model: name of the base model on the Hub; the card of an adapter also names a folder.
        adapter: True for an adapter to `base_model`.
        method: "grpo", "rloo" or "sft".
        reward_model: name of the reward model that it was aligned to.
        comparison: figures of a `PolicyComparison`.
        table: figures in Markdown. Default: those of `comparison`.
        facts: where they are known `training_data`, `held_out` (both in words), `recipe` (how it was made), `limits`
            (more of them), `made` (see `describe_origin`); `license`, `language`, `datasets`; and arguments of
            `render_card`.
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
        metadata={"base_model": hub_name(base_model), "library_name": "peft" if adapter else None},
        method=method,
        reward_model=reward_model,
        judge=judge,
        figures_table=policy_table(comparison) if comparison and table is None else table,
        adapter=adapter,
        base=f"`{card_title(base_model)}`" if base_model else "that it was trained on",
        **facts,
    )
    card.data.tags += ["trl", method] if method else []
    return card
