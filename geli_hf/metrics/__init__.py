"""Metrics of turn rewards with intervals, trivial baselines, tables and pictures. They need no model."""

from .baselines import TURN_BASELINES
from .intervals import Interval
from .metrics import bootstrap, paired_bootstrap
from .table import as_json, evaluate_rewards, markdown_table

__all__ = [
    "TURN_BASELINES",
    "Interval",
    "as_json",
    "bootstrap",
    "evaluate_rewards",
    "markdown_table",
    "paired_bootstrap",
]
