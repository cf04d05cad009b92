"""Training and test sessions of the benchmark, and their features."""

import numpy as np
import pytest
from datasets import concatenate_datasets
from tiny import reward_model
from toy import NAN, toy_sessions, with_column

from geli_hf.evaluation.methods.folds import Design, Encoded, out_of_fold
from geli_hf.evaluation.methods.runs import fingerprint


@pytest.fixture(scope="module")
def sessions():
    """Two sessions of each of eleven conversations, far apart."""
    one, other = toy_sessions(11, seed=0), toy_sessions(11, seed=1)
    return concatenate_datasets([one, with_column(other, "session_id", [f"t{index}" for index in range(11)])])


def test_folds_split_by_conversation(sessions):
    conversations = np.array(sessions["conversation_id"][:])
    for seed in range(5):
        folds = out_of_fold(sessions, 4, seed)
        assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(22))
        for fold in folds:
            assert sorted([*fold.train, *fold.test]) == list(range(22))
            assert not set(conversations[fold.train]) & set(conversations[fold.test])
            assert len(set(conversations[fold.test])) in (2, 3)
    first, again, other = (out_of_fold(sessions, 4, seed)[0].test.tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("folds", [1, 12])
def test_more_folds_than_conversations_are_an_error(folds, sessions):
    with pytest.raises(ValueError, match=f"folds: .* {folds}"):
        out_of_fold(sessions, folds, 0)


def test_train_means_are_out_of_fold(sessions):
    score = np.array(sessions["score"])
    means = Design(sessions, folds=3).train_means(seed=2)
    for fold in out_of_fold(sessions, 3, 2):
        np.testing.assert_allclose(means[fold.test], np.delete(score, fold.test).mean())
    test = toy_sessions(5, seed=3)
    apart = Design(sessions, test)
    assert [len(part) for part in apart.of(7)[0]] == [22, 5]
    np.testing.assert_allclose(apart.train_means(7), score.mean())


def test_a_session_without_a_score_is_an_error(sessions):
    unscored = with_column(sessions, "score", [NAN, *sessions["score"][1:]])
    with pytest.raises(ValueError, match="train"):
        Design(unscored)
    with pytest.raises(ValueError, match="test"):
        Design(sessions, unscored)


def test_shuffling_permutes_scores_alone():
    numbered = with_column(toy_sessions(60), "score", [float(number) for number in range(60)])
    out, apart = Design(numbered, folds=4), Design(numbered, toy_sessions(5))
    for design in (out, apart):
        shuffled = design.shuffled(7, 1)
        assert shuffled.features == numbered.features
        assert fingerprint(shuffled.remove_columns("score")) == fingerprint(numbered.remove_columns("score"))
        assert np.mean(np.array(shuffled["score"]) == np.arange(60)) < 0.2
        for fold in design.of(7):  # none learns a score that was another fold's to learn
            assert sorted(shuffled.select(fold.train)["score"]) == fold.train.tolist()
        drawn = {tuple(design.shuffled(*which)["score"]) for which in [(7, 1), (7, 2), (8, 1), (7, 1)]}
        assert len(drawn) == 3


def test_features_are_encoded_once_and_selected(sessions, tmp_path):
    model = reward_model("bert")
    corpus = Encoded(model, sessions, cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())
    for rows in (np.array([3, 1, 8]), np.array([20, 2])):
        alone = Encoded(model, sessions.select(rows), cache_dir=tmp_path / "alone").features
        for name, cache in corpus.select(rows).items():
            for index in range(len(rows)):
                np.testing.assert_allclose(cache[index], alone[name][index], atol=1e-4)
