"""Model and dataset cards: templates filled with the facts of a run, and updates that keep a person's words."""

from ..._lazy import lazy_exports

_EXPORTS = {
    "base": [
        "SOURCES",
        "Measured",
        "card_title",
        "corpus_licence",
        "describe_origin",
        "hyperparameters",
        "render_card",
    ],
    "dataset": ["dataset_card"],
    "facial_affect": ["facial_affect_card"],
    "policy": ["policy_card"],
    "reward_model": ["reward_model_card"],
    "update": ["for_repo", "is_form", "keep_from_peft", "read_metadata", "read_own_card", "save_card", "updated"],
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
