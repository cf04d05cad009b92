"""Batches of training from Session rows: turn features or token ids, with their targets."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence

from ..models.features import TurnFeatureCache
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import SessionError, assistant_turns, check_numbers, feedback_names
from .arguments import GeliRewardArguments


@dataclass
class Scale:
    """Shift and scale of the training targets.

    Standardised, a score is measured in deviations from the training sessions' mean, and the signal likewise. As
    published, the score is multiplied by ten and neither is centred.
    """

    score_mean: float
    score_std: float
    feedback_mean: float
    feedback_std: float

    @classmethod
    def of(cls, sessions: Dataset, args: GeliRewardArguments) -> "Scale":
        """Estimate the scale on training sessions.

        Raises:
            SessionError: the scores, or the signals, are missing or all the same, so there is nothing to learn from,
                or one is infinite.
        """
        check_numbers(sessions, [args.li] if args.li in feedback_names(sessions) else [])
        scores = np.array(sessions["score"], float)
        if np.isnan(scores).any():
            raise SessionError(f"train_dataset: row {np.isnan(scores).argmax()} has no score; leave such sessions out")
        if args.li_weight < 1 and np.ptp(scores) == 0:
            raise SessionError(
                f"train_dataset: all {len(scores)} scores are {scores[0]}, so no turn can be told apart"
            )
        observed = np.concatenate(observed_feedback(sessions, args)).astype(float)  # sums of float32 would be rounded
        observed = observed[~np.isnan(observed)]
        if args.li_weight > 0 and len(np.unique(observed)) < 2:
            raise SessionError(f"train_dataset, feedback.{args.li}: no two observed values differ; use another `li`")
        if not args.standardise:
            return cls(0.0, 0.1, 0.0, 1.0)
        mean, std = (observed.mean(), observed.std()) if len(observed) else (0.0, 1.0)
        return cls(float(scores.mean()), float(scores.std()) or 1.0, float(mean), float(std) or 1.0)


def observed_feedback(sessions: Dataset, args: GeliRewardArguments) -> list[np.ndarray]:
    """Return the signal `args.li` of every session, `(turns,)`; NaN throughout if the sessions lack it.

    Raises:
        SessionError: the loss needs the signal and the sessions do not carry it.
    """
    names = feedback_names(sessions)
    if args.li in names:
        return [np.array(row[args.li], np.float32) for row in sessions["feedback"]]
    if args.li_weight > 0:
        raise SessionError(f"li: the sessions have no feedback {args.li!r}, they carry {names}; or set li_weight to 0")
    return [np.full(len(assistant_turns(messages)), np.nan, np.float32) for messages in sessions["messages"]]


def shuffle_feedback(sessions: Dataset, name: str, *, seed: int = 0) -> Dataset:
    """Permute the observed values of one signal over all turns: a control, whose signal says nothing.

    Args:
        sessions: Session rows.
        name: of the signal.
        seed: of the permutation.
    """
    values = [np.array(row[name], np.float64) for row in sessions["feedback"]]
    flat = np.concatenate(values)
    observed = ~np.isnan(flat)
    flat[observed] = np.random.default_rng(seed).permutation(flat[observed])
    shuffled = np.split(flat, np.cumsum([len(row) for row in values])[:-1])
    rows = [feedback | {name: row.tolist()} for feedback, row in zip(sessions["feedback"], shuffled)]
    return sessions.remove_columns("feedback").add_column("feedback", rows, feature=sessions.features["feedback"])


class SessionData(torch.utils.data.Dataset):
    """Sessions as items of training, with features from a cache or else messages.

    Index `~i`, a negative number, is session `i` without its score and signal, so that it counts nothing in a loss.
    """

    def __init__(self, sessions: Dataset, args: GeliRewardArguments, features: TurnFeatureCache | None = None):
        self.sessions, self.features = sessions, features
        self.score = np.array(sessions["score"], np.float32)
        self.feedback = observed_feedback(sessions, args)
        if "turn_rating" in sessions.column_names:
            self.turn_rating = [np.array(row, np.float32) for row in sessions["turn_rating"]]
        else:
            self.turn_rating = [np.full_like(row, np.nan) for row in self.feedback]

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, index: int) -> dict:
        if index < 0:
            item = self[~index]
            return item | {"score": np.float32(np.nan), "feedback": np.full_like(item["feedback"], np.nan)}
        item = {
            "score": self.score[index],
            "feedback": self.feedback[index],
            "turn_rating": self.turn_rating[index],
        }
        if self.features is None:
            return item | {"messages": self.sessions[index]["messages"]}
        return item | {"turn_features": self.features[index]}


class SessionSampler(torch.utils.data.Sampler):
    """Sampler of every session once, in an order that depends on seed and epoch alone.

    Several processes take turns at the batches, and need equal numbers of them. So the last batches are filled up with
    a session that counts nothing, where accelerate would count other sessions twice.

    Args:
        sessions: number of sessions.
        multiple: that the number of indices is filled up to.
        seed: of the order.
        epoch: returns the current epoch.
    """

    def __init__(self, sessions: int, multiple: int, seed: int, epoch: Callable[[], int]):
        self.sessions, self.fill = sessions, -sessions % multiple
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return self.sessions + self.fill

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch())
        order = torch.randperm(self.sessions, generator=generator).tolist()
        yield from order
        yield from [~order[-1]] * self.fill


@dataclass
class SessionCollator:
    """Collator that pads the sessions of a batch to the turns of the longest: values with NaN, features with 0."""

    model: GeliRewardModel

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        def pad(name: str, value: float) -> torch.Tensor:
            rows = [torch.from_numpy(item[name]) for item in items]
            return pad_sequence(rows, batch_first=True, padding_value=value)

        batch = {"score": torch.tensor(np.array([item["score"] for item in items]))}
        batch |= {name: pad(name, torch.nan) for name in ("feedback", "turn_rating")}
        if "messages" in items[0]:
            return batch | self.model.tokenize([item["messages"] for item in items])
        turns = torch.tensor([len(item["feedback"]) for item in items])
        mask = torch.arange(int(turns.max())) < turns[:, None]
        return batch | {"turn_features": pad("turn_features", 0.0), "turn_mask": mask}
