"""The likelihood of replies under a policy: against reading them one token at a time, and as a part of a reward."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel
from trl import GRPOConfig, GRPOTrainer

from geli_hf.alignment import GeliReward, ReferenceLikelihood, dialogue_prompts, load_policy, load_policy_tokenizer
from geli_hf.alignment import likelihood as likelihood_module

PROMPTS = [
    [{"role": "user", "content": "I went hiking with my sister."}],
    [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Good morning!"},
        {"role": "user", "content": "My bread came out perfect at the weekend, and it made my day."},
    ],
]


@pytest.fixture(scope="module")
def speaker(policy_folder):
    return load_policy(policy_folder, dtype=torch.float32)


def by_one(model, tokenizer, prompt, ids) -> float:
    """In float64, a token at a time, each with the whole text before it."""
    model, total = model.double(), 0.0
    text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    before = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        for token in ids:
            logits = model(torch.tensor([before])).logits[0, -1]
            total += (logits[token] - logits.logsumexp(0)).item()
            before = [*before, token]
    model.float()
    return total


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.lists(st.integers(0, 60), max_size=9)), min_size=1, max_size=6))
def test_it_is_that_of_the_tokens_one_by_one_whatever_is_read_beside_them(speaker, rows):
    model, tokenizer = speaker
    prompts, replies = [PROMPTS[which] for which, _ in rows], [ids for _, ids in rows]
    found = ReferenceLikelihood(model, tokenizer, batch_size=4)(prompts, replies)
    alone = [by_one(model, tokenizer, *row) for row in zip(prompts, replies)]
    assert found == pytest.approx(alone, rel=1e-5, abs=1e-5)


def test_a_model_that_always_gives_all_logits_is_read_too(speaker, monkeypatch):
    model, tokenizer = speaker
    replies = [[5, 9, 3], [7]]
    wanted = ReferenceLikelihood(model, tokenizer)(PROMPTS, replies)

    class Old(type(model)):
        def forward(self, input_ids, attention_mask, use_cache):
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

    monkeypatch.setattr(model, "__class__", Old)
    assert ReferenceLikelihood(model, tokenizer)(PROMPTS, replies) == pytest.approx(wanted, rel=1e-6)


def test_positions_that_are_learned_are_those_of_generation(speaker):
    _, tokenizer = speaker
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 256, "initializer_range": 1.0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).eval()
    replies = [[5, 9, 3], [7]]
    alone = [by_one(model, tokenizer, *row) for row in zip(PROMPTS, replies)]
    assert ReferenceLikelihood(model, tokenizer)(PROMPTS, replies) == pytest.approx(alone, rel=1e-5)


def said(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def completions(speaker):
    texts = ["That is lovely.", "Okay."]
    ids = [speaker[1](text, add_special_tokens=False)["input_ids"] for text in texts]
    return {"prompts": [PROMPTS[0]] * 2, "completions": [said(text) for text in texts], "completion_ids": ids}


def test_a_reward_is_the_turns_and_its_likelihood(speaker, reward_model, completions):
    plain = GeliReward(reward_model, length_neutral=False, repetition_penalty=0)
    likely = ReferenceLikelihood(*speaker, weight=0.3)
    both = GeliReward(reward_model, likelihood=likely, length_neutral=False, repetition_penalty=0)
    logs = likely(completions["prompts"], completions["completion_ids"])
    logged = {}
    rewards = both(**completions, log_metric=logged.__setitem__)
    turns = plain(**completions)
    assert rewards == pytest.approx([turn + 0.3 * log for turn, log in zip(turns, logs)], abs=1e-5)
    assert logged["geli/log_likelihood"] == pytest.approx(sum(logs) / 2)
    assert logged["geli/turn_reward_mean"] == pytest.approx(sum(turns) / 2)


def test_what_length_explains_of_it_is_taken_out(speaker, reward_model, completions):
    """Of two replies to one prompt length explains all."""
    reward = GeliReward(reward_model, likelihood=ReferenceLikelihood(*speaker), repetition_penalty=0)
    first, second = reward(**completions)
    assert first == pytest.approx(second, abs=1e-5)


def test_without_tokens_there_is_none(speaker, reward_model, completions):
    del completions["completion_ids"]
    with pytest.raises(ValueError, match="completion_ids: a reward with a likelihood reads the tokens"):
        GeliReward(reward_model, likelihood=ReferenceLikelihood(*speaker))(**completions)


@pytest.mark.parametrize("weight", [-0.1, float("nan")])
def test_a_weight_that_can_not_be(speaker, weight):
    with pytest.raises(ValueError, match="weight: expected 0 or more"):
        ReferenceLikelihood(*speaker, weight=weight)


def test_a_model_without_its_tokenizer(speaker):
    with pytest.raises(ValueError, match="tokenizer: a policy that is given as a model needs its tokenizer"):
        ReferenceLikelihood(speaker[0])


def test_tokens_of_another_tokenizer(speaker):
    with pytest.raises(ValueError, match=r"completion_ids: found the token 999999, but the reference knows \d+"):
        ReferenceLikelihood(*speaker)(PROMPTS[:1], [[1, 999_999]])


def test_it_goes_where_the_trainer_is(speaker, monkeypatch):
    sent = []
    likelihood = ReferenceLikelihood(*speaker)
    monkeypatch.setattr(likelihood.policy, "to", sent.append)
    likelihood.place()
    monkeypatch.setattr(likelihood_module, "PartialState", lambda: SimpleNamespace(device=torch.device("meta")))
    likelihood.place()
    assert sent == [torch.device("meta")]


def test_in_a_trainer_it_is_what_the_kl_penalty_reads_of_the_reference(
    policy_folder, reward_model, sessions, tmp_path
):
    seen = []

    class Watched(GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            seen.append(super()._generate_and_score_completions(inputs))
            return seen[-1]

    args = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=8,
        max_steps=1,
        logging_steps=1,
        beta=0.1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        save_strategy="no",
    )
    trainer = Watched(
        model=str(policy_folder),
        reward_funcs=GeliReward(reward_model, likelihood=ReferenceLikelihood(policy_folder)),
        args=args,
        train_dataset=dialogue_prompts(sessions),
        processing_class=load_policy_tokenizer(policy_folder),
    )
    trainer.train()
    by_trl = (seen[0]["ref_per_token_logps"] * seen[0]["completion_mask"]).sum(1).mean().item()
    assert by_trl < -1
    assert trainer.state.log_history[0]["geli/log_likelihood"] == pytest.approx(by_trl, rel=1e-4)
