"""The listener's reactions, faces in video, words and times, as one number per turn.

Names are imported when they are first used: readers of corpora need no packages for video.
"""

from .._lazy import lazy_exports

__all__, __getattr__, __dir__ = lazy_exports(__name__, __file__)
