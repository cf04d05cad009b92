"""Time and peak memory of `geli score` against the length and the number of sessions, as a picture.

    python benchmarks/curves.py [benchmarks/curves.png]

Takes some five minutes. Each point is a process of its own, on one thread, that reads a file of JSON lines.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import matplotlib.pyplot as plt
from fresh_process import score_in_fresh_process, write_sessions
from reference import long_dialogue, random_backbone

from geli_hf import GeliRewardModel, load_sessions
from geli_hf.models.geli_reward.modeling_geli import default_backbone

TURNS = (10, 30, 100, 300, 1000, 3000)
SESSIONS = (100, 1000, 10_000, 100_000)


def main(picture: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = load_sessions("sample", conversations=8, cache_dir=folder / "cache").to_list()
        checkpoints = {
            "all-MiniLM-L6-v2, 4 messages of context": GeliRewardModel.from_backbone(
                default_backbone(), context_messages=4
            ),
            "decoder of next to no size": GeliRewardModel.from_backbone(random_backbone("nothing", folder)),
        }
        for number, model in enumerate(checkpoints.values()):
            model.save_pretrained(folder / str(number))
        dialogues = [long_dialogue(sample[row % 16 :], 3) for row in range(100)]
        figure, axes = plt.subplots(2, 2, figsize=(8, 5.2), sharex="col", layout="constrained")
        for number, label in enumerate(checkpoints):
            for column, counts in enumerate((TURNS, SESSIONS) if number else (TURNS[:4],)):
                points = []
                for count in counts:
                    if column == 0:
                        file = write_sessions(folder / "sessions.jsonl", [long_dialogue(sample, count)])
                    else:
                        file = write_sessions(folder / "sessions.jsonl", dialogues, count // 100)
                    points.append(score_in_fresh_process(str(folder / str(number)), file))
                    unit = ("turns in one session", "sessions of three turns")[column]
                    print(f"{label}: {count} {unit}: {points[-1][0]:.1f} s, {points[-1][1]:.0f} MiB", flush=True)
                for row, values in enumerate(zip(*points)):
                    axes[row, column].plot(counts, values, "o-", markersize=3, color=f"C{number}", label=label)
    for column, label in enumerate(("turns of the one session", "sessions of three turns")):
        axes[0, column].set(xscale="log", yscale="log")
        axes[1, column].set(xlabel=label, ylim=(0, 1500))
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory, MiB")
    axes[1, 0].legend(fontsize=8, frameon=False)
    figure.savefig(picture, dpi=80)


if __name__ == "__main__":
    main(*(sys.argv[1:] or [str(Path(__file__).with_name("curves.png"))]))
