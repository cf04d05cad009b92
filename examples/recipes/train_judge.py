"""A judge of replies whose backbone learns too: LoRA on people's ratings of turns, then the closed form.

    python examples/recipes/train_judge.py topical_chat --data_dir DATA/topical_chat \
        --options '{"split": "test_freq"}' --backbone RUN/gold_backbone --output RUN/lora_judge

`geli train-judge` fits a head on a frozen backbone. Here an adapter learns first, from half of the conversations, and
is merged; the head is then fitted to the other half, whose ratings the backbone has not seen, as that command does.
The agreement with people is measured on the same held-out fifth, so that the two judges can be compared.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig

from geli_hf import GeliRewardArguments, GeliRewardModel, GeliRewardTrainer, split_sessions
from geli_hf.data.parts import load_corpus
from geli_hf.evaluation.judges.ratings import describe, fit_judge, measure_judge
from geli_hf.metrics.baselines import log_length
from geli_hf.metrics.ranks import centre_within
from geli_hf.metrics.table import turn_ratings
from geli_hf.training.checkpoints import write_by_one
from geli_hf.training.script import fit_to_cpu, run_main

SIGNAL = "rating_given_length"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", help="name or path, with `turn_rating`")
    parser.add_argument("--data_dir")
    parser.add_argument("--options", type=json.loads, default={}, help="of the corpus's reader")
    parser.add_argument("--backbone", help="folder, or a name on the Hub (default: all-MiniLM-L6-v2)")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(argv)
    sessions = load_corpus(options.corpus, options.options, options.data_dir, rated=False)
    train, held_out = split_sessions(sessions, {"train": 0.8, "held_out": 0.2}).values()
    first, second = split_sessions(train, {"first": 0.5, "second": 0.5}).values()

    model = GeliRewardModel.from_backbone(options.backbone, context_messages=1, dtype=torch.bfloat16)
    given = {
        "learning_rate": options.learning_rate,
        "num_train_epochs": options.epochs,
        "per_device_train_batch_size": 8,
        "warmup_steps": 0.05,
        "output_dir": str(options.output.with_suffix(".training")),
    }
    arguments = {"args": given}
    fit_to_cpu(arguments, ["args"])
    args = GeliRewardArguments(
        **arguments["args"],
        li=SIGNAL,
        li_weight=1.0,
        freeze_backbone=False,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        logging_strategy="steps",
        logging_steps=10,
        report_to="none",
    )
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", exclude_modules=["score.*"])
    trainer = GeliRewardTrainer(model, args, with_signal(first), peft_config=lora)
    trainer.train()
    merged = trainer.model.merge_and_unload()
    report = fit_judge(merged, second)
    measure_judge(merged, held_out, report)

    def write(folder: Path) -> None:
        merged.save_pretrained(folder)
        report.save(folder)

    write_by_one(options.output, write)
    print(f"{options.output}: {describe(report)}")


def with_signal(sessions: Dataset) -> Dataset:
    """Add, as the one signal, the rating of a turn less its regression on the length, both within sessions."""
    ratings, turns = turn_ratings(sessions), [len(row) for row in turn_ratings(sessions)]
    rating, session = np.concatenate(ratings).astype(float), np.repeat(np.arange(len(sessions)), turns)
    length, known = np.concatenate(log_length(sessions.select_columns("messages"))), ~np.isnan(rating)
    target, length = (centre_within(session[known], each[known], len(sessions)) for each in (rating, length))
    rating[known] = target - length * (length @ target / max(length @ length, 1e-9))
    rows = [{SIGNAL: row.tolist()} for row in np.split(rating, np.cumsum(turns)[:-1])]
    kept = [name for name in sessions.column_names if name != "feedback"]
    scored = sessions.select_columns([name for name in kept if name != "score"])
    return scored.add_column("feedback", rows).add_column("score", np.zeros(len(rows)))


if __name__ == "__main__":
    run_main(main)
