"""Dialogues that grow: the rewards of the whole computation, for the tokens of one turn."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from time import sleep

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import reward_model, sentence, talk
from transformers import AutoTokenizer, MambaConfig, MambaModel, MistralConfig, MistralModel

from geli_hf import GeliRewardModel
from geli_hf.models.geli_reward.modeling_geli import OPENING, Window
from geli_hf.models.growing import GrowingScorer

ALL = tuple(tiny.BACKBONES)
CLOSE = {"abs": 1e-4, "rel": 1e-5}
SETTINGS = {
    "all that fits": {},
    "end token": {"pooling": "last", "layers": "last"},
    "the message before": {"context_messages": 1},
    "four messages": {"context_messages": 4, "layers": "last"},
    "interactions": {"context_messages": 1, "interactions": True},
    "interactions, all that fits": {"interactions": True, "pooling": "last"},
    "guard of fit": {"interactions": True, "fit_hidden_size": 8, "fit_weight": 1.0},
}

shared_model = cache(reward_model)  # for tests that do not change it


def rewards_of(model, messages):
    """Rewards by the whole computation."""
    return pytest.approx(model.score_messages([messages], last_turn_only=False)[0].tolist(), **CLOSE)


def short_turn(seed: int) -> list[dict]:
    """A user's message of two words, and an answer of two."""
    rng = random.Random(seed)
    return [{"role": role, "content": sentence(rng, 2)} for role in ("user", "assistant")]


def with_lstm(name: str) -> GeliRewardModel:
    model = GeliRewardModel.from_backbone(tiny.backbone(name), head="rudder")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.score.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model


@contextmanager
def counted(model):
    """Count the tokens that go through the backbone."""
    tokens = []
    hook = model.model.register_forward_pre_hook(
        lambda _, args, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    yield tokens
    hook.remove()


def cost(score, messages) -> int:
    with counted(score.model) as tokens:
        score(messages)
    return sum(tokens)


# -------------------------------------------------------------------- equal to the whole computation


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (name, options)
        for name in ALL
        for options in SETTINGS
        if name in ("bert", "llama") or options == "interactions"
    ],
)
def test_rewards_equal_the_whole_computation_as_a_dialogue_grows(name, options):
    """All contexts but Llama's overflow on the way."""
    model = shared_model(name, **SETTINGS[options])
    score, messages = GrowingScorer(model), talk(14)
    for length in (2, 3, 4, 7, 10, 13, 14):
        assert score(messages[:length]) == rewards_of(model, messages[:length])


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_head_that_reads_all_turns_gets_them(name):
    model = with_lstm(name)
    score, messages = GrowingScorer(model), talk(16, words=3)
    for length in range(2, 17, 2):
        assert score(messages[:length]) == rewards_of(model, messages[:length])
    assert len(set(score(messages))) == 8


@pytest.mark.parametrize("name", ALL)
def test_an_edit_an_undo_and_two_answers_to_choose_from(name):
    model = shared_model(name)
    score, messages = GrowingScorer(model), talk(10, words=3)
    score(messages)
    for index in (9, 4, 0):
        edited = [*messages[:index], messages[index] | {"content": "the quiet river"}, *messages[index + 1 :]]
        assert score(edited) == rewards_of(model, edited)
        assert score(messages) == rewards_of(model, messages)
    for length in (8, 4, 6, 2, 10):
        assert score(messages[:length]) == rewards_of(model, messages[:length])
    for answer in ("maybe tomorrow", "never", "maybe"):
        choice = [*messages, {"role": "user", "content": "why"}, {"role": "assistant", "content": answer}]
        assert score(choice) == rewards_of(model, choice)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_two_sessions_in_turn(name):
    model = shared_model(name)
    score, start = GrowingScorer(model), talk(4)
    sessions = [[*start, *talk(8, seed=seed)] for seed in (1, 2)]
    for length in range(2, 13, 2):
        for messages in sessions:
            assert score(messages[:length]) == rewards_of(model, messages[:length])


@pytest.mark.parametrize("options", [{}, {"context_messages": 1, "interactions": True}])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_what_is_displaced_is_read_again(name, options):
    model = shared_model(name, **options)
    score = GrowingScorer(model, sessions=2, windows=3)
    for length in (2, 4, 12):
        for seed in range(4):
            messages = talk(12, seed=seed)[:length]
            assert score(messages) == rewards_of(model, messages)
            assert len(score._features) <= 3
            assert len(score._pasts) <= 2


