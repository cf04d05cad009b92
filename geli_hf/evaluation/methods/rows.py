"""The rows of the benchmark: ways to reward turns, each fitted on training sessions and applied to others.

A further method is a further entry of the dict.
"""

from __future__ import annotations

import copy
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset, Features
from transformers import PrinterCallback, set_seed

from ...metrics.baselines import TURN_BASELINES, mean_score, mode_score
from ...models.features import score_cached
from ...models.geli_reward.modeling_geli import HEADS, GeliRewardModel
from ...sessions import assistant_turns, feedback_names, session_features
from ...training import GeliRewardArguments, GeliRewardTrainer, Hindsight, fit_hindsight
from .folds import FoldFeatures

Rewards = tuple[list[np.ndarray], np.ndarray | None]
Fit = Callable[[Dataset, Dataset, FoldFeatures, int], Rewards]

# Signals that a language model gave (`geli_hf.llm`), and the row that learns from each.
LLM_ROWS = {"llm": "LLM-GELI", "llm_behaviour": "LLM-GELI, multimodal"}
HINDSIGHT, ATTRIBUTION = "hindsight", "hindsight, seeing the reaction"
SUPERVISED = "supervised by the turn ratings (reference)"
SHUFFLED = ", scores shuffled"  # the name of a control is that of its row and this
RRD_TURNS = (8, 32, None)
HEAD_FIELDS = ("head", "head_hidden_size", "head_dropout", "aggregation")
# A fit leaves nothing but its head: what is measured is measured afterwards, on all rows alike.
QUIET = {
    "eval_strategy": "no",
    "save_strategy": "no",
    "logging_strategy": "no",
    "load_best_model_at_end": False,
    "disable_tqdm": True,
    "report_to": "none",
}


class NotRun(Exception):
    """A row needs something that is not there; the message says what."""


@dataclass(frozen=True)
class Row:
    """One way to reward turns.

    Args:
        fit: `(train, test, features, seed) -> (turn_rewards, predicted_scores)`: one array per test session, with one
            reward per assistant turn; and `(sessions,)` in units of the score, or None from a way that predicts none.
            Where something is absent that it needs it raises `NotRun`.
        settings: what the fit depends on beside sessions, features and seed, as JSON: with others it is another row.
        permutations: of a control, fits per seed, each with the scores of the training sessions permuted; 0 of all
            others, which are fitted once, as the scores are.
    """

    fit: Fit
    settings: Mapping[str, Any] = field(default_factory=dict)
    permutations: int = 0


def trivial_rows() -> dict[str, Row]:
    """What every method has to beat, and what needs no backbone."""
    rows = {"predict the mean": partial(_constant, mean_score), "predict the mode": partial(_constant, mode_score)}
    rows |= {name: partial(_baseline, baseline) for name, baseline in TURN_BASELINES.items()}
    return {name: Row(fit) for name, fit in rows.items()}


def learned_rows(
    model: GeliRewardModel,
    signals: Sequence[str],
    arguments: Mapping[str, Any] | None = None,
    li_weights: Mapping[str, float] | None = None,
    permutations: int = 8,
    trained_permutations: int = 2,
) -> dict[str, Row]:
    """The methods of the papers and of this package, all on the features of one frozen backbone.

    Args:
        model: its backbone and its head's shape; each fit has a copy with a new head.
        signals: the Local Implicit signals to learn from, those of a language model left aside: they have rows of
            their own.
        arguments: fields of `GeliRewardArguments` for every fit.
        li_weights: signal -> weight of LI in GELI, in place of the default.
        permutations: fits per seed of each control in closed form: hindsight, and its teacher. 0 for no control.
        trained_permutations: the same of GELI with the first signal, whose fits take longer.
    """
    head = {name: getattr(model.config, name) for name in HEAD_FIELDS}

    def trained(signal: str | None = None, **changes: Any) -> Row:
        wanted = {**(arguments or {}), **changes}
        fit = partial(_fit, model, wanted)
        return Row(partial(_needing, signal, fit) if signal else fit, {"training": wanted, "model": head})

    signals = [name for name in signals if name not in LLM_ROWS]
    rows = {f"LI alone ({name})": trained(name, li=name, li_weight=1.0) for name in signals}
    rows["IRCR"] = trained(ge="ircr", li_weight=0.0)
    rows["RUDDER"] = trained(ge="rudder", li_weight=0.0)
    for name, turns in rrd_rows().items():
        rows[name] = trained(ge="rrd", rrd_turns=turns, li_weight=0.0)
    for name in signals:
        weight = {"li_weight": li_weights[name]} if name in (li_weights or {}) else {}
        geli = trained(name, ge="rrd", rrd_turns=None, li=name, **weight)
        rows |= _with_control(f"GELI ({name})", geli, trained_permutations if name == signals[0] else 0)
    for name, title in LLM_ROWS.items():
        rows[title] = trained(name, li=name, li_weight=1.0)
    for name, fit in ((HINDSIGHT, _hindsight), (ATTRIBUTION, _attribution)):
        closed = Row(partial(fit, model, signals), {"signals": signals, "model": head})
        rows |= _with_control(name, closed, permutations)
    ratings = trained(li="turn_rating", li_weight=1.0)
    rows[SUPERVISED] = replace(ratings, fit=partial(_supervised, ratings.fit))
    return rows


