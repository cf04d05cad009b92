"""Features of a frozen backbone: computed once, read from disk ever after."""

import numpy as np
import pytest
import torch
from tiny import reward_model
from toy import toy_sessions

from geli_hf import GeliRewardModel
from geli_hf.models import features
from geli_hf.models.features import cached_turn_features, score_cached


@pytest.fixture(scope="module")
def train_sessions():
    return toy_sessions(24, seed=0)


@pytest.fixture
def features_dir(tmp_path):
    return tmp_path / "features"


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """Grows by one whenever a backbone encodes a batch."""
    calls, encode = [], GeliRewardModel.encode_turns

    def counted(self, input_ids, *args, **kwargs):
        calls.append(len(input_ids))
        return encode(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(GeliRewardModel, "encode_turns", counted)
    return calls


def test_the_cache_holds_what_the_backbone_says(train_sessions, features_dir):
    model = reward_model("bert")
    cache = cached_turn_features(model, train_sessions, cache_dir=features_dir, batch_size=7)
    assert len(cache) == len(train_sessions)
    for index in range(len(train_sessions)):
        with torch.no_grad():
            alone = model.encode_turns(**model.tokenize([train_sessions[index]["messages"]])).features[0]
        assert cache[index].shape == (len(train_sessions[index]["messages"]) // 2, 32)
        assert cache[index] == pytest.approx(alone.numpy(), abs=1e-4)


def test_the_second_time_nothing_is_encoded(train_sessions, features_dir, encoded):
    first = cached_turn_features(reward_model("bert"), train_sessions, cache_dir=features_dir, batch_size=10)
    assert encoded == [10, 10, 4]
    # Another head on the same backbone, read anew from disk.
    again = cached_turn_features(reward_model("bert", seed=1, head="mlp"), train_sessions, cache_dir=features_dir)
    assert len(encoded) == 3
    assert np.array_equal(first.features, again.features)
    assert len(list(features_dir.iterdir())) == 1


def test_the_file_is_memory_mapped_and_an_item_is_a_copy(train_sessions, features_dir):
    cache = cached_turn_features(reward_model("bert"), train_sessions, cache_dir=features_dir)
    assert isinstance(cache.features, np.memmap)
    assert not cache.features.flags.writeable
    item = cache[0]
    item[:] = 0  # a batch may be changed; the cache may not
    assert cache[0].any()


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_mean_and_deviation_of_all_turns(at_once, train_sessions, features_dir, monkeypatch):
    monkeypatch.setattr(features, "SESSIONS_AT_ONCE", at_once)
    cache = cached_turn_features(reward_model("bert"), train_sessions, cache_dir=features_dir)
    mean, std = cache.mean_and_std()
    np.testing.assert_allclose(mean, cache.features.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, cache.features.astype(np.float64).std(0), rtol=1e-12)


@pytest.mark.parametrize("change", ["weights", "vocabulary", "dialogues", "context", "max_length"])
def test_what_features_depend_on_names_another_cache(change, train_sessions, features_dir, encoded):
    model = reward_model("bert")
    cached_turn_features(model, train_sessions, cache_dir=features_dir)
    before = len(encoded)
    if change == "weights":
        with torch.no_grad():
            next(model.model.parameters())[7, 7] += 1e-3
    elif change == "vocabulary":  # the tokens of the same words are others
        model.tokenizer.add_tokens(["dog river"])
    elif change == "dialogues":
        train_sessions = toy_sessions(24, seed=9)
    elif change == "context":
        model.config.context_messages = 1
    else:
        model.config.max_length = 40
    cached_turn_features(model, train_sessions, cache_dir=features_dir)
    assert len(encoded) > before
    assert len(list(features_dir.iterdir())) == 2


def test_an_encoding_that_was_interrupted_leaves_nothing(train_sessions, features_dir, monkeypatch):
    model = reward_model("bert")
    encode, calls = GeliRewardModel.encode_turns, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, *args, **kwargs)

    monkeypatch.setattr(GeliRewardModel, "encode_turns", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached_turn_features(model, train_sessions, cache_dir=features_dir, batch_size=10)
    assert list(features_dir.iterdir()) == []
    assert cached_turn_features(model, train_sessions, cache_dir=features_dir)[23].any()


def test_the_default_folder_is_in_the_cache_of_the_package(train_sessions, tmp_path, monkeypatch):
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "kept"))
    cached_turn_features(reward_model("bert"), train_sessions)
    assert len(list((tmp_path / "kept" / "features").glob("*/features.npy"))) == 1


def test_dropout_is_off_while_encoding_and_back_on_afterwards(train_sessions, features_dir):
    model = reward_model("bert")
    calm = cached_turn_features(model, train_sessions, cache_dir=features_dir / "a")
    model.train()
    assert model.model.embeddings.dropout.p > 0
    same = cached_turn_features(model, train_sessions, cache_dir=features_dir / "b")
    assert np.array_equal(calm.features, same.features)
    assert model.training


@pytest.mark.parametrize(("name", "head"), [("bert", "linear"), ("llama", "mlp"), ("bert", "rudder")])
def test_scores_from_the_cache_are_those_of_the_model(name, head, train_sessions, features_dir):
    aggregation = "sum" if head == "rudder" else "mean"
    model = reward_model(name, head=head, aggregation=aggregation, score_mean=5.0, score_std=2.0)
    cached = score_cached(model, train_sessions, cache_dir=features_dir)
    assert len(cached) == len(train_sessions)
    for row, expected in zip(cached, model.score_sessions(train_sessions)):
        assert row["turn_rewards"] == pytest.approx(expected["turn_rewards"], abs=1e-4)
        assert row["score"] == pytest.approx(expected["score"], abs=1e-3)


def test_some_sessions_of_a_cache_are_those_of_the_cache(train_sessions, features_dir):
    model = reward_model("bert")
    cache = cached_turn_features(model, train_sessions, cache_dir=features_dir)
    rows = [5, 0, 17]
    some = cache.select(rows)
    assert len(some) == 3
    for mine, row in zip(range(3), rows):
        assert np.array_equal(some[mine], cache[row])
    turns = np.concatenate([cache[row] for row in rows]).astype(np.float64)
    mean, std = some.mean_and_std()
    np.testing.assert_allclose(mean, turns.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, turns.std(0), rtol=1e-12)
    scored = score_cached(model, train_sessions.select(rows), features=some)
    everything = score_cached(model, train_sessions, cache_dir=features_dir)
    assert scored == [everything[row] for row in rows]
