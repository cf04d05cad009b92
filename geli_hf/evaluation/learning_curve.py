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
from tqdm.auto import tqdm
from transformers.utils import logging

from ..cache import atomic_path, write_text
from ..metrics.baselines import log_length
from ..metrics.intervals import RESAMPLES, Interval, bootstrap_statistic
from ..metrics.metrics import session_spearman_interval
from ..metrics.plots import plot_learning_curve
from ..metrics.ranks import weighted_spearman
from ..metrics.table import aligned_table, as_json, format_figure
from ..models.features import score_cached
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import SessionError
from ..training import fit_hindsight
from .methods.folds import Encoded, Features, Fold, out_of_fold
from .methods.rows import with_new_head
from .report import CONVERSATIONS_NEEDED

logger = logging.get_logger(__name__)

PARTS = 4  # of the conversations; one is held out
SMALLEST = 25  # sessions in a training set, at least
DRAWS = 5  # of every training set but the whole


@dataclass(frozen=True)
class CurveRow:
    """Agreement after learning from so many sessions, as a mean over draws of the training set.

    Args:
        sessions, conversations: numbers that were learned from, as means over the draws.
        draws: number of training sets; one from which nothing can be learned is left out.
        agreement: Spearman correlation of predicted with given scores.
        deviation: standard deviation of the agreement between draws; NaN with fewer than two.
    """

    sessions: float
    conversations: float
    draws: int
    agreement: Interval
    deviation: float


@dataclass(frozen=True)
class LearningCurve:
    """Figures of a learning curve; `str()` gives them as Markdown, with the advice.

    Args:
        rows: from few sessions to many.
        baselines: agreement of rewards that need no learning, by name.
        gain: paired difference of the agreement between the last two rows.
        held_out_sessions, held_out_conversations: numbers of those that all figures are measured on.
    """

    rows: list[CurveRow]
    baselines: dict[str, Interval]
    gain: Interval
    held_out_sessions: int
    held_out_conversations: int

    @property
    def advice(self) -> str:
        """The gain of the last row over the one before, and whether it may be chance.

        Ratings are said to help where the interval, over held-out sessions, is above 0, and the gain is more than
        twice the deviation between draws of the smaller training set. A baseline that agrees as well is named.
        """
        before, after = self.rows[-2:]
        if np.isnan(self.gain.low):
            end = f"which may be chance, with {self.held_out_conversations} conversations held out"
        elif self.gain.low <= 0:
            end = "which is no measurable gain"
        elif self.gain.estimate > 2 * before.deviation:
            end = "so more ratings still help"
        else:
            end = "so more ratings may help, but draws of the training set differ as much"
        sentences = [f"{after.sessions:,.0f} sessions instead of {before.sessions:,.0f} added {self.gain}, {end}."]
        reached = after.agreement.estimate
        for name, alone in self.baselines.items():
            if abs(alone.estimate) >= reached:
                sentences.append(f"It is then {reached:.3f}, and that of the {name} alone {alone.estimate:.3f}.")
        return " ".join(sentences)

    def __str__(self) -> str:
        lines = [
            [f"{row.sessions:,.0f}", str(row.draws), str(row.agreement), format_figure(row.deviation)]
            for row in self.rows
        ]
        lines += [[name, "", str(agreement), ""] for name, agreement in self.baselines.items()]
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
            f"{aligned_table(['Rated sessions', 'Draws', 'Session Spearman', 'Deviation'], lines)}\n\n{brackets}\n\n"
            f"{self.advice}\n"
        )

    def write(self, folder: str | Path) -> None:
        """Write `learning_curve.json` and `learning_curve.png` into a folder."""
        record = as_json(asdict(self) | {"advice": self.advice})
        write_text(Path(folder) / "learning_curve.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
        lines = {name: agreement.estimate for name, agreement in self.baselines.items()}
        sizes, agreements = ([getattr(row, name) for row in self.rows] for name in ("sessions", "agreement"))
        with atomic_path(Path(folder) / "learning_curve.png") as partial:
            plot_learning_curve(sizes, agreements, partial, lines)


class Fit(NamedTuple):
    """Predicted scores of the held-out sessions, after learning from some others.

    Args:
        learned: (training sessions,), indices of the sessions that were learned from.
        predicted: (held-out sessions,), in units of the score.
    """

    learned: np.ndarray
    predicted: np.ndarray


def learning_curve(
    model: GeliRewardModel,
    sessions: Dataset,
    *,
    seed: int = 0,
    features: Features | None = None,
    batch_size: int = 32,
) -> LearningCurve:
    """Fit hindsight to more and more sessions, and measure each fit on the same held-out conversations.

    The backbone encodes once. An interval tells what other held-out conversations would have given; the deviation
    between draws tells what other training sessions would.

    Args:
        model: its backbone encodes; it stays as it is.
        sessions: Session rows; those without a score are left out.
        seed: of the split and of all draws.
        features: of `sessions`, as for `fit_hindsight`. Default: encoded, or from the cache.
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
        return Fit(learned, np.array([row["score"] for row in scored]))

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

    ids, score = held_out["conversation_id"][:], np.array(held_out["score"], float)
    used = [of_size for of_size in fits.values() if of_size]
    if len(used) < 2:
        raise SessionError(f"sessions: nothing can be learned from fewer than all {len(train)}; are scores alike?")
    draw = {"resamples": RESAMPLES if len(set(ids)) >= CONVERSATIONS_NEEDED else 0}

    def agreement(predicted: Sequence[Sequence[float]]) -> Interval:
        return session_spearman_interval(predicted, score, ids, **draw)

    def row(of_size: list[Fit]) -> CurveRow:
        alone = [session_spearman_interval(each.predicted, score, ids, resamples=0).estimate for each in of_size]
        return CurveRow(
            sessions=float(np.mean([len(each.learned) for each in of_size])),
            conversations=float(np.mean([len(set(conversation[each.learned])) for each in of_size])),
            draws=len(of_size),
            agreement=agreement([each.predicted for each in of_size]),
            deviation=float(np.std(alone, ddof=1)) if len(alone) > 1 else np.nan,
        )

    def gain(weights: np.ndarray) -> np.ndarray:
        before, after = (
            np.mean([weighted_spearman(each.predicted, score, weights) for each in of_size], axis=0)
            for of_size in used[-2:]
        )
        return after - before

    baselines = {
        "number of messages": agreement([[len(messages) for messages in held_out["messages"]]]),
        "log length of the turn": agreement([[float(np.mean(turns)) for turns in log_length(held_out)]]),
    }
    gained = bootstrap_statistic(gain, ids, np.ones(len(score), bool), **draw)
    return LearningCurve(list(map(row, used)), baselines, gained, len(held_out), len(set(ids)))


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
