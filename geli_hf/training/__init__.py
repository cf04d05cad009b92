"""Training of the reward model on rated sessions.

Names are imported at their first use.
"""

from .._lazy import lazy_exports

__all__, __getattr__, __dir__ = lazy_exports(__name__, __file__)
