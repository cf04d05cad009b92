"""Fit: teach the guard of a reward model which turns don't fit their dialogue, from made turns.

GELI (arXiv 2403.11330) has no such part. Session ratings can't teach fit, since turns of real sessions fit: what was
learned from them prefers many an answer to something else. Made turns are a Local Implicit signal of another kind: a
turn that was put in place of another is one that no listener met well. Negatives from other dialogues are usual in
response selection (Lowe et al., SIGDIAL 2015, arXiv 1506.08909).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..models.growing import GrowingScorer
from ..sessions import Message, SessionError, assistant_turns

CONTEXT = 12  # messages before a made turn
# Kinds of made turns, and how many of each, relatively.
KINDS = {"other": 4, "salad": 2, "echo": 1, "repeat": 1}
SALAD_WORDS = 4  # least words of a turn that can be shuffled
BATCH = 256  # turns of a step
DIALOGUES = 64  # encoded together
WINDOWS = 500_000  # whose features are kept meanwhile


class Turn(NamedTuple):
    """A turn in its dialogue: "real" or the kind of made turn, and the messages that end with it."""

    kind: str
    messages: list[Message]


@dataclass
class FitReport:
    """Figures of a guard on turns of conversations that it was not taught on.

    Args:
        turns: real turns that it was taught on, and as many made ones.
        auc: by kind of made turn, the probability that a real turn has the lower P.
    """

    turns: int
    auc: dict[str, float]

    def __str__(self) -> str:
        told = ", ".join(f"{kind} {value:.3f}" for kind, value in self.auc.items())
        return f"Fit, learned from {self.turns} turns: AUC of real turns above made ones: {told}."


def made_turns(sessions: Dataset, count: int, seed: int = 0) -> list[Turn]:
    """Draw turns of the assistant that answer a message, and make a turn that doesn't fit in the place of each.

    `other` is a turn from another conversation, `salad` the turn's words in another order or words from anywhere,
    `echo` the message that is answered, `repeat` something that the assistant has said before. Where a kind can't be
    made, the made turn is left out.

    Args:
        sessions: Session rows.
        count: number of real turns, at most all.
        seed: of the draws.

    Raises:
        SessionError: fewer than two conversations have a turn, or no turn answers a message.
    """
    draw = random.Random(seed)
    talks, conversations = sessions["messages"][:], sessions["conversation_id"][:]
    others = [(row, turn) for row, messages in enumerate(talks) for turn in assistant_turns(messages)]
    places = [(row, turn) for row, turn in others if turn]
    if (found := len({conversations[row] for row, _ in others})) < 2 or not places:
        raise SessionError(
            "sessions: fit is taught by turns of other conversations; expected two or more that have turns of the "
            f"assistant, and a message before one, found {found} and {len(places)} such turns"
        )
    turns: list[Turn] = []

    def other(row: int, turn: int) -> str:
        while True:
            drawn, place = draw.choice(others)
            if conversations[drawn] != conversations[row]:
                return talks[drawn][place]["content"]

    def salad(row: int, turn: int) -> str | None:
        words = talks[row][turn]["content"].split()
        if draw.random() < 0.5:  # words of several turns
            words = [word for _ in range(4) for word in other(row, turn).split()]
            words = draw.sample(words, min(len(words), draw.randint(SALAD_WORDS, 20)))
        shuffled = draw.sample(words, len(words))
        moved = sum(before != after for before, after in zip(words, shuffled))
        return " ".join(shuffled) if len(words) >= SALAD_WORDS and 2 * moved > len(words) else None

    def echo(row: int, turn: int) -> str:
        return talks[row][turn - 1]["content"]

    def repeat(row: int, turn: int) -> str | None:
        said = [talks[row][place]["content"] for place in range(turn - 2, -1, -2)]
        return draw.choice(said[:4]) if said else None

    make: dict[str, Callable[[int, int], str | None]] = {
        "other": other,
        "salad": salad,
        "echo": echo,
        "repeat": repeat,
    }
    for row, turn in draw.sample(places, min(count, len(places))):
        before = talks[row][max(0, turn - CONTEXT) : turn]
        turns.append(Turn("real", [*before, talks[row][turn]]))
        [kind] = draw.choices(list(KINDS), list(KINDS.values()))
        text = make[kind](row, turn)
        if text is not None and text != talks[row][turn]["content"]:
            turns.append(Turn(kind, [*before, {"role": "assistant", "content": text}]))
    return turns


def train_fit(
    model: GeliRewardModel,
    sessions: Dataset,
    eval_sessions: Dataset,
    *,
    turns: int = 40_000,
    steps: int = 3_000,
    learning_rate: float = 1e-3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> FitReport:
    """Teach a model's guard to tell made turns from real ones, by cross-entropy. Backbone and head stay.

    Args:
        model: with `fit_hidden_size`. Its guard is changed in place.
        sessions: to learn from; scores are not needed.
        eval_sessions: of other conversations, for the report.
        turns: real turns to learn from, at most.
        steps, learning_rate: of AdamW, with batches of 256 turns.
        seed: of the draws, of the first weights and of the order.
        dtype: see `cached_turn_features`.

    Raises:
        ValueError: the model has no guard.
        SessionError: see `made_turns`.
    """
    if model.fit is None:
        raise ValueError("model: found no guard; make it with fit_hidden_size=64 and a fit_weight")
    taught, held_out = made_turns(sessions, turns, seed), made_turns(eval_sessions, max(1, turns // 10), seed + 1)
    training = model.training
    model.eval()  # without dropout
    memory = GrowingScorer(model, windows=WINDOWS)  # a message of many dialogues is read once
    features, seen = (_encode(model, part, memory, dtype) for part in (taught, held_out))
    model.train(training)
    made = torch.tensor([turn.kind != "real" for turn in taught])
    guard, real = model.fit, features[~made]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        guard.requires_grad_(True).apply(
            lambda module: module.reset_parameters() if isinstance(module, torch.nn.Linear) else None
        )
        guard.standardise.mean.copy_(features.mean(0))
        guard.standardise.std.copy_(features.std(0).clamp(min=1e-6))
        guard.train()
        optimizer = torch.optim.AdamW(guard.parameters(), lr=learning_rate)
        for _ in tqdm(range(steps), desc="Teaching fit", unit="step"):
            batch = torch.randint(len(features), (BATCH,))
            log_fit = guard.log_fit(features[batch].to(model.device)).clamp(max=-1e-6)
            loss = -torch.where(made[batch].to(model.device), torch.log1p(-log_fit.exp()), log_fit).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    optimizer.zero_grad()
    guard.eval()
    with torch.inference_mode():
        guard.level.copy_(-torch.expm1(guard.log_fit(real.to(model.device))).mean())
        scores = guard.log_fit(seen.to(model.device)).cpu().numpy()
    kinds = np.array([turn.kind for turn in held_out])
    guard.train(training)
    auc = {kind: _auc(scores[kinds == "real"], scores[kinds == kind]) for kind in KINDS if kind in kinds}
    return FitReport(int((~made).sum()), auc)


@torch.inference_mode()
def _encode(model: GeliRewardModel, turns: Sequence[Turn], memory: GrowingScorer, dtype: torch.dtype) -> torch.Tensor:
    """Compute the features of the last turn of each dialogue, (turns, feature_size)."""
    features = torch.zeros(len(turns), model.config.feature_size)
    for first in tqdm(range(0, len(turns), DIALOGUES), desc="Encoding made turns", unit="batch"):
        inputs = model.tokenize([turn.messages for turn in turns[first : first + DIALOGUES]])
        with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
            encoded = model.encode_turns(**inputs, last_turn_only=True, read=memory.read)
        features[first : first + DIALOGUES] = encoded.features[:, 0].float().cpu()
    return features


def _auc(real: np.ndarray, made: np.ndarray) -> float:
    """Compute the share of pairs in which the real turn has the higher value; ties count half."""
    made = np.sort(made)
    below, upto = (np.searchsorted(made, real, side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(made))
