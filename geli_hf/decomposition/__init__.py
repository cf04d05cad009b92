"""Decomposition of a session's rating into a reward per turn: losses with their equations, and closed forms."""

from .._lazy import lazy_exports

__all__, __getattr__, __dir__ = lazy_exports(__name__, __file__)
