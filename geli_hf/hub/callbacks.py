"""The project's card for a training: written by a callback with every checkpoint."""

from __future__ import annotations

from pathlib import Path

from accelerate.utils import extract_model_from_parallel
from huggingface_hub import ModelCard
from peft import PeftModel
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig, RLOOConfig, SFTConfig

from ..models.geli_reward.modeling_geli import GeliRewardModel
from .cards import (
    card_title,
    describe_origin,
    keep_from_peft,
    policy_card,
    read_own_card,
    reward_model_card,
    save_card,
)

METHODS = {"sft": SFTConfig, "grpo": GRPOConfig, "rloo": RLOOConfig}
# Arguments of a trainer that a card shows, where the trainer has them.
HYPERPARAMETERS = (
    *("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("lr_scheduler_type", "warmup_steps", "weight_decay", "bf16", "seed"),
    *("num_generations", "num_iterations", "max_completion_length", "temperature", "epsilon", "beta"),
    *("ge", "rrd_turns", "rrd_replacement", "li", "li_weight", "li_slope", "standardise", "freeze_backbone"),
)


class ModelCardCallback(TrainerCallback):
    """Write the project's card into the output folder and into every checkpoint, in place of a trainer's draft.

    A reward model gets the card of one, with its last evaluation; any other model gets the card of a policy. Words
    that a person wrote into a card stay, see `save_card`.

    Example:

    ```python
    trainer = GRPOTrainer(..., callbacks=[ModelCardCallback()])
    ```
    """

    _card: str | None = None  # of the output folder: TRL overwrites it with a draft whenever it saves

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model, **kwargs):
        self._card = read_own_card(args.output_dir)
        if isinstance(model := extract_model_from_parallel(model), PeftModel):
            keep_from_peft(model)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if checkpoint.is_dir():
            self._write(checkpoint, args, state, **kwargs)
        self._write(Path(args.output_dir), args, state, **kwargs)

    def on_push_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self._write(Path(args.output_dir), args, state, **kwargs)

    on_train_end = on_push_begin

    def _write(self, folder: Path, args: TrainingArguments, state: TrainerState, *, model, train_dataloader, **kwargs):
        if not state.is_world_process_zero or train_dataloader is None:  # None: a push before any training
            return
        card = training_card(folder, args, state, model, len(train_dataloader.dataset))
        in_output = folder == Path(args.output_dir)
        text = save_card(card, folder, earlier=self._card if in_output else None)
        self._card = text if in_output else self._card


def training_card(
    folder: str | Path, args: TrainingArguments, state: TrainerState, model: nn.Module, rows: int
) -> ModelCard:
    """Render the card of a model in training.

    Args:
        folder: where the model is saved; a `config.json` there is that of a whole model, also of a merged adapter.
        args: of the trainer; they name the repository, if they have `hub_model_id`.
        state: of the trainer; the last evaluation of its `log_history` is a reward model's row of figures.
        model: a reward model or a policy, with or without an adapter.
        rows: number of training rows.
    """
    model, name = extract_model_from_parallel(model), args.hub_model_id or card_title(folder)
    settings = {name: getattr(args, name) for name in HYPERPARAMETERS if hasattr(args, name)}
    base, adapter = model, False
    if isinstance(model, PeftModel):
        base, adapter = model.get_base_model(), not (Path(folder) / "config.json").exists()
        lora = model.peft_config[model.active_adapter]
        settings["lora"] = {name: getattr(lora, name, None) for name in ("r", "lora_alpha", "lora_dropout")}
    made = describe_origin(settings=settings)
    if isinstance(base, GeliRewardModel):
        evaluation = next((entry for entry in reversed(state.log_history) if "eval_loss" in entry), {})
        return reward_model_card(
            name,
            config=base.config,
            adapter=adapter,
            training_data=f"{rows} rated sessions. Their origin and licence are not told.",
            row={key.removeprefix("eval_"): value for key, value in evaluation.items()},
            held_out="the sessions of the trainer's `eval_dataset`, which may have chosen the checkpoint",
            measured_on={"type": "sessions", "name": "sessions held out of training"},
            made=made,
        )
    return policy_card(
        name,
        base_model=base.config._name_or_path,
        adapter=adapter,
        method=next((name for name, config in METHODS.items() if isinstance(args, config)), None),
        training_data=f"{rows} rows. Their origin and licence are not told.",
        made=made,
    )
