"""Tiny sessions, policies and reward models, made on the spot."""

import random

import pytest
import torch
from datasets import Dataset

from geli_hf import GeliRewardModel
from geli_hf.alignment import small_policy
from geli_hf.sessions import session_features

LINES = (
    "I went hiking with my sister last weekend, and it rained all day.",
    "That sounds wet! What did you do when the rain began?",
    "We sat in a hut and played cards. My sister always wins.",
    "Mine too. I miss those long evenings with my family.",
    "Okay.",
    "What do you cook when you have guests? I never know.",
    "Anyway, did you see the new film about the chess player?",
)


def make_sessions(conversations: int, *, seed: int = 0) -> Dataset:
    """Two sessions per conversation, one from each side, of 5 to 8 messages; one of them begins with the agent."""
    draw = random.Random(seed)
    rows = []
    for conversation in range(conversations):
        lines = draw.choices(LINES, k=draw.randint(5, 8))
        for side in range(2):
            roles = ("assistant", "user") if side else ("user", "assistant")
            rows.append(
                {
                    "session_id": f"{conversation}:{side}",
                    "conversation_id": str(conversation),
                    "rater_id": "",
                    "messages": [{"role": roles[i % 2], "content": line} for i, line in enumerate(lines)],
                    "score": draw.uniform(1, 9),
                }
            )
    return Dataset.from_list(rows, features=session_features())


@pytest.fixture(scope="session")
def sessions() -> Dataset:
    return make_sessions(12)


@pytest.fixture(scope="session")
def policy_folder(sessions, tmp_path_factory):
    """An untrained policy of 40,000 weights; noisy, since with tied embeddings it would repeat its last token."""
    folder = tmp_path_factory.mktemp("policy")
    model, tokenizer = small_policy(sessions, hidden_size=32, layers=2, vocab_size=400)
    torch.manual_seed(0)
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.mlp.down_proj.weight, std=1.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reward_model(policy_folder) -> GeliRewardModel:
    """An untrained reward model on a tiny decoder, with rewards of about unit size."""
    torch.manual_seed(0)
    model = GeliRewardModel.from_backbone(str(policy_folder), reward_quantiles=[-1.25, 0.0, 1.5])
    torch.nn.init.normal_(model.score.out.weight, std=0.2)
    return model
