"""Hindsight: who has seen the listener's reaction knows better what a turn was worth, and can teach who has not.

A closed form in three steps on the features of a frozen backbone, in seconds and without a learning rate. It departs
from GELI (arXiv 2403.11330), whose weight of the Local Implicit signal is given and whose model never sees more of the
reaction than that signal:

1. Trust. The scores say how far each signal may be followed (`decomposition.fit_trust`), and how far what the turn's
   words let expect of it: the one is full of noise, which makes its slope too small, the other is not.
2. Teacher. Ridge regression of what the trusted signals leave of the score, on the session's mean turn and mean
   reaction; by its linearity it says what each turn with its reaction was worth.
3. Student. Ridge regression of the teacher's values, of sessions that this teacher has not seen, on the turn in its
   context alone. It reads nothing that comes after the turn, so that it can reward a policy.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset
from transformers.utils import logging

from ..decomposition import RATIOS, Ridge, fit_ridge, fit_trust, fit_two_ridges, habit_share
from ..models.attribution import HindsightAttribution, SignalTrust, observed_means, reactions_to, said_alone
from ..models.features import TurnFeatureCache, cached_turn_features, score_cached
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import SessionError, feedback_names

logger = logging.get_logger(__name__)

SESSIONS_NEEDED = 200  # below, the sign of the listener alone was better on real corpora
BELIEVABLE = 2.0  # |t| from which a signal is said to be borne out by the scores


@dataclass
class HindsightReport:
    """What a fit has found; `str()` says it in words.

    Args:
        sessions, turns: what the student learned from.
        scored: sessions with a score, which trust and teacher learned from.
        signals: name -> its trust.
        teacher, student: share of the variance that the likelihood ascribes to what they read: of the sessions' scores
            without the trusted signals, and of the teacher's values.
        reactions: share of the turns that were answered.
    """

    sessions: int
    scored: int
    turns: int
    reactions: float
    signals: dict[str, SignalTrust]
    teacher: float
    student: float

    def __str__(self) -> str:
        enough = "enough" if self.scored >= SESSIONS_NEEDED else "too few to rely on the result"
        lines = [
            f"{self.scored} sessions with a score ({SESSIONS_NEEDED} needed: {enough}), {self.sessions} in all; "
            f"{self.turns} turns, {self.reactions:.0%} of them answered."
        ]
        for name, signal in self.signals.items():
            lines.append(f"{name}: {_verdict(signal, self.scored)}")
        if not self.signals:
            lines.append("No signal of the listener: the teacher has scores and reactions' words alone.")
        lines.append(f"The teacher explains {self.teacher:.0%} of the scores, beyond the signals.")
        lines.append(f"The student, who sees no reaction, explains {self.student:.0%} of the teacher's values.")
        return "\n".join(lines)


def _verdict(signal: SignalTrust, sessions: int) -> str:
    if not signal.observed or signal.t == 0:
        return "not used: it was never observed or never changes, or sessions are too few to tell."
    found = f"t = {signal.t:.1f}, trusted with beta = {signal.beta:+.3f}"
    if abs(signal.t) >= BELIEVABLE:
        wrong = ", the better the sign the lower the score" if signal.t < 0 else ""
        found += f": borne out by the scores{wrong} (observed at {signal.observed:.0%} of the turns)."
    else:
        wanted = int(np.ceil(sessions * (BELIEVABLE / signal.t) ** 2))
        found += f": not borne out by the scores; were it real, about {wanted} sessions would show it."
    if signal.foreseen_t:
        trusted = "trusted" if signal.foreseen_beta else "not trusted"
        found += f" Of it, what the words foresee: t = {signal.foreseen_t:.1f}, {trusted}."
    if signal.habit:
        found += f" Of a session's mean {signal.habit:.0%} is the listener's habit, and taken off."
    return found


class Hindsight(NamedTuple):
    """A forward reward model, the attribution that taught it, and what was found on the way.

    `targets` are what the student learned from: one array per session with the value of each turn, as a teacher said
    who had not learned from that session. With `add_signal(sessions, "hindsight", fit.targets)` a trainer can teach
    them to a model of any kind: `GeliRewardArguments(li="hindsight", li_weight=1)`.
    """

    reward_model: GeliRewardModel
    attribution: HindsightAttribution
    report: HindsightReport
    targets: list[np.ndarray]


def fit_hindsight(
    model: GeliRewardModel,
    sessions: Dataset,
    eval_sessions: Dataset | None = None,
    *,
    signals: Sequence[str] | None = None,
    folds: int = 4,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    features: Mapping[str, TurnFeatureCache] | None = None,
) -> Hindsight:
    """Learn turn rewards in closed form from scores, signals and words of the listener (see this module).

    With z the turn's features, h those of the listener's answer, l the standardised signals beside what z lets expect
    of them (by ridge regression on other folds; these see signals and no score), and R the standardised score:

        R - beta l-bar = w z-bar + q h-bar + c + e      the teacher, over sessions; bars are means over their turns,
                                                        and w and q are shrunk each by a strength of its own
        a_t = w z_t + q h_t + beta l_t + c              what it says of a turn; of sessions in no fold of its training,
        a_t = v z_t + b + e_t                           the student, over turns; the reward is v z_t + b

    Sessions without a score teach the student alone. What was not observed, or not answered, counts as the mean.

    Trust is learned from differences between sessions. A signal that tells content listeners from others is trusted
    too, though it may say little of single turns: leave such a one out of `signals`. Where listeners come back
    (`rater_id`), what is their habit rather than the session's is found out, and taken off.

    Args:
        model: with a linear head and mean aggregation, as `GeliRewardModel.from_backbone()` makes it. Its backbone
            stays as it is; head and configuration are changed in place, as a trainer would.
        sessions: to learn from.
        eval_sessions: held-out sessions, for the deviation of the residuals alone.
        signals: names in `feedback`. Default: all that the sessions carry.
        folds: teachers that the student's values come from, each blind to a part of the conversations.
        seed: of the folds.
        cache_dir, dtype: see [`cached_turn_features`].
        features: of `sessions`, where they are at hand: [`cached_turn_features`] under `"turns"` and
            [`cached_reaction_features`] under `"reactions"`, such as the selected rows of a whole corpus.

    Raises:
        SessionError: fewer than two conversations with a score, or scores that are all the same, or no such signal.
        ValueError: another head or aggregation, or fewer than two folds.
    """
    if (model.config.head, model.config.aggregation) != ("linear", "mean"):
        raise ValueError(
            "model: expected head='linear' and aggregation='mean', for which there is a closed form, "
            f"found {model.config.head!r} and {model.config.aggregation!r}"
        )
    if folds < 2:
        raise ValueError(f"folds: expected at least 2, found {folds}")
    names = _signal_names(sessions, signals)
    score, fold_of, folds = _scores_and_folds(sessions, folds, seed)
    scored = ~np.isnan(score)
    score_mean, score_std = float(score[scored].mean()), float(score[scored].std())
    target = (score - score_mean) / score_std

    if features is None:
        features = {
            "turns": cached_turn_features(model, sessions, cache_dir=cache_dir, dtype=dtype),
            "reactions": cached_reaction_features(model, sessions, cache_dir=cache_dir, dtype=dtype),
        }
    first = np.append(0, np.cumsum(features["turns"].lengths))
    turn_features, answers = features["turns"].all(), features["reactions"].all()
    middle, deviation = _mean_and_std(turn_features)
    answered = np.array([text is not None for text in reactions_to(sessions["messages"])])
    h_middle, h_deviation = _mean_and_std(answers)
    reactions = np.tile(h_middle.astype(np.float32), (len(turn_features), 1))  # no answer is like an average one
    reactions[answered] = answers
    felt = {name: np.concatenate([np.asarray(row[name], float) for row in sessions["feedback"]]) for name in names}
    signals_read = {name: _signal(values, first, sessions) for name, values in felt.items()}
    standard = [signals_read[name].read(felt[name], first) for name in names]
    standard = np.stack(standard, 1) if names else np.zeros((len(turn_features), 0))

    read = np.concatenate([_session_means(values, first) for values in (turn_features, reactions)], 1)
    fold_of_turn = np.repeat(fold_of, np.diff(first))
    observed = np.stack([~np.isnan(felt[name]) for name in names], 1) if names else np.zeros(standard.shape, bool)
    foresight, foreseen = _foresee(turn_features, standard, observed, fold_of_turn, deviation)
    signs = np.concatenate([standard, foreseen], 1)
    sensed = _session_means(signs, first)
    scale, hidden = np.concatenate([deviation, h_deviation]), len(middle)

    def teach(which: np.ndarray, ratios: Sequence[float]):
        trust = fit_trust(target[which], sensed[which])
        rest = target[which] - sensed[which] @ trust.beta
        return trust, *fit_two_ridges(read[which], rest, scale, hidden, ratios)

    def attribute(which: np.ndarray, trust, ridge) -> np.ndarray:
        value = turn_features[which] @ ridge.weight[:hidden] + reactions[which] @ ridge.weight[hidden:]
        return value + signs[which] @ trust.beta + ridge.intercept

    trust, teacher, ratio = teach(scored, RATIOS)
    values = np.empty(len(turn_features))
    for fold in range(folds):
        hidden_turns = fold_of_turn == fold
        blind_trust, blind_teacher, _ = teach(scored & (fold_of != fold), [ratio])  # two groups' ratio, nothing else
        values[hidden_turns] = attribute(hidden_turns, blind_trust, blind_teacher)
    student = fit_ridge(turn_features, values, deviation)

    (slope, _), (t, foreseen_t), (beta, foreseen_beta) = (
        np.split(each, 2) for each in (trust.slope, trust.t, trust.beta)
    )
    found = {
        name: replace(
            signals_read[name],
            slope=float(slope[index]),
            t=float(t[index]),
            beta=float(beta[index]),
            foreseen_t=float(foreseen_t[index]),
            foreseen_beta=float(foreseen_beta[index]),
        )
        for index, name in enumerate(names)
    }
    report = HindsightReport(
        len(sessions),
        int(scored.sum()),
        len(values),
        float(answered.mean()),
        found,
        teacher.explained,
        student.explained,
    )
    if report.scored < SESSIONS_NEEDED:
        logger.warning(
            f"{report.scored} sessions have a score. With fewer than about {SESSIONS_NEEDED} the listener's signal "
            "alone is the better reward; look at its t in the report."
        )

    model.config.score_mean, model.config.score_std = score_mean, score_std
    model.config.residual_std, model.config.reward_quantiles = None, []
    twin = _twin(model)
    q = teacher.weight[hidden:]
    by_words, level = teacher.weight[:hidden], teacher.intercept + float(h_middle @ q)
    for each, ridge in zip(foreseen_beta, foresight):
        by_words, level = by_words + each * ridge.weight, level + each * ridge.intercept
    _set_head(twin, middle, deviation, by_words, level)
    _set_head(model, middle, deviation, student.weight, student.intercept)
    rewards = turn_features @ student.weight + student.intercept
    model.config.reward_quantiles = np.quantile(rewards, np.linspace(0, 1, 101)).round(6).tolist()
    attribution = HindsightAttribution(twin, h_middle, q, found)
    if eval_sessions is not None:
        predicted = [row["score"] for row in score_cached(model, eval_sessions, cache_dir=cache_dir, dtype=dtype)]
        residual = np.array(eval_sessions["score"], float) - predicted
        model.config.residual_std = float(np.nanstd(residual)) if np.isfinite(residual).any() else None
    return Hindsight(model, attribution, report, np.split(values, first[1:-1]))


def cached_reaction_features(
    model: GeliRewardModel,
    sessions: Dataset,
    *,
    cache_dir: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> TurnFeatureCache:
    """What the backbone makes of the user's answers, each alone: item `i` is `(answered turns of session i, hidden)`.

    Arguments as of [`cached_turn_features`].
    """
    answers = [
        [said_alone(text) for text in reactions_to([messages]) if text is not None]
        for messages in sessions["messages"]
    ]
    first = np.cumsum([0, *map(len, answers)])
    if not first[-1]:
        return TurnFeatureCache(np.zeros((0, model.config.get_text_config().hidden_size), np.float32), first)
    texts = Dataset.from_dict({"messages": list(itertools.chain(*answers))})
    cache = cached_turn_features(model, texts, cache_dir=cache_dir, dtype=dtype, batch_size=256)
    return TurnFeatureCache(cache.features, first)


def _foresee(
    features: np.ndarray, signals: np.ndarray, observed: np.ndarray, fold: np.ndarray, scale: np.ndarray
) -> tuple[list[Ridge], np.ndarray]:
    """What a turn's words let expect of each signal: a ridge per signal, and of shape (turns, signals) what other such
    ridges say, which have not learned from the turn's fold.
    """
    foresight, foreseen = [], np.zeros(signals.shape)
    for index, (signal, there) in enumerate(zip(signals.T, observed.T)):
        for each in np.unique(fold):
            others = there & (fold != each)
            if others.sum() > 1:
                ridge = fit_ridge(features[others], signal[others], scale)
                foreseen[fold == each, index] = ridge(features[fold == each])
        if there.sum() > 1:
            foresight.append(fit_ridge(features[there], signal[there], scale))
        else:
            foresight.append(Ridge(np.zeros(features.shape[1]), 0.0, np.inf, 0.0, 0.0))
    return foresight, foreseen


def _signal_names(sessions: Dataset, signals: Sequence[str] | None) -> list[str]:
    have = feedback_names(sessions)
    if unknown := [name for name in signals or () if name not in have]:
        carried = ", ".join(have) or "none"
        raise SessionError(f"signals: the sessions have no feedback named {', '.join(unknown)}; they carry {carried}")
    return have if signals is None else list(signals)


def _scores_and_folds(sessions: Dataset, folds: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores `(sessions,)`, the fold of each session `(sessions,)`, and how many folds there are."""
    score = np.array(sessions["score"], float)
    known = score[~np.isnan(score)]
    names, conversation = np.unique(np.asarray(sessions["conversation_id"][:]), return_inverse=True)
    rated = np.unique(conversation[~np.isnan(score)])
    if len(rated) < 2:
        raise SessionError(
            f"sessions: found {len(rated)} conversations with a score, expected 2 or more: "
            "each teacher is blind to some of them"
        )
    if np.ptp(known) == 0:
        raise SessionError(f"sessions: all {len(known)} scores are {known[0]}, so no turn can be told apart")
    # The rated ones first, so that every fold has some of them, and every teacher has others.
    draw = np.random.default_rng(seed)
    order = np.concatenate([draw.permutation(rated), draw.permutation(np.setdiff1d(np.arange(len(names)), rated))])
    folds = min(folds, len(rated))
    fold = np.empty(len(names), int)
    fold[order] = np.arange(len(order)) % folds
    return score, fold[conversation], folds


