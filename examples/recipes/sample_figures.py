"""Figures on the sample corpus for docs/methods.md: three runs, each with a corpus and a training of its own.

    make sample-figures

Runs `train_geli.py` on `configs/sample.yaml` once per seed, about five minutes each on two cores (runs that are there
already are kept), pools the values under their intervals, and writes the table into docs/methods.md.
"""

import json
import subprocess
import sys
from functools import reduce
from operator import getitem
from pathlib import Path

import numpy as np

from geli_hf.evaluation.report import THIS_MODEL
from geli_hf.metrics.metrics import Interval, bootstrap, paired_bootstrap

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "runs" / "sample-figures"
SEEDS = (0, 1, 2)
CONVERSATIONS = 800
MARKERS = ("<!-- sample-figures -->", "<!-- /sample-figures -->")


def main() -> None:
    runs = [run_once(seed) for seed in SEEDS]
    text = table(runs)
    print(text)
    page = ROOT / "docs" / "methods.md"
    before, _, rest = page.read_text().partition(MARKERS[0])
    _, end, after = rest.partition(MARKERS[1])
    if not end:
        sys.exit(f"sample_figures: {page} lacks {' and '.join(MARKERS)}, between which the table goes")
    page.write_text(f"{before}{MARKERS[0]}\n{text}\n{MARKERS[1]}{after}")


def run_once(seed: int) -> Path:
    """Run the quickstart with this seed unless its folder is complete, and return the folder."""
    folder = RUNS / f"seed-{seed}"
    if not (folder / "values.json").exists():
        options = json.dumps({"conversations": CONVERSATIONS, "seed": seed})
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
        launch += ["--mixed_precision", "no", "--dynamo_backend", "no", str(ROOT / "examples" / "train_geli.py")]
        launch += ["--config", str(ROOT / "examples" / "configs" / "sample.yaml"), "--output_dir", str(folder)]
        subprocess.run([*launch, "--resume", "--seed", str(seed), "--data.options", options], check=True)
    return folder


def table(runs: list[Path]) -> str:
    """Make Markdown tables of the figures over all runs; the bootstrap draws the values of a conversation together."""
    values = [json.loads((run / "values.json").read_text()) for run in runs]
    metrics = [json.loads((run / "metrics.json").read_text()) for run in runs]

    def pooled(part: str, name: str) -> list:
        # Missing values are null in JSON; conversations of different corpora never share a name.
        return [np.nan if value is None else value for run in values for value in run[part][name]]

    def mean(*keys: str) -> float:
        return float(np.mean([reduce(getitem, keys, run) for run in metrics]))

    within, conversations = "within_session_spearman", pooled("within_session_spearman", "conversation_id")
    ours = pooled(within, THIS_MODEL)
    lines = [
        "| Reward of a turn | Within-session Spearman with the truth | less than this model's by | "
        "Global loss (floor) |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in metrics[0]["reward"]:
        theirs = pooled(within, name)
        loss = "–"
        if metrics[0]["reward"][name]["global_loss"]["estimate"] is not None:
            floor = mean("reward", name, "global_loss_floor")
            loss = f"{mean('reward', name, 'global_loss', 'estimate'):.3f} ({floor:.3f})"
        gap = "" if name == THIS_MODEL else paired_bootstrap(ours, theirs, conversations)
        lines.append(f"| {name} | {bootstrap(theirs, conversations)} | {gap} | {loss} |")

    dialogues = pooled("policy", "conversation_id")
    before, after = pooled("policy", "before"), pooled("policy", "after")
    lines += [
        "",
        "| A reply of the policy | true value | recognised | words |",
        "| --- | ---: | ---: | ---: |",
    ]
    for title, side, judged in (("fine-tuned", "before", before), ("aligned", "after", after)):
        recognised, words = mean("policy", side, "recognised"), mean("policy", side, "words")
        lines.append(f"| {title} | {bootstrap(judged, dialogues)} | {recognised:.1%} | {words:.1f} |")
    gain: Interval = paired_bootstrap(after, before, dialogues)
    by_seed = ", ".join(
        f"{run['policy']['difference']['estimate']:+.3f} at {run['policy']['length_ratio']:.2f} of the length"
        for run in metrics
    )
    lines += [
        "",
        f"Alignment gains **{gain}** of true value (seed by seed: {by_seed}).",
        f"{len(runs)} seeds of corpus and training, {len(ours)} held-out sessions, {len(after)} held-out dialogues "
        "that both policies answer; 95 % bootstrap intervals over conversations.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
