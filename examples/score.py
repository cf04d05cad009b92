"""A reward for every turn: of a dialogue, and of typed small talk, drawn in the terminal.

    python examples/score.py

Takes the reward model that comes with the package, unless `--model` names another. One of the sessions is also drawn
as a picture, `session.png`.
"""

import argparse
from pathlib import Path

from transformers.utils import logging

from geli_hf import GeliRewardModel, load_sessions
from geli_hf.alignment.shipped import REWARD
from geli_hf.cli import main as geli
from geli_hf.data.rows import write_jsonl
from geli_hf.evaluation.report import telling_sessions
from geli_hf.metrics.plots import plot_session

UNTOUCHED = 5.0  # of all three ratings: nobody has rated these sessions, so that no model has learned from them
READ = 60  # sessions to choose from
DIALOGUE = [
    {"role": "user", "content": "I went hiking with my sister last weekend, and it rained all day."},
    {"role": "assistant", "content": "Oh no! What did the two of you do when the rain began?"},
    {"role": "user", "content": "We sat in a hut and played cards. She always wins."},
    {"role": "assistant", "content": "Okay."},
]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=str(REWARD), help="reward model (default: the one that ships)")
    parser.add_argument("--sessions", type=int, default=3, help="sessions to draw (default: 3)")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/score"), help="default: runs/score")
    arguments = parser.parse_args(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    model = GeliRewardModel.from_pretrained(arguments.model)
    [scored] = model.score_sessions([{"messages": DIALOGUE}])
    rewards = iter(scored["turn_rewards"])
    for message in DIALOGUE:
        reward = f"{next(rewards):+.2f}" if message["role"] == "assistant" else ""
        print(f"{reward:>5}  {message['role']}: {message['content']}")
    print(f"predicted rating: {scored['score']:.1f}\n")

    sessions = load_sessions("chitchat", side="second", untouched=True)
    unrated = [row for row, scores in enumerate(sessions["scores"]) if set(scores.values()) == {UNTOUCHED}]
    sessions = sessions.select(unrated[:READ])
    rewards = [row["turn_rewards"] for row in model.score_sessions(sessions)]
    order = telling_sessions(rewards)[: arguments.sessions]
    chosen = write_jsonl((sessions[index] for index in order), arguments.output_dir / "sessions.jsonl")
    geli(["score", str(chosen), "--model", arguments.model, "--format", "table"])
    picture = arguments.output_dir / "session.png"
    plot_session(sessions[order[0]], rewards[order[0]], picture, model.config.reward_quantiles)
    print(f"The first of them as a picture: {picture}")


if __name__ == "__main__":
    main()
