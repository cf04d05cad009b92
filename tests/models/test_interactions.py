"""Features of how a turn fits its dialogue, against loops in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import reward_model, talk
from torch.nn.functional import normalize

from geli_hf.models.geli_reward.interactions_geli import RECENT, interaction_features

HIDDEN = 5


def unit_vectors(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, HIDDEN, generator=generator, dtype=torch.float64), dim=1)


def by_loops(states: np.ndarray, assistant: list[bool], turns: list[int]) -> np.ndarray:
    """The docstring's words, turn by turn."""
    rows = []
    for turn in turns:
        a, none = states[turn], np.zeros(states.shape[1])
        u = states[turn - 1] if turn > 0 else None
        recent = [states[place] for place in range(max(0, turn - 1 - RECENT), turn - 1)]
        c = np.mean(recent, 0) if recent else none
        if recent:
            c = c / np.sqrt((c**2).sum())
        own = [float(states[place] @ a) for place in range(turn) if assistant[place]]
        heard = [float(states[place] @ a) for place in range(turn - 1) if not assistant[place]]
        rows.append(
            [
                *(none if u is None else u * a),
                *(none if u is None else np.abs(u - a)),
                *(c * a),
                c @ a,
                0.0 if u is None else u @ a,
                max(own, default=0.0),
                max(heard, default=0.0),
                float(u is not None),
                float(bool(own)),
            ]
        )
    return np.array(rows)


@settings(deadline=None, max_examples=60)
@given(assistant=st.lists(st.booleans(), min_size=1, max_size=14).filter(any), seed=st.integers(0, 1000))
def test_they_are_what_the_loops_say(assistant, seed):
    states = unit_vectors(len(assistant), seed)
    turns = [place for place, own in enumerate(assistant) if own]
    found = interaction_features(states, assistant, turns)
    assert found.shape == (len(turns), 3 * HIDDEN + 6)
    np.testing.assert_allclose(found, by_loops(states.numpy(), assistant, turns), atol=1e-12)
    for row, turn in enumerate(turns):  # and each turn's are its own, whatever comes after
        alone = interaction_features(states[: turn + 1], assistant[: turn + 1], [turn])
        torch.testing.assert_close(alone[0], found[row])


def test_the_first_message_has_nothing_to_be_compared_with():
    [row] = interaction_features(unit_vectors(1), [True], [0])
    assert row.tolist() == [0.0] * (3 * HIDDEN + 6)


def test_the_second_message_has_no_topic_and_no_own_words():
    states = unit_vectors(2)
    [row] = interaction_features(states, [False, True], [1])
    u, a = states
    torch.testing.assert_close(row[: 2 * HIDDEN], torch.cat([u * a, (u - a).abs()]))
    assert row[2 * HIDDEN :].tolist() == [0.0] * HIDDEN + [0.0, pytest.approx(float(u @ a)), 0.0, 0.0, 1.0, 0.0]


def test_the_largest_cosine_may_be_negative():
    """A masked message never wins, and no message is not the same as an unlike one."""
    a = torch.tensor([1.0, 0.0])
    states = torch.stack([-a, torch.tensor([0.0, 1.0]), a])
    [row] = interaction_features(states, [True, False, True], [2])
    assert row[-4:].tolist() == [-1.0, 0.0, 1.0, 1.0]
    [row] = interaction_features(states, [False, False, True], [2])
    assert row[-4:].tolist() == [0.0, -1.0, 1.0, 0.0]


@given(messages=st.integers(2, 12), seed=st.integers(0, 100), data=st.data())
@settings(deadline=None, max_examples=30)
def test_an_echo_and_a_repetition_have_the_cosine_1(messages, seed, data):
    states, assistant = unit_vectors(messages, seed), [place % 2 == 1 for place in range(messages)]
    turn = data.draw(st.sampled_from([place for place, own in enumerate(assistant) if own]))
    echo = states.clone()
    echo[turn] = states[turn - 1]
    [row] = interaction_features(echo, assistant, [turn])
    assert row[3 * HIDDEN + 1] == pytest.approx(1)
    assert row[HIDDEN : 2 * HIDDEN].tolist() == [0.0] * HIDDEN
    if turn >= 3:
        repeated = states.clone()
        repeated[turn] = states[data.draw(st.sampled_from(range(1, turn, 2)))]
        [row] = interaction_features(repeated, assistant, [turn])
        assert row[3 * HIDDEN + 2] == pytest.approx(1)


def test_the_gradient_flows_to_all_that_was_compared():
    states = unit_vectors(8).requires_grad_()
    features = interaction_features(states, [place % 2 == 1 for place in range(8)], [7])
    torch.autograd.gradcheck(lambda states: interaction_features(states, [False, True] * 4, [1, 7]), states)
    features.square().sum().backward()
    reached = states.grad.abs().sum(1) > 0
    assert reached[2:].all()  # four messages are the topic, and the others are compared where they are the most alike


# -------------------------------------------------------------------- within a model


