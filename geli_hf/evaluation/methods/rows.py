"""Rows of the benchmark: methods of attribution, each fitted on training sessions and applied to test sessions.

To add a method, add an entry to the dict.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PrinterCallback, set_seed

from ...metrics.baselines import TURN_BASELINES, mode_score
from ...metrics.table import turn_ratings
from ...models.features import score_cached
from ...models.geli_reward.heads_geli import HEADS
from ...models.geli_reward.modeling_geli import GeliRewardModel
from ...sessions import assistant_turns, feedback_names, session_features
from ...training import GeliRewardArguments, GeliRewardTrainer, fit_hindsight
from .folds import Features

Rewards = tuple[list[np.ndarray], np.ndarray | None]
Fit = Callable[[Dataset, Dataset, Mapping[str, Features], int], Rewards]

# Signal from a language model (`geli_hf.llm`) -> name of the row that learns from it.
LLM_ROWS = {"llm": "LLM-GELI", "llm_behaviour": "LLM-GELI, multimodal"}
HINDSIGHT, ATTRIBUTION = "hindsight", "hindsight, seeing the reaction"
SUPERVISED = "supervised by the turn ratings (reference)"
SHUFFLED = ", scores shuffled"  # suffix of the name of a control
RRD_TURNS = (8, 32, None)  # drawn from a session; None is all
HEAD_FIELDS = ("head", "head_hidden_size", "head_dropout", "aggregation")
# A fit leaves nothing but its head: all rows are measured afterwards, in the same way.
QUIET = {
    "eval_strategy": "no",
    "save_strategy": "no",
    "logging_strategy": "no",
    "load_best_model_at_end": False,
    "disable_tqdm": True,
    "report_to": "none",
}


class NotRun(Exception):
    """A row lacks something that it needs, which the message names."""


@dataclass(frozen=True)
class Row:
    """A method of attribution.

    Args:
        fit: `(train, test, features, seed) -> (turn_rewards, predicted_scores)`: one array (turns,) per test session,
            and (sessions,) in units of the score, or None from a method that predicts none; `features` are those of
            both parts, "train" and "test". Raises `NotRun` where it lacks something.
        settings: all that the fit depends on beside sessions, features and seed, as JSON. A kept run with other
            settings is computed anew.
        permutations: for a control, the number of fits per seed, each with permuted training scores; else 0.
    """

    fit: Fit
    settings: Mapping[str, Any] = field(default_factory=dict)
    permutations: int = 0


def trivial_rows() -> dict[str, Row]:
    """List the baselines, which need no backbone."""
    rows = {"predict the mean": partial(_constant, np.mean), "predict the mode": partial(_constant, mode_score)}
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
    """List the methods of the papers and of this package, all on the features of one frozen backbone.

    Args:
        model: gives the backbone and the shape of the head; each fit trains a new head on a copy.
        signals: the Local Implicit signals to learn from. Those of a language model have rows of their own.
        arguments: fields of `GeliRewardArguments` for every fit.
        li_weights: signal -> weight of LI in GELI, in place of the default.
        permutations: fits per seed of each control in closed form, hindsight and its teacher. 0 for no control.
        trained_permutations: the same for GELI with the first signal, whose fits take longer.
    """
    head = {name: getattr(model.config, name) for name in HEAD_FIELDS}

    def trained(**changes: Any) -> Row:
        wanted = {**(arguments or {}), **changes}
        return Row(partial(_fit, model, wanted), {"training": wanted, "model": head})

    signals = [name for name in signals if name not in LLM_ROWS]
    rows = {f"LI alone ({name})": trained(li=name, li_weight=1.0) for name in signals}
    rows["IRCR"] = trained(ge="ircr", li_weight=0.0)
    rows["RUDDER"] = trained(ge="rudder", li_weight=0.0)
    for turns in RRD_TURNS:
        rows[f"RRD, {turns or 'all'} turns"] = trained(ge="rrd", rrd_turns=turns, li_weight=0.0)
    for name in signals:
        weight = {"li_weight": li_weights[name]} if name in (li_weights or {}) else {}
        geli = trained(ge="rrd", rrd_turns=None, li=name, **weight)
        rows |= _with_control(f"GELI ({name})", geli, trained_permutations if name == signals[0] else 0)
    for name, title in LLM_ROWS.items():
        rows[title] = trained(li=name, li_weight=1.0)
    for name, seeing in ((HINDSIGHT, False), (ATTRIBUTION, True)):
        closed = Row(partial(_hindsight, model, signals, seeing), {"signals": signals, "model": head})
        rows |= _with_control(name, closed, permutations)
    ratings = trained(li="turn_rating", li_weight=1.0)
    rows[SUPERVISED] = replace(ratings, fit=partial(_supervised, ratings.fit))
    return rows


def _with_control(name: str, row: Row, permutations: int) -> dict[str, Row]:
    control = {name + SHUFFLED: replace(row, permutations=permutations)} if permutations else {}
    return {name: row} | control


def _constant(of: Callable[[Sequence[float]], float], train: Dataset, test: Dataset, features, seed: int) -> Rewards:
    """Predict 0 for every turn, and the same score for every session."""
    value = of(train["score"])
    return [np.zeros(len(assistant_turns(messages))) for messages in test["messages"]], np.full(len(test), value)


def _baseline(baseline: Callable, train: Dataset, test: Dataset, features, seed: int) -> Rewards:
    try:
        return baseline(test), None
    except ImportError as error:
        raise NotRun(str(error)) from error


def _fit(base: GeliRewardModel, arguments: dict, train: Dataset, test: Dataset, features, seed: int) -> Rewards:
    """Train a new head, and reward the test turns with it."""
    signal = arguments.get("li")
    if signal and signal not in feedback_names(train):
        raise NotRun(f"the sessions have no feedback {signal!r}")
    set_seed(seed)
    model = with_new_head(base, "rudder" if arguments.get("ge") == "rudder" else base.config.head)
    with tempfile.TemporaryDirectory() as folder:
        wanted = arguments | QUIET | {"output_dir": folder, "seed": seed}
        at_hand = {"train": features["train"]["turns"]}
        trainer = GeliRewardTrainer(model, GeliRewardArguments(**wanted), train, features=at_hand)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return _scored(model, test, features)


def _hindsight(
    base: GeliRewardModel, signals: Sequence[str], seeing: bool, train: Dataset, test: Dataset, features, seed: int
) -> Rewards:
    """Reward by the forward student; if `seeing`, by its teacher, which also sees reactions and signals."""
    if base.config.aggregation != "mean":
        raise NotRun(f"the model's aggregation is {base.config.aggregation!r}; the closed form is that of the mean")
    model = with_new_head(base, "linear")
    fitted = fit_hindsight(model, train, signals=signals, seed=seed, features=features["train"])
    if seeing:
        return _rewards(fitted.attribution.score_sessions(test, features=features["test"]))
    return _scored(fitted.reward_model, test, features)


def _supervised(fit: Fit, train: Dataset, test: Dataset, features, seed: int) -> Rewards:
    """Learn from the turn ratings, which the other rows never see: an upper bound for these features."""
    ratings = turn_ratings(train)
    if np.isnan(np.concatenate(ratings)).all():
        raise NotRun("no turn of the training sessions has a turn_rating")
    feedback = [{"turn_rating": values} for values in ratings]
    rated = train.select_columns(["score", "messages"])
    rated = rated.add_column("feedback", feedback, feature=session_features(["turn_rating"])["feedback"])
    return fit(rated, test, features, seed)


def with_new_head(base: GeliRewardModel, head: str) -> GeliRewardModel:
    """Copy a model with an untrained head of that kind."""
    model = copy.deepcopy(base)
    model.config.head = head
    model.score = HEADS[head](model.config)
    model.score.apply(model._init_weights)
    return model.to(base.device)


def _scored(model: GeliRewardModel, test: Dataset, features: Mapping[str, Features]) -> Rewards:
    return _rewards(score_cached(model.eval(), test, features=features["test"]["turns"]))


def _rewards(rows: Sequence[Mapping[str, Any]]) -> Rewards:
    return [np.array(row["turn_rewards"]) for row in rows], np.array([row["score"] for row in rows])
