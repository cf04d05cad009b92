"""`geli pairs`: preference data for TRL's trainers, from a policy's replies and their turn rewards."""

import argparse
from typing import TextIO

from .common import SESSIONS, add_corpus, add_sampling, at_least, compute_options, count, load_corpus, model_name

# The options that the function of each format takes, see `geli_hf.alignment.pairs`.
TAKEN = {"dpo": ("margin", "length_ratio"), "kto": ("margin",), "best": ()}


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "pairs",
        help="make preference data of a policy's replies and their turn rewards",
        description="Let a policy answer the dialogues of sessions several times, reward each reply as the next turn, "
        "and write rows that DPOTrainer (dpo), KTOTrainer (kto) or SFTTrainer (best) takes. Replies that are empty or "
        "there already are left out. Print how many prompts gave no row, and why.",
    )
    add = parser.add_argument
    add("sessions", help=f"{SESSIONS}; each turn of the assistant that answers something gives a prompt")
    add_corpus(parser)
    add("--policy", required=True, help="chat model or adapter: a folder, or a name on the Hub")
    add("--reward", help="reward model: a folder, or a name on the Hub (default: the one that comes with the package)")
    add("-n", type=count, default=4, metavar="N", help="replies to each prompt (default: 4)")
    add("--recorded", action="store_true", help="take the recorded reply as one more")
    add("--format", choices=tuple(TAKEN), default="dpo", help="default: dpo")
    add("--margin", type=at_least(0), help="least difference of two rewards, in deviations of the score (default: 0)")
    add("--length-ratio", type=at_least(1), help="largest ratio of the two lengths in words, of dpo (default: 1.5)")
    add("--limit", type=count, help="the first so many sessions only")
    add_sampling(parser)
    add("-o", "--output", metavar="FILE", required=True, help="JSON lines to write")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, out: TextIO) -> None:
    given = {name: value for name in ("margin", "length_ratio") if (value := getattr(arguments, name)) is not None}
    if useless := [name for name in given if name not in TAKEN[arguments.format]]:
        raise ValueError(f"--{useless[0].replace('_', '-')}: --format {arguments.format} takes none")
    if arguments.format != "best" and arguments.n + arguments.recorded < 2:
        raise ValueError(
            f"-n: --format {arguments.format} compares replies to a prompt; give 2 or more, or --recorded"
        )
    from ..alignment.dialogue import cut_reply
    from ..alignment.pairs import FORMATS, reward_replies, sample_several
    from ..alignment.rewards import GeliReward
    from ..alignment.shipped import REWARD
    from ..alignment.trainers import dialogue_prompts
    from ..data.rows import write_jsonl
    from ..evaluation.policies import open_policy
    from ..models.loading import default_device
    from ..training.script import setting_errors

    sessions = load_corpus(arguments)
    if arguments.limit is not None:
        sessions = sessions.select(range(min(arguments.limit, len(sessions))))
    asked = dialogue_prompts(sessions, context_messages=arguments.context_messages)
    if not len(asked):
        raise ValueError("sessions: no prompts, since no turn of the assistant answers something")
    how = compute_options(arguments)
    device = how.pop("device", default_device())
    with setting_errors("--reward"):
        reward = GeliReward.from_pretrained(model_name(arguments.reward or str(REWARD)), **how)
        reward.model.to(device)
    with setting_errors("--policy"):
        policy, tokenizer = open_policy(model_name(arguments.policy), device=device, **how)
    prompts = asked["prompt"][:]
    options = {name: getattr(arguments, name) for name in ("max_new_tokens", "temperature", "seed", "batch_size")}
    sampled = sample_several(policy, tokenizer, prompts, n=arguments.n, progress=True, **options)
    replies = [[reply.text for reply in several] for several in sampled]
    if arguments.recorded:
        replies = [[*texts, cut_reply(recorded)] for texts, recorded in zip(replies, asked["reply"])]
    rewards = reward_replies(reward, prompts, replies, batch_size=arguments.batch_size, progress=True)
    rows, without = FORMATS[arguments.format](prompts, replies, rewards, **given)
    reasons = "".join(f"  {number} prompts gave none: {reason}\n" for reason, number in without.most_common())
    if not rows:
        raise ValueError(f"--output: no rows for {arguments.output}, which is not written:\n{reasons}")
    write_jsonl(rows, arguments.output)
    out.write(f"{arguments.output}: {len(rows)} rows of {len(prompts)} prompts\n{reasons}")
    unended = sum(not reply.ended for several in sampled for reply in several)
    out.write(f"  {unended} of {len(prompts) * arguments.n} sampled replies had no end within --max-new-tokens\n")
