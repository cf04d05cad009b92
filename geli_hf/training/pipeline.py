"""Training of a run's reward model: a preset, its settings, and what stands beside it for comparison.

Everything that is finished lies whole in the run's folder and is not made again when the run is resumed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import TrainerCallback, set_seed

from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import feedback_names
from ..settings import SettingsError, build
from .arguments import PAPER, GeliRewardArguments
from .checkpoints import run_training, write_by_one, write_history
from .data import shuffle_feedback
from .hindsight import fit_hindsight
from .script import is_finished, setting_errors
from .trainer import GeliRewardTrainer

HINDSIGHT = "hindsight"  # the recommended preset
PRESETS: dict[str, dict[str, dict]] = {
    HINDSIGHT: {"model": {}, "training": {}},
    "geli": {"model": {}, "training": {}},
    "paper": PAPER,
}
Parts = Mapping[str, Dataset]


@dataclass
class RewardModelSettings:
    """The section `model` of a run's settings.

    Args:
        backbone: name or path; unset: all-MiniLM-L6-v2.
        preset: "hindsight", "geli" (trained as the section `reward` says) or "paper" (the published recipe).
        signals: names in `feedback` that hindsight may trust; unset: all.
        config: fields of `GeliRewardConfig`.
        li_stage: trainer settings of the paper's first stage, on the Local Implicit loss alone.
        compare: evaluate GELI and its ablations beside the model.
    """

    backbone: str | None = None
    preset: str = HINDSIGHT
    signals: list[str] | None = None
    config: dict = field(default_factory=dict)
    li_stage: dict | None = None
    compare: bool = True

    def __post_init__(self):
        if self.preset not in PRESETS:
            raise ValueError(f"model.preset: expected one of {', '.join(PRESETS)}, found {self.preset!r}")
        if self.preset != "paper" and self.li_stage is not None:
            raise ValueError("model.li_stage: only the preset paper has such a stage")


def train_reward_model(
    model: RewardModelSettings,
    reward: Mapping[str, Any],
    parts: Parts,
    output: Path,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool = False,
) -> None:
    """Train the reward model of a run, and write it to `output/reward_model`.

    Hindsight also leaves `attribution` and `hindsight.txt`, GELI `reward_history.json`.

    Args:
        model: the section `model`.
        reward: settings of the trainer, see [`trainer_settings`].
        parts: "train" and "eval", Session rows.
        output: folder of the run.
        callbacks: of the trainers.
        resume: go on from the last checkpoint.

    Raises:
        SettingsError: the settings don't fit the sessions or each other.
    """
    if is_finished(output / "reward_model"):
        return
    reward = reward | {"output_dir": str(output / "checkpoints" / "reward")}
    if model.preset == HINDSIGHT:
        args = build(GeliRewardArguments, reward)
        if not args.freeze_backbone:
            raise SettingsError(
                "reward.freeze_backbone: hindsight fits heads on a frozen backbone; choose model.preset geli"
            )
        reward_model = _fit_hindsight(model, args, parts, output)
    else:
        reward_model, trainer = train_geli(model, reward, parts, callbacks=callbacks, resume=resume)
        write_history(trainer, output / "reward_history.json")
    write_by_one(output / "reward_model", reward_model.save_pretrained)


def trainer_settings(model: RewardModelSettings, reward: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the settings of the reward model's trainer: the preset's, unless the section `reward` has others."""
    return {"seed": seed} | PRESETS[model.preset]["training"] | reward


def train_geli(
    model: RewardModelSettings,
    reward: Mapping[str, Any],
    parts: Parts,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool = False,
) -> tuple[GeliRewardModel, GeliRewardTrainer]:
    """Train a new reward model by GELI.

    Args:
        model: the section `model`.
        reward: settings of the trainer, `output_dir` and `seed` among them.
        parts: "train" and "eval", Session rows.
        callbacks: of the trainers.
        resume: go on from the last checkpoint.

    Returns:
        The model and its trainer.

    Raises:
        SettingsError: a setting can't have its value, or a first stage is wanted on standardised features.
    """

    def train(reward_model: GeliRewardModel, args: GeliRewardArguments) -> GeliRewardTrainer:
        trainer = GeliRewardTrainer(reward_model, args, parts["train"], parts["eval"], callbacks=list(callbacks))
        run_training(trainer, resume)
        return trainer

    args = build(GeliRewardArguments, reward)
    set_seed(args.seed)
    reward_model = _new_model(model)
    if model.li_stage is not None and args.li_weight > 0:
        if args.standardise:
            raise SettingsError(
                "model.li_stage: its head reads features as they are, so the second stage can't standardise them; set "
                "reward.standardise to false, as the paper preset does"
            )
        first = Path(f"{args.output_dir}_li")
        if not (first / "model").exists():
            alone = {**reward, "li_weight": 1.0, "output_dir": str(first), **model.li_stage}
            train(reward_model, build(GeliRewardArguments, alone))
            write_by_one(first / "model", reward_model.save_pretrained)
        reward_model = GeliRewardModel.from_pretrained(first / "model")
    return reward_model, train(reward_model, args)


def ablations(
    model: RewardModelSettings, args: GeliRewardArguments, parts: Parts
) -> Iterator[tuple[str, Parts, dict[str, Any]]]:
    """List GELI and its ablations, each with one part of the loss changed.

    Args:
        model: the section `model`.
        args: of the trainer of GELI.
        parts: "train" and "eval", Session rows.

    Returns:
        The name of each, the sessions to train on, and the changes to the settings of its trainer.
    """
    carried = args.li in feedback_names(parts["train"])
    with_signal = args.li_weight > 0 and (model.preset != HINDSIGHT or carried)
    if model.preset == HINDSIGHT and with_signal:
        yield "GELI", parts, {}
    name = "RRD alone, all turns" if (args.ge, args.rrd_turns) == ("rrd", None) else f"{args.ge.upper()} alone"
    yield name, parts, {"li_weight": 0.0}
    if with_signal:
        yield "LI alone", parts, {"li_weight": 1.0}
        shuffled = shuffle_feedback(parts["train"], args.li, seed=args.seed)
        yield "GELI with its LI shuffled", {**parts, "train": shuffled}, {}


def _fit_hindsight(
    model: RewardModelSettings, args: GeliRewardArguments, parts: Parts, output: Path
) -> GeliRewardModel:
    """Fit teacher and student, and write the teacher and the report into the run's folder."""
    state = PartialState()
    with state.main_process_first(), setting_errors("model.preset: hindsight can't be fitted"):  # one encodes for all
        fit = fit_hindsight(
            _new_model(model).to(state.device),
            parts["train"],
            parts["eval"],
            signals=model.signals,
            seed=args.seed,
            **args.feature_options(),
        )
    state.print(fit.report)
    write_by_one(output / "hindsight.txt", lambda partial: partial.write_text(f"{fit.report}\n"))
    write_by_one(output / "attribution", fit.attribution.save_pretrained)
    return fit.reward_model


def _new_model(model: RewardModelSettings) -> GeliRewardModel:
    with setting_errors("model"):
        return GeliRewardModel.from_backbone(model.backbone, **PRESETS[model.preset]["model"] | model.config)
