"""The likelihood of replies under a policy: against reading them one token at a time, and as a part of a reward."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, TrainerState
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from geli_hf.alignment import GeliReward, ReferenceLikelihood, align, dialogue_prompts, load_policy, small_policy
from geli_hf.alignment import rewards as rewards_module

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


def test_length_neutral_rewards_subtract_the_length_of_the_likelihood_too(speaker, reward_model, completions):
    """With two replies to one prompt, length explains all of the difference."""
    reward = GeliReward(reward_model, likelihood=ReferenceLikelihood(*speaker), repetition_penalty=0)
    first, second = reward(**completions)
    assert first == pytest.approx(second, abs=1e-5)


@pytest.mark.parametrize("empty", ["", " \n", "User: How are you?"])
def test_an_empty_reply_gets_the_lowest_reward_of_the_batch(speaker, reward_model, empty):
    """It is the likeliest of all here, for it has the fewest tokens."""
    texts = ["That is lovely.", "Okay.", empty, "What did you do when the rain began, and where did you go then?"]
    ids = [[] if text == empty else speaker[1](text)["input_ids"] for text in texts]
    exact = deepcopy(reward_model).double()
    reward = GeliReward(exact, likelihood=ReferenceLikelihood(*speaker, weight=1.0), repetition_penalty=0)
    plain = GeliReward(exact, repetition_penalty=0, length_neutral=False)
    prompts, completions = [PROMPTS[0]] * 4, [said(text) for text in texts]
    rewards = reward(prompts, completions, ids)
    logs = reward.likelihood(prompts, ids)
    assert max(logs) == logs[2] == 0
    assert plain(prompts, completions)[2] == reward.floor
    assert rewards[2] == pytest.approx(reward.floor + min(logs))
    assert rewards[2] == min(rewards)


def test_a_likelihood_of_nan_is_left_out_with_a_warning(speaker, reward_model, completions, monkeypatch, caplog):
    likelihood = ReferenceLikelihood(*speaker)
    monkeypatch.setattr(ReferenceLikelihood, "__call__", lambda *args: [float("nan"), -3.0])
    logged = {}
    with caplog.at_level("WARNING", logger="geli_hf.alignment.rewards"):
        first, second = GeliReward(reward_model, likelihood=likelihood)(**completions, log_metric=logged.__setitem__)
    assert (first is None, second is None) == (True, False)
    assert (logged["geli/nan_share"], logged["geli/log_likelihood"]) == (0.5, -3)
    assert "'That is lovely.'" in caplog.text


def test_processes_that_share_a_prompt_give_silence_the_same(speaker, reward_model, monkeypatch):
    """Two processes, acted one after the other; the silent one's own process has heard nobody else."""
    exact = deepcopy(reward_model).double()
    likelihood = ReferenceLikelihood(deepcopy(speaker[0]).double(), speaker[1])
    texts = ["", "That is lovely.", "Okay.", "What did you do then?"]
    ids = [speaker[1](text)["input_ids"] for text in texts]
    rows = [[PROMPTS[0]] * 4, [said(text) for text in texts], ids]

    def make():
        return GeliReward(exact, likelihood=likelihood)

    together = make()(*rows, trainer_state=TrainerState())
    gathered = []
    processes = SimpleNamespace(device=torch.device("cpu"), num_processes=2, process_index=0)
    monkeypatch.setattr(rewards_module, "PartialState", lambda: processes)
    monkeypatch.setattr(rewards_module, "gather_object", lambda own: gathered.append(own[0]) or own)
    halves = [[column[half] for column in rows] for half in (slice(0, 1), slice(1, 4))]
    for half in halves:
        make()(*half, trainer_state=TrainerState())
    monkeypatch.setattr(rewards_module, "gather_object", lambda own: gathered)
    apart = []
    for processes.process_index, half in enumerate(halves):
        apart += make()(*half, trainer_state=TrainerState())
    assert apart == pytest.approx(together, abs=1e-5)


