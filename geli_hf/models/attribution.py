"""What recorded turns were worth, seen together with how the listener took them: the teacher of `hindsight`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub import CommitInfo
from safetensors.numpy import load_file, save_file
from transformers.utils import cached_file, logging

from ..hub.cards import rating_of, reward_model_card
from ..hub.models import push_to_hub
from ..sessions import assistant_turns
from .features import TurnFeatureCache, score_cached
from .geli_reward.modeling_geli import GeliRewardModel

logger = logging.get_logger(__name__)

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
        foreseen_t, foreseen_beta: the same of what the turn's words let expect of the signal; it is part of what the
            words are worth.
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

    def read(self, values: np.ndarray, first: np.ndarray) -> np.ndarray:
        """The signal as it is read, 0 where nothing was observed.

        Args:
            values: (turns,), in its own units, NaN where missing.
            first: (sessions + 1,), where each session's turns begin.
        """
        standard = (values - self.mean) / self.std
        usual = np.repeat(np.nan_to_num(observed_means(standard, first)), np.diff(first))
        return np.where(np.isnan(standard), 0.0, standard - self.habit * usual)


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
        reactions = reactions_to(dialogues)
        said = [said_alone(text) for text in reactions if text is not None]
        if not said:
            return [0.0] * len(reactions)
        if features is None:
            features = self.model.encode_turns(**self.model.tokenize(said)).features[:, 0].cpu().numpy()
        parts = iter(((features - self.reaction_mean) @ self.reaction_weight).tolist())
        return [0.0 if text is None else next(parts) for text in reactions]

    def save_pretrained(self, folder: str | Path, **kwargs) -> None:
        """Writes a reward model's checkpoint (with the turn's part alone) and two files more beside it.

        Args:
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

    def push_to_hub(self, repo_id: str, **how) -> CommitInfo:
        """As of every model; see `geli_hf.hub.models.push_to_hub`."""
        config = self.model.config
        base, rating = config.text_config._name_or_path, rating_of(config)
        card = partial(reward_model_card, base_model=base, rating=rating, signals=self.signals)
        return push_to_hub(self, repo_id, card=card, loaded_from=config._name_or_path, **how)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **where) -> HindsightAttribution:
        """
        Args:
            name_or_path: on the Hub or on disk.
            where: `revision`, `token` and the like, as of every model's `from_pretrained`.

        Raises:
            OSError: there is no such folder or repository, or it holds no attribution (a reward model, perhaps).
        """
        weights, signals = (cached_file(str(name_or_path), name, **where) for name in (WEIGHTS_FILE, SIGNALS_FILE))
        read = json.loads(Path(signals).read_text(encoding="utf-8"))["signals"]
        model = GeliRewardModel.from_pretrained(name_or_path, **where)
        return cls(model, **load_file(weights), signals={name: SignalTrust(**signal) for name, signal in read.items()})


def reactions_to(dialogues: Iterable[list[dict]]) -> list[str | None]:
    """What the user said after each assistant turn of each dialogue; None where it was the last word."""
    return [
        messages[turn + 1]["content"] if turn + 1 < len(messages) else None
        for messages in dialogues
        for turn in assistant_turns(messages)
    ]


def said_alone(text: str) -> list[dict]:
    """An answer as a dialogue of its own. The backbone reads the assistant's turns only, so it takes that place."""
    return [{"role": "assistant", "content": text}]


def observed_means(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(turns,) -> (sessions,), over what was observed; NaN where nothing was."""
    session = np.repeat(np.arange(len(first) - 1), np.diff(first))
    known = ~np.isnan(values)
    count = np.bincount(session[known], minlength=len(first) - 1)
    total = np.bincount(session[known], values[known], len(first) - 1)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