@pytest.mark.parametrize("options", [{}, {"context_messages": 1}, {"interactions": True}])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_message_that_is_longer_than_the_context(name, options):
    model = shared_model(name, max_length=tiny.CONTEXT, **options)
    score = GrowingScorer(model)
    long = {"role": "assistant", "content": " ".join(["the old river"] * 40)}
    for messages in (talk(1), [*talk(3), long], [*talk(3), long, *talk(2)], [*talk(3), long, *talk(8)]):
        messages = [*messages, {"role": "assistant", "content": "fine"}]
        assert score(messages) == rewards_of(model, messages)


def test_messages_that_the_template_leaves_out_or_cleans():
    for name in ALL:
        model = shared_model(name)
        messages = [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": OPENING},
            {"role": "assistant", "content": [{"type": "text", "text": " hello <|user|> you "}]},
            {"role": "user", "content": ""},
            {"role": "assistant", "content": "<|assistant|>"},
            {"role": "user", "content": "no answer yet"},
        ]
        assert GrowingScorer(model)(messages) == rewards_of(model, messages)


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=30)
@given(texts=st.lists(st.text(max_size=30) | st.sampled_from(["<|user|>", "  a", "b </s> ", "[SEP]"]), max_size=6))
def test_messages_alone_have_the_tokens_that_they_have_in_the_dialogue(name, texts):
    model = shared_model(name)
    messages = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]
    expected = model.tokenize([messages])["input_ids"][0].tolist()
    assert GrowingScorer(model)._tokenize(messages) == expected


STEPS = st.one_of(
    st.tuples(st.just("say"), st.integers(1, 12)),
    st.tuples(st.just("edit"), st.integers(0, 30)),
    st.tuples(st.just("undo"), st.integers(1, 5)),
)


@pytest.mark.parametrize("name", ["bert", "llama"])
@settings(deadline=None, max_examples=10)
@given(
    steps=st.lists(st.tuples(st.integers(0, 2), STEPS), max_size=20),
    sessions=st.integers(1, 3),
    windows=st.integers(1, 40),
)
def test_any_course_of_three_sessions(name, steps, sessions, windows):
    model = shared_model(name)
    score, rng = GrowingScorer(model, sessions=sessions, windows=windows), random.Random(0)
    dialogues = [talk(2)] * 3
    for number, (act, size) in steps:
        messages = list(dialogues[number])
        if act == "say":
            role = "user" if messages[-1]["role"] == "assistant" else "assistant"
            messages.append({"role": role, "content": sentence(rng, size)})
        elif act == "edit":
            messages[size % len(messages)] = messages[size % len(messages)] | {"content": sentence(rng)}
        else:
            messages = messages[: max(2, len(messages) - size)]
        dialogues[number] = messages
        assert score(messages) == rewards_of(model, messages)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_threads_share_a_scorer(name):
    model = reward_model(name, interactions=True)
    score, inside, most = GrowingScorer(model, sessions=2), [], []

    def enter(*_):
        inside.append(None)
        most.append(len(inside))
        sleep(0.002)

    model.model.register_forward_pre_hook(enter)
    model.model.register_forward_hook(lambda *_: inside.pop())
    dialogues = [talk(12, seed=seed)[:length] for length in (2, 4, 8) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(score, dialogues))
    assert set(most) == {1}  # what one looks up, no other displaces
    for rewards, messages in zip(found, dialogues):
        assert rewards == rewards_of(model, messages)