def test_a_likelihood_needs_the_sampled_tokens(speaker, reward_model, completions):
    del completions["completion_ids"]
    with pytest.raises(ValueError, match="completion_ids"):
        GeliReward(reward_model, likelihood=ReferenceLikelihood(*speaker))(**completions)


def test_the_policy_in_training_is_no_reference(policy_folder):
    model, tokenizer = load_policy(policy_folder)
    likelihood = ReferenceLikelihood(model, tokenizer)
    get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    with pytest.raises(ValueError, match="policy: "):
        likelihood(PROMPTS[:1], [[1]])


def test_align_refuses_the_reference_of_another_policy(policy_folder, reward_model, sessions, tmp_path):
    other = small_policy([{"messages": PROMPTS[1]}], hidden_size=32, layers=1, vocab_size=300)
    args = GRPOConfig(output_dir=str(tmp_path), **TINY)
    reward = GeliReward(reward_model, likelihood=ReferenceLikelihood(*other))
    with pytest.raises(ValueError, match="reward: "):
        align(policy_folder, reward, dialogue_prompts(sessions), args, None)


def test_dropout_is_off_whatever_was_done_to_the_model(speaker):
    likelihood = ReferenceLikelihood(*speaker)
    likelihood.policy.train()
    likelihood(PROMPTS[:1], [[1]])
    assert not likelihood.policy.training


def test_it_goes_where_the_trainer_is(speaker, reward_model, completions, monkeypatch):
    sent, likelihood = [], ReferenceLikelihood(*speaker)
    for model in (reward_model, likelihood.policy):
        monkeypatch.setattr(model, "to", sent.append)
    elsewhere = SimpleNamespace(device=torch.device("meta"), num_processes=1)
    monkeypatch.setattr(rewards_module, "PartialState", lambda: elsewhere)
    GeliReward(reward_model, likelihood=likelihood)(**completions, trainer_state=TrainerState())
    assert sent == [torch.device("meta")] * 2


TINY = {
    "per_device_train_batch_size": 4,
    "num_generations": 2,
    "max_completion_length": 8,
    "max_steps": 1,
    "logging_steps": 1,
    "beta": 0.1,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "activation_checkpointing": False,
    "save_strategy": "no",
}


@pytest.mark.parametrize(
    ("trainer_class", "arguments"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)], ids=["GRPO", "RLOO"]
)
def test_it_equals_the_reference_log_probabilities_of_the_kl_penalty(
    trainer_class, arguments, policy_folder, reward_model, sessions, tmp_path
):
    """With a template that writes what the trainer is told to."""
    seen, read = [], []

    class Watched(trainer_class):
        def _generate_and_score_completions(self, inputs):
            seen.append(super()._generate_and_score_completions(inputs))
            return seen[-1]

        def _get_per_token_logps_and_entropies(self, *args, **kwargs):
            read.append(super()._get_per_token_logps_and_entropies(*args, **kwargs)[0])
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    told = {"greeting": "Good evening, everybody."}
    model, tokenizer = load_policy(policy_folder, dtype=torch.float32)
    tokenizer.chat_template = "{{ greeting }} " + tokenizer.chat_template
    likelihood = ReferenceLikelihood(model, tokenizer, chat_template_kwargs=told)
    args = arguments(output_dir=str(tmp_path), chat_template_kwargs=told, **TINY)
    trainer = Watched(
        model=str(policy_folder),
        reward_funcs=GeliReward(reward_model, likelihood=likelihood),
        args=args,
        train_dataset=dialogue_prompts(sessions),
        processing_class=tokenizer,
    )
    trainer.train()
    by_trl = (read[0] * seen[0]["completion_mask"]).sum(1).mean().item()
    assert by_trl < -1
    assert trainer.state.log_history[0]["geli/log_likelihood"] == pytest.approx(by_trl, rel=1e-4)
