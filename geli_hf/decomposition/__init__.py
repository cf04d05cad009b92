"""From one rating of a session to a reward for each of its turns: the losses and their equations."""

from .losses import GLOBAL_EXPLICIT, aggregate, geli_loss, ircr_loss, li_loss, rrd_loss, rudder_loss

__all__ = ["GLOBAL_EXPLICIT", "aggregate", "geli_loss", "ircr_loss", "li_loss", "rrd_loss", "rudder_loss"]
