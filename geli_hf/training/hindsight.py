"""Hindsight: a teacher sees the listener's reaction to every turn, and teaches a student that does not.

A closed form on the features of a frozen backbone, in seconds and without a learning rate. It departs from GELI (arXiv
2403.11330), whose weight of the Local Implicit signal is given and whose model never sees more of the reaction than
that signal. With z the features of a turn, h those of the listener's answer, l the standardised signals, R the
standardised score, and bars for means over a session's turns:

1. `prepare`      p_t = u z_t + d                             the signals predicted from words
2. `learn_trust`  R = b + slope [l-bar, p-bar] + e            beta, the slope shrunk
3. `fit_teacher`  R - beta [l-bar, p-bar] = w z-bar + q h-bar + c + e
4. `fit_student`  w z_t + q h_t + beta [l_t, p_t] + c = v z_t + b + e_t
                                                              the reward is v z_t + b
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset
from transformers.utils import logging

from ..decomposition import RATIOS, Ridge, Trust, fit_ridge, fit_trust, fit_two_ridges, habit_share
from ..models.attribution import HindsightAttribution, SignalTrust, as_dialogue, observed_means, reactions_to
from ..models.features import CONSTANT, TurnFeatureCache, cached_turn_features, score_cached
from ..models.geli_reward.heads_geli import LinearHead
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import SessionError, check_numbers, feedback_names

logger = logging.get_logger(__name__)

TURNS_AT_ONCE = 4096  # that the guard reads
SESSIONS_NEEDED = 200  # with fewer, the signal alone was better on real corpora


@dataclass
class HindsightReport:
    """Figures of a fit; `str()` puts them in words.

    Args:
        sessions, turns: that the student learned from.
        scored: sessions with a score, from which trust and teacher are learned.
        reactions: share of the turns with an answer.
        signals: trust by name.
        teacher, student: share of the variance that the likelihood ascribes to the features: of the sessions' scores
            less the trusted signals, and of the teacher's values.
        ratings: number of sessions, teacher and student of each rating that was learned beside the score.
    """

    sessions: int
    scored: int
    turns: int
    reactions: float
    signals: dict[str, SignalTrust]
    teacher: float
    student: float
    ratings: dict[str, tuple[int, float, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{self.scored} sessions with a score (about {SESSIONS_NEEDED} needed), {self.sessions} in all; "
            f"{self.turns} turns, {self.reactions:.0%} of them answered.",
            "The scores bear a signal out if |t| is 2 or more; beta is its part of a turn's value, per deviation.",
        ]
        for name, signal in self.signals.items():
            lines.append(
                f"{name}: t = {signal.t:.1f}, beta = {signal.beta:+.3f}, observed at {signal.observed:.0%} of the "
                f"turns, {signal.habit:.0%} of a session's mean is the listener's habit; "
                f"predicted from the words: t = {signal.foreseen_t:.1f}, beta = {signal.foreseen_beta:+.3f}."
            )
        lines.append(f"The teacher explains {self.teacher:.0%} of the scores, beyond the signals.")
        lines.append(f"The student, who sees no reaction, explains {self.student:.0%} of the teacher's values.")
        for name, (sessions, teacher, student) in self.ratings.items():
            lines.append(
                f"{name}: {sessions} sessions; the teacher explains {teacher:.0%}, the student {student:.0%} of that."
            )
        return "\n".join(lines)


class Hindsight(NamedTuple):
    """A reward model, the attribution that taught it, the report, and the targets: for each session the value of each
    turn, (turns,), from which a trainer can teach a model of any kind."""

    reward_model: GeliRewardModel
    attribution: HindsightAttribution
    report: HindsightReport
    targets: list[np.ndarray]


class Prepared(NamedTuple):
    """Arrays that a fit learns from.

    Args:
        score: (sessions,), R, standardised; NaN where missing.
        fold: (sessions,).
        first: (sessions + 1,), index of each session's first turn.
        turns: (turns, hidden), z.
        reactions: (turns, hidden), h; the mean of all answers where nobody answered.
        means: (sessions, 2 hidden), z-bar and h-bar.
        center, scale: (2 hidden,), mean and deviation of each feature of z and h.
        signals: (turns, 2 signals), l and then p.
        signal_means: (sessions, 2 signals), l-bar and p-bar.
        scales: scale and habit of each signal by name, not trusted yet.
        predictors: u and d of each signal, learned from all folds.
    """

    score: np.ndarray
    fold: np.ndarray
    first: np.ndarray
    turns: np.ndarray
    reactions: np.ndarray
    means: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    signals: np.ndarray
    signal_means: np.ndarray
    scales: dict[str, SignalTrust]
    predictors: list[Ridge]

    @property
    def hidden(self) -> int:
        """Number of features of a turn."""
        return self.turns.shape[1]

    @property
    def scored(self) -> np.ndarray:
        """Mask of the sessions with a score, (sessions,)."""
        return ~np.isnan(self.score)

    @property
    def fold_of_turn(self) -> np.ndarray:
        """Fold of each turn, (turns,)."""
        return np.repeat(self.fold, np.diff(self.first))


class Teacher(NamedTuple):
    """The result of step 3.

    Args:
        trust: of the signals, from step 2.
        ridge: w and q in one, and c.
        ratio: of the prior deviations of q and w.
    """

    trust: Trust
    ridge: Ridge
    ratio: float


def fit_hindsight(
    model: GeliRewardModel,
    sessions: Dataset,
    eval_sessions: Dataset | None = None,
    *,
    signals: Sequence[str] | None = None,
    ratings: Sequence[str] = (),
    folds: int = 4,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    features: Mapping[str, TurnFeatureCache] | None = None,
) -> Hindsight:
    """Learn turn rewards in closed form from scores, signals and words of the listener, by this module's four steps.

    Sessions without a score teach the student alone. A missing signal or answer counts as the mean. Trust is learned
    from differences between sessions: leave a signal that says little of single turns out of `signals`. Where
    listeners come back (`rater_id`), their habit is estimated and taken off the signal.

    Args:
        model: with a linear head and mean aggregation, as `GeliRewardModel.from_backbone()` makes it. Its backbone
            stays as it is; head and configuration are changed in place, as by a trainer.
        sessions: to learn from.
        eval_sessions: held-out sessions, for the deviation of the residuals alone.
        signals: names in `feedback`. Default: all that the sessions carry.
        ratings: names in `scores`, each of which gets turn rewards of its own beside those of the score, by a teacher
            and a student of its own; see `GeliRewardModel.use_ratings`.
        folds: number of teachers for the student's targets, each blind to one part of the conversations.
        seed: of the folds.
        cache_dir, dtype: see [`cached_turn_features`].
        features: of `sessions`, if they are cached: [`cached_turn_features`] under `"turns"` and
            [`cached_reaction_features`] under `"reactions"`.

    Returns:
        The reward model (which is `model`), its attribution, the report, and the targets of the student.

    Raises:
        SessionError: fewer than three conversations with a score, or scores that are all the same, or no such signal
            or rating, or a number is infinite.
        ValueError: another head or aggregation, or fewer than two folds.
    """
    if (found := (model.config.head, model.config.aggregation)) != ("linear", "mean"):
        raise ValueError(f"model: expected the head 'linear' and the aggregation 'mean', found {found}")
    if folds < 2:
        raise ValueError(f"folds: expected at least 2, found {folds}")
    names = _signal_names(sessions, signals)
    check_numbers(sessions, names)
    score, fold = _scores_and_folds(sessions, folds, seed)
    rated = _ratings(sessions, ratings, fold)
    score_mean, score_std = float(np.nanmean(score)), float(np.nanstd(score))
    if features is None:
        features = {
            "turns": cached_turn_features(model, sessions, cache_dir=cache_dir, dtype=dtype),
            "reactions": cached_reaction_features(model, sessions, cache_dir=cache_dir, dtype=dtype),
        }
    read = {name: cache.narrow(model.config.head_size) for name, cache in features.items()}

    data = prepare(sessions, (score - score_mean) / score_std, fold, names, read)
    teacher = fit_teacher(data, data.scored, RATIOS)
    student, targets = fit_student(data, teacher.ratio)
    students, learned, units = [student], {}, {}
    for name, values in rated.items():
        units[name] = [float(np.nanmean(values)), float(np.nanstd(values))]
        beside = data._replace(score=(values - units[name][0]) / units[name][1])
        other_teacher = fit_teacher(beside, beside.scored, RATIOS)
        students.append(fit_student(beside, other_teacher.ratio)[0])
        learned[name] = int(beside.scored.sum()), other_teacher.ridge.explained, students[-1].explained

    trusted = _with_trust(data.scales, teacher.trust)
    report = HindsightReport(
        sessions=len(sessions),
        scored=int(data.scored.sum()),
        turns=len(targets),
        reactions=int(features["reactions"].lengths.sum()) / len(targets),
        signals=trusted,
        teacher=teacher.ridge.explained,
        student=student.explained,
        ratings=learned,
    )
    if report.scored < SESSIONS_NEEDED:
        logger.warning_once(
            f"{report.scored} sessions have a score; about {SESSIONS_NEEDED} are needed, see the report"
        )

    model.config.score_mean, model.config.score_std = score_mean, score_std
    model.config.residual_std, model.config.reward_quantiles = None, []
    attribution = _attribution(_without_guard(model), data, teacher, trusted)
    hidden = data.hidden
    if list(model.config.ratings) != list(units):
        model.config.ratings = units
        model.score = LinearHead(model.config).to(model.device).train(model.training)
    model.config.ratings = units
    weights, intercepts = np.stack([each.weight for each in students]), np.array([each.intercept for each in students])
    set_linear_head(model, data.center[:hidden], data.scale[:hidden], weights, intercepts)
    rewards = student(data.turns)
    if model.config.fit_hidden_size and not model.config.fit_weight:
        model.config.fit_weight = float(np.ptp(rewards))
    rewards = rewards - _losses(model, features["turns"].all())
    model.config.reward_quantiles = np.quantile(rewards, np.linspace(0, 1, 101)).round(6).tolist()
    if eval_sessions is not None:
        predicted = [row["score"] for row in score_cached(model, eval_sessions, cache_dir=cache_dir, dtype=dtype)]
        residual = np.array(eval_sessions["score"], float) - predicted
        model.config.residual_std = float(np.nanstd(residual)) if np.isfinite(residual).any() else None
    return Hindsight(model, attribution, report, np.split(targets, data.first[1:-1]))


def prepare(
    sessions: Dataset,
    score: np.ndarray,
    fold: np.ndarray,
    names: Sequence[str],
    features: Mapping[str, TurnFeatureCache],
) -> Prepared:
    """Step 1: collect the arrays, and predict every signal from the words.

    The ridge regression learns from other folds than the turn's own, from signals and no score. A signal is full of
    noise, which makes its slope in step 2 too small; its prediction is not.

    Args:
        sessions: to learn from.
        score: (sessions,), standardised, NaN where missing.
        fold: (sessions,).
        names: of the signals.
        features: of turns and reactions, see `fit_hindsight`.
    """
    turns, answers = features["turns"].all(), features["reactions"].all()
    turn_mean, turn_std = features["turns"].mean_and_std()
    answer_mean, answer_std = features["reactions"].mean_and_std()
    first = np.append(0, np.cumsum(features["turns"].lengths))
    reactions = np.tile(answer_mean.astype(np.float32), (len(turns), 1))  # no answer is like an average one
    reactions[[text is not None for text in reactions_to(sessions["messages"])]] = answers

    values = {name: np.concatenate([np.asarray(row[name], float) for row in sessions["feedback"]]) for name in names}
    scales = {name: _scale_of(values[name], first, sessions) for name in names}
    standard = {name: scales[name].standardise(values[name], first) for name in names}
    predicted = [
        _predict_signal(turns, standard[name], ~np.isnan(values[name]), np.repeat(fold, np.diff(first)), turn_std)
        for name in names
    ]
    signals = np.array([*standard.values(), *(others for _, others in predicted)]).reshape(-1, len(turns)).T
    return Prepared(
        score=score,
        fold=fold,
        first=first,
        turns=turns,
        reactions=reactions,
        means=np.concatenate([_session_means(part, first) for part in (turns, reactions)], 1),
        center=np.concatenate([turn_mean, answer_mean]),
        scale=np.concatenate([turn_std, answer_std]),
        signals=signals,
        signal_means=_session_means(signals, first),
        scales=scales,
        predictors=[ridge for ridge, _ in predicted],
    )


def learn_trust(data: Prepared, rows: np.ndarray) -> Trust:
    """Step 2: regress the score on the session means of the signals and of their predictions, see `fit_trust`.

    Args:
        data: see `prepare`.
        rows: (sessions,), mask of the sessions to learn from.
    """
    return fit_trust(data.score[rows], data.signal_means[rows])


def fit_teacher(data: Prepared, rows: np.ndarray, ratios: Sequence[float]) -> Teacher:
    """Step 3: take the trusted signals off the score, and explain the rest by words and answers.

    The ridge regression over sessions shrinks w by one strength and q by another, see `fit_two_ridges`.

    Args:
        data: see `prepare`.
        rows: (sessions,), mask of the sessions to learn from.
        ratios: of the prior deviations of q and w, to choose from.
    """
    trust = learn_trust(data, rows)
    rest = data.score[rows] - data.signal_means[rows] @ trust.beta
    return Teacher(trust, *fit_two_ridges(data.means[rows], rest, data.scale, data.hidden, ratios))


def fit_student(data: Prepared, ratio: float) -> tuple[Ridge, np.ndarray]:
    """Step 4: learn the teacher's value of a turn from the turn in its context alone.

    The ridge regression is over turns. Each value is by a teacher that has not learned from the turn's fold. The
    student reads nothing that follows the turn, so it may reward a policy.

    Args:
        data: see `prepare`.
        ratio: of the teacher of all sessions; blind teachers choose no other.

    Returns:
        v and b, and the values that were learned, (turns,).
    """
    targets = np.empty(len(data.turns))
    for fold in np.unique(data.fold):
        trust, ridge, _ = fit_teacher(data, data.scored & (data.fold != fold), [ratio])
        rows = data.fold_of_turn == fold
        words, answers = np.split(ridge.weight, 2)
        targets[rows] = data.turns[rows] @ words + data.reactions[rows] @ answers
        targets[rows] += data.signals[rows] @ trust.beta + ridge.intercept
    return fit_ridge(data.turns, targets, data.scale[: data.hidden]), targets


def cached_reaction_features(
    model: GeliRewardModel,
    sessions: Dataset,
    *,
    cache_dir: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> TurnFeatureCache:
    """Encode each of the user's answers on its own: item `i` is `(answered turns of session i, head_size)`.

    Args:
        model: its backbone encodes; a guard has nothing to say of an answer.
        sessions: Session rows; only `messages` is read.
        cache_dir, dtype: see [`cached_turn_features`].
    """
    answers = [
        [as_dialogue(text) for text in reactions_to([messages]) if text is not None]
        for messages in sessions["messages"]
    ]
    first = np.cumsum([0, *map(len, answers)])
    if not first[-1]:
        return TurnFeatureCache(np.zeros((0, model.config.head_size), np.float32), first)
    texts = Dataset.from_dict({"messages": list(itertools.chain(*answers))})
    cache = cached_turn_features(_without_guard(model), texts, cache_dir=cache_dir, dtype=dtype, batch_size=256)
    return TurnFeatureCache(cache.features, first)


def _predict_signal(
    features: np.ndarray, signal: np.ndarray, observed: np.ndarray, fold: np.ndarray, scale: np.ndarray
) -> tuple[Ridge, np.ndarray]:
    """Fit u z_t + d to the observed turns: on all folds, and for each turn's prediction on the others."""

    def fit(rows: np.ndarray) -> Ridge:
        if rows.sum() > 1:
            return fit_ridge(features[rows], signal[rows], scale)
        return Ridge(np.zeros(features.shape[1]), 0.0, np.inf, 0.0, 0.0)

    predicted = np.zeros(len(signal))
    for held_out in np.unique(fold):
        rows = fold == held_out
        predicted[rows] = fit(observed & ~rows)(features[rows])
    return fit(observed), predicted


