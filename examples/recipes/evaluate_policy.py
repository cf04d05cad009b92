"""Figures of the small policy that comes with the package, from what `train_policy.py` left.

    python examples/recipes/evaluate_policy.py runs/policy --topical-chat DATA/topical_chat

Writes `figures.json`: the perplexity of the policy, replies before and after alignment to held-out dialogues, judged
by the sample's truth, their KL divergence, and how well the reward model orders the turns of held-out sessions.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import yaml
from datasets import Dataset

from geli_hf import GeliRewardModel, load_sessions
from geli_hf.alignment import ReferenceLikelihood, dialogue_prompts, load_policy, sft_rows
from geli_hf.alignment.sampling import sample_replies
from geli_hf.cache import atomic_path
from geli_hf.evaluation.divergence import reply_divergence
from geli_hf.evaluation.judges.judge import TruthJudge
from geli_hf.hub.cards import describe_origin
from geli_hf.metrics.metrics import bootstrap, within_session_spearman
from geli_hf.metrics.texts import distinct_ngrams
from geli_hf.models.features import score_cached
from geli_hf.sessions import assistant_turns
from geli_hf.simulator.oracle import true_turn_value
from geli_hf.training.script import run_main

SAMPLING = {"max_new_tokens": 48, "temperature": 0.7}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="output_dir of train_policy.py")
    parser.add_argument("--topical-chat", help="folder of Topical-Chat; without it, only the sample is read")
    parser.add_argument("--replies", type=int, default=1000, help="held-out dialogues of the sample")
    parser.add_argument("--shown", type=int, default=10, help="first replies of each corpus in the card")
    parser.add_argument("--pieces", type=int, default=400, help="held-out pieces of each corpus for the perplexity")
    options = parser.parse_args(argv)
    folder, settings = options.folder, yaml.safe_load((options.folder / "settings.yaml").read_text(encoding="utf-8"))
    seed, window = settings[""].get("seed", 0), max(settings["data"]["long_pieces"])
    held_out = {path.stem: load_sessions(path) for path in sorted((folder / "held_out").glob("*.jsonl"))}
    corpora = {"sample": held_out["sample"]}
    if options.topical_chat:
        corpora["topical_chat"] = load_sessions("topical_chat", data_dir=options.topical_chat, split="test_freq")

    policies = {name: load_policy(folder / name, dtype=torch.float32) for name in ("base", "policy")}
    policies["aligned"] = load_policy(folder / "policy", dtype=torch.float32)
    policies["aligned"][0].load_adapter(folder / "policy_adapter")
    reward_model = GeliRewardModel.from_pretrained(folder / "policy_reward", dtype=torch.float32)
    figures: dict = {"data": data_figures(settings, options.topical_chat)}
    figures["data"]["test_conversations"] = len(set(held_out["sample"]["conversation_id"]))
    figures["asked"] = {"replies": options.replies, "seed": seed, **SAMPLING}
    figures["parameters"] = sum(weight.numel() for weight in policies["policy"][0].parameters())
    figures["reward"] = json.loads((folder / "reward_data.json").read_text(encoding="utf-8"))
    figures["reward"]["spearman"] = {name: spearman(reward_model, sessions) for name, sessions in held_out.items()}
    figures["checkpoints"] = json.loads((folder / "align_figures.json").read_text(encoding="utf-8"))
    figures["replies"], figures["perplexity"] = {}, {name: {} for name in policies}
    for corpus, sessions in corpora.items():
        prompts = dialogue_prompts(sessions, context_messages=window).shuffle(seed=seed)
        prompts = prompts.select(range(min(options.replies if corpus == "sample" else options.shown, len(prompts))))
        sides = {
            name: sample_replies(*policies[name], prompts["prompt"][:], seed=seed, progress=True, **SAMPLING)
            for name in ("policy", "aligned")
        }
        figures["replies"][corpus] = [
            {"before": prompt[-1]["content"], "fine-tuned": before.text, "aligned": after.text}
            for prompt, before, after in zip(prompts["prompt"], *sides.values())
        ][: options.shown]
        if corpus == "sample":
            figures["alignment"] = alignment_figures(policies, sides, prompts, sessions)
    for corpus, sessions in corpora.items():  # last, since it freezes the models
        pieces = sft_rows(sessions, window_messages=window).shuffle(seed=seed)["messages"][: options.pieces]
        for name, policy in policies.items():
            figures["perplexity"][name][corpus] = perplexity(*policy, pieces)
    command = ["python", "examples/recipes/train_policy.py", "--config", "examples/configs/policy.yaml"]
    command += ["--data.topical_chat", options.topical_chat] if options.topical_chat else []
    figures["made"] = describe_origin(
        command, settings={name: part for name, part in settings.items() if name and part}
    )
    with atomic_path(folder / "figures.json") as partial:
        partial.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def data_figures(settings: dict, topical_chat: str | None) -> dict:
    """Collect what the policy was trained on."""
    data, read = settings["data"], 0
    if topical_chat:
        read = len(load_sessions("topical_chat", data_dir=topical_chat, split=["valid_freq", "valid_rare"]))
    return {
        "generated": data["sessions"],
        "pieces": data["pieces"],
        "lengthened": data["long_sessions"],
        "long_pieces": data["long_pieces"],
        "sft": data["sft_sessions"],
        "sft_epochs": settings["sft"]["num_train_epochs"],
        "topical_chat": read,
        "passes": data["passes"],
    }


def alignment_figures(policies: dict, sides: dict, prompts: Dataset, sessions: Dataset) -> dict:
    """Compare the replies before and after alignment by the truth, and measure how far the policy moved."""
    messages = dict(zip(sessions["session_id"], sessions["messages"]))
    dialogues = [messages[row["session_id"]][: row["position"]] for row in prompts]
    conversations, texts = prompts["conversation_id"][:], [[reply.text for reply in side] for side in sides.values()]
    comparison = TruthJudge().compare(dialogues, *texts, conversations)
    figures = comparison.figures() | {"ties": float(np.mean(comparison.wins == 0.5))}
    models = policies["aligned"][0], policies["policy"][0]
    divergence = reply_divergence(*models, sides["aligned"], temperature=SAMPLING["temperature"])
    figures["kl"] = bootstrap(divergence, conversations)
    for name, replies in zip(("before", "after"), texts):
        said = [[*dialogue, {"role": "assistant", "content": text}] for dialogue, text in zip(dialogues, replies)]
        acts = Counter(true_turn_value(dialogue).act for dialogue in said)
        figures[name]["distinct_3"] = distinct_ngrams(replies, 3)
        figures[name]["acts"] = {act: count / len(said) for act, count in acts.most_common()}
    return figures


def perplexity(model, tokenizer, pieces: list) -> dict[str, float]:
    """Measure the perplexity of the agent's turns with their ends, per token and per word between spaces."""

    def ids(messages: list, **how) -> list[int]:
        return tokenizer.apply_chat_template(messages, return_dict=True, **how)["input_ids"]

    turns = [messages[: turn + 1] for messages in pieces for turn in assistant_turns(messages)]
    prompts = [messages[:-1] for messages in turns]
    replies = [ids(messages)[len(ids(messages[:-1], add_generation_prompt=True)) :] for messages in turns]
    log_likelihood = sum(ReferenceLikelihood(model, tokenizer)(prompts, replies))
    tokens, words = sum(map(len, replies)), sum(len(messages[-1]["content"].split()) for messages in turns)
    per = {"per_token": float(np.exp(-log_likelihood / tokens)), "per_word": float(np.exp(-log_likelihood / words))}
    return per | {"tokens": tokens, "words": words}


def spearman(model: GeliRewardModel, sessions: Dataset) -> float:
    rewards = [row["turn_rewards"] for row in score_cached(model, sessions)]
    return within_session_spearman(rewards, sessions["turn_rating"][:])


if __name__ == "__main__":
    run_main(main)
