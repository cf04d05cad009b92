"""Cards of classifiers of facial affect."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCard

from ...models.facial_affect.configuration_affect import FacialAffectConfig
from .base import render_card


def facial_affect_card(repo_id: str, *, config: FacialAffectConfig, **facts: Any) -> ModelCard:
    """Render the card of a classifier of faces.

    Args:
        repo_id: title, and the name that its code loads.
        config: of the classifier.
        facts: variables of the template, where they are known, and arguments of `render_card`.
    """
    unknown = dict.fromkeys(("scale", "shift", "learnt", "figures_table", "negatives"))
    return render_card("facial_affect", repo_id, **unknown | {"config": config} | facts)
