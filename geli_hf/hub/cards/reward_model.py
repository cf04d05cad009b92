"""Cards of reward models and attributions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from huggingface_hub import ModelCard

from ...metrics.table import COLUMNS
from ...models.geli_reward.configuration_geli import GeliRewardConfig
from .base import NOT_TOLD, Measured, hub_name, render_card

# Figures of `model-index`, with their metric types on the Hub.
FIGURES = {
    "within_session_spearman": "spearmanr",
    "within_session_auc": "roc_auc",
    "session_spearman": "spearmanr",
    "global_loss": "mse",
}
# Settings that an adapter's reward model needs beside its backbone. A guard is no part of an adapter.
OF_BACKBONE = (
    *("head", "head_hidden_size", "pooling", "layers", "context_messages", "interactions", "max_length"),
    *("aggregation", "score_mean", "score_std", "ratings"),
)


def reward_model_card(
    repo_id: str,
    *,
    config: GeliRewardConfig,
    adapter: bool = False,
    row: Mapping[str, Any] | None = None,
    table: str | None = None,
    signals: Iterable[str] | None = None,
    **facts: Any,
) -> ModelCard:
    """Render the card of a reward model or, with `signals`, of an attribution.

    Args:
        repo_id: title, and the name that its code loads.
        config: of the model; it tells the backbone, the ratings, and whether there is a guard.
        adapter: True for an adapter to the backbone.
        row: figures by name, see `metrics.table.evaluate_rewards`.
        table: figures in Markdown. Default: those of `row`.
        signals: names of the signals that an attribution reads.
        facts: see `policy_card`.
    """
    figures = [Measured(COLUMNS[name], kind, row[name]) for name, kind in FIGURES.items() if row and name in row]
    figures = [figure for figure in figures if not math.isnan(figure.estimate)]
    if figures and table is None:
        table = "\n".join(["| | |", "| --- | ---: |", *(f"| {each.name} | {each.estimate:.3f} |" for each in figures)])
    base = hub_name(config.text_config._name_or_path)
    return render_card(
        "reward_model" if signals is None else "attribution",
        repo_id,
        figures=figures,
        metadata={"base_model": base, "library_name": "peft" if adapter else None},
        rating=_rating_of(config),
        ratings=", ".join(f"`{name}`" for name in config.ratings or ()),
        guard=bool(config.fit_hidden_size and not adapter),
        figures_table=table,
        signals=", ".join(f"`{name}`" for name in signals or ()) or "none",
        adapter=adapter and _from_backbone(config),
        **facts,
    )


def _rating_of(config: GeliRewardConfig) -> str:
    if (config.score_mean, config.score_std) == (0.0, 1.0):  # before training
        return NOT_TOLD
    return f"its mean was {config.score_mean:.3g}, and its standard deviation {config.score_std:.3g}."


def _from_backbone(config: GeliRewardConfig) -> str:
    """Arguments of `GeliRewardModel.from_backbone` for a model of this configuration, as code."""
    base, usual = config.text_config._name_or_path, type(config)()
    own = {name: getattr(config, name) for name in OF_BACKBONE if getattr(config, name) != getattr(usual, name)}
    return ", ".join([repr(base or "the backbone"), *(f"{name}={value!r}" for name, value in own.items())])