def _mean_and_std(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(hidden,)` each; a feature that never changes has deviation 1."""
    if not len(features):
        return np.zeros(features.shape[1]), np.ones(features.shape[1])
    std = features.std(0, dtype=float)
    return features.mean(0, dtype=float), np.where(std > 1e-6, std, 1.0)


def _signal(values: np.ndarray, first: np.ndarray, sessions: Dataset) -> SignalTrust:
    """How a signal is scaled; it is not trusted yet."""
    known = values[~np.isnan(values)]
    mean, std = (float(known.mean()), float(known.std()) or 1.0) if len(known) else (0.0, 1.0)
    raters = sessions["rater_id"][:] if "rater_id" in sessions.column_names else [""] * len(sessions)
    habit = habit_share(observed_means(values, first), np.array([rater or "" for rater in raters]))
    return SignalTrust(mean, std, slope=0.0, t=0.0, beta=0.0, observed=len(known) / max(1, len(values)), habit=habit)


def _session_means(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(turns, k) -> (sessions, k), float64."""
    return np.stack([values[start:stop].mean(0, dtype=float) for start, stop in itertools.pairwise(first)])


def _twin(model: GeliRewardModel) -> GeliRewardModel:
    """A model on the same backbone with a head and a configuration of its own."""
    with torch.device("meta"):  # a second backbone is laid out without memory, and replaced
        twin = GeliRewardModel(deepcopy(model.config))
    twin.model, twin.score, twin.tokenizer = model.model, deepcopy(model.score), model.tokenizer
    return twin.eval()


@torch.no_grad()
def _set_head(model: GeliRewardModel, middle: np.ndarray, deviation: np.ndarray, weight: np.ndarray, intercept: float):
    """Make the linear head compute `weight f + intercept`, which it does on standardised features."""
    head = model.score
    head.standardise.mean.copy_(torch.from_numpy(middle))
    head.standardise.std.copy_(torch.from_numpy(deviation))
    head.out.weight.copy_(torch.from_numpy(weight * deviation)[None])
    head.out.bias.fill_(float(intercept + middle @ weight))