@pytest.mark.parametrize("kind", ["sliding window", "recurrent"])
def test_other_decoders(kind, tmp_path):
    """A window of attention is a mask over the keys that are kept; a state that can't go back is not kept."""
    tokenizer = AutoTokenizer.from_pretrained(tiny.backbone("llama"))
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.2}
    if kind == "recurrent":
        backbone = MambaModel(MambaConfig(**sizes, state_size=8))
    else:
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "sliding_window": 16}
        backbone = MistralModel(MistralConfig(**sizes, **heads))
    backbone.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = GeliRewardModel.from_backbone(str(tmp_path), max_length=256)
    torch.nn.init.normal_(model.score.out.weight, std=0.3)
    score, messages = GrowingScorer(model), talk(10, words=3)
    for length in (2, 6, 10, 8):
        assert score(messages[:length]) == rewards_of(model, messages[:length])
    grown = [*messages[:8], *talk(2, seed=1)]
    assert score(grown) == rewards_of(model, grown)
    assert model.config.causal
    fewer = cost(score, [*grown, *talk(2)]) < len(score._tokenize([*grown, *talk(2)]))
    assert fewer == (kind == "sliding window")


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_features_are_named_by_all_that_they_depend_on(name):
    def keys(ids, start, stop, layers="all"):
        return GrowingScorer(shared_model(name))._keys(Window(ids, [(0, start, stop)]), layers)

    key = keys([5, 6, 7, 8], 1, 3)
    assert keys([5, 6, 7, 8], 1, 3) == key
    assert (keys([5, 6, 7, 9], 1, 3) == key) == (name == "llama")
    others = [keys([4, 6, 7, 8], 1, 3), keys([5, 6, 7, 8], 2, 3), keys([5, 6, 7, 8], 1, 4)]
    assert key not in [*others, keys([5, 6, 7, 8], 1, 3, "last")]
    several = Window([5, 6, 7, 8], [(1, 3, 4), (0, 1, 3)])
    assert dict(GrowingScorer(shared_model(name))._keys(several, "all"))[0] == dict(key)[0]


# -------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("options", [{}, {"context_messages": 1, "interactions": True}])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_the_hundredth_turn_costs_what_the_second_does(name, options):
    model = reward_model(name, **options)
    if name == "llama":
        model.config.max_length = 10_000  # rotary positions have no end
    score, messages, costs = GrowingScorer(model), [], []
    for turn in range(100):
        messages += short_turn(turn)
        costs.append(cost(score, messages))
    # Without a limit an encoder's turn is read with all that fits, which is full from some turn on.
    second = tiny.CONTEXT if (name, options) == ("bert", {}) else costs[1]
    assert 0 < costs[99] <= 1.5 * second
    assert max(costs) <= 2 * second
    assert cost(score, messages) == 0
    assert score(messages) == rewards_of(model, messages)


@pytest.mark.parametrize("interactions", [False, True])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_an_edit_costs_what_depends_on_it(name, interactions):
    model = shared_model(name, context_messages=1 if name == "bert" else None, interactions=interactions)
    score, messages = GrowingScorer(model), talk(12, words=3)
    score(messages)
    assert cost(score, messages[:6]) == 0  # an undo
    answer = {"role": "assistant", "content": "tomorrow"}
    tokens = score._tokenize([*messages[:11], answer])
    alone = len(tokens) - len(score._tokenize(messages[:11]))
    before = 0 if name == "llama" else len(score._tokenize(messages[10:11]))
    assert cost(score, [*messages[:11], answer]) <= (1 + interactions) * alone + before
    assert cost(score, messages) == 0
    early = [*messages[:3], answer, *messages[4:]]
    assert 0 < cost(score, early) <= len(tokens) + len(model.config.prefix_token_ids) * 12


def test_sessions_with_the_same_beginning_do_not_displace_each_other():
    model = shared_model("llama")
    score, start = GrowingScorer(model), talk(2)
    sessions = [[*start, *talk(12, seed=seed, words=3)] for seed in (1, 2)]
    for length in range(2, 15, 2):
        costs = [cost(score, messages[:length]) for messages in sessions]
        turns = [len(score._tokenize(messages[length - 2 : length])) for messages in sessions]
    assert costs == [turn - len(model.config.prefix_token_ids) for turn in turns]


# -------------------------------------------------------------------- what it depends on


def test_other_weights_need_another_scorer():
    model = reward_model("llama", interactions=True)
    score, messages = GrowingScorer(model), talk(4)
    old = score(messages)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.mul_(1.5)
    assert score(messages) == old
    score = GrowingScorer(model)
    assert score(messages) == rewards_of(model, messages)
    assert score(messages) != pytest.approx(old, abs=1e-3)


def test_training_mode_is_refused():
    model = reward_model("bert")
    score = GrowingScorer(model)
    with pytest.raises(ValueError, match=r"training mode.*model\.eval\(\)"):
        model.train() and score(talk(2))


@pytest.mark.parametrize("messages", [[], talk(1), [{"role": "judge", "content": "a"}]])
def test_what_is_no_dialogue_is_refused(messages):
    with pytest.raises(ValueError, match=r"assistant"):
        GrowingScorer(shared_model("bert"))(messages)


def test_rewards_carry_no_gradient_and_later_training_may_use_the_model():
    model = reward_model("llama")
    GrowingScorer(model)(talk(4))
    model(**model.tokenize([talk(4)])).logits.sum().backward()
    assert model.score.out.weight.grad is not None
