"""The teacher of `hindsight`: a value for every recorded turn, from its words and the listener's reaction."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, tee
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from safetensors.numpy import load_file, save_file
from transformers.utils import cached_file, logging

from ..sessions import Message, Session, assistant_turns
from .features import TurnFeatureCache, score_cached
from .geli_reward.modeling_geli import GeliRewardModel

logger = logging.get_logger(__name__)

WEIGHTS_FILE, SIGNALS_FILE = "hindsight.safetensors", "hindsight.json"


@dataclass
class SignalTrust:
    """Scale and trust of one Local Implicit signal: `beta (l - habit l-bar)` is its part of a turn's value.

    There l is the signal in deviations from its mean, and l-bar the mean of that over the session.

    Args:
        mean, std: of the observed training turns, in the signal's own units.
        slope: of the standardised score on the session's mean of the signal, in a regression on all signals.
        t: slope over its standard error.
        beta: the slope shrunk towards 0, see `decomposition.Trust`.
        observed: share of the training turns with an observation.
        habit: share of a session's mean that is the listener's habit, see `decomposition.habit_share`.
        foreseen_t, foreseen_beta: t and beta of the signal's prediction from the turn's words. This part of the value
            counts to the words.
    """

    mean: float
    std: float
    slope: float
    t: float
    beta: float
    observed: float
    habit: float = 0.0
    foreseen_t: float = 0.0
    foreseen_beta: float = 0.0

    def standardise(self, values: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Return l - habit l-bar, 0 where nothing was observed.

        Args:
            values: (turns,), in the signal's own units, NaN where missing.
            first: (sessions + 1,), index of each session's first turn.
        """
        standard = (values - self.mean) / self.std
        means = np.repeat(np.nan_to_num(observed_means(standard, first)), np.diff(first))
        return np.where(np.isnan(standard), 0.0, standard - self.habit * means)