def _signal_names(sessions: Dataset, signals: Sequence[str] | None) -> list[str]:
    have = feedback_names(sessions)
    if unknown := set(signals or ()) - set(have):
        raise SessionError(f"signals: the sessions have no feedback {sorted(unknown)}; they carry {have}")
    return have if signals is None else list(signals)


def _scores_and_folds(sessions: Dataset, folds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores `(sessions,)` and the fold of each session `(sessions,)`."""
    score = np.array(sessions["score"], float)
    known = score[~np.isnan(score)]
    names, conversation = np.unique(np.asarray(sessions["conversation_id"][:]), return_inverse=True)
    rated = np.unique(conversation[~np.isnan(score)])
    if len(rated) < 3:  # with one of them left out, a teacher needs two to tell apart
        raise SessionError(
            f"sessions: found {len(rated)} conversations with a score, expected at least 3, and about "
            f"{SESSIONS_NEEDED} for a reward that is worth something"
        )
    if np.ptp(known) == 0:
        raise SessionError(f"sessions: all {len(known)} scores are {known[0]}, so no turn can be told apart")
    # The rated ones first, so that every fold has some of them, and every teacher has others.
    draw = np.random.default_rng(seed)
    order = np.concatenate([draw.permutation(rated), draw.permutation(np.setdiff1d(np.arange(len(names)), rated))])
    fold = np.empty(len(names), int)
    fold[order] = np.arange(len(order)) % min(folds, len(rated))
    return score, fold[conversation]


def _scale_of(values: np.ndarray, first: np.ndarray, sessions: Dataset) -> SignalTrust:
    """Estimate the scale and the habit of a signal."""
    known = values[~np.isnan(values)]
    mean, std = (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)
    if std <= CONSTANT * np.abs(known).max(initial=0):  # a constant, but for rounding
        std = 1.0
    raters = sessions["rater_id"][:] if "rater_id" in sessions.column_names else [""] * len(sessions)
    habit = habit_share(observed_means(values, first), np.array([rater or "" for rater in raters]))
    return SignalTrust(mean, std, slope=0.0, t=0.0, beta=0.0, observed=len(known) / max(1, len(values)), habit=habit)


def _with_trust(scales: dict[str, SignalTrust], trust: Trust) -> dict[str, SignalTrust]:
    """Add the trust in the signals, and then in their predictions, to their scales."""
    count = len(scales)
    return {
        name: replace(
            scale,
            slope=float(trust.slope[index]),
            t=float(trust.t[index]),
            beta=float(trust.beta[index]),
            foreseen_t=float(trust.t[count + index]),
            foreseen_beta=float(trust.beta[count + index]),
        )
        for index, (name, scale) in enumerate(scales.items())
    }


def _attribution(
    model: GeliRewardModel, data: Prepared, teacher: Teacher, signals: dict[str, SignalTrust]
) -> HindsightAttribution:
    """Make a model of the teacher. It has a head of its own, and the model's backbone.

    Predictions of signals are linear in z, so they join the part of the words.
    """
    (mean, answer_mean), (words, answers) = np.split(data.center, 2), np.split(teacher.ridge.weight, 2)
    intercept = teacher.ridge.intercept + float(answer_mean @ answers)
    for signal, predictor in zip(signals.values(), data.predictors):
        words = words + signal.foreseen_beta * predictor.weight
        intercept += signal.foreseen_beta * predictor.intercept
    set_linear_head(model, mean, data.scale[: data.hidden], words, intercept)
    return HindsightAttribution(model, answer_mean, answers, signals)


def _without_guard(model: GeliRewardModel) -> GeliRewardModel:
    """Make a model of the same backbone and tokenizer, with a head of its own for one score, and no guard."""
    clone = deepcopy(model, {id(shared): shared for shared in (model.model, model.tokenizer)}).eval()
    clone.config.ratings, clone.config.fit_hidden_size, clone.fit = {}, 0, None
    clone.score = LinearHead(clone.config).to(model.device).eval()
    return clone


def _session_means(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Average values of turns, (turns, k), over each session, (sessions, k), float64."""
    return np.stack([values[start:stop].mean(0, dtype=float) for start, stop in itertools.pairwise(first)])


def _ratings(sessions: Dataset, names: Sequence[str], fold: np.ndarray) -> dict[str, np.ndarray]:
    """Return the sessions' ratings by name, (sessions,), after a check that each can be learned from."""
    known = list(sessions.features.get("scores") or {})
    if missing := [name for name in names if name not in known]:
        raise SessionError(f"ratings: the sessions have no rating {missing[0]!r} in `scores`; they have {known}")
    # In the order that a configuration has them in.
    values = {name: np.array([scores[name] for scores in sessions["scores"]], float) for name in sorted(names)}
    for name, rated in values.items():
        if np.isinf(rated).any() or len(np.unique(rated[~np.isnan(rated)])) < 2:
            raise SessionError(f"scores.{name}: expected finite ratings that differ, or leave it out of `ratings`")
        observed = ~np.isnan(rated)
        if min((observed & (fold != left_out)).sum() for left_out in np.unique(fold)) < 2:
            raise SessionError(
                f"scores.{name}: found {observed.sum()} sessions with this rating, too few for teachers that are "
                "blind to a part of them; leave it out of `ratings`"
            )
    return values


@torch.inference_mode()
def _losses(model: GeliRewardModel, turns: np.ndarray) -> np.ndarray | float:
    """Compute what the guard takes from the reward of each turn, (turns,)."""
    if model.fit is None:
        return 0.0
    parts = (turns[first : first + TURNS_AT_ONCE] for first in range(0, len(turns), TURNS_AT_ONCE))
    return np.concatenate([model.fit(torch.tensor(part, device=model.device)).cpu().numpy() for part in parts])


@torch.no_grad()
def set_linear_head(
    model: GeliRewardModel, mean: np.ndarray, std: np.ndarray, weight: np.ndarray, intercept: float | np.ndarray
) -> None:
    """Make a linear head compute `weight f + intercept`, on features that it standardises first.

    Args:
        model: with a linear head.
        mean, std: (hidden,), of the features.
        weight: (hidden,), for the features as they are; or (1 + ratings, hidden), of the score and of each rating.
        intercept: the reward where all features are 0; or (1 + ratings,).
    """
    head = model.score
    head.standardise.mean.copy_(torch.from_numpy(mean))
    head.standardise.std.copy_(torch.from_numpy(std))
    weight = np.atleast_2d(weight)
    head.out.weight.copy_(torch.from_numpy(weight * std))
    head.out.bias.copy_(torch.from_numpy(np.atleast_1d(intercept + weight @ mean)))