def model_of(name: str, **config):
    return reward_model(name, **{"interactions": True, "context_messages": 1} | config)


def embeddings(model, messages: list[dict]) -> torch.Tensor:
    """Each message alone, without its role: the mean of the last layer."""
    rows, opening = [], len(model.config.prefix_token_ids)
    for message in messages:
        ids = model.tokenize([[message]])["input_ids"][0].tolist()
        ids = ids[:opening] + ids[opening + 1 :][opening - model.config.max_length :]
        with torch.no_grad():
            rows.append(model.model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0))
    return normalize(torch.stack(rows), dim=1)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_model_adds_them_to_the_features_of_its_turns(name):
    model, plain = model_of(name), reward_model(name, context_messages=1)
    dialogues = [talk(6), talk(5, seed=1, first="assistant"), talk(1, seed=2, first="assistant")]
    with torch.no_grad():
        found = model.encode_turns(**model.tokenize(dialogues))
        before = plain.encode_turns(**plain.tokenize(dialogues))
    assert found.features.shape == (3, 3, model.config.feature_size)
    torch.testing.assert_close(found.features[..., :32], before.features)
    for row, messages in enumerate(dialogues):
        assistant = [message["role"] == "assistant" for message in messages]
        turns = [place for place, own in enumerate(assistant) if own]
        expected = by_loops(embeddings(model, messages).double().numpy(), assistant, turns)
        np.testing.assert_allclose(found.features[row, : len(turns), 32:], expected, atol=1e-5)
        assert not found.features[row, len(turns) :].any()


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_turn_alone_has_the_features_that_it_has_among_all(name, side):
    model = model_of(name, fit_hidden_size=4, fit_weight=1.0)
    dialogues = [talk(8), talk(3, seed=1, first="assistant"), talk(2, seed=2)]
    model.tokenizer.padding_side = side
    inputs = model.tokenize(dialogues)
    with torch.no_grad():
        every, last = (model.encode_turns(**inputs, last_turn_only=only) for only in (False, True))
    count = every.mask.sum(1)
    for row in range(len(dialogues)):
        torch.testing.assert_close(last.features[row, 0], every.features[row, count[row] - 1], rtol=1e-5, atol=1e-5)
    assert last.mask.tolist() == [[True]] * 3


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_the_rest_of_the_batch_changes_nothing(name):
    """Not even where dialogues share messages, which are read once."""
    model = model_of(name)
    shared = talk(6)
    dialogues = [shared, shared[:4], [*shared[2:4], *shared[:2]], talk(9, seed=4, words=3)]
    together = model.score_messages(dialogues, last_turn_only=False)
    for rewards, messages in zip(together, dialogues):
        alone = model.score_messages([messages], last_turn_only=False)[0]
        torch.testing.assert_close(rewards[: len(alone)], alone, rtol=1e-5, atol=1e-5)
        assert rewards[len(alone) :].isnan().all()


def test_a_message_of_several_dialogues_is_read_once():
    model, read = model_of("bert"), []

    def recorded(windows, *rest):
        read.append(len(windows))
        return model.read_windows(windows, *rest)

    shared = talk(6)
    model.encode_turns(**model.tokenize([shared, shared[:4], shared]), read=recorded)
    assert read == [3 + 2 + 3, 6]


def test_a_message_longer_than_the_context_keeps_its_end():
    model = model_of("bert", max_length=16)
    river = {"role": "user", "content": "the river is " * 30}
    messages = [river, {"role": "assistant", "content": "how lovely"}]
    assert len(model.tokenize([messages])["input_ids"][0]) > 32
    with torch.no_grad():
        features = model.encode_turns(**model.tokenize([messages])).features[0, 0, 32:]
    expected = by_loops(embeddings(model, messages).double().numpy(), [False, True], [1])[0]
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_mixed_precision_is_for_the_backbone_alone():
    """An echo has the cosine 1 to seven digits, however coarsely the messages were read."""
    model = model_of("bert")
    echo = [
        {"role": "user", "content": "what a lovely river"},
        {"role": "assistant", "content": "what a lovely river"},
    ]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = model.encode_turns(**model.tokenize([echo, talk(8)])).features
    assert features.dtype == torch.float32
    assert features[0, 0, 4 * 32 + 1].item() == pytest.approx(1, abs=1e-6)
    cosine = features[1, -1, 4 * 32 + 1]  # it is that of the products beside it
    assert features[1, -1, 32 : 2 * 32].sum().item() == pytest.approx(cosine.item(), abs=1e-6)


def test_the_head_reads_them_where_the_configuration_says_so():
    sizes = {}
    for options in ({}, {"interactions": True}, {"fit_hidden_size": 4}, {"interactions": True, "fit_hidden_size": 4}):
        config = reward_model("bert", **options).config
        sizes[tuple(options)] = config.head_size, config.feature_size
    many = 4 * 32 + 6
    assert list(sizes.values()) == [(32, 32), (many, many), (32, many), (many, many)]
