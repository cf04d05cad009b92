"""Callbacks that steer or stop an alignment by its KL: the adaptive penalty of the published run, and an early stop.

TRL logs `kl` per token. Here a KL is per reply, in nats, as in the papers: `kl` times `completions/mean_length`. GRPO
estimates it by r - 1 - log r, which is never negative, RLOO by -log r, which can be (r = reference / policy).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.utils import logging

if TYPE_CHECKING:
    from trl import GRPOTrainer, RLOOTrainer

logger = logging.get_logger(__name__)


class KLCallback(TrainerCallback, ExportableState):
    """Base of the callbacks that read the KL of a reply from the trainer's logs; checkpoints keep its state."""

    # A callback does not get its trainer, which has `beta` and logs curves. `align` sets it.
    trainer: GRPOTrainer | RLOOTrainer | None = None
    seen_step = 0  # of the last KL

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        """Load the state of a resumed training, or begin anew.

        Raises:
            ValueError: the callback has no trainer, or the training no KL.
        """
        name = type(self).__name__
        if self.trainer is None:
            raise ValueError(f"{name}: trainer is not set; set `callback.trainer = trainer`, as `align` does")
        if not args.beta:
            raise ValueError(f"{name}: args.beta is 0, and TRL computes no KL without a penalty; try beta=0.05")
        if not state.global_step:  # the callback may have been used before
            state.stateful_callbacks[name] = type(self)(**self.state()["args"]).state()
        # A checkpoint of a run without this callback lacks its state, which the Trainer needs to save.
        saved = state.stateful_callbacks.setdefault(name, self.state())
        for attribute, value in saved["attributes"].items():
            setattr(self, attribute, value)

    def on_log(self, args, state: TrainerState, control: TrainerControl, logs: dict[str, float], **kwargs):
        kl, tokens = logs.get("kl"), logs.get("completions/mean_length")
        if kl is not None and tokens is not None:
            self.update(kl * tokens, state.global_step - self.seen_step, args, control)
            self.seen_step = state.global_step

    def update(self, kl: float, steps: int, args: TrainingArguments, control: TrainerControl) -> None:
        """Use the mean KL of a reply, in nats, over the steps since the last one."""
        raise NotImplementedError


class AdaptiveKL(KLCallback):
    """Adaptive weight of the KL penalty that holds the KL near a target (arXiv 1909.08593, section 2.2).

    beta <- beta (1 + clip(kl / target - 1, -0.2, 0.2) n / horizon) at every log of the trainer, where kl is the mean
    of a reply since the last log, in nats, and n the number of replies sampled since (at most `horizon`). The curve
    is `adaptive_kl/beta`.

    Args:
        init: first weight, in place of `args.beta`, which has to be positive.
        target: KL of a reply from the fine-tuned policy, in nats.
        horizon: replies that change the weight by up to a factor e^0.2.

    Raises:
        ValueError: an argument is not positive.
    """

    def __init__(self, init: float, target: float, horizon: int = 10_000):
        for argument, value in (("init", init), ("target", target), ("horizon", horizon)):
            if not value > 0:
                raise ValueError(f"AdaptiveKL: {argument}: expected a positive number, found {value}")
        self.init, self.target, self.horizon = init, target, horizon
        self.beta = init

    def state(self) -> dict:
        return {
            "args": {"init": self.init, "target": self.target, "horizon": self.horizon},
            "attributes": {"beta": self.beta, "seen_step": self.seen_step},
        }

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self.trainer.beta = self.beta

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer._log_metric("adaptive_kl/beta", self.beta)

    def update(self, kl, steps, args, control):
        replies = steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.beta *= 1 + error * min(replies / args.num_iterations / self.horizon, 1)
        self.trainer.beta = self.beta


class StopAtKL(KLCallback):
    """Early stop where the policy is too far from the fine-tuned one to trust its rewards.

    The running mean of the KL of a reply is m <- m + (1 - (1 - 1/span)^steps) (kl - m) over the steps since the last
    log; it begins at 0. Above `limit` training stops, with a checkpoint if the run saves any. The curve is
    `stop_at_kl/mean`.

    Args:
        limit: in nats per reply.
        span: time constant of the mean, in steps.

    Raises:
        ValueError: `limit` is not positive.
    """

    def __init__(self, limit: float = 10.0, span: int = 10):
        if not limit > 0:
            raise ValueError(f"StopAtKL: limit: expected a positive number of nats per reply, found {limit}")
        self.limit, self.span = limit, span
        self.mean = 0.0

    def state(self) -> dict:
        return {
            "args": {"limit": self.limit, "span": self.span},
            "attributes": {"mean": self.mean, "seen_step": self.seen_step},
        }

    def on_epoch_begin(self, args, state, control, **kwargs):
        if self.mean > self.limit:  # resumed where it stopped
            control.should_training_stop = True

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer._log_metric("stop_at_kl/mean", self.mean)

    def update(self, kl, steps, args, control):
        self.mean += (1 - (1 - 1 / self.span) ** steps) * (kl - self.mean)
        if self.mean > self.limit:
            logger.warning(
                f"StopAtKL: training stops: the mean KL of a reply is {self.mean:.3g} nats, above {self.limit:g}. A "
                "larger beta or a smaller learning rate lowers it"
            )
            control.should_training_stop = True
            control.should_save = args.save_strategy != "no"
