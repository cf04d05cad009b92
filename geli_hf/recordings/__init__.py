"""Many recordings at once: what `geli annotate-video` does, and how videos are watched but once."""

from .watching import Watching, watch_all

__all__ = ["Watching", "watch_all"]
