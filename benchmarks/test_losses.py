"""Time of a loss over 10,000 turns, forward and backward, against a loop over the sessions."""

import pytest
import torch

from geli_hf.decomposition import rrd_loss

SESSIONS, TURNS = 100, 200


@pytest.fixture
def batch():
    """Sessions of 1 to 199 turns, 10,000 in all."""
    lengths = torch.arange(SESSIONS) * 2 + 1
    assert lengths.sum() == 10_000
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(SESSIONS, TURNS, generator=generator, requires_grad=True)
    return rewards, torch.arange(TURNS) < lengths[:, None], torch.randn(SESSIONS, generator=generator)


def test_rrd_of_all_turns(pair, batch):
    rewards, mask, score = batch
    found = {}

    def ours():
        rewards.grad = None
        rrd_loss(rewards, mask, score).backward()
        found["ours"] = rewards.grad.clone()

    def loop():
        rewards.grad = None
        errors = [(r - row[turns].mean()) ** 2 for row, turns, r in zip(rewards, mask, score)]
        torch.stack(errors).mean().backward()
        found["theirs"] = rewards.grad.clone()

    pair(ours, loop, rounds=20)
    torch.testing.assert_close(found["ours"], found["theirs"])


@pytest.mark.parametrize("replacement", [False, True], ids=["without replacement", "with replacement"])
def test_rrd_of_a_sample(benchmark, batch, replacement):
    rewards, mask, score = batch

    def ours():
        rewards.grad = None
        rrd_loss(rewards, mask, score, num_samples=32, replacement=replacement).backward()

    benchmark.pedantic(ours, rounds=20, warmup_rounds=2)
