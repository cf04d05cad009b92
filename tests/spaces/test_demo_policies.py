"""Sampling of replies, what is kept of conversations, and the models of the chat."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from talks import dialogue
from tiny import reward_model, session, talk
from transformers import DynamicCache, MistralConfig, MistralForCausalLM

from geli_hf.alignment import load_policy
from geli_hf.alignment.policy import small_policy
from geli_hf.demo import policies, prefix_cache
from geli_hf.demo.conversation import ALIGNED, BASE, Turn
from geli_hf.demo.policies import CONTEXT_MESSAGES, DROPPED_MESSAGES, Models, Policy, load_models
from geli_hf.demo.prefix_cache import PrefixCache
from geli_hf.models.growing import common_length

PROMPT = [{"role": "user", "content": "i saw your dog"}]


@pytest.fixture(scope="module")
def policy() -> Policy:
    model, tokenizer = small_policy(
        [session(6, seed=seed) for seed in range(20)], hidden_size=32, layers=2, vocab_size=300
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


# ------------------------------------------------------------------------------------------------ what is kept


@contextmanager
def passes_of(policy: Policy):
    """Record of each pass the number of tokens read and the logits of the next token."""
    passes = []

    def record(_, __, inputs, output):
        passes.append((inputs["input_ids"].numel(), output.logits[0, -1].float()))

    hook = policy.model.register_forward_hook(record, with_kwargs=True)
    try:
        yield passes
    finally:
        hook.remove()


def tokens_of(policy: Policy, messages: list[dict]) -> list[int]:
    text = policy.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return policy.tokenizer(text, add_special_tokens=False)["input_ids"]


def greedy(policy: Policy, messages: list[dict], count: int = 6) -> tuple[list[str], list[int], list[torch.Tensor]]:
    """Return the reply as it grows, and the tokens read and the logits of each pass."""
    with passes_of(policy) as passes:
        texts = list(policy.stream(messages, temperature=0, max_new_tokens=count))
    return texts, [count for count, _ in passes], [logits for _, logits in passes]


def forgetful(policy: Policy) -> Policy:
    """Return the same policy, which keeps nothing."""
    return Policy(policy.model, policy.tokenizer, PrefixCache(tokens=0))


def check_as_if_read_anew(policy: Policy, messages: list[dict]) -> int:
    """Check a greedy reply and its logits, and return how many tokens its first pass read."""
    texts, read, logits = greedy(policy, messages)
    expected_texts, _, expected = greedy(forgetful(policy), messages)
    assert texts == expected_texts
    torch.testing.assert_close(torch.stack(logits), torch.stack(expected), rtol=0, atol=1e-4)
    return read[0]


WORD = st.sampled_from(["dog", "we walked", "why", "a lovely garden"])
CHANGE = st.one_of(
    st.tuples(st.just("say"), WORD),
    st.tuples(st.just("edit"), st.integers(0, 30), WORD),
    st.tuples(st.just("undo"), st.integers(1, 2)),
    st.tuples(st.just("retry")),
)


@settings(max_examples=25, deadline=None)
@given(
    changes=st.lists(CHANGE, max_size=7),
    attention=st.sampled_from(["eager", "sdpa"]),
    tokens=st.sampled_from([40, 8_192]),
)
def test_a_reply_with_the_kept_cache_is_that_without_it(policy, changes, attention, tokens):
    policy.model.set_attn_implementation(attention)
    policy = Policy(policy.model, policy.tokenizer, PrefixCache(tokens))
    messages = list(PROMPT)
    check_as_if_read_anew(policy, messages)
    for name, *how in changes:
        if name == "say":
            reply = "".join(list(policy.stream(messages, temperature=1.0, max_new_tokens=4))[-1:]) or "well"
            messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": how[0]}]
        elif name == "edit":
            place = how[0] % len(messages)
            messages[place] = messages[place] | {"content": how[1]}
        elif name == "undo":
            messages = messages[: max(1, len(messages) - 2 * how[0])]
        check_as_if_read_anew(policy, messages)


def test_the_next_reply_reads_only_what_is_new(policy):
    policy = Policy(policy.model, policy.tokenizer)
    first = check_as_if_read_anew(policy, PROMPT)
    assert first == len(tokens_of(policy, PROMPT))
    longer = [*PROMPT, {"role": "assistant", "content": "how"}, {"role": "user", "content": "we walked"}]
    assert check_as_if_read_anew(policy, longer) <= len(tokens_of(policy, longer)) - first
    assert check_as_if_read_anew(policy, longer) == 1  # the last token of the prompt: a retry
    edited = [PROMPT[0], {"role": "assistant", "content": "why"}, *longer[2:]]
    assert 1 < check_as_if_read_anew(policy, edited) <= len(tokens_of(policy, edited)) - first
    assert check_as_if_read_anew(policy, PROMPT) == 1  # undo


def test_a_window_moves_by_several_messages_and_keeps_its_beginning_in_between(policy):
    policy = Policy(policy.model, policy.tokenizer)
    messages, whole = talk(2 * CONTEXT_MESSAGES + 1, words=2), []
    for count in range(1, len(messages) + 1, 2):
        read = check_as_if_read_anew(policy, messages[:count])
        dropped = 0 if count <= CONTEXT_MESSAGES else -(-(count - CONTEXT_MESSAGES) // DROPPED_MESSAGES)
        window = messages[dropped * DROPPED_MESSAGES : count]
        assert CONTEXT_MESSAGES - DROPPED_MESSAGES < len(window) <= CONTEXT_MESSAGES or count < CONTEXT_MESSAGES
        if read == len(tokens_of(policy, window)) - 1 or count == 1:  # all but the token that begins every prompt
            whole.append(count)
    assert whole == [1, CONTEXT_MESSAGES + 1, CONTEXT_MESSAGES + DROPPED_MESSAGES + 1, 2 * CONTEXT_MESSAGES + 1]


def test_a_reply_that_is_stopped_leaves_what_it_has_read(policy):
    policy = Policy(policy.model, policy.tokenizer)
    stream = policy.stream(PROMPT, temperature=0)
    next(stream)
    stream.close()
    assert check_as_if_read_anew(policy, PROMPT) == 1


@pytest.mark.parametrize("failing", [1, 2])
def test_a_reply_that_fails_leaves_what_it_has_read(policy, failing):
    """A pass fails after its first layer, which has appended its keys and values."""
    policy, calls = Policy(policy.model, policy.tokenizer), []

    def fail(*_):
        calls.append(0)
        if len(calls) == failing:
            raise RuntimeError("no memory")

    check_as_if_read_anew(policy, PROMPT)
    longer = [*PROMPT, {"role": "assistant", "content": "how"}, {"role": "user", "content": "we walked"}]
    hook = policy.model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="no memory"):
        list(policy.stream(longer, temperature=0))
    hook.remove()
    unread = check_as_if_read_anew(policy, longer)
    assert unread == 1 if failing == 2 else unread > 1
    assert check_as_if_read_anew(policy, PROMPT) == 1


def test_visitors_who_talk_at_once_get_the_replies_that_they_would_get_alone(policy):
    """Three visitors with the same beginning, each with several turns, in threads that pass one another."""
    model, _ = small_policy([session(6, seed=seed) for seed in range(20)], hidden_size=32, layers=2, vocab_size=300)
    policies = {BASE: policy, ALIGNED: Policy(model.eval(), policy.tokenizer)}
    talks = {name: talk(7, seed=name, words=3) for name in range(3)}

    def converse(name: int, source: str, each: Policy) -> list[list[str]]:
        prompts = [[*PROMPT, {"role": "assistant", "content": "how"}, *talks[name][:count]] for count in (1, 3, 5, 7)]
        # Without hooks: threads that add and remove them on one model disturb each other.
        return [list(each.stream(prompt, temperature=0, max_new_tokens=6)) for prompt in prompts]

    visits = [(name, source) for name in talks for source in policies]
    expected = [converse(name, source, forgetful(policies[source])) for name, source in visits]
    shared = {source: Policy(each.model, each.tokenizer) for source, each in policies.items()}
    with ThreadPoolExecutor(len(visits)) as pool:
        for _ in range(3):
            found = list(pool.map(lambda visit: converse(*visit, shared[visit[1]]), visits))
            assert found == expected


def filled(length: int) -> DynamicCache:
    generator = torch.Generator().manual_seed(length)
    return DynamicCache([tuple(torch.randn(1, 1, length, 2, generator=generator) for _ in range(2))])


def test_the_conversation_that_was_used_longest_ago_goes_first():
    cache = PrefixCache(tokens=12)
    for first in (1, 2, 3):
        cache.keep([first] * 4, filled(4))
    assert cache.find([1] * 5)[1] == 4  # so that it is used last
    cache.keep([4] * 4, filled(4))
    assert [cache.find([first] * 5)[1] for first in (1, 2, 3, 4)] == [4, 0, 4, 4]
    cache.keep([1] * 4 + [5], filled(5))  # in the place of its beginning, and of the one used longest ago
    assert [cache.find([first] * 9)[1] for first in (1, 3, 4)] == [4, 0, 4]
    cache.keep([6] * 13, filled(13))
    assert cache.find([6] * 13) == (None, 0)


def test_a_reply_that_is_abandoned_while_the_cache_is_searched_does_not_block_it(monkeypatch):
    """Garbage collection closes it in whichever thread runs."""
    cache = PrefixCache()
    cache.keep([1, 2, 3], filled(3))
    cache.keep([4, 5, 6], filled(3))

    def close_another(ids, kept):
        cache.keep([1, 2, 3, 9], filled(4))
        return common_length(ids, kept)

    monkeypatch.setattr(prefix_cache, "common_length", close_another)
    found, length = cache.find([1, 2, 3, 8])
    assert length == 3
    torch.testing.assert_close(found.layers[0].keys, filled(3).layers[0].keys)


def test_what_is_kept_is_copied_and_cut():
    cache, past = PrefixCache(), filled(4)
    cache.keep([1, 2, 3, 4], past)
    found, length = cache.find([1, 2, 9])
    assert length == 2
    torch.testing.assert_close(found.layers[0].keys, past.layers[0].keys[..., :2, :])
    found.layers[0].keys.zero_()
    torch.testing.assert_close(cache.find([1, 2, 9])[0].layers[0].keys, past.layers[0].keys[..., :2, :])
    assert cache.find([1])[1] == 0  # a prompt's last token has to be read


def test_what_cannot_be_cut_is_not_kept(policy):
    config = MistralConfig(
        vocab_size=len(policy.tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        sliding_window=4,
    )
    sliding = Policy(MistralForCausalLM(config).eval(), policy.tokenizer)
    for _ in range(2):
        assert check_as_if_read_anew(sliding, PROMPT) == len(tokens_of(sliding, PROMPT))


# ------------------------------------------------------------------------------------------------ models


@pytest.fixture(scope="module")
def folders(policy, tmp_path_factory):
    """Folders of a base policy, of two adapters to it, and of a reward model; and the adapted models."""
    folder = tmp_path_factory.mktemp("models")
    policy.model.save_pretrained(folder / "base")
    policy.tokenizer.save_pretrained(folder / "base")
    reward_model("llama").save_pretrained(folder / "reward")
    adapted = {}
    for seed, name in enumerate(("sft", "aligned")):
        model, _ = load_policy(folder / "base")
        adapter = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
        with torch.no_grad():
            for parameter_name, parameter in adapter.named_parameters():
                if "lora_B" in parameter_name:
                    parameter.normal_(0, 1, generator=torch.Generator().manual_seed(seed))
        adapter.save_pretrained(folder / name)
        adapted[name] = adapter.eval()
    return folder, adapted


def logits_of(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([[5, 6, 7]])).logits


def test_an_adapter_changes_the_aligned_policy_alone(policy, folders):
    folder, adapted = folders
    options = {"device": "cpu", "dtype": torch.float32}
    models = load_models(folder / "aligned", folder / "base", folder / "reward", **options)
    logits = {name: logits_of(each.model) for name, each in models.policies.items()}
    torch.testing.assert_close(logits[BASE], logits_of(policy.model))
    torch.testing.assert_close(logits[ALIGNED], logits_of(adapted["aligned"]), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits[ALIGNED], logits[BASE])
    assert set(load_models(folder / "base", None, folder / "reward", **options).policies) == {ALIGNED}
    # With revisions, which follow the weights.
    assert {name.partition("@")[0] for name in models.names.values()} == {"aligned", "base", "reward"}
    others = load_models(folder / "sft", folder / "base", folder / "reward", **options).names
    assert (others["reward"], others[BASE]) == (models.names["reward"], models.names[BASE])
    assert others[ALIGNED].partition("@")[2] != models.names[ALIGNED].partition("@")[2]


def test_the_policy_before_alignment_may_be_an_adapter_too(folders):
    folder, adapted = folders
    models = load_models(
        folder / "aligned", folder / "sft", folder / "reward", device="cpu", dtype=torch.float32
    ).policies
    for source, name in ((BASE, "sft"), (ALIGNED, "aligned")):
        torch.testing.assert_close(logits_of(models[source].model), logits_of(adapted[name]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_computes_in_bfloat16_where_it_has_instructions_for_it(folders, monkeypatch, native, dtype):
    monkeypatch.setattr(policies, "native_bf16", lambda: native)
    folder = folders[0]
    models = load_models(folder / "aligned", folder / "base", folder / "reward", device="cpu")
    assert {each.model.dtype for each in models.policies.values()} == {dtype}
    with passes_of(models.policies[ALIGNED]) as passes:
        next(models.stream(ALIGNED, PROMPT))
    assert all(logits.isfinite().all() for _, logits in passes)
    assert passes
    assert models.reward.dtype == torch.float32


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
    longer = conversation.add_message("why", 1.0).add_reply(Turn("assistant", "maybe", ALIGNED))
    longer = longer.rescore(models.score, models.rating)
    whole = model.tokenize([longer.messages])["input_ids"].numel()
    before = model.tokenize([conversation.messages])["input_ids"].numel()
    assert tokens == [whole - before]
    assert longer.rewards[:2] == pytest.approx(conversation.rewards, abs=1e-5)
    assert longer.cut(4).rescore(models.score, models.rating).rewards == pytest.approx(conversation.rewards, abs=1e-5)
    assert len(tokens) == 1
