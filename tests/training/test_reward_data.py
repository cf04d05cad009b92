"""From Session rows to the batches of training: targets, their scale, padding, and shuffled signals."""

import numpy as np
import pytest
import torch
from tiny import reward_model
from toy import NAN, toy_sessions, with_column

from geli_hf.models.features import cached_turn_features
from geli_hf.sessions import SessionError
from geli_hf.training import shuffle_feedback
from geli_hf.training.data import Scale, SessionCollator, SessionData


def affect(sessions) -> list[list[float]]:
    return [row["affect"] for row in sessions["feedback"]]


def with_affect(sessions, values: list[list[float]]):
    rows = [feedback | {"affect": row} for feedback, row in zip(sessions["feedback"], values)]
    return with_column(sessions, "feedback", rows)


def turns(sessions) -> list[int]:
    return [len(messages) // 2 for messages in sessions["messages"]]


# ------------------------------------------------------------------------------------------------ scale


def test_the_scale_is_mean_and_deviation_over_sessions_and_over_observed_turns(arguments):
    sessions = toy_sessions(3)
    sessions = with_column(sessions, "score", [2.0, 4.0, 9.0])
    values = [[1.0] + [NAN] * (count - 1) for count in turns(sessions)]
    values[2][:2] = [0.0, 0.25]
    scale = Scale.of(with_affect(sessions, values), arguments())
    assert scale.score_mean == pytest.approx(5)
    assert scale.score_std == pytest.approx(np.sqrt((9 + 1 + 16) / 3))
    assert scale.feedback_mean == pytest.approx(2.25 / 4)  # of 1, 1, 0 and 0.25
    assert scale.feedback_std == pytest.approx(np.sqrt((2 + 0.0625) / 4 - 0.5625**2))


def test_as_published_the_score_is_multiplied_by_ten_and_nothing_is_centred(arguments, train_sessions):
    assert Scale.of(train_sessions, arguments(standardise=False)) == Scale(0.0, 0.1, 0.0, 1.0)


def test_without_the_signal_the_score_alone_is_scaled(arguments, train_sessions):
    bare = train_sessions.remove_columns("feedback")
    scale = Scale.of(bare, arguments(li_weight=0.0))
    assert scale.score_std == pytest.approx(np.std(train_sessions["score"]))
    assert (scale.feedback_mean, scale.feedback_std) == (0, 1)


def test_a_constant_target_without_weight_is_left_unscaled(arguments, train_sessions):
    """0.1 is no binary number: sums of it are rounded, and the deviation must be 1 all the same."""
    flat = with_column(train_sessions, "score", [0.1] * len(train_sessions))
    assert Scale.of(flat, arguments(li_weight=1.0)).score_std == 1
    flat = with_affect(train_sessions, [[0.1] * count for count in turns(train_sessions)])
    assert Scale.of(flat, arguments(li_weight=0.0)).feedback_std == 1


def without_variation(sessions):
    return with_affect(sessions, [[1.0] * count for count in turns(sessions)])


def without_observations(sessions):
    return with_affect(sessions, [[NAN] * count for count in turns(sessions)])


def with_one_infinite(sessions):
    return with_affect(sessions, [[np.inf if row == 2 else 1.0] * count for row, count in enumerate(turns(sessions))])


def without_some_scores(sessions):
    return with_column(
        sessions, "score", [NAN if row in (3, 7) else score for row, score in enumerate(sessions["score"])]
    )


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda sessions: with_column(sessions, "score", [4.0] * 24), {}, r"^train_dataset: all 24 scores are 4\.0"),
        (without_some_scores, {}, "^train_dataset: row 3 has no score"),
        (with_one_infinite, {}, "^row 2, field 'feedback.affect': expected finite numbers, found inf"),
        (without_variation, {}, r"^train_dataset, feedback\.affect: no two"),
        (without_observations, {}, r"^train_dataset, feedback\.affect: no two"),
        (lambda sessions: sessions, {"li": "smile"}, r"^li: .* 'smile', they carry \['affect', 'noise'\]"),
        (lambda sessions: sessions.remove_columns("feedback"), {}, r"^li: .* 'affect', they carry \[\]"),
    ],
)
def test_sessions_without_anything_to_learn(arguments, train_sessions, change, options, message):
    with pytest.raises(SessionError, match=message):
        Scale.of(change(train_sessions), arguments(**options))


# ------------------------------------------------------------------------------------------------ batches


