"""Model and dataset cards: templates filled with the facts of a run, and updates that keep a person's words."""

from ..._lazy import lazy_exports

__all__, __getattr__, __dir__ = lazy_exports(__name__, __file__)
