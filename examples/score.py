"""A reward for every turn: of a dialogue, and of sessions of the sample corpus, drawn in the terminal.

    python examples/score.py

Takes the reward model that the quickstart leaves in runs/sample. Without one it trains a small one first, about half a
minute on two free cores, and keeps it in runs/score. One of the sessions is also drawn as a picture, `session.png`.
"""

import argparse
import sys
from pathlib import Path

from transformers.utils import logging

from geli_hf import GeliRewardModel, fit_hindsight, load_sessions, split_sessions
from geli_hf.cache import atomic_path
from geli_hf.cli import main as geli
from geli_hf.data.rows import write_jsonl
from geli_hf.evaluation.report import telling_sessions
from geli_hf.metrics.plots import plot_session

QUICKSTART = Path("runs/sample/reward_model")
# The seed is not the one of the quickstart's corpus, so no model here was trained on these sessions.
SAMPLE = {"conversations": 20, "seed": 1}
DIALOGUE = [
    {"role": "user", "content": "I went hiking with my sister last weekend, and it rained all day."},
    {"role": "assistant", "content": "Oh no! What did the two of you do when the rain began?"},
    {"role": "user", "content": "We sat in a hut and played cards. She always wins."},
    {"role": "assistant", "content": "Okay."},
]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help=f"reward model; default: {QUICKSTART}, or else one of its own")
    parser.add_argument("--sessions", type=int, default=3, help="sessions to draw (default: 3)")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/score"), help="default: runs/score")
    arguments = parser.parse_args(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    folder = arguments.model or (QUICKSTART if QUICKSTART.exists() else arguments.output_dir / "reward_model")
    if arguments.model is None and not folder.exists():
        train(folder)
    if not folder.exists():
        sys.exit(f"score: there is no folder {folder}")
    print(f"Scoring with {folder}\n", flush=True)
    model = GeliRewardModel.from_pretrained(folder)

    [scored] = model.score_sessions([{"messages": DIALOGUE}])
    rewards = iter(scored["turn_rewards"])
    for message in DIALOGUE:
        reward = f"{next(rewards):+.2f}" if message["role"] == "assistant" else ""
        print(f"{reward:>5}  {message['role']}: {message['content']}")
    print(f"predicted rating: {scored['score']:.1f}\n")

    sessions = load_sessions("sample", **SAMPLE)
    rewards = [row["turn_rewards"] for row in model.score_sessions(sessions)]
    order = telling_sessions(rewards)[: arguments.sessions]
    chosen = write_jsonl((sessions[index] for index in order), arguments.output_dir / "sessions.jsonl")
    geli(["score", str(chosen), "--model", str(folder), "--format", "table"])
    picture = arguments.output_dir / "session.png"
    plot_session(sessions[order[0]], rewards[order[0]], picture, model.config.reward_quantiles)
    print(f"The first of them as a picture: {picture}")


def train(folder: Path) -> None:
    """Train a reward model as the quickstart does, on a fifth of the sessions."""
    print(f"There is no {QUICKSTART}, which make quickstart makes.")
    print("Training a small reward model: about half a minute on two free cores ...", flush=True)
    parts = split_sessions(load_sessions("sample", conversations=140), {"train": 0.8, "eval": 0.2})
    fit = fit_hindsight(GeliRewardModel.from_backbone(context_messages=1), parts["train"], parts["eval"])
    with atomic_path(folder) as partial:
        fit.reward_model.save_pretrained(partial)


if __name__ == "__main__":
    main()