def test_an_item_is_a_session_with_its_targets(arguments, train_sessions):
    data = SessionData(train_sessions, arguments(li="noise"))
    assert len(data) == 24
    item, row = data[5], train_sessions[5]
    assert item["messages"] == row["messages"]
    assert item["score"] == pytest.approx(row["score"])
    assert item["feedback"].tolist() == row["feedback"]["noise"]
    assert item["turn_rating"].tolist() == row["turn_rating"]


def test_missing_columns_are_nan(arguments, train_sessions):
    bare = train_sessions.remove_columns(["feedback", "turn_rating"])
    data = SessionData(bare, arguments(li_weight=0.0))
    for item, count in zip(data, turns(bare)):
        assert item["feedback"].shape == item["turn_rating"].shape == (count,)
        assert np.isnan(item["feedback"]).all()
        assert np.isnan(item["turn_rating"]).all()


def test_a_batch_of_features_is_padded_to_its_longest_session(arguments, train_sessions, features_dir):
    model = reward_model("bert")
    features = cached_turn_features(model, train_sessions, cache_dir=features_dir)
    data = SessionData(train_sessions, arguments(), features)
    chosen = [0, 1, 2, 3]
    count = [turns(train_sessions)[index] for index in chosen]
    assert len(set(count)) > 1  # so something has to be padded
    batch = SessionCollator(model)([data[index] for index in chosen])
    longest = max(count)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "score": (4,),
        "feedback": (4, longest),
        "turn_rating": (4, longest),
        "turn_features": (4, longest, 32),
        "turn_mask": (4, longest),
    }
    assert batch["turn_mask"].sum(1).tolist() == count
    for row, (index, turn_count) in enumerate(zip(chosen, count)):
        assert batch["turn_mask"][row, :turn_count].all()
        assert batch["turn_features"][row, :turn_count].numpy() == pytest.approx(features[index])
        assert not batch["turn_features"][row, turn_count:].any()
        felt = train_sessions[index]["feedback"]["affect"] + [NAN] * (longest - turn_count)
        assert batch["feedback"][row].tolist() == pytest.approx(felt, nan_ok=True)
        assert batch["turn_rating"][row, turn_count:].isnan().all()
    assert batch["score"].tolist() == pytest.approx(train_sessions["score"][:4])


def test_a_batch_of_messages_is_tokenized(arguments, train_sessions):
    model = reward_model("bert")
    data = SessionData(train_sessions, arguments())
    batch = SessionCollator(model)([data[0], data[1]])
    expected = model.tokenize([train_sessions[0]["messages"], train_sessions[1]["messages"]])
    assert set(batch) == {"score", "feedback", "turn_rating", "input_ids", "attention_mask"}
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    # The targets are as wide as what the model will make of these tokens.
    assert model(batch["input_ids"], batch["attention_mask"]).turn_rewards.shape == batch["feedback"].shape


# ------------------------------------------------------------------------------------------------ the control


def test_a_shuffled_signal_has_the_same_values_in_other_places(train_sessions):
    dealt = shuffle_feedback(train_sessions, "noise", seed=3)
    before = np.concatenate([row["noise"] for row in train_sessions["feedback"]])
    after = np.concatenate([row["noise"] for row in dealt["feedback"]])
    assert sorted(after) == sorted(before)
    assert np.mean(after == before) < 0.2
    assert abs(np.corrcoef(before, after)[0, 1]) < 0.4
    assert [len(row["noise"]) for row in dealt["feedback"]] == turns(train_sessions)


def test_missing_observations_stay_missing(train_sessions):
    before, after = (
        np.concatenate(affect(each)) for each in (train_sessions, shuffle_feedback(train_sessions, "affect"))
    )
    assert np.isnan(before).any()
    assert np.array_equal(np.isnan(before), np.isnan(after))
    assert np.nansum(before) == np.nansum(after)
    assert not np.array_equal(before, after, equal_nan=True)


def test_nothing_else_is_shuffled(train_sessions):
    chosen = train_sessions.select(range(20, 4, -2))
    dealt = shuffle_feedback(chosen, "affect", seed=1)
    assert dealt.features == chosen.features
    assert [row["noise"] for row in dealt["feedback"]] == [row["noise"] for row in chosen["feedback"]]
    for column in set(chosen.column_names) - {"feedback"}:
        assert dealt[column][:] == chosen[column][:]


def test_the_seed_decides_the_shuffle(train_sessions):
    first, again, other = (
        [row["noise"] for row in shuffle_feedback(train_sessions, "noise", seed=seed)["feedback"]]
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
