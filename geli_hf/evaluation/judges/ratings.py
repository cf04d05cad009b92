"""A judge of single replies: a regressor of people's ratings of turns, apart from any reward model.

The reward that a policy was trained with can't show that the policy is better. A judge learns from ratings of turns,
which no reward model sees, in other conversations. It is an ordinary `GeliRewardModel`, in a folder that also holds a
report on its training data and its agreement with people on held-out sessions (`judge.json`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers.utils import cached_file

from ...cache import write_text
from ...decomposition.ridge import fit_ridge
from ...metrics.baselines import log_length
from ...metrics.intervals import UNKNOWN, Interval
from ...metrics.metrics import bootstrap, spearman_per_session
from ...metrics.ranks import centre_within
from ...metrics.table import as_json, turn_ratings
from ...metrics.win_rates import detectable_win_rate, true_win_rate
from ...metrics.within import partial_spearman_per_session
from ...models.features import TurnFeatureCache, cached_turn_features, score_cached
from ...models.geli_reward.modeling_geli import GeliRewardModel
from ...sessions import Message, SessionError
from ...training.hindsight import set_linear_head

JUDGE_FILE = "judge.json"  # beside the reward model's own files
PAIRS = 400  # of replies, which `geli evaluate-policy` compares


@dataclass
class JudgeReport:
    """Training data of a judge, and its agreement with people on held-out sessions.

    Args:
        sessions, turns: numbers of those that it learned from; turns without a rating don't count.
        explained: share of the ratings' variance within sessions that the likelihood ascribes to the words.
        held_out: number of sessions that it was measured on; 0 before `measure_judge`.
        spearman, given_length: its within-session Spearman with their ratings, and the same with the length of the
            turn held fixed.
        length_spearman: that of the length of the turn, for comparison.
        conversations: digests of the conversations that it learned from, see `conversation_digest`.
    """

    sessions: int
    turns: int
    explained: float
    held_out: int = 0
    spearman: Interval = UNKNOWN
    given_length: Interval = UNKNOWN
    length_spearman: Interval = UNKNOWN
    conversations: list[str] = field(default_factory=list)

    def save(self, folder: str | Path) -> None:
        """Write `judge.json` into the judge's folder."""
        record = {
            name: as_json([*value] if isinstance(value, Interval) else value) for name, value in asdict(self).items()
        }
        write_text(Path(folder) / JUDGE_FILE, json.dumps(record, allow_nan=False))

    @classmethod
    def read(cls, name: str) -> JudgeReport | None:
        """Read the report of the judge in a folder or on the Hub; None beside a reward model that is no judge."""
        file = cached_file(name, JUDGE_FILE, _raise_exceptions_for_missing_entries=False)
        if file is None:
            return None
        saved = json.loads(Path(file).read_text(encoding="utf-8"))
        record: dict[str, Any] = {each.name: saved[each.name] for each in fields(cls)}
        for name in ("spearman", "given_length", "length_spearman"):
            record[name] = Interval(*(np.nan if number is None else number for number in record[name]))
        return cls(**record)


def describe(report: JudgeReport, pairs: int = PAIRS) -> str:
    """Describe a judge in words: its data, its agreement with people, and the win rates that it can show.

    Args:
        report: on the judge.
        pairs: number of pairs of replies that are compared.
    """
    text = (
        f"a judge that learned from {report.turns} rated turns of {report.sessions} sessions, with the length of a "
        f"turn held fixed.\nWithin-session Spearman with the ratings of {report.held_out} held-out sessions: "
        f"{report.spearman}; with the length held fixed {report.given_length}. The length of a turn alone has "
        f"{report.length_spearman}.\n"
    )
    wanted = detectable_win_rate(pairs)
    truth = true_win_rate(wanted, report.spearman.estimate)
    if np.isnan(truth):
        return text + "It knows nothing of what they rated, and can decide nothing."
    return text + (
        f"With {pairs} pairs of replies a judged win rate of {wanted:.1%} is shown to be above 50 % in four of five "
        f"experiments; with this judge that takes a win rate of about {truth:.0%} by the people who rated."
    )


def conversation_digest(messages: Sequence[Message]) -> str:
    """Compute a digest of the words, which is the same for both perspectives of a conversation."""
    words = json.dumps([message["content"] for message in messages])
    return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()