def rrd_rows() -> dict[str, int | None]:
    """Name of each row of RRD alone -> the turns that it draws from a session, None for all."""
    return {f"RRD, {turns or 'all'} turns": turns for turns in RRD_TURNS}


def _with_control(name: str, row: Row, permutations: int) -> dict[str, Row]:
    control = {name + SHUFFLED: replace(row, permutations=permutations)} if permutations else {}
    return {name: row} | control


def _constant(of: Callable[[Sequence[float]], float], train: Dataset, test: Dataset, features, seed: int) -> Rewards:
    """The same for every turn, and one score for every session."""
    value = of(train["score"])
    return [np.zeros(count) for count in _turns(test)], np.full(len(test), value)


def _baseline(baseline: Callable, train: Dataset, test: Dataset, features, seed: int) -> Rewards:
    try:
        return baseline(test), None
    except ImportError as error:
        raise NotRun(str(error)) from error


def _fit(
    base: GeliRewardModel,
    arguments: dict,
    train: Dataset,
    test: Dataset,
    features: FoldFeatures,
    seed: int,
) -> Rewards:
    """Train a new head, and reward the test turns with it."""
    set_seed(seed)
    rudder = arguments.get("ge") == "rudder"
    model = with_new_head(base, "rudder" if rudder else base.config.head)
    with tempfile.TemporaryDirectory() as folder:
        wanted = arguments | QUIET | {"output_dir": folder, "seed": seed}
        trainer = GeliRewardTrainer(model, GeliRewardArguments(**wanted), train, features={"train": features.train})
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return _scored(model, test, features)


def _needing(signal: str, fit: Fit, train: Dataset, test: Dataset, features: FoldFeatures, seed: int) -> Rewards:
    if signal not in feedback_names(train):
        have = ", ".join(feedback_names(train)) or "no signal"
        wanted = "; `geli decompose` adds it" if signal in LLM_ROWS else ""
        raise NotRun(f"the sessions have no feedback {signal!r} ({have}){wanted}")
    return fit(train, test, features, seed)


def _hindsight(
    base: GeliRewardModel, signals: Sequence[str], train: Dataset, test: Dataset, features: FoldFeatures, seed: int
) -> Rewards:
    """The forward student, which sees no reaction."""
    return _scored(_fit_hindsight(base, signals, train, features, seed).reward_model, test, features)


def _attribution(
    base: GeliRewardModel, signals: Sequence[str], train: Dataset, test: Dataset, features: FoldFeatures, seed: int
) -> Rewards:
    """Its teacher, which sees the reaction and the signals of the test sessions too."""
    at_hand = {"turns": features.test, "reactions": features.test_reactions}
    attribution = _fit_hindsight(base, signals, train, features, seed).attribution
    return _rewards(attribution.score_sessions(test, features=at_hand))


def _fit_hindsight(
    base: GeliRewardModel, signals: Sequence[str], train: Dataset, features: FoldFeatures, seed: int
) -> Hindsight:
    if base.config.aggregation != "mean":
        raise NotRun(f"the model's aggregation is {base.config.aggregation!r}; the closed form is that of the mean")
    model = with_new_head(base, "linear")
    at_hand = {"turns": features.train, "reactions": features.train_reactions}
    with _unsaid():
        return fit_hindsight(model, train, signals=signals, seed=seed, features=at_hand)


@contextmanager
def _unsaid() -> Iterator[None]:
    """That sessions are few is said by the notes of the comparison, once, and not by every fit."""
    logger = logging.getLogger(fit_hindsight.__module__)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _supervised(fit: Fit, train: Dataset, test: Dataset, features: FoldFeatures, seed: int) -> Rewards:
    """Learns from the turn ratings themselves, which the other rows never see: what the features can give."""
    if "turn_rating" not in train.column_names or all(map(math.isnan, _flat(train["turn_rating"]))):
        raise NotRun("no turn of the training sessions has a turn_rating")
    rows = {"score": train["score"][:], "messages": train["messages"][:]}
    rows["feedback"] = [{"turn_rating": ratings} for ratings in train["turn_rating"]]
    known = session_features(["turn_rating"])
    rated = Dataset.from_dict(rows, features=Features({name: known[name] for name in rows}))
    return fit(rated, test, features, seed)


def with_new_head(base: GeliRewardModel, head: str) -> GeliRewardModel:
    """A copy with an untrained head of that kind."""
    model = copy.deepcopy(base)
    model.config.head = head
    model.score = HEADS[head](model.config)
    model.score.apply(model._init_weights)
    return model.to(base.device)


def _scored(model: GeliRewardModel, test: Dataset, features: FoldFeatures) -> Rewards:
    return _rewards(score_cached(model.eval(), test, features=features.test))


def _rewards(rows: Sequence[Mapping[str, Any]]) -> Rewards:
    return [np.array(row["turn_rewards"]) for row in rows], np.array([row["score"] for row in rows])


def _turns(sessions: Dataset) -> list[int]:
    return [len(assistant_turns(messages)) for messages in sessions["messages"]]


def _flat(values: Sequence[Sequence[float]]) -> list[float]:
    return [value for row in values for value in row]
