"""Cards of the small policy, its adapter and its reward model, from the figures of `evaluate_policy.py`.

python examples/recipes/policy_cards.py runs/policy
"""

import json
import sys
from pathlib import Path

import yaml
from huggingface_hub import ModelCard

from geli_hf.hub.cards import Measured, policy_card, render_card, save_card
from geli_hf.metrics.metrics import Interval
from geli_hf.metrics.table import COLUMNS
from geli_hf.simulator.oracle import VALUES

CORPORA = {"sample": "the sample", "topical_chat": "Topical-Chat (`test_freq`)"}
STAGE_OF = {"base": "pretrained", "policy": "fine-tuned", "aligned": "aligned"}
SOURCE = (
    "Topical-Chat (Gopalakrishnan et al., Interspeech 2019; Community Data License Agreement, Sharing 1.0), parts "
    "`valid_freq` and `valid_rare`"
)


def of_alignment(made: dict) -> dict:
    """Keep of the settings those of the alignment."""
    settings = yaml.safe_load(made["settings"])
    own = {name: settings[name] for name in ("policy", "grpo")}
    return made | {"settings": yaml.safe_dump(own, sort_keys=False).strip()}


def cards(figures: dict, folder: Path) -> dict[str, ModelCard]:
    """Render the card of each of the three folders, from the figures and the adapter's configuration in `folder`."""
    data, reward_figures, alignment = figures["data"], figures["reward"], figures["alignment"]
    rated, talked = (reward_figures[name]["train"] for name in ("sample", "talks"))
    low, high = min(data["pieces"]), max(data["pieces"])
    read = f"pieces of {low} to {high} messages of {data['generated']:,} generated sessions of the sample"
    longer = f"pieces of up to {max(data['long_pieces'])} messages of {data['lengthened']:,} others"
    longer += " and of Topical-Chat" if data["topical_chat"] else ""
    learnt = f"{data['sft']:,} other generated sessions"
    if data["topical_chat"]:
        often = "once" if data["passes"] == 1 else f"{data['passes']} times"
        read += (
            f", and {often} on the {data['topical_chat']:,} sessions (every conversation from both sides) of {SOURCE}"
        )
        learnt += " and the same sessions of Topical-Chat"
    common = {"metadata": {"license": "apache-2.0", "language": "en"}, "made": figures["made"]}
    on = {"type": "sample", "name": "held-out dialogues of the sample corpus"}
    policy = render_card(
        "small_policy",
        "policy",
        **common,
        figures=[Measured("Win rate of the aligned policy, by the sample's truth", "win_rate", alignment["win_rate"])],
        measured_on=on,
        sizes=f"The policy has {figures['parameters'] / 1e6:.1f} million weights, in bfloat16.",
        training_data=(
            f"Pretrained on {read}: everybody's words; then on {longer}, so that it is at home in longer "
            f"dialogues. Fine-tuned for {data['sft_epochs']:g} epochs on the agent's turns of {learnt}. Aligned with "
            f"prompts from {rated:,} rated sessions of the sample, which the reward model was learned from "
            "too. The sample is made by the package; no test part of a corpus was learned from."
        ),
        perplexity=perplexity_table(figures),
        alignment=alignment_table(figures),
        acts=acts_table(figures),
        replies=replies_list(figures),
    )
    reward = render_card(
        "reward_model",
        "policy_reward",
        **common,
        figures=[Measured(COLUMNS["within_session_spearman"], "spearmanr", reward_figures["spearman"]["sample"])],
        measured_on=on,
        training_data=(
            f"{rated:,} sessions of the sample corpus, which the package makes, and {talked:,} that the "
            f"small policy talked with the people of that corpus: {talked:,} before it was aligned. The backbone "
            "began as the small policy. All weights were trained, on the ratings of the sessions (RRD) and at once on "
            "the listeners' simulated faces, where it was found out how much of a reward shows (`li_slope`)."
        ),
        rating="the simulated partner's overall affect, 1 to 9.",
        held_out=(
            f"{reward_figures['sample']['test']:,} sessions of {data['test_conversations']} held-out conversations "
            f"of the sample, and {reward_figures['talks']['test']} held-out ones of the policy"
        ),
        figures_table=reward_table(figures),
    )
    lora = json.loads((folder / "policy_adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    adapter = policy_card(
        "policy_adapter",
        base_model="policy",
        adapter=True,
        method="grpo",
        reward_model="policy_reward",
        training_data=(
            f"Prompts from {rated:,} rated sessions of the sample corpus, which the reward model was learned "
            "from too. The sample is made by the package: simulated people, whose words are nobody's (Apache 2.0). "
            f"What the policy under it has read{f', {SOURCE} among it' if data['topical_chat'] else ''}, its own card "
            "tells."
        ),
        recipe=(
            f"LoRA of rank {lora['r']} (alpha {lora['lora_alpha']}, dropout {lora['lora_dropout']:g}) on "
            f"{', '.join(f'`{name}`' for name in sorted(lora['target_modules']))} of the policy in the folder "
            "`policy`, in bfloat16, trained by GRPO. The command makes all three folders; of its settings these are "
            "the adapter's."
        ),
        made=of_alignment(figures["made"]),
        comparison=alignment,
        table=alignment_table(figures),
        held_out=f"{figures['asked']['replies']:,} held-out dialogues of the sample",
        measured_on=on,
        limits=(
            "**For the offline demo and for tests**: the policy under it is very small, knows what the sample's "
            "simulated people talk about and nothing else, and is not for real use. What was gained was measured in "
            "the world that the reward was learned in, and says nothing of people."
        ),
        **common["metadata"],
    )
    return {"policy": policy, "policy_adapter": adapter, "policy_reward": reward}


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def perplexity_table(figures: dict) -> str:
    rows = [
        [STAGE_OF[name], CORPORA[corpus], f"{each['per_token']:.2f}", f"{each['per_word']:.2f}", f"{each['words']:,}"]
        for corpus in CORPORA
        for name, read in figures["perplexity"].items()
        if (each := read.get(corpus))
    ]
    return table(["the policy", "turns of", "per token", "per word", "words read"], rows)


def alignment_table(figures: dict) -> str:
    found = figures["alignment"]
    sides = [found["before"], found["after"]]
    rows = [["true value", *(str(Interval(*side["value"])) for side in sides)]]
    rows.append(["recognised by the grammar", *(f"{side['recognised']:.1%}" for side in sides)])
    rows.append(["words", *(f"{side['words']:.1f}" for side in sides)])
    rows.append(["different replies", *(f"{side['distinct']:.1%}" for side in sides)])
    rows += [[f"distinct-{n}", *(f"{side[f'distinct_{n}']:.3f}" for side in sides)] for n in (1, 2, 3)]
    asked, checkpoints = figures["asked"], figures["checkpoints"]
    compared = ", ".join(
        f"{step} steps {wins:.3f} ({checkpoints['recognised'][step]:.1%})"
        for step, wins in checkpoints["win_rates"].items()
    )
    chosen = (
        f"\n\nThe adapter is that of {checkpoints['chosen']} steps of GRPO. Of those whose replies were recognised as "
        f"often as before ({checkpoints['recognised_before']:.1%}), if there were any, it had the highest win rate in "
        f"{checkpoints['replies']:,} replies to other dialogues: {compared}"
    )
    return (
        table(["a reply", "fine-tuned", "aligned"], rows)
        + f"\n\nOf {asked['replies']:,} pairs of replies the aligned one is better in "
        + f"{Interval(*found['win_rate'])} (ties, {found['ties']:.1%}, count half). The true value rises by "
        + f"{Interval(*found['difference'])}, at {found['length_ratio']:.2f} of the length, and the policy moved by "
        + f"{Interval(*found['kl'])} nats a reply (KL divergence from the fine-tuned one, at the temperature of "
        + f"{asked['temperature']} that replies were sampled at). Intervals are 95 % bootstrap intervals over "
        + "conversations; distinct-n is the share of different n-grams of words among all."
        + f"{chosen}."
    )


def acts_table(figures: dict) -> str:
    sides = [figures["alignment"][side]["acts"] for side in ("before", "after")]
    names = sorted(set().union(*sides), key=lambda act: (-max(side.get(act, 0.0) for side in sides), act))
    rows = [
        [act.replace("_", " "), f"{VALUES[act]:+.1f}", *(f"{side.get(act, 0.0):.1%}" for side in sides)]
        for act in names
        if max(side.get(act, 0.0) for side in sides) >= 0.01
    ]
    return table(["act", "worth", "fine-tuned", "aligned"], rows)


def replies_list(figures: dict) -> str:
    lines = []
    for corpus, rows in figures["replies"].items():
        lines.append(f"From {CORPORA[corpus]}:\n")
        for row in rows:
            said = {name: " ".join(text.split()) for name, text in row.items()}
            lines.append(f"- *{said['before']}*<br>fine-tuned: {said['fine-tuned']}<br>aligned: {said['aligned']}")
        lines.append("")
    return "\n".join(lines).strip()


def reward_table(figures: dict) -> str:
    spearman = figures["reward"]["spearman"]
    header = ["within-session Spearman with the truth", "the sample's people", "the fine-tuned policy"]
    return table(header, [["this model", f"{spearman['sample']:.3f}", f"{spearman['talks']:.3f}"]])


def main(argv: list[str]) -> None:
    if len(argv) != 1 or not (Path(argv[0]) / "figures.json").exists():
        sys.exit(f"policy_cards: expected a folder with figures.json, found {argv}")
    folder = Path(argv[0])
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    for name, card in cards(figures, folder).items():
        save_card(card, folder / name)


if __name__ == "__main__":
    main(sys.argv[1:])
