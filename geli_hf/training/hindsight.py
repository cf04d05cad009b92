"""Hindsight: who has seen the listener's reaction knows better what a turn was worth, and can teach who has not.

A closed form in three steps on the features of a frozen backbone, in seconds and without a learning rate. It departs
from GELI (arXiv 2403.11330), whose weight of the Local Implicit signal is given and whose model never sees more of the
reaction than that signal:

1. Trust. The scores say how far each signal may be followed (`decomposition.fit_trust`).
2. Teacher. Ridge regression of what the trusted signals leave of the score, on the session's mean turn and mean
   reaction; by its linearity it says what each turn with its reaction was worth.
3. Student. Ridge regression of the teacher's values, of sessions that this teacher has not seen, on the turn in its
   context alone. It reads nothing that comes after the turn, so that it can reward a policy.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset
from safetensors.numpy import load_file, save_file
from transformers.utils import cached_file, logging

from ..decomposition import fit_ridge, fit_trust, fit_two_ridges, habit_share
from ..modeling_geli import GeliRewardModel
from ..sessions import SessionError, assistant_turns, feedback_names
from .features import TurnFeatureCache, cached_turn_features, score_cached

logger = logging.get_logger(__name__)

SESSIONS_NEEDED = 200  # below, the sign of the listener alone was better on real corpora
BELIEVABLE = 2.0  # |t| from which a signal is said to be borne out by the scores
WEIGHTS_FILE, SIGNALS_FILE = "hindsight.safetensors", "hindsight.json"


@dataclass
class SignalTrust:
    """How one Local Implicit signal is read: `beta (l - habit l-bar)` is its part of a turn's value.

    There l is the signal in deviations from its mean, and l-bar the mean of that over the session.

    Args:
        mean, std: of the observed training turns, in the signal's own units.
        slope: of the standardised score on the session's mean of the signal as it is read, all signals at once.
        t: slope over its standard error.
        beta: the slope shrunk towards 0, see `decomposition.Trust`.
        observed: share of the training turns where there was something to observe.
        habit: share of a session's mean that is taken to be the listener's own way, see `decomposition.habit_share`.
    """

    mean: float
    std: float
    slope: float
    t: float
    beta: float
    observed: float
    habit: float = 0.0

    def read(self, values: np.ndarray, first: np.ndarray) -> np.ndarray:
        """The signal as it is read, 0 where nothing was observed.

        Args:
            values: (turns,), in its own units, NaN where missing.
            first: (sessions + 1,), where each session's turns begin.
        """
        standard = (values - self.mean) / self.std
        usual = np.repeat(np.nan_to_num(_observed_means(standard, first)), np.diff(first))
        return np.where(np.isnan(standard), 0.0, standard - self.habit * usual)


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
    if signal.habit:
        found += f" Of a session's mean {signal.habit:.0%} is the listener's habit, and taken off."
    return found


class HindsightAttribution:
    """Explains recorded sessions: what each turn was worth, seen together with how the listener took it.

    It reads what comes after a turn, so it must never reward a policy; `fit_hindsight` gives the model that may.

    Args:
        model: a [`GeliRewardModel`] whose linear head holds the turn's part. Also what the backbone is taken from.
        reaction_mean, reaction_weight: (hidden,), the part of an answer with the features h is
            `reaction_weight (h - reaction_mean)`; that of no answer is 0.
        signals: name -> how it is read; what was not observed adds 0.
    """

    def __init__(
        self,
        model: GeliRewardModel,
        reaction_mean: np.ndarray,
        reaction_weight: np.ndarray,
        signals: dict[str, SignalTrust],
    ):
        self.model, self.signals = model, signals
        self.reaction_mean, self.reaction_weight = reaction_mean, reaction_weight

    @torch.inference_mode()
    def score_sessions(
        self,
        sessions: Dataset | Sequence[dict],
        *,
        batch_size: int = 32,
        features: Mapping[str, TurnFeatureCache] | None = None,
    ) -> list[dict]:
        """What every assistant turn of every session was worth.

        Args:
            sessions: rows with `messages`, and `feedback` with the signals; one that is absent was not observed.
            features: of the sessions, where they are at hand, as of [`fit_hindsight`].

        Returns:
            As [`GeliRewardModel.score_sessions`], and one more key: `parts`, lists like `turn_rewards` that add up to
            it, under "turn", "reaction" and "feedback.<signal>".
        """
        if features is None:
            rows = self.model.score_sessions(sessions, batch_size=batch_size)
        else:
            rows = score_cached(self.model, sessions, features=features["turns"])
        feedback = [session.get("feedback") or {} for session in sessions]
        for name, signal in self.signals.items():
            if signal.beta and rows and all(felt.get(name) is None for felt in feedback):
                logger.warning(f"no session has feedback {name!r}, so turns are explained without it")
        messages = [session["messages"] for session in sessions]
        for start in range(0, len(rows), batch_size):
            batch = range(start, min(start + batch_size, len(rows)))
            answers = None if features is None else features["reactions"].select(batch).all()
            reactions = iter(self._reaction_parts(messages[start : start + batch_size], answers))
            for row, felt in zip(rows[start : start + batch_size], feedback[start : start + batch_size]):
                parts = {"turn": row["turn_rewards"]}
                parts["reaction"] = list(itertools.islice(reactions, len(parts["turn"])))
                for name, signal in self.signals.items():
                    values = np.full(len(parts["turn"]), np.nan) if felt.get(name) is None else felt[name]
                    values = signal.read(np.asarray(values, float), np.array([0, len(values)]))
                    parts[f"feedback.{name}"] = (signal.beta * values).tolist()
                row["parts"] = parts
                row["turn_rewards"] = [sum(values) for values in zip(*parts.values())]
                mean = sum(row["turn_rewards"]) / len(row["turn_rewards"])
                row["score"] = self.model.config.score_mean + self.model.config.score_std * mean
        return rows

    def _reaction_parts(self, dialogues: list[list[dict]], features: np.ndarray | None = None) -> list[float]:
        """One per assistant turn of all dialogues; 0 where nobody answered. `features` are those of the answers."""
        reactions = _reactions(dialogues)
        said = [_alone(text) for text in reactions if text is not None]
        if not said:
            return [0.0] * len(reactions)
        if features is None:
            features = self.model.encode_turns(**self.model.tokenize(said)).features[:, 0].cpu().numpy()
        parts = iter(((features - self.reaction_mean) @ self.reaction_weight).tolist())
        return [0.0 if text is None else next(parts) for text in reactions]

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a reward model's checkpoint (with the turn's part alone) and two files more beside it."""
        self.model.save_pretrained(folder)
        weights = {"reaction_mean": self.reaction_mean, "reaction_weight": self.reaction_weight}
        save_file(
            {name: np.ascontiguousarray(array, np.float64) for name, array in weights.items()},
            Path(folder) / WEIGHTS_FILE,
        )
        signals = {name: asdict(signal) for name, signal in self.signals.items()}
        (Path(folder) / SIGNALS_FILE).write_text(json.dumps({"signals": signals}, indent=1), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> HindsightAttribution:
        """
        Raises:
            OSError: there is no such folder or repository, or it holds no attribution (a reward model, perhaps).
        """
        weights, signals = (cached_file(str(name_or_path), name) for name in (WEIGHTS_FILE, SIGNALS_FILE))
        read = json.loads(Path(signals).read_text(encoding="utf-8"))["signals"]
        model = GeliRewardModel.from_pretrained(name_or_path)
        return cls(model, **load_file(weights), signals={name: SignalTrust(**signal) for name, signal in read.items()})


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

    With z the turn's features, h those of the listener's answer, l the standardised signals, R the standardised score:

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
    answered = np.array([text is not None for text in _reactions(sessions["messages"])])
    h_middle, h_deviation = _mean_and_std(answers)
    reactions = np.tile(h_middle.astype(np.float32), (len(turn_features), 1))  # no answer is like an average one
    reactions[answered] = answers
    felt = {name: np.concatenate([np.asarray(row[name], float) for row in sessions["feedback"]]) for name in names}
    signals_read = {name: _signal(values, first, sessions) for name, values in felt.items()}
    standard = [signals_read[name].read(felt[name], first) for name in names]
    standard = np.stack(standard, 1) if names else np.zeros((len(turn_features), 0))

    read = np.concatenate([_session_means(values, first) for values in (turn_features, reactions)], 1)
    sensed = _session_means(standard, first)
    scale, hidden = np.concatenate([deviation, h_deviation]), len(middle)

    def teach(which: np.ndarray):
        trust = fit_trust(target[which], sensed[which])
        return trust, fit_two_ridges(read[which], target[which] - sensed[which] @ trust.beta, scale, hidden)

    def attribute(which: np.ndarray, trust, ridge) -> np.ndarray:
        value = turn_features[which] @ ridge.weight[:hidden] + reactions[which] @ ridge.weight[hidden:]
        return value + standard[which] @ trust.beta + ridge.intercept

    values = np.empty(len(turn_features))
    fold_of_turn = np.repeat(fold_of, np.diff(first))
    for fold in range(folds):
        hidden_turns = fold_of_turn == fold
        values[hidden_turns] = attribute(hidden_turns, *teach(scored & (fold_of != fold)))
    trust, teacher = teach(scored)
    student = fit_ridge(turn_features, values, deviation)

    found = {
        name: replace(signals_read[name], slope=float(slope), t=float(t), beta=float(beta))
        for name, slope, t, beta in zip(names, trust.slope, trust.t, trust.beta)
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
    _set_head(twin, middle, deviation, teacher.weight[:hidden], teacher.intercept + float(h_middle @ q))
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
        [_alone(text) for text in _reactions([messages]) if text is not None] for messages in sessions["messages"]
    ]
    first = np.cumsum([0, *map(len, answers)])
    if not first[-1]:
        return TurnFeatureCache(np.zeros((0, model.config.get_text_config().hidden_size), np.float32), first)
    texts = Dataset.from_dict({"messages": list(itertools.chain(*answers))})
    cache = cached_turn_features(model, texts, cache_dir=cache_dir, dtype=dtype, batch_size=256)
    return TurnFeatureCache(cache.features, first)


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


def _reactions(dialogues: Iterable[list[dict]]) -> list[str | None]:
    """What the user said after each assistant turn of each dialogue; None where it was the last word."""
    return [
        messages[turn + 1]["content"] if turn + 1 < len(messages) else None
        for messages in dialogues
        for turn in assistant_turns(messages)
    ]


def _alone(text: str) -> list[dict]:
    """An answer as a dialogue of its own. The backbone reads the assistant's turns only, so it takes that place."""
    return [{"role": "assistant", "content": text}]


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
    habit = habit_share(_observed_means(values, first), np.array([rater or "" for rater in raters]))
    return SignalTrust(mean, std, slope=0.0, t=0.0, beta=0.0, observed=len(known) / max(1, len(values)), habit=habit)


def _observed_means(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(turns,) -> (sessions,), over what was observed; NaN where nothing was."""
    session = np.repeat(np.arange(len(first) - 1), np.diff(first))
    known = ~np.isnan(values)
    count = np.bincount(session[known], minlength=len(first) - 1)
    total = np.bincount(session[known], values[known], len(first) - 1)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


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
