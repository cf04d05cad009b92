"""Cards of the models that a run leaves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..alignment import is_adapter
from ..alignment.shipped import ORIGIN
from ..evaluation.comparison import PolicyComparison
from ..evaluation.report import THIS_MODEL
from ..evaluation.run import TEACHER
from ..metrics.table import markdown_table
from ..models.attribution import HindsightAttribution
from ..models.geli_reward.configuration_geli import GeliRewardConfig
from .cards import (
    SOURCES,
    card_title,
    corpus_licence,
    describe_origin,
    policy_card,
    reward_model_card,
    save_card,
)

REWARD_MODELS = {"reward_model": THIS_MODEL, "attribution": TEACHER}  # and their rows among the methods
POLICIES = {"sft_policy": "sft", "policy": "grpo"}  # and the methods of their training
FOLDERS = (*REWARD_MODELS, *POLICIES)


def describe_run(
    command: Iterable[str],
    settings: Mapping[str, Mapping],
    *,
    corpus: str,
    sessions: int,
    seconds: float,
) -> dict[str, Any]:
    """Collect what the cards of all models of a run say.

    Args:
        command: words of the command line.
        settings: those of `parse_settings`.
        corpus: name or path.
        sessions: number of them that were trained on.
        seconds: duration of the run.

    Returns:
        Arguments of `reward_model_card` and `policy_card`.
    """
    given = {name: part for name, part in settings.items() if name and part}
    return {
        "training_data": f"{sessions:,} sessions of the corpus `{card_title(corpus)}`. {corpus_licence(corpus)}",
        "made": describe_origin(command, settings=given, seconds=seconds),
        "language": "en" if corpus in SOURCES else None,
    }


def write_run_cards(
    output: Path,
    folders: Iterable[str],
    facts: dict[str, Any],
    *,
    corpus: str,
    test: Dataset,
    base_policy: str | None = None,
    rows: Mapping[str, Mapping[str, Any]] | None = None,
    comparison: PolicyComparison | None = None,
) -> None:
    """Write the cards of a run's models.

    Args:
        output: folder of the run.
        folders: those of [`FOLDERS`] to write a card for; one that is not there is left out.
        facts: see [`describe_run`].
        corpus: name or path.
        test: Session rows that the figures were measured on.
        base_policy: name of the chat model that was fine-tuned; unset: the small one that ships.
        rows: figures of each method, see `evaluate_run`.
        comparison: the policy before and after alignment.
    """
    corpus_name = f"`{card_title(corpus)}`"
    measured_on = {"type": Path(corpus).name, "name": f"held-out sessions of {Path(corpus).name}"}
    measured, aligned = {}, {"reward_model": card_title(output / "reward_model")}
    if rows:
        held_out = f"{len(test):,} sessions of {len(test.unique('conversation_id')):,} held-out conversations"
        measured = {"table": markdown_table(rows), "measured_on": measured_on}
        measured["held_out"] = f"{held_out} of {corpus_name}"
    if comparison:
        aligned |= {"comparison": comparison.figures(), "measured_on": measured_on}
        aligned["held_out"] = f"{len(comparison.dialogues)} held-out dialogues of {corpus_name}"
    for folder in (output / name for name in folders if (output / name).exists()):
        name, title = folder.name, card_title(folder)
        if name in POLICIES:
            more = {"base_model": base_policy or "", "recipe": None if base_policy else ORIGIN}
            more |= {"method": POLICIES[name]} | (aligned if name == "policy" else {})
            card = policy_card(title, **facts | more)
        else:
            more = measured | {"row": (rows or {}).get(REWARD_MODELS[name])}
            if name == "attribution":
                more["signals"] = HindsightAttribution.from_pretrained(folder).signals
            card = reward_model_card(title, config=GeliRewardConfig.from_pretrained(folder), **facts | more)
        save_card(card, folder)


def write_alignment_card(
    output: Path,
    facts: dict[str, Any],
    figures: Mapping[str, Any],
    *,
    base_model: str,
    method: str,
    reward_model: str,
    fine_tuned: bool,
    test: str,
    dialogues: int,
) -> None:
    """Write the card of a policy that was aligned with a reward model of its own choice.

    Args:
        output: folder of the run, with the policy in `policy`.
        facts: see [`describe_run`].
        figures: those of a `PolicyComparison`, with `steps` and `kl` of `final_kl`.
        base_model: chat model that the run began with.
        method: "grpo" or "rloo".
        reward_model: folder or name.
        fine_tuned: the policy was fine-tuned on the sessions before.
        test: corpus of the held-out dialogues.
        dialogues: number of them.
    """
    steps = f"{'fine-tuned on the sessions, then ' if fine_tuned else ''}aligned by {method.upper()}"
    recipe = f"`{card_title(base_model)}` was {steps} for {figures['steps']} steps."
    if figures["kl"] is not None:
        recipe += f" Its replies ended {figures['kl']:.2g} nats of KL from those before alignment."
    card = policy_card(
        card_title(output / "policy"),
        base_model=base_model,
        adapter=is_adapter(output / "policy"),
        method=method,
        reward_model=card_title(reward_model),
        recipe=recipe,
        comparison=figures,
        held_out=f"{dialogues} dialogues of conversations that were not trained on",
        measured_on={"type": Path(test).name, "name": f"held-out dialogues of {Path(test).name}"},
        **facts,
    )
    save_card(card, output / "policy")
