"""From real ratings to a reward model: what every turn of a typed talk was worth.

    make real                                      400 conversations of Chit-Chat
    make real FULL=1                               all of them
    python examples/real_ratings.py --help

People typed small talk, and rated the whole of it: witty, upbeat, interesting. Hindsight learns from these ratings,
and from reactions that need no camera, what each turn contributed; made turns teach what ratings of real talk can't,
which answers don't fit. The run leaves the reward model and `report.md`, with pictures, in its folder.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from transformers import set_seed

from geli_hf import GeliRewardModel, fit_hindsight, load_sessions, split_sessions
from geli_hf.affect import add_reactions
from geli_hf.data.chitchat import RATINGS
from geli_hf.training.fit import train_fit

# `leaving` tells little more than how long a talk was, see docs/data.md.
SIGNALS = ("reply_delay", "answer_length", "laughter", "thanks", "complaint", "question", "asked_again", "sentiment")
PARTS = {"train": 0.7, "eval": 0.1, "test": 0.2}
FIT_WEIGHT = 1.0


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--output_dir", type=Path, default=Path("runs/real"))
    add("--conversations", type=int, default=400, help="drawn with the seed; 0 for all (default: 400)")
    add("--data_dir", help="folder of Chit-Chat's dataset.json (default: the package chitchat-dataset)")
    add("--topical_chat", help="folder of Topical-Chat, whose turns teach fit too")
    add("--fit_turns", type=int, default=8_000, help="real turns that teach fit (default: 8000)")
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


def read(arguments: argparse.Namespace) -> dict[str, Dataset]:
    sessions = load_sessions("chitchat", data_dir=arguments.data_dir)
    ids = np.unique(sessions["conversation_id"])
    if arguments.conversations:
        ids = np.random.default_rng(arguments.seed).permutation(ids)[: arguments.conversations]
    sessions = sessions.select(np.flatnonzero(np.isin(sessions["conversation_id"], ids)))
    return split_sessions(add_reactions(sessions, SIGNALS), PARTS, seed=arguments.seed)


def train(arguments: argparse.Namespace, parts: dict[str, Dataset]) -> GeliRewardModel:
    # Where a CPU has no instructions for bfloat16, it is many times slower than float32.
    native = torch.cuda.is_available() or any(
        on for name, on in torch.cpu.get_capabilities().items() if "bf16" in name
    )
    dtype = torch.bfloat16 if native else torch.float32
    model = GeliRewardModel.from_backbone(context_messages=1, fit_hidden_size=64, fit_weight=FIT_WEIGHT)
    taught, seen = ([parts[name].select_columns(["conversation_id", "messages"])] for name in ("train", "eval"))
    if arguments.topical_chat:
        others = load_sessions("topical_chat", data_dir=arguments.topical_chat, split=["valid_freq", "valid_rare"])
        taught.append(others.select_columns(["conversation_id", "messages"]))
    fit = train_fit(
        model, concatenate_datasets(taught), seen[0], turns=arguments.fit_turns, seed=arguments.seed, dtype=dtype
    )
    print(fit, flush=True)
    hindsight = fit_hindsight(model, parts["train"], parts["eval"], ratings=RATINGS, seed=arguments.seed, dtype=dtype)
    print(hindsight.report, flush=True)
    return model


def main(argv: list[str] | None = None) -> None:
    arguments = parse(argv)
    set_seed(arguments.seed)
    parts = read(arguments)
    model = train(arguments, parts)
    model.save_pretrained(arguments.output_dir / "reward_model")


if __name__ == "__main__":
    main()
