"""The README's figures on the sample corpus: three runs, each with a corpus and a training of its own.

    make sample-figures

Runs `train_geli.py` on `configs/sample.yaml` once per seed, about six minutes each on two cores (runs that are there
already are kept), pools what their intervals were made of, and writes the table into README.md.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from geli_hf.evaluation.report import THIS_MODEL
from geli_hf.metrics.metrics import Interval, bootstrap, paired_bootstrap

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "sample-figures"
SEEDS = (0, 1, 2)
CONVERSATIONS = 800
MARKERS = ("<!-- sample-figures -->", "<!-- /sample-figures -->")


def main() -> None:
    runs = [run_once(seed) for seed in SEEDS]
    text = table(runs)
    print(text)
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(MARKERS[0])
    _, found, after = rest.partition(MARKERS[1])
    if not found:
        sys.exit(f"sample_figures: {readme} has no place between {' and '.join(MARKERS)} for the table")
    readme.write_text(f"{before}{MARKERS[0]}\n{text}\n{MARKERS[1]}{after}")


def run_once(seed: int) -> Path:
    folder = RUNS / f"seed-{seed}"
    if not (folder / "values.json").exists():
        options = json.dumps({"conversations": CONVERSATIONS, "seed": seed})
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
        launch += ["--mixed_precision", "no", "--dynamo_backend", "no", str(ROOT / "examples" / "train_geli.py")]
        launch += ["--config", str(ROOT / "examples" / "configs" / "sample.yaml"), "--output_dir", str(folder)]
        subprocess.run([*launch, "--resume", "--seed", str(seed), "--data.options", options], check=True)
    return folder


def table(runs: list[Path]) -> str:
    """Figures over all runs as Markdown; a conversation's values are drawn together in the bootstrap."""
    values = [json.loads((run / "values.json").read_text()) for run in runs]
    metrics = [json.loads((run / "metrics.json").read_text()) for run in runs]

    def pooled(part: str, name: str) -> list:
        # Missing values are null in JSON; conversations of different corpora never share a name.
        return [np.nan if value is None else value for each in values for value in each[part][name]]

    def mean(*keys: str) -> float:
        found = []
        for each in metrics:
            for key in keys:
                each = each[key]
            found.append(each)
        return float(np.mean(found))

    within, conversations = "within_session_spearman", pooled("within_session_spearman", "conversation_id")
    mine = pooled(within, THIS_MODEL)
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
        gap = "" if name == THIS_MODEL else paired_bootstrap(mine, theirs, conversations)
        lines.append(f"| {name} | {bootstrap(theirs, conversations)} | {gap} | {loss} |")

    asked = pooled("policy", "conversation_id")
    before, after = pooled("policy", "before"), pooled("policy", "after")
    lines += [
        "",
        "| A reply of the policy | true value | recognised | words |",
        "| --- | ---: | ---: | ---: |",
    ]
    for title, side, judged in (("fine-tuned", "before", before), ("aligned", "after", after)):
        recognised, words = mean("policy", side, "recognised"), mean("policy", side, "words")
        lines.append(f"| {title} | {bootstrap(judged, asked)} | {recognised:.1%} | {words:.1f} |")
    gain: Interval = paired_bootstrap(after, before, asked)
    each = ", ".join(
        f"{run['policy']['difference']['estimate']:+.3f} at {run['policy']['length_ratio']:.2f} of the length"
        for run in metrics
    )
    lines += [
        "",
        f"Alignment gains **{gain}** of true value (seed by seed: {each}).",
        f"{len(runs)} seeds of corpus and training, {len(mine)} held-out sessions, {len(after)} held-out dialogues "
        "that both policies answer; 95 % bootstrap intervals over conversations.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
