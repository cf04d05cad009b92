"""A judge of single replies: a regressor of people's ratings of turns, apart from any reward model.

What a policy was trained to please can't say whether it got better. A judge learns from ratings of turns, which no
reward model sees, in other conversations. It is a `GeliRewardModel` as any other, in a folder that also says what it
learned from and how well it did on sessions that it had not seen (`judge.json`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers.utils import cached_file

from ...cache import whole
from ...decomposition.ridge import fit_ridge
from ...metrics import metrics
from ...metrics.baselines import log_length
from ...metrics.metrics import Interval
from ...metrics.table import turn_ratings
from ...metrics.within import partial_spearman_per_session
from ...models.features import TurnFeatureCache, cached_turn_features, score_cached
from ...models.geli_reward.modeling_geli import GeliRewardModel
from ...sessions import Message, SessionError
from ...training.hindsight import set_linear_head

JUDGE_FILE = "judge.json"  # beside the reward model's own files
UNKNOWN = Interval(np.nan, np.nan, np.nan)


@dataclass
class JudgeReport:
    """What a judge learned from, and how well it ranks the turns of held-out sessions.

    Args:
        sessions, turns: that it learned from; turns without a rating don't count.
        length_free: whether the length of a turn was held fixed.
        explained: share of the ratings' variance within sessions that the likelihood ascribes to the words.
        held_out: sessions that it was measured on; 0 if it was not.
        spearman, given_length: its within-session Spearman with their ratings, and the same with the length of the
            turn held fixed.
        length_spearman: that of the length of the turn, for comparison.
        conversations: digests of the conversations that it learned from, see `conversation_digest`.
    """

    sessions: int
    turns: int
    length_free: bool
    explained: float
    held_out: int = 0
    spearman: Interval = UNKNOWN
    given_length: Interval = UNKNOWN
    length_spearman: Interval = UNKNOWN
    conversations: list[str] = field(default_factory=list)

    def save(self, folder: str | Path) -> None:
        """Write it beside the judge's own files."""
        record = {
            name: [None if np.isnan(number) else number for number in value] if isinstance(value, Interval) else value
            for name, value in asdict(self).items()
        }
        with whole(Path(folder) / JUDGE_FILE) as partial:
            partial.write_text(json.dumps(record, allow_nan=False), encoding="utf-8")

    @classmethod
    def read(cls, name: str) -> JudgeReport | None:
        """That of the judge in a folder or on the Hub; None if there is none, as beside any other reward model."""
        try:
            file = cached_file(name, JUDGE_FILE)
        except OSError:
            return None
        if file is None:
            return None
        record: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
        for name in ("spearman", "given_length", "length_spearman"):
            record[name] = Interval(*(np.nan if number is None else number for number in record[name]))
        return cls(**record)


def conversation_digest(messages: Sequence[Message]) -> str:
    """The same for both perspectives of a conversation, and another one for other words."""
    words = json.dumps([message["content"] for message in messages])
    return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()


