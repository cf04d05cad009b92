"""Alignment of a policy with turn rewards: TRL's trainers, a reward function for them, and whole-session rollouts."""

from .._lazy import lazy_exports

__all__, __getattr__, __dir__ = lazy_exports(__name__, __file__)
