"""Arguments of the reward model's trainer, and the published recipe."""

from dataclasses import dataclass, field
from typing import Any

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

    ge: str = field(default="rrd", metadata={"help": "Decomposition of the score: rrd, ircr or rudder."})
    rrd_turns: int | None = field(default=None, metadata={"help": "Turns that RRD samples per session; all if unset."})
    rrd_replacement: bool = field(default=False, metadata={"help": "Sample with replacement in RRD."})
    li: str = field(default="affect", metadata={"help": "Name of the Local Implicit signal in `feedback`."})
    li_weight: float = field(default=0.1, metadata={"help": "Weight of the Local Implicit loss, 0 to 1."})
    li_slope: bool = field(default=False, metadata={"help": "Estimate the slope of the signal on the rewards."})
    standardise: bool = field(default=True, metadata={"help": "Standardise score and signal on the training set."})
    freeze_backbone: bool = field(default=True, metadata={"help": "Train the head alone, on cached features."})
    features_dir: str | None = field(
        default=None, metadata={"help": "Folder of cached features of a frozen backbone."}
    )

    num_train_epochs: float = field(default=30.0, metadata={"help": "Epochs."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate."})
    weight_decay: float = field(default=0.1, metadata={"help": "Weight decay."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Sessions per step and device."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Sessions per evaluation step and device."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints to keep beside the best."})
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best checkpoint."})
    metric_for_best_model: str = field(default="loss", metadata={"help": "What the best checkpoint is best at."})

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
