"""Model and dataset cards: templates filled with the facts of a run, and updates that keep a person's words."""

from ..._lazy import lazy_exports

_EXPORTS = {
    "base": ["SOURCES", "Measured", "fill", "hyperparameters", "made", "name_of", "source_of"],
    "dataset": ["dataset_card"],
    "facial_affect": ["facial_affect_card"],
    "policy": ["policy_card"],
    "reward_model": ["rating_of", "reward_model_card"],
    "update": ["for_repo", "is_form", "keep_from_peft", "own_card", "read_metadata", "save_card", "updated"],
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