def fit_judge(
    model: GeliRewardModel,
    sessions: Dataset,
    *,
    length_free: bool = True,
    features: TurnFeatureCache | None = None,
    cache_dir: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> JudgeReport:
    """Learn from the `turn_rating` of sessions, in closed form. With z a turn's features and n its number of words,

        rating_t = u_s + b log n_t + w z_t + e_t

    for turn t of session s; u and b are free, and w is shrunk by `fit_ridge`. So only turns of one session are
    compared, and who rates high does not matter. The reward is w (z - mean of z), in deviations of the ratings: words
    that come with longer turns are not paid for that. Where people rate long turns higher, a judge that does so too
    agrees with them better, and can't tell a policy that says better things from one that says more.

    Args:
        model: with a linear head, as `GeliRewardModel.from_backbone()` makes it. Its backbone stays as it is; head and
            configuration are changed in place. Its predicted score is the mean rating of a session's turns.
        sessions: with `turn_rating`. A reward model whose policy is judged must not have learned from them.
        length_free: False leaves b log n out, so that the judge has the length in so far as the words show it.
        features: of the sessions, where they are at hand.
        cache_dir, dtype: see [`cached_turn_features`].

    Raises:
        SessionError: no session has two turns of different rating.
        ValueError: the head is not linear.
    """
    if model.config.head != "linear":
        raise ValueError(
            f"model: expected head='linear', for which there is a closed form, found {model.config.head!r}"
        )
    rating = np.concatenate([np.zeros(0), *(np.asarray(each, float) for each in turn_ratings(sessions))])
    rated = ~np.isnan(rating)
    cache = cached_turn_features(model, sessions, cache_dir=cache_dir, dtype=dtype) if features is None else features
    session = np.repeat(np.arange(len(sessions)), cache.lengths)[rated]

    def within(values: np.ndarray) -> np.ndarray:
        values = values - values.mean(0)  # keeps the sums of features small
        sums = np.zeros((len(sessions), *values.shape[1:]))
        np.add.at(sums, session, values)
        count = np.maximum(np.bincount(session, minlength=len(sessions)), 1)
        return values - (sums.T / count).T[session]

    target = within(rating[rated]) if rated.any() else np.zeros(0)
    if not (np.abs(target) > 1e-9).any():
        found = "no turn has a turn_rating" if not rated.any() else "no session has two turns of different turn_rating"
        raise SessionError(f"sessions: {found}, and a judge learns from nothing else")
    read = np.asarray(cache.all(), float)
    middle, deviation = cache.mean_and_std()
    inside = within(read[rated])
    if length_free:
        length = within(np.concatenate(log_length({"messages": each} for each in sessions["messages"]))[rated])
        power = length @ length
        if power > 1e-9:
            target = target - length * (length @ target / power)
            inside = inside - np.outer(length, length @ inside / power)
    ridge = fit_ridge(inside, target, deviation)

    config = model.config
    config.score_mean, config.score_std = float(rating[rated].mean()), float(rating[rated].std())
    weight = ridge.weight / config.score_std
    set_linear_head(model, middle, deviation, weight, float(-middle @ weight))
    rewards = (read - middle) @ weight
    config.residual_std = None
    config.reward_quantiles = np.quantile(rewards, np.linspace(0, 1, 101)).round(6).tolist()
    digests = sorted({conversation_digest(messages) for messages in sessions["messages"]})
    return JudgeReport(len(sessions), int(rated.sum()), length_free, ridge.explained, conversations=digests)


def measure_judge(
    judge: GeliRewardModel,
    sessions: Dataset,
    report: JudgeReport,
    *,
    cache_dir: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Put into the report how well the judge ranks the turns of sessions that it has not learned from.

    Raises:
        SessionError: it has learned from some of these conversations, or none of their turns can be ranked.
    """
    seen = sum(conversation_digest(messages) in set(report.conversations) for messages in sessions["messages"])
    if seen:
        raise SessionError(f"held-out sessions: the judge has learned from {seen} of {len(sessions)}; give others")
    rewards = [row["turn_rewards"] for row in score_cached(judge, sessions, cache_dir=cache_dir, dtype=dtype)]
    ratings, conversations = turn_ratings(sessions), sessions["conversation_id"][:]
    length = log_length({"messages": each} for each in sessions["messages"])
    report.held_out = len(sessions)
    report.spearman = metrics.bootstrap(metrics.spearman_per_session(rewards, ratings), conversations)
    if np.isnan(report.spearman.estimate):
        raise SessionError(
            "held-out sessions: none has two turns of different turn_rating, so nothing can be measured"
        )
    report.given_length = metrics.bootstrap(partial_spearman_per_session(rewards, ratings, length), conversations)
    report.length_spearman = metrics.bootstrap(metrics.spearman_per_session(length, ratings), conversations)
