"""Preference data from turn rewards: replies of a policy to the same prompt, as rows that TRL's trainers take.

`sample_several` and `reward_replies` make the replies and their rewards. The functions in `FORMATS` choose from them,
and know no model:

    "dpo"    `preference_pairs`: two replies to a prompt, for DPOTrainer
    "kto"    `labelled_replies`: single replies that are better or worse than a prompt's mean, for KTOTrainer
    "best"   `best_replies`: the best reply to each prompt, for SFTTrainer

They leave out replies without a word, replies that were there before, and those whose reward is not a number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, islice
from statistics import fmean
from typing import Any, NamedTuple

from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..metrics.texts import words
from ..sessions import Message
from .rewards import GeliReward
from .sampling import SampledReply, sample_replies

logger = logging.get_logger(__name__)

# Reasons why a prompt gives no row.
FEW = "fewer than two different replies with a reward"
LENGTHS = "no two replies of similar length"
CLOSE = "no difference in reward, or less than the margin"
NONE = "no reply with a reward"

Dialogues = Sequence[Sequence[Message]]
Replies = Sequence[Sequence[str]]
Rewards = Sequence[Sequence[float]]


class Preferences(NamedTuple):
    """Rows of preference data, and the number of prompts that gave none, by the reason."""

    rows: list[dict[str, Any]]
    without: Counter[str]


def preference_pairs(
    prompts: Dialogues, replies: Replies, rewards: Rewards, *, margin: float = 0.0, length_ratio: float = 1.5
) -> Preferences:
    """Choose the pair of replies to each prompt whose rewards differ most, of those that are about as long.

    Reward models often prefer long replies. Pairs that are matched in length teach a policy something else.

    Args:
        prompts: (prompts,), dialogues that end with the user.
        replies: (prompts, replies), texts.
        rewards: (prompts, replies), of each reply.
        margin: least difference of the two rewards; it is above 0 in any case.
        length_ratio: largest ratio of the lengths of the two in words, from 1.

    Returns:
        Rows with `prompt`, `chosen` and `rejected` (a list with one message each), `margin`, `reward_chosen` and
        `reward_rejected`.
    """
    rows, without = [], Counter()
    for prompt, candidates in zip(prompts, _known(replies, rewards), strict=True):
        ranked = sorted(candidates, key=candidates.__getitem__, reverse=True)
        matched = [pair for pair in combinations(ranked, 2) if _length_ratio(*pair) <= length_ratio]
        gap, chosen, rejected = max(((candidates[x] - candidates[y], x, y) for x, y in matched), default=(0.0, "", ""))
        if gap <= 0 or gap < margin:
            without[FEW if len(candidates) < 2 else CLOSE if matched else LENGTHS] += 1
            continue
        row = {"prompt": list(prompt), "chosen": _said(chosen), "rejected": _said(rejected), "margin": gap}
        rows.append(row | {"reward_chosen": candidates[chosen], "reward_rejected": candidates[rejected]})
    return Preferences(rows, without)


def labelled_replies(prompts: Dialogues, replies: Replies, rewards: Rewards, *, margin: float = 0.0) -> Preferences:
    """Label the replies to each prompt by their distance from the mean reward of that prompt.

    Lengths are not matched.

    Args:
        prompts, replies, rewards: see `preference_pairs`.
        margin: a reply is good from half of it above the mean, bad from half of it below, and else left out.

    Returns:
        Rows with `prompt`, `completion` (a list with one message) and `label`.
    """
    rows, without = [], Counter()
    for prompt, candidates in zip(prompts, _known(replies, rewards), strict=True):
        mean = fmean(candidates.values()) if candidates else math.nan
        apart = {text: reward - mean for text, reward in candidates.items()}
        far = {text: gap for text, gap in apart.items() if gap and abs(gap) >= margin / 2}
        if not far:
            without[FEW if len(candidates) < 2 else CLOSE] += 1
        rows += [{"prompt": list(prompt), "completion": _said(text), "label": gap > 0} for text, gap in far.items()]
    return Preferences(rows, without)


def best_replies(prompts: Dialogues, replies: Replies, rewards: Rewards) -> Preferences:
    """Choose the reply to each prompt with the highest reward.

    Args:
        prompts, replies, rewards: see `preference_pairs`.

    Returns:
        Rows with `prompt` and `completion` (a list with one message).
    """
    rows, without = [], Counter()
    for prompt, candidates in zip(prompts, _known(replies, rewards), strict=True):
        if candidates:
            rows.append({"prompt": list(prompt), "completion": _said(max(candidates, key=candidates.__getitem__))})
        else:
            without[NONE] += 1
    return Preferences(rows, without)


FORMATS = {"dpo": preference_pairs, "kto": labelled_replies, "best": best_replies}


def sample_several(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Dialogues, *, n: int, **options
) -> list[list[SampledReply]]:
    """Sample `n` replies to each prompt; see `sample_replies` for the arguments.

    Returns:
        (prompts, n).
    """
    sampled = sample_replies(model, tokenizer, [prompt for prompt in prompts for _ in range(n)], **options)
    return [sampled[first : first + n] for first in range(0, len(sampled), n)]


def reward_replies(
    reward: GeliReward, prompts: Dialogues, replies: Replies, *, batch_size: int = 32, progress: bool = False
) -> list[list[float]]:
    """Compute the turn rewards of replies to each prompt, see `GeliReward.turn_rewards`.

    Args:
        reward: its guards, which look at all replies of a batch, are not applied.
        prompts: (prompts,), dialogues that end with the user.
        replies: (prompts, replies), texts.
        batch_size: replies in a batch.
        progress: show a progress bar.

    Returns:
        (prompts, replies), in units of the standardised session score.
    """
    turns = [(prompt, _said(text)) for prompt, texts in zip(prompts, replies, strict=True) for text in texts]
    values: list[float] = []
    for first in tqdm(range(0, len(turns), batch_size), desc="Rewarding", unit="batch", disable=not progress):
        values += reward.turn_rewards(*zip(*turns[first : first + batch_size]))
    of_prompts = iter(values)
    return [list(islice(of_prompts, len(texts))) for texts in replies]


def _known(replies: Replies, rewards: Rewards) -> Iterator[dict[str, float]]:
    """Map the different replies to each prompt to their rewards, without empty ones and rewards that are no number."""
    if lost := sum(not math.isfinite(value) for values in rewards for value in values):
        logger.warning(f"{lost} replies are left out, since their reward is not a number")
    for texts, values in zip(replies, rewards, strict=True):
        known: dict[str, float] = {}
        for text, value in zip(map(str.strip, texts), values, strict=True):
            if text and math.isfinite(value):
                known.setdefault(text, value)
        yield known


def _length_ratio(first: str, second: str) -> float:
    shorter, longer = sorted(map(words, (first, second)))
    return longer / shorter


def _said(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]
