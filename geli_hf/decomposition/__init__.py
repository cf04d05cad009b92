"""From one rating of a session to a reward for each of its turns: the losses and their equations, and closed forms."""

from .losses import GLOBAL_EXPLICIT, aggregate, geli_loss, ircr_loss, li_loss, rrd_loss, rudder_loss
from .ridge import Ridge, fit_ridge
from .trust import Trust, fit_trust

__all__ = [
    "GLOBAL_EXPLICIT",
    "Ridge",
    "Trust",
    "aggregate",
    "fit_ridge",
    "fit_trust",
    "geli_loss",
    "ircr_loss",
    "li_loss",
    "rrd_loss",
    "rudder_loss",
]
