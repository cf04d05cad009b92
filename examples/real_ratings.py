"""From real ratings to a reward model: what every turn of a typed talk was worth.

    make real                                      400 conversations of Chit-Chat, up to 10 minutes on two cores
    make real FULL=1                               all of them
    python examples/real_ratings.py --help

People typed small talk, and rated the whole of it: witty, upbeat, interesting. Hindsight learns from these ratings,
and from reactions that need no camera, what each turn contributed; made turns teach what ratings of real talk can't,
which answers don't fit. The run leaves the reward model, `report.md` and its pictures.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from transformers import set_seed

from geli_hf import GeliRewardModel, fit_hindsight, load_sessions, split_sessions
from geli_hf.affect import add_reactions
from geli_hf.data.chitchat import RATINGS
from geli_hf.evaluation.contrast import contrast_figures, load_contrast
from geli_hf.evaluation.learning_curve import learning_curve
from geli_hf.evaluation.methods.folds import Encoded
from geli_hf.evaluation.report import telling_sessions, write_text
from geli_hf.metrics.metrics import Interval, session_spearman_interval
from geli_hf.metrics.plots import plot_session
from geli_hf.metrics.table import aligned_table, as_json
from geli_hf.models.features import score_cached
from geli_hf.training.fit import train_fit
from geli_hf.training.script import run_main

# `leaving` tells little more than how long a talk was, see docs/data.md.
SIGNALS = ("reply_delay", "answer_length", "laughter", "thanks", "complaint", "question", "asked_again", "sentiment")
PARTS = {"train": 0.7, "eval": 0.1, "test": 0.2}
FEWEST = 50  # conversations, for all parts of the report
CONTRAST = Path(__file__).parents[1] / "results" / "contrast" / "dialogues.jsonl"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--output_dir", type=Path, default=Path("runs/real"))
    add("--conversations", type=int, default=400, help="drawn with the seed; 0 for all (default: 400)")
    add("--data_dir", help="folder of Chit-Chat's dataset.json (default: the package chitchat-dataset)")
    add("--topical_chat", help="folder of Topical-Chat, whose turns teach fit too")
    add("--fit_turns", type=int, default=8_000, help="real turns that teach fit (default: 8000)")
    add("--seed", type=int, default=0, help="of all draws (default: 0)")
    arguments = parser.parse_args(argv)
    if 0 < arguments.conversations < FEWEST:
        parser.error(f"--conversations: expected {FEWEST} or more, or 0 for all, found {arguments.conversations}")
    return arguments


def main(argv: list[str] | None = None) -> None:
    arguments = parse(argv)
    seed, output = arguments.seed, arguments.output_dir
    set_seed(seed)
    sessions = read(arguments)
    parts = split_sessions(sessions, PARTS, seed=seed)
    model = GeliRewardModel.from_backbone(context_messages=1, fit_hidden_size=64)
    # Where a CPU has no instructions for bfloat16, it is many times slower than float32.
    native = any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
    dtype = torch.bfloat16 if native or torch.cuda.is_available() else torch.float32
    fit = teach_fit(model, parts, arguments, dtype)
    encoded = Encoded(model, sessions, dtype=dtype)
    features = {name: encoded.select(np.array(part["row"])) for name, part in parts.items()}
    hindsight = fit_hindsight(model, parts["train"], ratings=RATINGS, seed=seed, features=features["train"])
    scored = {name: score_cached(model, parts[name], features=features[name]["turns"]) for name in ("eval", "test")}
    residuals = np.array(parts["eval"]["score"]) - [session["score"] for session in scored["eval"]]
    model.config.residual_std = float(residuals.std())
    model.save_pretrained(output / "reward_model")

    test, scored = parts["test"], scored["test"]
    agreed = agreement(test, scored, seed)
    contrast = contrast_figures(model.score_messages, load_contrast(CONTRAST), seed=seed)
    curve = learning_curve(model, sessions, seed=seed, features=encoded.features)
    curve.write(output)
    shown = telling_sessions([session["turn_rewards"] for session in scored])[0]
    plot_session(test[shown], scored[shown]["turn_rewards"], output / "session.png", model.config.reward_quantiles)
    sizes = {name: len(part) for name, part in parts.items()}
    figures = {"sessions": sizes, "agreement": agreed, "contrast": contrast.to_dict(), "fit": asdict(fit)}
    write_text(output / "figures.json", json.dumps(as_json(figures), indent=1) + "\n")
    rows = [[name, str(value)] for name, value in agreed.items()]
    report = {
        f"A reward for every turn, from {sizes['train']:,} rated sessions": "",
        f"{len(test):,} sessions that were not learned from": aligned_table(["Predicted and given", "Spearman"], rows),
        "One of them": "![Its turns with their rewards](session.png)",
        "The turns that cost the most": costly_turns(test, scored),
        "How often a fitting answer gets more than a foil": f"{contrast}\n\n{fit}",
        "How many ratings are needed": f"![The learning curve](learning_curve.png)\n\n{curve}",
        "What was learned from": f"```\n{hindsight.report}\n```",
    }
    sections = [f"{'##' if text else '#'} {title}\n\n{text}".strip() for title, text in report.items()]
    write_text(output / "report.md", "\n\n".join(sections) + "\n")
    print("\n\n".join([*list(report.values())[1:5:3], curve.advice, f"The report: {output / 'report.md'}"]))


def read(arguments: argparse.Namespace) -> Dataset:
    """Read the conversations, with reactions as signals, and number the rows."""
    sessions = load_sessions("chitchat", data_dir=arguments.data_dir)
    ids = np.unique(sessions["conversation_id"])
    if arguments.conversations:
        ids = np.random.default_rng(arguments.seed).permutation(ids)[: arguments.conversations]
    sessions = sessions.select(np.flatnonzero(np.isin(sessions["conversation_id"], ids)))
    return add_reactions(sessions, SIGNALS).add_column("row", np.arange(len(sessions)))


def teach_fit(model: GeliRewardModel, parts: dict[str, Dataset], arguments: argparse.Namespace, dtype: torch.dtype):
    """Teach which answers don't fit, by turns of the training conversations and of another corpus."""
    columns = ["conversation_id", "messages"]
    taught = [parts["train"].select_columns(columns)]
    if arguments.topical_chat:
        others = load_sessions("topical_chat", data_dir=arguments.topical_chat, split=["valid_freq", "valid_rare"])
        taught.append(others.select_columns(columns))
    options = {"turns": arguments.fit_turns, "seed": arguments.seed, "dtype": dtype}
    return train_fit(model, concatenate_datasets(taught), parts["eval"].select_columns(columns), **options)


