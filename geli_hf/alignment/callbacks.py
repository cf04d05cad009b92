"""What steers or ends an alignment by its KL: the adaptive penalty of the published run, and an early stop.

TRL logs `kl` per token. Everything here is per reply: `kl` times `completions/mean_length`, in nats, as the papers
count it. GRPO estimates it by r - 1 - log r, which is never negative, RLOO by -log r, which in a batch can be
(r = reference / policy).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.utils import logging

if TYPE_CHECKING:
    from trl import GRPOTrainer, RLOOTrainer

logger = logging.get_logger(__name__)


class WatchesKL(TrainerCallback, ExportableState):
    """Reads the KL of a reply off what the trainer logs. Its state is saved and resumed with a checkpoint."""

    # A callback is not told of its trainer, which holds `beta` and the logged curves. `align` sets this.
    trainer: GRPOTrainer | RLOOTrainer | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        name = type(self).__name__
        if self.trainer is None:
            raise ValueError(
                f"{name}: no trainer. `align(..., callbacks=[callback])` tells it; with a trainer of your own write "
                "`callback.trainer = trainer`, and leave args.restore_callback_states_from_checkpoint False: its "
                "state is resumed without, and with it the callback would be replaced"
            )
        if not args.beta:
            raise ValueError(f"{name}: args.beta is 0, and without a KL penalty TRL computes no KL; try beta=0.05")
        if not state.global_step:  # another training may have used it before
            state.stateful_callbacks[name] = type(self)(**self.state()["args"]).state()
        # A checkpoint of a run without this callback has no state of it, which the Trainer would miss when it saves.
        saved = state.stateful_callbacks.setdefault(name, self.state())
        for attribute, value in saved["attributes"].items():
            setattr(self, attribute, value)

    def on_log(self, args, state: TrainerState, control: TrainerControl, logs: dict[str, float], **kwargs):
        kl, tokens = logs.get("kl"), logs.get("completions/mean_length")
        if kl is not None and tokens is not None:
            self.learn(kl * tokens, state.global_step - self.seen_step, args, control)
            self.seen_step = state.global_step

    def learn(self, kl: float, steps: int, args: TrainingArguments, control: TrainerControl) -> None:
        """Take in the mean KL of a reply, in nats, over so many steps of training."""
        raise NotImplementedError


class AdaptiveKL(WatchesKL):
    """Holds the KL near a target by the weight of its penalty, as the published PPO run does (arXiv 1909.08593, 2.2).

    beta <- beta (1 + clip(kl / target - 1, -0.2, 0.2) n / horizon), whenever the trainer logs; kl is the mean of a
    reply in nats since it last did, n the number of replies sampled in between (at most `horizon`). The curve
    `adaptive_kl/beta` is logged.

    Args:
        init: first weight. It takes the place of `args.beta`, which only has to be positive.
        target: KL of a reply from the fine-tuned policy, in nats.
        horizon: replies after which the weight has changed by up to a factor e^0.2.
    """

    def __init__(self, init: float, target: float, horizon: int = 10_000):
        for argument, value in (("init", init), ("target", target), ("horizon", horizon)):
            if not value > 0:
                raise ValueError(f"AdaptiveKL: {argument}: expected a positive number, found {value}")
        self.init, self.target, self.horizon = init, target, horizon
        self.beta = init
        self.seen_step = 0

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

    def learn(self, kl, steps, args, control):
        replies = steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.beta *= 1 + error * min(replies / args.num_iterations / self.horizon, 1)
        self.trainer.beta = self.beta


class StopAtKL(WatchesKL):
    """Stops training where the policy has gone too far from the fine-tuned one for its reward to be believed.

    Watches a running mean of the KL of a reply, m <- m + (1 - (1 - 1/span)^steps) (kl - m) over the steps since the
    last log, which begins at 0 as the policy does. Above `limit` training ends, with a checkpoint if the run saves
    any. The curve `stop_at_kl/mean` is logged.

    Args:
        limit: in nats per reply.
        span: steps over which the mean forgets.
    """

    def __init__(self, limit: float = 10.0, span: int = 10):
        if not limit > 0:
            raise ValueError(f"StopAtKL: limit: expected a positive number of nats per reply, found {limit}")
        if span < 1:
            raise ValueError(f"StopAtKL: span: expected 1 step or more, found {span}")
        self.limit, self.span = limit, span
        self.mean = 0.0
        self.seen_step = 0

    def state(self) -> dict:
        return {
            "args": {"limit": self.limit, "span": self.span},
            "attributes": {"mean": self.mean, "seen_step": self.seen_step},
        }

    def on_epoch_begin(self, args, state, control, **kwargs):
        if self.mean > self.limit:  # resumed where it had stopped
            control.should_training_stop = True

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer._log_metric("stop_at_kl/mean", self.mean)

    def learn(self, kl, steps, args, control):
        self.mean += (1 - (1 - 1 / self.span) ** steps) * (kl - self.mean)
        if self.mean > self.limit:
            logger.warning(
                f"StopAtKL: the mean KL of a reply is {self.mean:.3g} nats, above the limit of {self.limit:g}: "
                "training stops. A larger beta or a smaller learning rate keeps the policy nearer"
            )
            control.should_training_stop = True
            control.should_save = args.save_strategy != "no"