class HindsightAttribution:
    """A model that explains recorded sessions: the value of each turn, given the listener's reaction.

    It reads what follows a turn, so it must never reward a policy; `fit_hindsight` gives the model that may.

    Args:
        model: a [`GeliRewardModel`] with the turn's part in its linear head. It also holds the backbone.
        reaction_mean, reaction_weight: (hidden,), the part of an answer with the features h is
            `reaction_weight (h - reaction_mean)`; without an answer it is 0.
        signals: trust by name; an unobserved signal adds 0.
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

    def score_sessions(
        self,
        sessions: Dataset | Sequence[Session],
        *,
        batch_size: int = 32,
        features: Mapping[str, TurnFeatureCache] | None = None,
    ) -> list[dict]:
        """Explain every assistant turn of every session.

        Args:
            sessions: rows with `messages`, and `feedback` with the signals; an absent one counts as not observed.
            batch_size: sessions that are encoded together; it changes no value.
            features: cached features of the sessions, as for [`fit_hindsight`].

        Returns:
            The rows of [`GeliRewardModel.score_sessions`] with one more key: `parts`, lists like `turn_rewards` that
            add up to it, under "turn", "reaction" and "feedback.<signal>".
        """
        if features is None:
            return list(self.iter_scores(sessions, batch_size=batch_size))
        scored = score_cached(self.model, sessions, features=features["turns"])
        answers = (features["reactions"][index] for index in range(len(sessions)))
        return list(self._explain(zip(scored, sessions, answers)))

    def iter_scores(self, sessions: Iterable[Session], *, batch_size: int = 32) -> Iterator[dict]:
        """Yield the rows of `score_sessions` one by one, in memory that does not grow with their number.

        It reads a batch ahead, and warns once, after the last session.

        Args:
            sessions: any iterable of rows, such as a generator.
            batch_size: sessions that are encoded together.
        """
        to_score, to_explain, to_encode = tee(sessions, 3)
        scored = self.model.iter_scores(to_score, batch_size=batch_size)
        yield from self._explain(zip(scored, to_explain, self._iter_answers(to_encode, batch_size)))

    def _iter_answers(self, sessions: Iterator[Session], batch_size: int) -> Iterator[np.ndarray]:
        while batch := list(islice(sessions, batch_size)):
            yield from self._encode_answers([session["messages"] for session in batch])

    def _explain(self, rows: Iterable[tuple[dict, Session, np.ndarray]]) -> Iterator[dict]:
        """Add the parts of each turn to scored rows, given the features `(answers, hidden)` of each session."""
        absent = {name for name, signal in self.signals.items() if signal.beta}
        for row, session, answers in rows:
            feedback = {name: values for name, values in (session.get("feedback") or {}).items() if values is not None}
            absent -= feedback.keys()
            parts = {"turn": row["turn_rewards"], "reaction": self._reaction_parts(session["messages"], answers)}
            turns = np.array([0, len(parts["turn"])])
            for name, signal in self.signals.items():
                values = np.asarray(feedback.get(name, [math.nan] * turns[1]), float)
                parts[f"feedback.{name}"] = (signal.beta * signal.standardise(values, turns)).tolist()
            row["parts"] = parts
            row["turn_rewards"] = [sum(values) for values in zip(*parts.values())]
            mean = sum(row["turn_rewards"]) / len(row["turn_rewards"])
            row["score"] = self.model.config.score_mean + self.model.config.score_std * mean
            yield row
        for name in sorted(absent):
            logger.warning(f"no session has feedback {name!r}, so turns were explained without it")

    @torch.inference_mode()
    def _encode_answers(self, dialogues: list[list[Message]]) -> list[np.ndarray]:
        """Encode the answers of each dialogue, `(answers, hidden)`, all dialogues together."""
        answers = [[text for text in reactions_to([messages]) if text is not None] for messages in dialogues]
        texts = [as_dialogue(text) for row in answers for text in row]
        if not texts:
            return [np.zeros((0, len(self.reaction_mean)))] * len(dialogues)
        features = self.model.encode_turns(**self.model.tokenize(texts)).features[:, 0].cpu().numpy()
        return np.split(features, np.cumsum([len(row) for row in answers])[:-1])

    def _reaction_parts(self, messages: list[Message], answers: np.ndarray) -> list[float]:
        """Return the answers' part of each assistant turn, 0 where nobody answered."""
        parts = iter(((answers - self.reaction_mean) @ self.reaction_weight).tolist())
        return [0.0 if text is None else next(parts) for text in reactions_to([messages])]

    def save_pretrained(self, folder: str | Path, **kwargs) -> None:
        """Write the checkpoint of the reward model (with the turn's part alone) and two more files beside it.

        Args:
            folder: to write to.
            kwargs: of the reward model's `save_pretrained`, such as `max_shard_size`.
        """
        self.model.save_pretrained(folder, **kwargs)
        weights = {"reaction_mean": self.reaction_mean, "reaction_weight": self.reaction_weight}
        save_file(
            {name: np.ascontiguousarray(array, np.float64) for name, array in weights.items()},
            Path(folder) / WEIGHTS_FILE,
        )
        signals = {name: asdict(signal) for name, signal in self.signals.items()}
        (Path(folder) / SIGNALS_FILE).write_text(json.dumps({"signals": signals}, indent=1), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **kwargs) -> HindsightAttribution:
        """Load an attribution.

        Args:
            name_or_path: on the Hub or on disk.
            kwargs: `revision`, `token` and the like, as for every `from_pretrained`.

        Raises:
            OSError: there is no such folder or repository, or it holds no attribution (a reward model, perhaps).
        """
        weights, signals = (cached_file(str(name_or_path), name, **kwargs) for name in (WEIGHTS_FILE, SIGNALS_FILE))
        read = json.loads(Path(signals).read_text(encoding="utf-8"))["signals"]
        model = GeliRewardModel.from_pretrained(name_or_path, **kwargs)
        return cls(model, **load_file(weights), signals={name: SignalTrust(**signal) for name, signal in read.items()})


def reactions_to(dialogues: Iterable[list[Message]]) -> list[str | None]:
    """List the user's answer to each assistant turn of each dialogue; None where there is none."""
    return [
        messages[turn + 1]["content"] if turn + 1 < len(messages) else None
        for messages in dialogues
        for turn in assistant_turns(messages)
    ]


def as_dialogue(answer: str) -> list[Message]:
    """Return an answer as a dialogue, in the place of an assistant turn: the backbone encodes no others."""
    return [{"role": "assistant", "content": answer}]


def observed_means(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Average the observed values of each session.

    Args:
        values: (turns,), NaN where nothing was observed.
        first: (sessions + 1,), index of each session's first turn.

    Returns:
        (sessions,), NaN for a session without an observation.
    """
    session = np.repeat(np.arange(len(first) - 1), np.diff(first))
    known = ~np.isnan(values)
    count = np.bincount(session[known], minlength=len(first) - 1)
    total = np.bincount(session[known], values[known], len(first) - 1)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
