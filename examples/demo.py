"""Sessions of the sample corpus with a reward for every turn, drawn in the terminal, and one of them as a picture.

    python examples/demo.py

Takes the reward model that the quickstart has left in runs/sample. Without one it trains a small one first, about half
a minute on two free cores, and keeps it in runs/demo.
"""

import argparse
import sys
from pathlib import Path

from transformers.utils import logging

from geli_hf import GeliRewardModel, fit_hindsight, load_sessions, split_sessions
from geli_hf.cache import whole
from geli_hf.cli import main as geli
from geli_hf.data.rows import write_jsonl
from geli_hf.evaluation.report import telling_sessions
from geli_hf.metrics.plots import plot_session

QUICKSTART = Path("runs/sample/reward_model")
# Not the corpus that the quickstart trains on: of another seed, so no model here has seen these sessions.
SHOWN = {"conversations": 20, "seed": 1}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help=f"reward model; default: {QUICKSTART}, or else one of its own")
    parser.add_argument("--sessions", type=int, default=3, help="sessions to draw (default: 3)")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/demo"), help="default: runs/demo")
    arguments = parser.parse_args(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)

    folder = arguments.model or QUICKSTART
    if not folder.exists():
        if arguments.model is not None:
            sys.exit(f"demo: there is no folder {arguments.model}")
        folder = arguments.output_dir / "reward_model"
        if not folder.exists():
            train(folder)
    print(f"Scoring with {folder}\n", flush=True)

    model = GeliRewardModel.from_pretrained(folder)
    sessions = load_sessions("sample", **SHOWN)
    rewards = [row["turn_rewards"] for row in model.score_sessions(sessions)]
    order = telling_sessions(rewards)[: arguments.sessions]
    chosen = write_jsonl((sessions[index] for index in order), arguments.output_dir / "sessions.jsonl")
    geli(["score", str(chosen), "--model", str(folder), "--format", "table"])

    picture = arguments.output_dir / "session.png"
    plot_session(sessions[order[0]], rewards[order[0]], picture, model.config.reward_quantiles)
    print(f"The first of them as a picture: {picture}")


def train(folder: Path) -> None:
    """A reward model as the quickstart's, on a fifth of the sessions, and no policy."""
    print(f"There is no {QUICKSTART}, which make quickstart makes.")
    print("Training a small reward model: about half a minute on two free cores ...", flush=True)
    parts = split_sessions(load_sessions("sample", conversations=140), {"train": 0.8, "eval": 0.2})
    fit = fit_hindsight(GeliRewardModel.from_backbone(context_messages=1), parts["train"], parts["eval"])
    with whole(folder) as partial:
        fit.reward_model.save_pretrained(partial)


if __name__ == "__main__":
    main()
