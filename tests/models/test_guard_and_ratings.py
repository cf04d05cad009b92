"""The guard of a reward model, and several ratings side by side."""

import numpy as np
import pytest
import tiny
import torch
from fresh import in_fresh_process
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import reward_model, session, talk
from transformers import AutoModelForSequenceClassification

from geli_hf import GeliRewardConfig, GeliRewardModel
from geli_hf.models.geli_reward.interactions_geli import ANSWERS

GUARD = {"fit_hidden_size": 6, "fit_weight": 1.5}
RATINGS = {"witty": [3.0, 0.5], "boring": [2.0, 1.25], "warm": [-4.0, 2.0]}
HIDDEN, FEATURES = 32, 4 * 32 + 6
# Features that each network of the guard reads: of the turn; products, distances and the topic's cosine; copies.
READS = {"form": range(32), "answer": range(32, 129), "copy": range(129, 134)}


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draw the features of turns that answer a message."""
    drawn = torch.randn(*shape, FEATURES, generator=torch.Generator().manual_seed(seed))
    drawn[..., ANSWERS] = 1.0
    return drawn


def chance(guard, turns: torch.Tensor) -> np.ndarray:
    """P = 1 - prod(1 - sigmoid(g)), in float64 by numpy."""
    weights = {name: tensor.double().numpy() for name, tensor in guard.state_dict().items()}
    x = (turns.double().numpy() - weights["standardise.mean"]) / weights["standardise.std"]
    fits = np.ones(x.shape[:-1])
    for reason, read in READS.items():
        w1, b1, w2, b2 = (weights[f"reasons.{reason}.{part}"] for part in ("1.weight", "1.bias", "4.weight", "4.bias"))
        logit = np.maximum(x[..., list(read)] @ w1.T + b1, 0) @ w2[0] + b2[0]
        fits *= 1 - 1 / (1 + np.exp(-logit))
    return 1 - fits


# -------------------------------------------------------------------- the guard


def test_the_loss_is_the_chance_above_its_level():
    guard, turns = reward_model("bert", **GUARD).fit, features(3, 4)
    expected = chance(guard, turns)
    assert expected.std() > 0.05
    np.testing.assert_allclose(-torch.expm1(guard.log_fit(turns)).detach(), expected, atol=1e-5)
    np.testing.assert_allclose(guard(turns).detach(), 1.5 * (expected - 0.6), atol=1e-5)


def test_a_turn_that_opens_the_dialogue_loses_nothing():
    model = reward_model("bert", **GUARD)
    opened = model.encode_turns(**model.tokenize([talk(5, first="assistant")])).features
    losses = model.fit(opened)[0]
    assert losses[0] == 0
    assert (losses[1:].abs() > 1e-4).all()


def test_extreme_turns_are_neither_nan_nor_without_a_gradient():
    guard = reward_model("bert", **GUARD).fit
    turns = (1e4 * features(64)).requires_grad_()  # all answer a message
    log_fit = guard.log_fit(turns)
    assert log_fit.isfinite().all()
    assert (log_fit <= 0).all()
    guard(turns).sum().backward()
    assert turns.grad.isfinite().all()


@pytest.mark.parametrize("reason", READS)
def test_each_network_reads_its_own_features(reason):
    guard, turns = reward_model("bert", **GUARD).fit, features(8)
    with torch.no_grad():
        for name, network in guard.reasons.items():
            if name != reason:
                network[-1].weight.zero_()
    before = guard(turns)
    for place in range(FEATURES):
        changed = turns.clone()
        changed[:, place] += 3
        assert torch.equal(guard(changed), before) == (place not in READS[reason]), place


def test_dropout_is_off_in_evaluation():
    model, turns = reward_model("bert", **GUARD), features(1, 50)
    assert torch.equal(model.fit(turns), model.fit(turns))
    model.train()
    assert not torch.equal(model.fit(turns), model.fit(turns))


@pytest.mark.parametrize("options", [{}, {"interactions": True}])
def test_an_untaught_guard_takes_nothing(options):
    model = GeliRewardModel.from_backbone(tiny.backbone("bert"), **GUARD, **options)
    assert model.score_messages([talk(6)], last_turn_only=False).abs().max() < 1e-6
    assert GeliRewardModel(model.config).eval().fit(features(2, 3)).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("interactions", [False, True])
def test_the_reward_is_that_of_the_head_less_the_loss(name, interactions):
    model, dialogues = reward_model(name, interactions=interactions, **GUARD), [talk(6), talk(3, seed=1)]
    inputs = model.tokenize(dialogues)
    with torch.no_grad():
        encoded = model.encode_turns(**inputs)
        output = model(**inputs)
        read = encoded.features if interactions else encoded.features[..., :HIDDEN]
        expected = model.score(read).double().numpy() - 1.5 * (chance(model.fit, encoded.features) - 0.6)
    np.testing.assert_allclose(output.turn_rewards, np.where(encoded.mask, expected, 0), atol=1e-4)
    np.testing.assert_allclose(output.logits[:, 0], [expected[0, 2], expected[1, 0]], atol=1e-4)
    assert output.rating_rewards is None


def test_the_weight_is_that_of_the_configuration():
    model, turns = reward_model("bert", **GUARD), features(2, 3)
    once = model.fit(turns)
    model.config.fit_weight = 3.0
    torch.testing.assert_close(model.fit(turns), 2 * once)


@pytest.mark.parametrize("head", ["mlp", "rudder"])
def test_other_heads_have_a_guard_too(head):
    model = reward_model("bert", head=head, **GUARD)
    turns, mask = features(1, 3), torch.ones(1, 3).bool()
    expected = model.score(turns[..., :HIDDEN]) - model.fit(turns)
    torch.testing.assert_close(model(turn_features=turns, turn_mask=mask).turn_rewards, expected)


# -------------------------------------------------------------------- ratings


@pytest.mark.parametrize("aggregation", ["mean", "sum"])
@pytest.mark.parametrize("options", [{}, GUARD])
def test_each_rating_has_rewards_and_a_score(aggregation, options):
    model = reward_model("bert", ratings=RATINGS, aggregation=aggregation, **options)
    sessions = [session(6), session(3, seed=1), session(1, first="assistant")]
    weight, bias = (each.detach().double().numpy() for each in (model.score.out.weight, model.score.out.bias))
    with torch.no_grad():
        turns = model.encode_turns(**model.tokenize([row["messages"] for row in sessions]))
        z = model.score.standardise(turns.features[..., :HIDDEN]).double().numpy()
        loss = model.fit(turns.features).numpy() if options else np.zeros(z.shape[:2])
    expected = z @ weight.T + bias
    for row, mask, values, lost in zip(model.score_sessions(sessions), turns.mask.numpy(), expected, loss):
        np.testing.assert_allclose(row["turn_rewards"], (values[:, 0] - lost)[mask], atol=1e-4)
        # What the guard takes is no part of a rating.
        whole = model.config.score_mean + model.config.score_std * getattr(values[mask, 0], aggregation)()
        assert row["score"] == pytest.approx(whole, abs=1e-3)
        assert list(row["ratings"]) == sorted(RATINGS)
        for place, (name, (mean, std)) in enumerate(sorted(RATINGS.items()), 1):
            rewards = values[mask, place]
            np.testing.assert_allclose(row["ratings"][name]["turn_rewards"], rewards, atol=1e-4)
            predicted = mean + std * getattr(rewards, aggregation)()
            assert row["ratings"][name]["score"] == pytest.approx(predicted, abs=1e-3)


def test_a_model_of_one_score_has_no_ratings():
    model = reward_model("bert")
    assert model(**model.tokenize([talk(4)])).rating_rewards is None
    assert set(model.score_sessions([session(4)])[0]) == {"turn_rewards", "score", "cropped"}


WEIGHTS = st.dictionaries(st.sampled_from(list(RATINGS)), st.floats(-3, 3), min_size=1).filter(
    lambda weights: max(map(abs, weights.values())) > 0.01
)


@pytest.mark.parametrize("aggregation", ["mean", "sum"])
@settings(deadline=None, max_examples=15)
@given(weights=WEIGHTS)
def test_a_weighted_sum_predicts_the_weighted_sum_of_the_ratings(aggregation, weights):
    model, sessions = reward_model("bert", ratings=RATINGS, aggregation=aggregation), [session(6), session(3, seed=1)]
    model.config.residual_std, model.config.reward_quantiles = 1.0, [0.0, 1.0]
    before = model.score_sessions(sessions)
    model.use_ratings(weights)
    units = {name: weight * RATINGS[name][1] for name, weight in weights.items()}
    for row, old in zip(model.score_sessions(sessions), before):
        expected = sum(weight * old["ratings"][name]["score"] for name, weight in weights.items())
        assert row["score"] == pytest.approx(expected, abs=1e-3)
        parts = [unit * np.array(old["ratings"][name]["turn_rewards"]) for name, unit in units.items()]
        np.testing.assert_allclose(row["turn_rewards"], sum(parts) / sum(map(abs, units.values())), atol=1e-4)
        assert row["ratings"] == old["ratings"]
    assert (model.config.residual_std, model.config.reward_quantiles) == (None, [])  # they were the score's


def test_a_guard_takes_from_a_weighted_sum_what_it_takes_from_the_score():
    model = reward_model("bert", ratings=RATINGS, **GUARD)
    sessions, weights = [session(6)], {"witty": 2.0, "warm": 1.0}
    [before] = model.score_sessions(sessions)
    model.use_ratings(weights)
    [row] = model.score_sessions(sessions)
    expected = sum(weight * before["ratings"][name]["score"] for name, weight in weights.items())
    assert row["score"] == pytest.approx(expected, abs=1e-3)
    with torch.no_grad():
        turns = model.encode_turns(**model.tokenize([sessions[0]["messages"]])).features
        loss = model.fit(turns)[0].numpy()
    model.use_ratings({"boring": -1.0})  # a turn that doesn't fit loses, though it may be less boring
    [less] = model.score_sessions(sessions)
    bored = np.array(before["ratings"]["boring"]["turn_rewards"])
    np.testing.assert_allclose(less["turn_rewards"], -bored - loss, atol=1e-4)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"funny": 1.0}, "'funny'.*boring, warm, witty"),
        ({"witty": 0.0, "warm": 0.0}, "other than 0"),
        ({}, "other than 0"),
        ({"witty": float("nan")}, "nan"),
        ({"witty": float("inf")}, "inf"),
    ],
)
def test_weights_that_make_no_sum_are_refused(weights, words):
    model = reward_model("bert", ratings=RATINGS)
    before = model.score.out.weight.clone()
    with pytest.raises(ValueError, match=f"weights.*{words}"):
        model.use_ratings(weights)
    assert torch.equal(model.score.out.weight, before)
    assert model.config.score_std == 1.0


def test_a_model_without_ratings_says_so():
    with pytest.raises(ValueError, match=r"'witty'.*none"):
        reward_model("bert").use_ratings({"witty": 1.0})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ratings": RATINGS, "head": "mlp"}, "ratings.*linear.*'mlp'"),
        ({"ratings": {"witty": [3.0]}}, r"ratings\.witty.*\[3\.0\]"),
        ({"ratings": {"witty": [3.0, 0.0]}}, r"ratings\.witty.*positive.*0\.0"),
        ({"fit_hidden_size": -1}, "fit_hidden_size.*-1"),
    ],
)
def test_a_configuration_that_can_not_be_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        GeliRewardConfig(**wrong)


# -------------------------------------------------------------------- kept


@pytest.fixture(scope="module", params=["bert", "llama"])
def kept(request, tmp_path_factory):
    """A model with all of it, and the folder that it was saved in."""
    model, folder = whole_model(request.param), tmp_path_factory.mktemp("kept")
    model.save_pretrained(folder)
    return model, folder


def whole_model(name: str) -> GeliRewardModel:
    return reward_model(name, interactions=True, ratings=RATINGS, context_messages=2, **GUARD)


def test_all_of_it_makes_the_round_trip(kept):
    """Names of ratings stay with their rewards: a file of the configuration sorts them."""
    model, folder = kept
    again = GeliRewardModel.from_pretrained(folder)
    assert {name: list(scale) for name, scale in again.config.ratings.items()} == RATINGS
    assert list(again.config.ratings) == list(model.config.ratings) == sorted(RATINGS)
    assert (again.config.interactions, again.config.fit_hidden_size, again.config.fit_weight) == (True, 6, 1.5)
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(name.startswith("fit.") for name in ours)
    assert again.score_sessions([session(6)]) == model.score_sessions([session(6)])


def test_head_and_guard_stay_in_float32(kept):
    model, folder = kept
    again = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16)
    assert {tensor.dtype for part in (again.score, again.fit) for tensor in part.state_dict().values()} == {
        torch.float32
    }
    assert {parameter.dtype for parameter in again.model.parameters()} == {torch.bfloat16}
    found, expected = (each.score_messages([talk(6)]) for each in (again, model))
    torch.testing.assert_close(found, expected, rtol=0.2, atol=0.2)


def load_without_the_package(name, dialogues):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(name, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules")
    rows = model.score_sessions([{"messages": messages} for messages in dialogues])
    model.use_ratings({"warm": 1.0})
    return [rows, model.score_messages(dialogues).tolist()]


def test_it_loads_where_the_package_is_not(tmp_path):
    model = whole_model("llama")
    model.save_pretrained(tmp_path / "model")
    dialogues = [talk(6), talk(3, seed=1)]
    found, mixed = in_fresh_process(
        load_without_the_package,
        tmp_path,
        {"HF_HOME": str(tmp_path), "HF_MODULES_CACHE": str(tmp_path / "modules")},
        geli_hf=False,
        name="model",
        dialogues=dialogues,
    )
    rows = model.score_sessions([{"messages": messages} for messages in dialogues])
    for row, expected in zip(found, rows):
        assert row["turn_rewards"] == pytest.approx(expected["turn_rewards"], abs=1e-4)
        for name in RATINGS:
            assert row["ratings"][name]["score"] == pytest.approx(expected["ratings"][name]["score"], abs=1e-3)
    model.use_ratings({"warm": 1.0})
    assert mixed == pytest.approx(model.score_messages(dialogues).tolist(), abs=1e-4)
