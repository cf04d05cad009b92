"""Decomposition of a session's rating into a reward per turn: losses with their equations, and closed forms."""

from .losses import (
    GLOBAL_EXPLICIT,
    geli_loss,
    ircr_loss,
    li_loss,
    li_slope_loss,
    rrd_loss,
    rudder_loss,
    slope_moments,
)
from .ridge import RATIOS, Ridge, fit_ridge, fit_two_ridges
from .trust import Trust, fit_trust, habit_share

__all__ = [
    "GLOBAL_EXPLICIT",
    "RATIOS",
    "Ridge",
    "Trust",
    "fit_ridge",
    "fit_trust",
    "fit_two_ridges",
    "geli_loss",
    "habit_share",
    "ircr_loss",
    "li_loss",
    "li_slope_loss",
    "rrd_loss",
    "rudder_loss",
    "slope_moments",
]
