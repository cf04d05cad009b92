"""The card of a policy with each of its checkpoints, in place of the draft that its trainer would leave."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from trl import GRPOConfig, RLOOConfig, SFTConfig

from .cards import hyperparameters, keep_from_peft, made, name_of, policy_card, save_card
from .models import push_output, push_to_hub

METHODS = {"sft": SFTConfig, "grpo": GRPOConfig, "rloo": RLOOConfig}
OF_RL = ("num_generations", "num_iterations", "max_completion_length", "temperature", "epsilon", "beta")


def write_own_cards(trainer: Trainer) -> None:
    """From now on the trainer writes the project's own card, into its output folder and into every checkpoint; and
    with that card it, and its model, are pushed."""
    trainer.create_model_card = partial(_create_model_card, trainer)
    trainer.add_callback(_CardWithCheckpoint())
    trainer.push_to_hub = partial(push_output, trainer)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        keep_from_peft(model)
    card = partial(_card, args=trainer.args, model=model, rows=len(trainer.train_dataset))
    model.push_to_hub = partial(push_to_hub, model, card=card, beside=[trainer.processing_class])


def save_policy_card(
    folder: str | Path,
    args: TrainingArguments,
    model: PreTrainedModel | PeftModel,
    rows: int,
    *,
    name: str,
    adapter: bool,
) -> None:
    """Write the card of a policy that was trained with these arguments on so many rows, as far as they tell.

    Args:
        name: what the card calls it.
        adapter: whether the folder holds an adapter alone, and not a whole model.
    """
    save_card(_card(args.hub_model_id or name, args, model, rows, adapter=adapter), folder)


def _card(
    repo_id: str, args: TrainingArguments, model: PreTrainedModel | PeftModel, rows: int, adapter: bool | None = None
) -> ModelCard:
    """`adapter`: as of `save_policy_card`; None, as it is now."""
    peft = isinstance(model, PeftModel)
    settings = hyperparameters(args, OF_RL)
    if peft:
        lora = model.peft_config[model.active_adapter]
        settings["lora"] = {name: getattr(lora, name, None) for name in ("r", "lora_alpha", "lora_dropout")}
    return policy_card(
        repo_id,
        base_model=(model.get_base_model() if peft else model).config._name_or_path,
        adapter=peft if adapter is None else adapter,
        method=next((name for name, config in METHODS.items() if isinstance(args, config)), None),
        training_data=f"{rows} rows. Of whose words, and under which licence, was not told.",
        made=made(settings=settings),
    )


def _create_model_card(trainer: Trainer, *args, **kwargs) -> None:
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        _save_as_it_is(trainer.args.output_dir, trainer.args, model, len(trainer.train_dataset))


class _CardWithCheckpoint(TrainerCallback):
    def on_save(self, args, state, control, model=None, train_dataloader=None, **kwargs):
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            _save_as_it_is(folder, args, model, len(train_dataloader.dataset))


def _save_as_it_is(folder: str | Path, args: TrainingArguments, model: PreTrainedModel, rows: int) -> None:
    save_policy_card(folder, args, model, rows, name=name_of(folder), adapter=isinstance(model, PeftModel))
