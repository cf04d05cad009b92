"""Sampling of replies, and the models of the chat."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from talks import dialogue
from tiny import reward_model, session

from geli_hf.alignment import load_policy
from geli_hf.alignment.policy import small_policy
from geli_hf.demo.conversation import ALIGNED, BASE, Reply
from geli_hf.demo.policies import Models, Policy, load_models

PROMPT = [{"role": "user", "content": "i saw your dog"}]


@pytest.fixture(scope="module")
def policy() -> Policy:
    model, tokenizer = small_policy(
        [session(6, seed=seed) for seed in range(20)], hidden_size=32, layers=1, vocab_size=300
    )
    # A head of its own: one that shares its weights with the embeddings says the last token again.
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn(300, 32, generator=torch.Generator().manual_seed(0)))
    return Policy(model.eval(), tokenizer)


def test_greedy_sampling_equals_generate(policy):
    *_, reply = policy.stream(PROMPT, temperature=0, max_new_tokens=12)
    assert reply
    text = policy.tokenizer.apply_chat_template(PROMPT, tokenize=False, add_generation_prompt=True)
    ids = policy.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    output = policy.model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    expected = policy.tokenizer.decode(output, skip_special_tokens=True)
    assert reply == expected.strip().rstrip("\ufffd")


def test_sampling_differs_and_leaves_other_randomness_alone(policy):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    replies = [list(policy.stream(PROMPT, temperature=1.0)) for _ in range(2)]
    assert replies[0] != replies[1]
    assert torch.equal(torch.get_rng_state(), state)
    for earlier, later in zip(replies[0], replies[0][1:]):
        assert len(later) > len(earlier)


def test_a_reply_stops_before_it_speaks_for_the_user(policy, monkeypatch):
    """The model repeats a fixed text, token by token."""
    ids = policy.tokenizer("fine User: and you", add_special_tokens=False).input_ids
    calls = []

    def forward(input_ids, **_):
        calls.append(input_ids)
        logits = torch.zeros(1, 1, len(policy.tokenizer))
        logits[0, 0, ids[len(calls) - 1]] = 100.0
        return type("Output", (), {"logits": logits, "past_key_values": None})

    monkeypatch.setattr(policy.model, "forward", forward)
    *_, reply = policy.stream(PROMPT, temperature=0, max_new_tokens=len(ids))
    assert reply == "fine"
    assert len(calls) < len(ids)


def test_a_long_conversation_still_gets_a_reply(policy):
    long = [{"role": role, "content": "we walked " * 60} for role in ["user", "assistant"] * 40][:-1]
    assert list(policy.stream(long, max_new_tokens=4))


def test_an_adapter_changes_the_aligned_policy_alone(policy, tmp_path):
    base = tmp_path / "base"
    policy.model.save_pretrained(base)
    policy.tokenizer.save_pretrained(base)
    model, _ = load_policy(base)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 1, generator=torch.Generator().manual_seed(0))
    adapted.save_pretrained(tmp_path / "adapter")
    reward_model("llama").save_pretrained(tmp_path / "reward")
    models = load_models(tmp_path / "adapter", base, tmp_path / "reward", device="cpu")
    ids = torch.tensor([[5, 6, 7]])
    logits = {name: each.model(ids).logits for name, each in models.policies.items()}
    torch.testing.assert_close(logits[BASE], policy.model(ids).logits)
    torch.testing.assert_close(logits[ALIGNED], adapted.eval()(ids).logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits[ALIGNED], logits[BASE])
    assert set(load_models(base, None, tmp_path / "reward", device="cpu").policies) == {ALIGNED}


def test_rewards_and_rating_equal_the_models():
    model = reward_model("llama")
    model.config.score_mean, model.config.score_std = 5.0, 2.0
    models = Models({}, model)
    conversation = dialogue("hi", "i saw your dog", "how", "we walked").rescore(models.score, models.rating)
    [expected] = model.score_sessions([{"messages": conversation.messages}])
    assert conversation.rewards == pytest.approx(expected["turn_rewards"], abs=1e-5)
    assert conversation.score == pytest.approx(expected["score"], abs=1e-4)


def test_of_a_conversation_that_goes_on_only_what_is_new_is_read():
    model, tokens = reward_model("llama"), []
    models = Models({}, model)
    conversation = dialogue("hi", "i saw your dog", "how", "we walked").rescore(models.score, models.rating)
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    longer = conversation.add_message("why", 1.0).add_reply(Reply(ALIGNED, "maybe"), 1.0)
    longer = longer.rescore(models.score, models.rating)
    whole = model.tokenize([longer.messages])["input_ids"].numel()
    before = model.tokenize([conversation.messages])["input_ids"].numel()
    assert tokens == [whole - before]
    assert longer.rewards[:2] == pytest.approx(conversation.rewards, abs=1e-5)
    assert longer.undo().rescore(models.score, models.rating).rewards == pytest.approx(conversation.rewards, abs=1e-5)
    assert len(tokens) == 1
