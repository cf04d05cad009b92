"""How well turn rewards attribute: metrics with intervals, trivial baselines, tables, and pictures (`.plots`)."""

from .baselines import TURN_BASELINES
from .metrics import Interval, bootstrap, paired_bootstrap
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
