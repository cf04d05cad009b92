"""Arguments of the reward model's trainer, and the published recipe."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainingArguments

from ..decomposition import GLOBAL_EXPLICIT
from ..models.published_head import PUBLISHED_MODEL


@dataclass
class GeliRewardArguments(TrainingArguments):
    r"""
    Arguments of [`GeliRewardTrainer`], on top of those of `transformers.TrainingArguments`. The defaults are
    safe ones for a frozen backbone; [`PAPER`] is the published recipe.

    Args:
        ge (`str`, *optional*, defaults to `"rrd"`):
            How a session's score is decomposed: `"rrd"`, `"ircr"` or `"rudder"`.
        rrd_turns (`int`, *optional*):
            Turns that RRD samples from each session. `None`: all.
        rrd_replacement (`bool`, *optional*, defaults to `False`):
            Sample with replacement in RRD.
        li (`str`, *optional*, defaults to `"affect"`):
            The signal in `feedback` that is the Local Implicit feedback.
        li_weight (`float`, *optional*, defaults to 0.1):
            Weight of the Local Implicit loss, from 0 (the score alone) to 1 (the signal alone).
        li_slope (`bool`, *optional*, defaults to `False`):
            Estimate the slope of the signal on the rewards, and compare the two within sessions. As published, a
            reward is to equal the signal, which keeps it small where the signal says little. With the slope, the best
            weight is about .8 for 8 turns a session, and higher for more turns.
        standardise (`bool`, *optional*, defaults to `True`):
            Measure score, signal and the features of a frozen backbone in deviations from their training mean.
            Otherwise the score is multiplied by ten, and the others are taken as they are, as published.
        freeze_backbone (`bool`, *optional*, defaults to `True`):
            Train the head alone, on features that are computed once and kept on disk.
        features_dir (`str`, *optional*):
            Folder of cached features. Default: the cache folder of `geli_hf`.
    """

    ge: str = "rrd"
    rrd_turns: int | None = None
    rrd_replacement: bool = False
    li: str = "affect"
    li_weight: float = 0.1
    li_slope: bool = False
    standardise: bool = True
    freeze_backbone: bool = True
    features_dir: str | None = None

    num_train_epochs: float = 30.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 32
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int | None = 1
    logging_strategy: str = "epoch"
    load_best_model_at_end: bool = True
    metric_for_best_model: str = "loss"

    def __post_init__(self):
        if self.ge not in GLOBAL_EXPLICIT:
            raise ValueError(f"ge: expected one of {', '.join(GLOBAL_EXPLICIT)}, found {self.ge!r}")
        if not 0 <= self.li_weight <= 1:
            raise ValueError(f"li_weight: expected a weight from 0 to 1, found {self.li_weight}")
        if self.li_slope and self.li_weight == 1:
            raise ValueError(
                "li_slope with li_weight=1: expected a weight below 1, since only the score fixes the size of a reward"
            )
        # Columns of Session rows are not arguments of forward(); the collator selects them.
        self.remove_unused_columns = False
        super().__post_init__()

    def feature_options(self) -> dict[str, Any]:
        """Return the options `cache_dir` and `dtype` of `cached_turn_features`."""
        return {"cache_dir": self.features_dir, "dtype": torch.bfloat16 if self.bf16 else torch.float32}


# The published recipe (EMNLP 2024, arXiv 2403.11330, and its scripts): fields of `GeliRewardConfig` and of
# `GeliRewardArguments`. Its score is multiplied by ten and not centred, its signal is 0 or 1.
PAPER: dict[str, dict[str, Any]] = {
    "model": PUBLISHED_MODEL,
    "training": {
        "ge": "rrd",
        "rrd_turns": 160,
        "rrd_replacement": True,
        "li": "affect",
        "li_weight": 0.5,
        "standardise": False,
        "learning_rate": 5e-3,
        "weight_decay": 0.01,
        "lr_scheduler_type": "linear",
        "num_train_epochs": 4,
        "per_device_train_batch_size": 1,
    },
}
