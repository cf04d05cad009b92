"""Judge what `train_real_policy.py` left: the checkpoints of its alignment against the policies before.

    python examples/recipes/evaluate_real_policy.py runs/real_policy -o results/real_policy

The judge is the reward model of half B of the speakers, over SmolLM2, which no policy has learned from. Candidates are
checkpoints, and points between each and the fine-tuned adapter: interpolated weights have more reward at the same KL
divergence than an earlier checkpoint (WARP, arXiv 2406.16768, "towards initialization"). The judge chooses one within
--max-kl on half of the held-out conversations; all figures are on the other half. Written into the output folder:

    policies.md, policies.json, over_optimisation.png   the checkpoints beside the fine-tuned policy
    replies.md                                          unpicked replies of the policy as it was downloaded, fine-tuned
                                                        and aligned, side by side
    figures.json                                        all figures of the three, and the judge's own agreement
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers.trainer_utils import sort_checkpoints

from geli_hf import GeliRewardModel, load_sessions, split_sessions
from geli_hf.alignment import ReferenceLikelihood, load_policy
from geli_hf.alignment.default import DEFAULT_POLICY
from geli_hf.alignment.sampling import generate_replies
from geli_hf.cache import atomic_path
from geli_hf.evaluation.contrast import contrast_figures, load_contrast, make_foils
from geli_hf.evaluation.divergence import reply_divergence
from geli_hf.evaluation.judges.judge import RatingJudge
from geli_hf.evaluation.policies import HeldOutDialogues, Sampling, evaluate_policies
from geli_hf.evaluation.policy_report import policy_markdown, write_policy_evaluation
from geli_hf.evaluation.report import write_text
from geli_hf.metrics.metrics import bootstrap
from geli_hf.metrics.table import aligned_table, as_json
from geli_hf.training.script import run_main

CONTRAST = Path(__file__).parents[2] / "results" / "contrast" / "dialogues.jsonl"
SHOWN = 40


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="output_dir of train_real_policy.py")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--chitchat", help="folder of Chit-Chat's dataset.json (default: the package chitchat-dataset)"
    )
    parser.add_argument("--replies", type=int, default=300, help="held-out dialogues (default: 300)")
    parser.add_argument("--steps", type=int, nargs="+", help="checkpoints to judge (default: the last)")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.6, 0.8, 1.0], help="of the way to a checkpoint")
    parser.add_argument("--max-kl", type=float, default=10.0, help="from the fine-tuned policy, in nats per reply")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--judges", type=Path, nargs="*", default=[], help="more folders of `geli train-judge`")
    options = parser.parse_args(argv)
    settings = yaml.safe_load((options.run / "settings.yaml").read_text(encoding="utf-8"))
    seed, data = settings[""].get("seed", 0), settings["data"]
    shares = {"train": 1 - data["eval_share"], "eval": data["eval_share"]}
    sessions = load_sessions("chitchat", data_dir=options.chitchat, half="mixed")
    held_out = split_sessions(sessions, shares, seed=seed)["eval"]
    # On a CPU small batches of replies to prompts of like length are faster than large ones with much padding.
    sampling = Sampling(options.replies, data["context_messages"], 48, options.temperature, seed, batch_size=16)

    sft, dtype = options.run / "sft_adapter", torch.bfloat16
    checkpoints = {int(name.rpartition("-")[2]): name for name in sort_checkpoints(f"{options.run}/checkpoints/grpo")}
    candidates = {}
    for step in options.steps or [max(checkpoints)]:
        for share in options.shares:
            target = options.run / "candidates" / f"{step}-{share:g}"
            candidates[str(between(sft, Path(checkpoints[step]), share, target))] = step, share
    gold, reward = RatingJudge(str(options.run / "gold")), GeliRewardModel.from_pretrained(options.run / "reward")
    how = {"reward": reward, "sampling": sampling, "max_kl": options.max_kl, "dtype": dtype}
    evaluation = evaluate_policies(str(sft), list(candidates), held_out, gold, **how)
    write_policy_evaluation(options.output, evaluation, policy_markdown(evaluation, sampling))

    chosen, asked = evaluation.chosen.name, evaluation.dialogues
    names = {"downloaded": settings["policy"].get("base", DEFAULT_POLICY), "fine-tuned": str(sft), "aligned": chosen}
    policies = {name: load_policy(path, dtype=dtype) for name, path in names.items()}
    sampled = {"downloaded": asked.sample(*policies["downloaded"]), "fine-tuned": evaluation.base_replies}
    sampled["aligned"] = evaluation.chosen.replies
    texts = {name: [reply.text for reply in replies] for name, replies in sampled.items()}
    step, share = candidates[chosen]
    figures = {"step": step, "share": share, "replies": len(asked.prompts), "sides": {}, "judges": {}}
    dialogues = load_contrast(CONTRAST)
    for name, (model, tokenizer) in policies.items():
        figures["sides"][name] = style(texts[name], sampled[name], *policies["downloaded"], asked)
        replies = generate_replies(
            model, tokenizer, [dialogue.messages for dialogue in dialogues], max_new_tokens=48, batch_size=16
        )
        figures["sides"][name]["contrast"] = against_foils(gold.model, dialogues, replies, seed)
    models = [policies[name][0] for name in ("aligned", "downloaded")]
    divergence = reply_divergence(*models, sampled["aligned"], temperature=sampling.temperature)
    figures["kl_from_downloaded"] = bootstrap(divergence, asked.conversation_ids)
    for judge in [gold, *(RatingJudge(str(folder)) for folder in options.judges)]:
        figures["judges"][Path(judge.folder).name] = {
            f"aligned over {before}": judge.compare(
                asked.dialogues, texts[before], texts["aligned"], asked.conversation_ids
            ).figures()
            for before in ("downloaded", "fine-tuned")
        }
    scorers = {"gold": gold.model, "reward": reward}
    figures["contrast"] = {
        name: contrast_figures(model.score_messages, dialogues, seed=seed).shares for name, model in scorers.items()
    }
    write_text(options.output / "figures.json", json.dumps(as_json(figures), indent=1) + "\n")
    write_text(options.output / "replies.md", replies_table(asked, texts))
    for name, judged in figures["judges"].items():
        for pair, row in judged.items():
            print(f"{name}: {pair}: win rate {row['win_rate']}, length x {row['length_ratio']:.2f}")


def between(start: Path, end: Path, share: float, target: Path) -> Path:
    """Write the adapter between two of the same shape, at this share of the way from `start` to `end`."""
    if not target.exists():
        with atomic_path(target) as partial:
            shutil.copytree(start, partial)
            first, last = (load_file(folder / "adapter_model.safetensors") for folder in (start, end))
            mixed = {name: torch.lerp(first[name].float(), last[name].float(), share) for name in first}
            save_file(mixed, partial / "adapter_model.safetensors", metadata={"format": "pt"})
    return target


def style(texts: list[str], replies: list, base, tokenizer, asked: HeldOutDialogues) -> dict[str, float]:
    """Measure questions, and how likely the replies are to the policy as it was downloaded."""
    logs = ReferenceLikelihood(base, tokenizer)(asked.prompts, [reply.token_ids for reply in replies])
    return {
        "questions": float(np.mean(["?" in text for text in texts])),
        "ended": float(np.mean([reply.ended for reply in replies])),
        "perplexity": float(np.exp(-sum(logs) / sum(len(reply.token_ids) for reply in replies))),
    }


def against_foils(judge: GeliRewardModel, dialogues: list, replies: list[str], seed: int) -> dict:
    """Compute the share of replies that the judge puts above each foil, and above the fitting answer."""

    def value(turns: list[str]) -> np.ndarray:
        said = [dialogue.with_turn(turn or ".") for dialogue, turn in zip(dialogues, turns)]
        return judge.score_messages(said).double().numpy()

    others = make_foils(dialogues, seed=seed) | {"fitting answer": [dialogue.answer for dialogue in dialogues]}
    ours, ids = value(replies), [dialogue.id for dialogue in dialogues]
    return {name: bootstrap((1 + np.sign(ours - value(turns))) / 2, ids) for name, turns in others.items()}


def replies_table(asked: HeldOutDialogues, texts: dict[str, list[str]]) -> str:
    """List the first replies, which the seed has drawn."""
    rows = []
    for index in range(min(SHOWN, len(asked.prompts))):
        before = asked.prompts[index][-1]["content"]
        rows.append([one_line(text) for text in (before, *(side[index] for side in texts.values()))])
    return f"# Replies, not picked\n\n{aligned_table(['to', *texts], rows)}\n"


def one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/") or "(nothing)"


if __name__ == "__main__":
    run_main(main)
