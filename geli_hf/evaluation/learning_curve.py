"""Learning curve of hindsight: agreement with held-out scores by the number of rated sessions that it learned from.

It answers whether more ratings are worth collecting. A quarter of the conversations is held out. Of the rest, every
training set has half as many sessions as the next larger one, and lies within it; all but the whole are drawn several
times.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset
from matplotlib.figure import Figure
from tqdm.auto import tqdm
from transformers.utils import logging

from ..cache import atomic_path
from ..metrics.baselines import log_length
from ..metrics.intervals import RESAMPLES, UNKNOWN, Interval, bootstrap_statistic
from ..metrics.metrics import (
    bootstrap,
    paired_bootstrap,
    session_spearman_interval,
    spearman_per_session,
    within_session_spearman,
)
from ..metrics.plots import plot_learning_curve
from ..metrics.ranks import PerTurn, weighted_spearman
from ..metrics.table import aligned_table, as_json, format_figure, turn_ratings
from ..models.features import score_cached
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import SessionError
from ..training import fit_hindsight
from .methods.folds import Encoded, Features, Fold, out_of_fold
from .methods.rows import with_new_head
from .report import CONVERSATIONS_NEEDED, write_text

logger = logging.get_logger(__name__)

PARTS = 4  # of the conversations; one is held out
SMALLEST = 25  # sessions in a training set, at least
DRAWS = 5  # of every training set but the whole
WITHIN, SESSION = "within_session_spearman", "session_spearman"
TITLES = {WITHIN: "Within-session Spearman", SESSION: "Session Spearman"}
Figures = dict[str, Interval]


@dataclass(frozen=True)
class CurveRow:
    """Agreement after learning from so many sessions, as a mean over draws of the training set.

    Args:
        sessions, conversations: numbers that were learned from, as means over the draws.
        draws: number of training sets; one from which nothing can be learned is left out.
        figures: `session_spearman`, of predicted with given scores; and `within_session_spearman`, of turn rewards
            with ratings of the turns, if the sessions have them.
        deviations: standard deviation of each figure between draws; NaN with fewer than two.
    """

    sessions: float
    conversations: float
    draws: int
    figures: Figures
    deviations: dict[str, float]


@dataclass(frozen=True)
class LearningCurve:
    """Figures of a learning curve; `str()` gives them as Markdown, with the advice.

    Args:
        rows: from few sessions to many.
        baselines: figures of rewards that need no learning, by name.
        gain: paired difference of each figure between the last two rows.
        held_out_sessions, held_out_conversations: numbers of those that all figures are measured on.
    """

    rows: list[CurveRow]
    baselines: dict[str, Figures]
    gain: Figures
    held_out_sessions: int
    held_out_conversations: int

    @property
    def advice(self) -> str:
        """A sentence for each figure: the gain of the last row over the one before, and whether it may be chance.

        Ratings are said to help where the interval, over held-out sessions, is above 0, and the gain is more than
        twice the deviation between draws of the smaller training set. A baseline that agrees as well is named.
        """
        before, after = self.rows[-2:]
        sentences = []
        for name, gain in self.gain.items():
            if np.isnan(gain.low):
                end = f"which may be chance, with {self.held_out_conversations} conversations held out"
            elif gain.low <= 0:
                end = "which is no measurable gain"
            elif gain.estimate > 2 * before.deviations[name]:
                end = "so more ratings still help"
            else:
                end = "so more ratings may help, but draws of the training set differ as much"
            learned = f"{after.sessions:,.0f} sessions instead of {before.sessions:,.0f}"
            sentences.append(f"{TITLES[name]}: {learned} added {gain}, {end}.")
            reached = after.figures[name].estimate
            for baseline, figures in self.baselines.items():
                alone = figures.get(name, UNKNOWN).estimate
                if abs(alone) >= reached:
                    sentences.append(f"It is then {reached:.3f}, and that of the {baseline} alone {alone:.3f}.")
        return " ".join(sentences)

    def __str__(self) -> str:
        titles, lines = ["Rated sessions", "Draws"], [[f"{row.sessions:,.0f}", str(row.draws)] for row in self.rows]
        lines += [[name, ""] for name in self.baselines]
        for name in self.gain:
            titles += [TITLES[name], "Deviation"]
            cells = [[str(row.figures[name]), format_figure(row.deviations[name])] for row in self.rows]
            cells += [[str(figures.get(name, UNKNOWN)), ""] for figures in self.baselines.values()]
            lines = [[*line, *cell] for line, cell in zip(lines, cells)]
        whole = self.rows[-1]
        brackets = f"No intervals: fewer than {CONVERSATIONS_NEEDED} conversations are held out."
        if self.held_out_conversations >= CONVERSATIONS_NEEDED:
            brackets = (
                "In brackets 95 % bootstrap intervals over the held-out conversations, for these training sets; the "
                "deviation is that between draws of the training set."
            )
        return (
            f"Hindsight after learning from up to {whole.sessions:,.0f} sessions of {whole.conversations:,.0f} "
            f"conversations, on {self.held_out_sessions:,} sessions of {self.held_out_conversations:,} others.\n\n"
            f"{aligned_table(titles, lines)}\n\n{brackets}\n\n{self.advice}\n"
        )

    def plot(self, path: str | Path) -> Figure:
        """Draw the figures with their intervals over the number of sessions, and the baselines as lines.

        Args:
            path: of the PNG.
        """
        curves = {TITLES[name]: [row.figures[name] for row in self.rows] for name in self.gain}
        lines = {
            name: {TITLES[figure]: interval.estimate for figure, interval in figures.items()}
            for name, figures in self.baselines.items()
        }
        return plot_learning_curve([row.sessions for row in self.rows], curves, path, lines)

    def write(self, folder: str | Path) -> None:
        """Write `learning_curve.json` and `learning_curve.png` into a folder."""
        record = as_json(asdict(self) | {"advice": self.advice})
        write_text(Path(folder) / "learning_curve.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
        with atomic_path(Path(folder) / "learning_curve.png") as partial:
            self.plot(partial)


class Fit(NamedTuple):
    """Predicted scores and turn rewards of the held-out sessions, after learning from some others.

    Args:
        learned: (training sessions,), indices of the sessions that were learned from.
        predicted: (held-out sessions,), in units of the score.
        rewards: one array (turns,) per held-out session.
    """

    learned: np.ndarray
    predicted: Sequence[float]
    rewards: PerTurn


def learning_curve(
    model: GeliRewardModel,
    sessions: Dataset,
    *,
    seed: int = 0,
    features: Features | None = None,
    resamples: int = RESAMPLES,
    batch_size: int = 32,
) -> LearningCurve:
    """Fit hindsight to more and more sessions, and measure each fit on the same held-out conversations.

    The backbone encodes once. An interval tells what other held-out conversations would have given; the deviation
    between draws tells what other training sessions would.

    Args:
        model: its backbone encodes; it stays as it is.
        sessions: Session rows; those without a score are left out. With `turn_rating`, single turns are compared too.
        seed: of the split and of all draws.
        features: of `sessions`, as for `fit_hindsight`. Default: encoded, or from the cache.
        resamples: of the bootstrap.
        batch_size: sessions that are encoded together.

    Raises:
        SessionError: too few sessions with a score, or their scores are all the same.
        ValueError: the aggregation of the model is not the mean.
    """
    known = np.flatnonzero(~np.isnan(np.array(sessions["score"], float)))
    rated = sessions.select(known)
    train, test = _split(rated, seed)
    held_out, conversation = rated.select(test), np.asarray(rated["conversation_id"][:])
    if features is None:
        features = Encoded(model, rated, batch_size=batch_size).features
    else:
        features = {name: cache.select(known) for name, cache in features.items()}
    learner = with_new_head(model, "linear").eval()

    def fit(learned: np.ndarray, number: int) -> Fit:
        at_hand = {name: cache.select(learned) for name, cache in features.items()}
        fit_hindsight(learner, rated.select(learned), seed=number, features=at_hand)
        scored = score_cached(learner, held_out, features=features["turns"].select(test))
        return Fit(learned, [row["score"] for row in scored], [row["turn_rewards"] for row in scored])

    whole = fit(train, seed)  # first, since it fails where nothing can be learned
    sizes = [len(train) >> halvings for halvings in range(1, len(train).bit_length())]
    fits: dict[int, list[Fit]] = {size: [] for size in reversed(sizes) if size >= SMALLEST}
    with tqdm(total=len(fits) * DRAWS, desc="Learning from fewer", unit="fit") as bar:
        for size in fits:
            for number in range(DRAWS):
                learned = train[draw_sessions(conversation[train], size, [seed, number])]
                try:
                    fits[size].append(fit(learned, number))
                except SessionError as error:  # the scores of a small set may be all the same
                    logger.warning(f"A training set of {len(learned)} sessions is left out: {error}")
                bar.update()
    fits[len(train)] = [whole]

    held_out_conversations = len(set(held_out["conversation_id"]))
    measure = _Measure(held_out, resamples if held_out_conversations >= CONVERSATIONS_NEEDED else 0)
    used = [of_size for of_size in fits.values() if of_size]
    if len(used) < 2:
        raise SessionError(f"sessions: nothing can be learned from fewer than all {len(train)}; are scores alike?")
    rows = [
        CurveRow(
            sessions=float(np.mean([len(each.learned) for each in of_size])),
            conversations=float(np.mean([len(set(conversation[each.learned])) for each in of_size])),
            draws=len(of_size),
            figures=measure.figures([each.predicted for each in of_size], [each.rewards for each in of_size]),
            deviations=measure.deviations(of_size),
        )
        for of_size in used
    ]
    length = log_length(held_out)
    baselines = {
        "number of messages": measure.figures([[len(messages) for messages in held_out["messages"]]]),
        "log length of the turn": measure.figures([[float(np.mean(turns)) for turns in length]], [length]),
    }
    return LearningCurve(rows, baselines, measure.gain(*used[-2:]), len(held_out), held_out_conversations)


def draw_sessions(conversation_ids: Sequence[str], size: int, seed: Sequence[int]) -> np.ndarray:
    """Draw whole conversations until they hold so many sessions. With one seed, smaller sets lie within larger ones.

    Args:
        conversation_ids: (sessions,).
        size: number of sessions; there are more only where the last conversation has several.
        seed: of the order of the conversations.

    Returns:
        Indices of the sessions, in their order: (drawn sessions,).
    """
    _, conversation, count = np.unique(np.asarray(conversation_ids), return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(count))
    last = np.searchsorted(np.cumsum(count[order]), size)
    return np.flatnonzero(np.isin(conversation, order[: last + 1]))


def _split(rated: Dataset, seed: int) -> Fold:
    count, least = len(set(rated["conversation_id"])), 2 * SMALLEST
    if count >= PARTS:
        fold = out_of_fold(rated, PARTS, seed)[0]
        if len(fold.train) >= least:
            return fold
    raise SessionError(
        f"sessions: found {len(rated)} with a score, of {count} conversations; expected at least {least} after a "
        f"quarter of the conversations is held out"
    )


class _Measure:
    """Agreement with the scores and turn ratings of the held-out sessions, with intervals over conversations."""

    def __init__(self, held_out: Dataset, resamples: int):
        self.conversations, self.score = held_out["conversation_id"][:], np.array(held_out["score"], float)
        self.ratings = turn_ratings(held_out)
        self.rated = np.isfinite(np.concatenate(self.ratings)).any()
        self.draw = {"resamples": resamples}

    def figures(self, predicted: Sequence[Sequence[float]], rewards: Sequence[PerTurn] = ()) -> Figures:
        """Compute means over fits; without rewards, only that of the predicted scores."""
        over_sessions = session_spearman_interval(predicted, self.score, self.conversations, **self.draw)
        if not self.rated or not rewards:
            return {SESSION: over_sessions}
        return {WITHIN: bootstrap(self._within(rewards), self.conversations, **self.draw), SESSION: over_sessions}

    def deviations(self, fits: Sequence[Fit]) -> dict[str, float]:
        """Compute the standard deviation of each figure between fits; NaN with fewer than two."""
        values = {
            WITHIN: [within_session_spearman(fit.rewards, self.ratings) for fit in fits],
            SESSION: [
                session_spearman_interval(fit.predicted, self.score, self.conversations, resamples=0).estimate
                for fit in fits
            ],
        }
        return {name: float(np.std(each, ddof=1)) if len(each) > 1 else np.nan for name, each in values.items()}

    def gain(self, before: Sequence[Fit], after: Sequence[Fit]) -> Figures:
        """Compute the difference of each figure, with conversations drawn for both sides together."""

        def difference(weights: np.ndarray) -> np.ndarray:
            means = [
                np.mean([weighted_spearman(np.asarray(fit.predicted), self.score, weights) for fit in fits], axis=0)
                for fits in (before, after)
            ]
            return means[1] - means[0]

        known = np.ones(len(self.score), bool)
        over_sessions = bootstrap_statistic(difference, self.conversations, known, **self.draw)
        if not self.rated:
            return {SESSION: over_sessions}
        within = [self._within([fit.rewards for fit in fits]) for fits in (after, before)]
        return {WITHIN: paired_bootstrap(*within, self.conversations, **self.draw), SESSION: over_sessions}

    def _within(self, rewards: Sequence[PerTurn]) -> np.ndarray:
        return np.mean([spearman_per_session(each, self.ratings) for each in rewards], axis=0)
