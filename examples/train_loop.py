"""GELI written out by hand: a reward for every turn from one rating per session, to read and to change.

    python examples/train_loop.py

This is what GeliRewardTrainer does with a frozen backbone and a linear head, in one loop: no checkpoints, no
evaluation while it trains, one process. With the same settings it gives the same weights. The symbols:

    z_t      features of a turn of the assistant, by the frozen backbone, standardised over the training turns
    r_t      its reward, w z_t + b; w and b are all that is learned
    R        the session's rating, standardised over the training sessions
    l_t      how the listener took the turn (here 1 for a smile, 0 for none), standardised likewise
    T, O     the turns of a session, and those of them where the listener was observed

The method: GELI (EMNLP 2024, arXiv 2403.11330) with RRD over all turns (ICLR 2022, arXiv 2111.13485).
"""

from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from geli_hf import GeliRewardModel, load_sessions, split_sessions
from geli_hf.metrics.metrics import within_session_spearman
from geli_hf.models.features import cached_turn_features, score_cached


@dataclass
class Arguments:
    li: str = "affect"  # the signal in `feedback`
    li_weight: float = 0.3  # 0: the rating alone; 1: the signal alone
    num_train_epochs: int = 20
    per_device_train_batch_size: int = 32  # sessions
    learning_rate: float = 3e-4  # falls linearly to 0
    weight_decay: float = 0.1  # of w alone
    max_grad_norm: float = 1.0
    seed: int = 0


def global_loss(rewards: Tensor, rating: Tensor) -> Tensor:
    """Global Explicit: the rewards of a session's turns (T,) amount to its rating.

    (R - 1/T sum_t r_t)^2
    """
    return (rating - rewards.mean()) ** 2


def local_loss(rewards: Tensor, signal: Tensor) -> Tensor:
    """Local Implicit: the reward of an observed turn follows how the listener took it; NaN where nobody looked.

    1/|O| sum_{t in O} (l_t - r_t)^2
    """
    observed = ~signal.isnan()
    return ((signal[observed] - rewards[observed]) ** 2).mean()


def mean(losses: list[Tensor]) -> Tensor:
    """Mean over the sessions of a batch that have such a loss; 0 if none has."""
    known = [loss for loss in losses if not loss.isnan()]
    return torch.stack(known).mean() if known else torch.zeros(())


def train(model: GeliRewardModel, sessions: Dataset, args: Arguments) -> list[float]:
    """Learn the linear head of a reward model, in place.

    Returns:
        The mean loss of each epoch.
    """
    # The backbone reads every turn in its dialogue once; an epoch then costs a fraction of a second.
    features = cached_turn_features(model, sessions)
    shift, scale = (torch.from_numpy(each).float() for each in features.mean_and_std())
    scale[scale < 1e-6] = 1.0
    turns = [(torch.from_numpy(features[index]) - shift) / scale for index in range(len(sessions))]  # (T, hidden) each

    ratings = np.array(sessions["score"])
    signals = [np.array(row[args.li]) for row in sessions["feedback"]]
    seen = np.concatenate(signals)
    standard_ratings = torch.tensor((ratings - ratings.mean()) / ratings.std()).float()
    standard_signals = [torch.tensor((each - np.nanmean(seen)) / np.nanstd(seen)).float() for each in signals]

    w, b = torch.zeros(turns[0].shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    decayed = [{"params": [w], "weight_decay": args.weight_decay}, {"params": [b], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decayed, lr=args.learning_rate)
    batch_size = args.per_device_train_batch_size
    steps = int(args.num_train_epochs) * -(-len(sessions) // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)

    history = []
    for epoch in range(int(args.num_train_epochs)):
        order = torch.randperm(len(sessions), generator=torch.Generator().manual_seed(args.seed + epoch))
        losses = []
        for batch in order.split(batch_size):
            rewards = {index: turns[index] @ w + b for index in batch.tolist()}
            # L = (1 - weight) L_GE + weight L_LI
            ge = mean([global_loss(r, standard_ratings[index]) for index, r in rewards.items()])
            li = mean([local_loss(r, standard_signals[index]) for index, r in rewards.items()])
            loss = (1 - args.li_weight) * ge + args.li_weight * li
            loss.backward()
            torch.nn.utils.clip_grad_norm_([w, b], args.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        history.append(float(np.mean(losses)))

    # What the model needs to reward turns and to predict ratings without this file.
    with torch.no_grad():
        model.score.standardise.mean.copy_(shift)
        model.score.standardise.std.copy_(scale)
        model.score.out.weight.copy_(w[None])
        model.score.out.bias.copy_(b)
        rewards = torch.cat(turns) @ w + b
    model.config.score_mean, model.config.score_std = float(ratings.mean()), float(ratings.std())
    model.config.reward_quantiles = np.quantile(rewards.numpy(), np.linspace(0, 1, 101)).round(6).tolist()
    return history


def main(conversations: int = 800, folder: str = "runs/train_loop") -> None:
    parts = split_sessions(load_sessions("sample", conversations=conversations), {"train": 0.8, "test": 0.2})
    model = GeliRewardModel.from_backbone(context_messages=1)
    for epoch, loss in enumerate(train(model, parts["train"], Arguments()), 1):
        print(f"epoch {epoch:2}  loss {loss:.4f}")
    rewards = [row["turn_rewards"] for row in score_cached(model, parts["test"])]
    spearman = within_session_spearman(rewards, parts["test"]["turn_rating"])
    print(f"Spearman's correlation with the true turn values within held-out sessions: {spearman:.3f}")
    model.save_pretrained(folder)
    print(f"Written: {folder}")


if __name__ == "__main__":
    main()