def fit_judge(model: GeliRewardModel, sessions: Dataset, *, features: TurnFeatureCache | None = None) -> JudgeReport:
    """Fit a judge to the `turn_rating` of sessions in closed form. With z a turn's features and n its number of words,

        rating_t = u_s + b log n_t + w z_t + e_t

    for turn t of session s; u and b are free, and w is shrunk by `fit_ridge`. So only turns of one session are
    compared, and differences between raters cancel. The reward is w (z - mean of z), in deviations of the ratings:
    words that come with longer turns earn nothing by their length. Where people rate long turns higher, a judge that
    does so too agrees with them better, and can't tell a policy that says better things from one that says more.

    Args:
        model: with a linear head, as `GeliRewardModel.from_backbone()` makes it. Its backbone stays as it is; head and
            configuration are changed in place. Its predicted score is the mean rating of a session's turns.
        sessions: with `turn_rating`. A reward model whose policy is judged must not have learned from them.
        features: of the sessions, (turns, hidden). Default: see [`cached_turn_features`].

    Raises:
        SessionError: no session has two turns of different rating.
        ValueError: the head is not linear.
    """
    config = model.config
    if config.head != "linear":
        raise ValueError(f"model: expected head='linear', for which there is a closed form, found {config.head!r}")
    rating = np.concatenate([np.zeros(0), *(np.asarray(values, float) for values in turn_ratings(sessions))])
    rated = ~np.isnan(rating)
    cache = cached_turn_features(model, sessions) if features is None else features
    session = np.repeat(np.arange(len(sessions)), cache.lengths)[rated]
    target = centre_within(session, rating[rated], len(sessions))
    if not (np.abs(target) > 1e-9).any():
        found = "no turn has a turn_rating" if not rated.any() else "no session has two turns of different turn_rating"
        raise SessionError(f"sessions: {found}, and a judge learns from nothing else")
    words = np.asarray(cache.all(), float)  # (turns, hidden)
    mean, deviation = cache.mean_and_std()
    inside = words[rated] - words[rated].mean(0)  # keeps the sums small
    inside = np.stack([centre_within(session, column, len(sessions)) for column in inside.T], 1)
    length = np.concatenate(log_length(sessions.select_columns("messages")))[rated]
    length = centre_within(session, length, len(sessions))
    power = length @ length
    if power > 1e-9:
        target = target - length * (length @ target / power)
        inside = inside - np.outer(length, length @ inside / power)
    ridge = fit_ridge(inside, target, deviation)

    config.score_mean, config.score_std = float(rating[rated].mean()), float(rating[rated].std())
    weight = ridge.weight / config.score_std
    set_linear_head(model, mean, deviation, weight, float(-mean @ weight))
    config.residual_std = None
    config.reward_quantiles = np.quantile((words - mean) @ weight, np.linspace(0, 1, 101)).round(6).tolist()
    digests = sorted({conversation_digest(messages) for messages in sessions["messages"]})
    return JudgeReport(len(sessions), int(rated.sum()), ridge.explained, conversations=digests)


def measure_judge(
    judge: GeliRewardModel, sessions: Dataset, report: JudgeReport, *, features: TurnFeatureCache | None = None
) -> None:
    """Measure how well the judge ranks the turns of held-out sessions, and add it to the report.

    Args:
        judge: as `fit_judge` leaves it.
        sessions: with `turn_rating`.
        report: changed in place.
        features: of the sessions, as for `fit_judge`.

    Raises:
        SessionError: it has learned from some of these conversations, or none of their turns can be ranked.
    """
    learned = set(report.conversations)
    if seen := sum(conversation_digest(messages) in learned for messages in sessions["messages"]):
        raise SessionError(f"held-out sessions: the judge has learned from {seen} of {len(sessions)}; give others")
    rewards = [row["turn_rewards"] for row in score_cached(judge, sessions, features=features)]
    ratings, conversations = turn_ratings(sessions), sessions["conversation_id"][:]
    length = log_length(sessions.select_columns("messages"))
    report.held_out = len(sessions)
    report.spearman = bootstrap(spearman_per_session(rewards, ratings), conversations)
    if np.isnan(report.spearman.estimate):
        raise SessionError(
            "held-out sessions: none has two turns of different turn_rating, so nothing can be measured"
        )
    report.given_length = bootstrap(partial_spearman_per_session(rewards, ratings, length), conversations)
    report.length_spearman = bootstrap(spearman_per_session(length, ratings), conversations)
