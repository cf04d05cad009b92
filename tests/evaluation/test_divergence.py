"""The KL divergence of a policy's replies: against counting all replies, and against sampled log ratios."""

import itertools

import numpy as np
import pytest
import torch
from policy_fixtures import policy_folder, reward_model, sessions  # noqa: F401
from transformers import LlamaConfig, LlamaForCausalLM

from geli_hf.alignment import load_policy
from geli_hf.alignment.sampling import SampledReply, generate_replies, sample_replies
from geli_hf.evaluation.divergence import reply_divergence, same_tokens

PROMPT = [1, 2, 3]


def tiny(seed: int, vocab: int = 5) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab, initializer_range=1.0, **sizes)).eval()


def log_probability(model, reply: list[int], temperature: float) -> float:
    ids = torch.tensor([PROMPT + reply])
    with torch.no_grad():
        log_p = torch.log_softmax(model(ids).logits[0].double() / temperature, -1)
    return sum(log_p[len(PROMPT) - 1 + place, token].item() for place, token in enumerate(reply))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_mean_is_the_divergence_of_whole_replies(temperature):
    """All replies of two tokens, weighted by how probable they are, in place of samples."""
    policy, base = tiny(0), tiny(1)
    replies = [list(each) for each in itertools.product(range(5), repeat=2)]
    p = np.array([log_probability(policy, reply, temperature) for reply in replies])
    q = np.array([log_probability(base, reply, temperature) for reply in replies])
    sampled = [SampledReply("", PROMPT, reply) for reply in replies]
    found = reply_divergence(policy, base, sampled, temperature=temperature)
    assert np.exp(p).sum() == pytest.approx(1)
    assert np.exp(p) @ found == pytest.approx(np.exp(p) @ (p - q), rel=1e-4)
    assert (found >= 0).all()
    assert found.min() > 0.01


def test_a_policy_has_no_divergence_from_itself():
    replies = [SampledReply("", PROMPT, [1, 4, 2]), SampledReply("", [2], [3]), SampledReply("", PROMPT, [])]
    assert reply_divergence(tiny(0), tiny(0), replies).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    apart = reply_divergence(tiny(0), tiny(1), replies)
    assert apart[2] == 0
    assert apart[0] > 0 < apart[1]


def test_padding_changes_nothing():
    long, short = SampledReply("", PROMPT * 3, [1, 4, 2, 2, 1]), SampledReply("", [2], [3])
    together = reply_divergence(tiny(0), tiny(1), [long, short])
    alone = [reply_divergence(tiny(0), tiny(1), [each])[0] for each in (long, short)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_replies_come_with_the_tokens_that_were_sampled(policy_folder):
    model, tokenizer = load_policy(policy_folder)
    prompts = [[{"role": "user", "content": text}] for text in ("What do you cook?", "I miss my family. Okay.")]
    options = {"max_new_tokens": 12, "seed": 3}
    replies = sample_replies(model, tokenizer, prompts, **options)
    assert [reply.text for reply in replies] == generate_replies(model, tokenizer, prompts, **options)
    for prompt, reply in zip(prompts, replies):
        wanted = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert reply.prompt_ids == wanted
        assert 0 < len(reply.token_ids) <= 12
        assert tokenizer.eos_token_id not in reply.token_ids[:-1]
        assert len(reply.token_ids) == 12 or reply.token_ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(reply.token_ids, skip_special_tokens=True).startswith(reply.text[:3])


def test_policies_with_different_tokens(policy_folder):
    model, tokenizer = load_policy(policy_folder)
    assert same_tokens(model, tokenizer, model, tokenizer)
    _, other = load_policy(policy_folder)
    other.add_tokens(["hello"])
    assert not same_tokens(model, other, model, tokenizer)
    wider, _ = load_policy(policy_folder)
    wider.resize_token_embeddings(512)
    assert not same_tokens(wider, tokenizer, model, tokenizer)