def agreement(test: Dataset, scored: list[dict], seed: int) -> dict[str, Interval]:
    """Correlate predicted scores with the ratings of held-out sessions, and a trivial one."""
    pairs = {
        "reward model, mean of the ratings": ([session["score"] for session in scored], test["score"][:]),
        "number of messages alone": ([len(messages) for messages in test["messages"]], test["score"][:]),
    }
    for rating in RATINGS:
        predicted = [session["ratings"][rating]["score"] for session in scored]
        pairs[f"reward model, {rating}"] = predicted, [scores[rating] for scores in test["scores"]]
    ids = test["conversation_id"][:]
    return {name: session_spearman_interval(*pair, ids, seed=seed) for name, pair in pairs.items()}


def costly_turns(test: Dataset, scored: list[dict]) -> str:
    """List the turns with the lowest rewards, each after the message that it answers."""
    turns = []
    for messages, session in zip(test["messages"], scored):
        places = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        for place, reward in zip(places, session["turn_rewards"]):
            texts = [message["content"].replace("|", "/") for message in messages[max(0, place - 1) : place + 1]]
            turns += [(reward, *(shorten(text, 90, placeholder="…") for text in texts))] if place else []
    rows = [[f"{reward:+.2f}", *texts] for reward, *texts in sorted(turns)[:10]]
    return aligned_table(["Reward", "After", "The turn"], rows)


if __name__ == "__main__":
    run_main(main)
