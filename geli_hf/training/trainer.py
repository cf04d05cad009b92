"""The trainer that learns turn rewards from session scores (Global Explicit) and listeners' signals (Local Implicit).

The Trainer of transformers does the training. Added here are the data, the loss, the metrics of an evaluation and, at
the end, the calibration.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import broadcast
from datasets import Dataset
from transformers import Trainer

from ..decomposition import GLOBAL_EXPLICIT, geli_loss, li_loss, li_slope_loss
from ..decomposition.slope import SignalSlope
from ..metrics.metrics import global_loss, global_loss_floor, local_difference, within_session_spearman
from ..models.features import TurnFeatureCache, cached_turn_features
from ..models.geli_reward.modeling_geli import GeliRewardModel
from .arguments import GeliRewardArguments
from .data import Scale, SessionCollator, SessionData, SessionSampler

CALIBRATION_SESSIONS = 2_000  # scored for the quantiles of rewards, where no features are cached


class GeliRewardTrainer(Trainer):
    """A Trainer of a [`GeliRewardModel`] on rated sessions.

    Args:
        model: the reward model. Its configuration receives the scale of the scores and, after training, the quantiles
            of the rewards and the deviation of the residuals.
        args: see [`GeliRewardArguments`].
        train_dataset, eval_dataset: Session rows. Every training session needs a score and, if `args.li_weight > 0`,
            the signal `args.li` (NaN where nothing was observed). To train without an `eval_dataset`, say so in
            `args`: `eval_strategy="no", load_best_model_at_end=False`.
        peft_config (`peft.PeftConfig`, *optional*): learn an adapter of the backbone in place of all its weights,
            and the head with it; needs `args.freeze_backbone=False`. Call `trainer.model.merge_and_unload()` before
            `model.save_pretrained`: until then the adapter is a part of the model that its class does not know.
        features: cached features of the sessions by a frozen backbone, under `"train"` and `"eval"`, so that the folds
            of a corpus need not be encoded again.
        kwargs: of `transformers.Trainer`.

    Every evaluation reports `global_loss`, the squared error of the predicted session score in squared units of the
    rating, beside `global_floor`, that of predicting the training mean; `local_difference`, the mean reward where the
    signal is above its training mean minus where it is not; `within_session_spearman` where sessions carry a
    `turn_rating`; and `li_slope`, where it is learned.

    Several processes learn the model of one process with the joined batches, up to rounding: the loss is that of all
    sessions together, and RRD draws turns from all of them at once. Only dropout masks differ. A training that is
    resumed on a CPU ends bit for bit like one without an interruption.
    """

    def __init__(
        self,
        model: GeliRewardModel,
        args: GeliRewardArguments,
        train_dataset: Dataset,
        eval_dataset: Dataset | None = None,
        peft_config=None,
        features: Mapping[str, TurnFeatureCache] | None = None,
        **kwargs,
    ):
        _check_arguments(model, args, peft_config)
        self.scale = Scale.of(train_dataset, args)
        self.train_mean = float(np.mean(train_dataset["score"]))
        self.reward_model = model
        model.config.score_mean, model.config.score_std = self.scale.score_mean, self.scale.score_std
        model.config.aggregation = "sum" if args.ge == "rudder" else model.config.aggregation
        model.model.requires_grad_(not args.freeze_backbone)
        if model.fit is not None:
            model.fit.requires_grad_(False)  # ratings can't teach fit, see `training.fit`

        data = {"train": train_dataset} | ({} if eval_dataset is None else {"eval": eval_dataset})
        caches = {}
        if args.freeze_backbone:
            caches |= features or {}
            model.to(args.device)  # its features are computed before the Trainer would place it
            with args.main_process_first(desc="encoding turns"):  # one process encodes, the others read
                for part, rows in data.items():
                    if part not in caches:
                        caches[part] = cached_turn_features(model, rows, **args.feature_options())
            if args.standardise:
                read = caches["train"].narrow(model.config.head_size)
                mean, std = (torch.from_numpy(values) for values in read.mean_and_std())
                model.score.standardise.mean.copy_(mean)
                model.score.standardise.std.copy_(std)
        data = {part: SessionData(rows, args, caches.get(part)) for part, rows in data.items()}
        if peft_config is not None:
            from peft import get_peft_model

            model = get_peft_model(model, _with_head(peft_config))
        super().__init__(
            model=model,
            args=args,
            train_dataset=data["train"],
            eval_dataset=data.get("eval"),
            data_collator=SessionCollator(self.reward_model),
            compute_metrics=self._session_metrics,
            processing_class=self.reward_model.tokenizer,
            **kwargs,
        )
        self.slope = SignalSlope() if args.li_slope else None
        if self.slope is not None:
            self.add_callback(self.slope)  # so that checkpoints keep it
        # The loss is a mean over sessions, so the losses of accumulated steps have to be averaged.
        self.model_accepts_loss_kwargs = False
        if self.args.process_index:  # otherwise every process would drop out the same units
            torch.manual_seed(self.args.seed + self.args.process_index)

    def _get_train_sampler(self, train_dataset=None):
        args = self.args
        if args.train_sampling_strategy != "random":
            return super()._get_train_sampler(train_dataset)
        multiple = args.train_batch_size * args.world_size if args.world_size > 1 else 1
        seed = args.seed if args.data_seed is None else args.data_seed
        return SessionSampler(len(self.train_dataset), multiple, seed, lambda: int(self.state.epoch or 0))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        targets = {name: inputs.pop(name) for name in ("score", "feedback", "turn_rating")}
        output = model(**inputs)
        batch = output.turn_rewards, output.turn_mask, targets["score"], targets["feedback"]
        loss = self._loss(*(self._of_all_processes(*batch) if model.training else batch))
        return (loss, output) if return_outputs else loss

    def _of_all_processes(self, rewards, mask, score, feedback) -> tuple[torch.Tensor, ...]:
        """Gather the batches of all processes as one, in which this process's rewards have a gradient."""
        accelerator = self.accelerator
        if accelerator.num_processes == 1:
            return rewards, mask, score, feedback
        # As numbers, since padding changes the type of a bool mask.
        batch = accelerator.pad_across_processes((rewards, mask.to(rewards.dtype), score, feedback), dim=1)
        own = batch[0]
        every, mask, score, feedback = accelerator.gather((own.detach(), *batch[1:]))
        if own.requires_grad:
            # The gradient will be averaged over the processes; of the loss of all, it has to be the sum.
            own.register_hook(lambda gradient: gradient * accelerator.num_processes)
        first = accelerator.process_index * len(own)
        return torch.cat([every[:first], own, every[first + len(own) :]]), mask == 1, score, feedback

    def _loss(self, rewards, mask, score, feedback) -> torch.Tensor:
        scale = self.scale
        global_explicit = self._global_explicit(rewards, mask, (score - scale.score_mean) / scale.score_std)
        signal = (feedback - scale.feedback_mean) / scale.feedback_std
        if self.slope is None:
            local_implicit = li_loss(rewards, mask, signal)
        else:
            if self.model.training:
                self.slope.update(rewards, mask, signal)
            local_implicit = li_slope_loss(rewards, mask, signal, self.slope.value)
        return geli_loss(global_explicit, local_implicit, self.args.li_weight)

    def _global_explicit(self, rewards: torch.Tensor, mask: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
        args, options = self.args, {}
        if args.ge != "rudder":  # which is a sum by nature
            options["aggregation"] = self.reward_model.config.aggregation
        if args.ge == "rrd" and args.rrd_turns and self.model.training:  # an evaluation needs no noise of sampling
            options |= {"num_samples": args.rrd_turns, "replacement": args.rrd_replacement}
            options["generator"] = self._common_generator()
        return GLOBAL_EXPLICIT[args.ge](rewards, mask, score, **options)

    def _common_generator(self) -> torch.Generator:
        """Make a generator from which all processes draw the same, however many sessions each of them has."""
        seed = broadcast(torch.randint(2**62, (1,)).to(self.args.device))
        return torch.Generator().manual_seed(seed.item())

    @torch.no_grad()
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        inputs = self._prepare_inputs(inputs)
        targets = tuple(inputs[name] for name in ("score", "feedback", "turn_rating"))
        with self.compute_loss_context_manager():
            loss, output = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss, None, None
        # No loss: a mean of the batches' means would depend on how sessions are split into batches.
        return None, (output.turn_rewards.float(), output.turn_mask.float()), targets

    def _session_metrics(self, prediction) -> dict[str, float]:
        score, feedback, rating = prediction.label_ids
        padded, seen = torch.from_numpy(prediction.predictions[0]), torch.from_numpy(prediction.predictions[1] == 1)
        loss = self._loss(padded, seen, torch.from_numpy(score), torch.from_numpy(feedback))
        rewards, predicted, mask = self._unpad(prediction.predictions)
        feedback, rating = ([row[m] for row, m in zip(values, mask)] for values in (feedback, rating))
        metrics = {
            "global_loss": global_loss(predicted, score),
            "global_floor": global_loss_floor(score, self.train_mean),
            "local_difference": local_difference(rewards, feedback, threshold=self.scale.feedback_mean),
            "within_session_spearman": within_session_spearman(rewards, rating),
        }
        if self.slope is not None:
            metrics["li_slope"] = float(self.slope.value)
        return {"loss": loss.item()} | {name: value for name, value in metrics.items() if not np.isnan(value)}

    def _unpad(self, predictions) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Return the turn rewards of each session, its predicted score, and the mask; batches are padded with -100."""
        rewards, mask = predictions[0], predictions[1] == 1
        rewards = np.where(mask, rewards, 0)
        predicted = self.reward_model.predict_score(torch.from_numpy(rewards), torch.from_numpy(mask)).numpy()
        return [row[m] for row, m in zip(rewards, mask)], predicted, mask

    def train(self, *args, **kwargs):
        """Train, as every Trainer does, and calibrate: the configuration gets the quantiles of the rewards of training
        turns, and the deviation of held-out residuals (see [`GeliRewardConfig`])."""
        result = super().train(*args, **kwargs)
        config = self.reward_model.config
        rewards, *_ = self._unpad(self._predict(self._some_of(self.train_dataset)).predictions)
        config.reward_quantiles = np.quantile(np.concatenate(rewards), np.linspace(0, 1, 101)).round(6).tolist()
        if self.eval_dataset is not None:
            held_out = self._predict(self.eval_dataset)
            residual = held_out.label_ids[0] - self._unpad(held_out.predictions)[1]
            config.residual_std = float(np.nanstd(residual)) if np.isfinite(residual).any() else None
        return result

    def _some_of(self, data: SessionData) -> SessionData:
        """Draw enough sessions for stable quantiles; all of them if their features are cached, which takes no time."""
        if data.features is not None or len(data) <= CALIBRATION_SESSIONS:
            return data
        drawn = np.random.default_rng(self.args.seed).choice(len(data), CALIBRATION_SESSIONS, replace=False)
        return SessionData(data.sessions.select(drawn), self.args)

    def create_model_card(self, *args, **kwargs) -> None:
        """Write the Trainer's draft of a card, unless the output folder has a card already."""
        if not Path(self.args.output_dir, "README.md").exists():
            super().create_model_card(*args, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # The Trainer's next file marks the checkpoint as complete, for all processes (see `checkpoints`).
        self.accelerator.wait_for_everyone()

    def _predict(self, data: SessionData):
        return self.evaluation_loop(self.get_eval_dataloader(data), "Calibration", prediction_loss_only=False)


def _check_arguments(model: GeliRewardModel, args: GeliRewardArguments, peft_config) -> None:
    if (args.ge == "rudder") != (model.config.head == "rudder"):
        raise ValueError(f"ge={args.ge!r} with head={model.config.head!r}: RUDDER's loss and head go together")
    if peft_config is not None and args.freeze_backbone:
        raise ValueError("peft_config: an adapter trains the backbone; set freeze_backbone=False")


def _with_head(peft_config):
    """Copy the configuration, with the head trained in full beside the adapter: a new one passes no gradient on."""
    peft_config = copy.copy(peft_config)
    peft_config.modules_to_save = sorted({*(getattr(peft_config, "modules_to_save", None) or ()), "score"})
    return peft_config
