"""The loss and the metrics of a trainer against the same figures in numpy, session by session."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from tiny import reward_model
from toy import NAN, toy_sessions, with_column
from transformers import TrainerCallback

from geli_hf import GeliRewardModel
from geli_hf.decomposition.slope import SignalSlope
from geli_hf.training import PAPER, GeliRewardTrainer


def rewards_of(model, sessions) -> list[np.ndarray]:
    """Turn rewards from the text, not from cached features."""
    return [np.array(row["turn_rewards"]) for row in model.eval().score_sessions(sessions)]


def affect(sessions) -> list[np.ndarray]:
    return [np.array(row["affect"]) for row in sessions["feedback"]]


def global_explicit(ge: str, aggregation: str, reward: np.ndarray, score: float) -> float:
    """Global Explicit loss of one session."""
    total = reward.sum()
    if ge == "rudder":
        return (score - total) ** 2 + 0.5 * np.mean((score - np.cumsum(reward)) ** 2)
    if ge == "ircr":
        return np.mean(((score if aggregation == "mean" else score / len(reward)) - reward) ** 2)
    return (score - (total / len(reward) if aggregation == "mean" else total)) ** 2


def expected_loss(ge, aggregation, li_weight, rewards, scores, feedback) -> float:
    """GELI's loss of one batch, from targets that are scaled already."""
    explicit = [global_explicit(ge, aggregation, *row) for row in zip(rewards, scores)]
    implicit = [
        np.mean([(felt - reward) ** 2 for felt, reward in zip(*row) if felt == felt])
        for row in zip(feedback, rewards)
        if not np.isnan(row[0]).all()
    ]
    return (1 - li_weight) * np.mean(explicit) + li_weight * np.mean(implicit)


def standardised(train, sessions) -> tuple[np.ndarray, list[np.ndarray]]:
    """Scores and feedback of `sessions` in deviations from the training mean."""
    scores, felt = np.array(train["score"]), np.concatenate(affect(train))
    felt = felt[~np.isnan(felt)]
    return (
        (np.array(sessions["score"]) - scores.mean()) / scores.std(),
        [(row - felt.mean()) / felt.std() for row in affect(sessions)],
    )


LOSSES = [
    ("rrd", "linear", "mean", 0.1),
    ("rrd", "linear", "sum", 0.1),
    ("rrd", "mlp", "mean", 0.0),
    ("rrd", "mlp", "mean", 1.0),
    ("ircr", "linear", "mean", 0.3),
    ("ircr", "linear", "sum", 0.3),
    ("rudder", "rudder", "sum", 0.2),
    ("rudder", "rudder", "mean", 0.2),  # is summed all the same
]


@pytest.mark.parametrize(("ge", "head", "aggregation", "li_weight"), LOSSES)
def test_the_loss_of_an_evaluation(trainer, train_sessions, eval_sessions, ge, head, aggregation, li_weight):
    model = reward_model("bert", head=head, aggregation=aggregation)
    evaluated = trainer(model, ge=ge, li_weight=li_weight).evaluate()
    scores, feedback = standardised(train_sessions, eval_sessions)
    expected = expected_loss(ge, aggregation, li_weight, rewards_of(model, eval_sessions), scores, feedback)
    assert evaluated["eval_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("ge", "head"), [("rrd", "linear"), ("ircr", "mlp"), ("rudder", "rudder")])
def test_the_loss_of_a_training_step(trainer, train_sessions, ge, head):
    """All sessions are one batch, and the loss is logged before the step has changed anything."""
    model = reward_model("bert", head=head)
    one_step = trainer(
        model,
        ge=ge,
        li_weight=0.4,
        max_steps=1,
        per_device_train_batch_size=24,
        logging_strategy="steps",
        logging_steps=1,
    )
    scores, feedback = standardised(train_sessions, train_sessions)
    aggregation = "sum" if ge == "rudder" else "mean"
    expected = expected_loss(ge, aggregation, 0.4, rewards_of(model, train_sessions), scores, feedback)
    one_step.train()
    assert one_step.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-3)


def test_the_backbone_trains_with_the_same_loss(trainer, train_sessions, eval_sessions):
    model = reward_model("llama")
    evaluated = trainer(model, freeze_backbone=False, li_weight=0.3).evaluate()
    scores, feedback = standardised(train_sessions, eval_sessions)
    expected = expected_loss("rrd", "mean", 0.3, rewards_of(model, eval_sessions), scores, feedback)
    assert evaluated["eval_loss"] == pytest.approx(expected, rel=1e-4)


def test_an_evaluation_takes_all_turns_where_training_draws_some(trainer, train_sessions, eval_sessions):
    """A draw would only add noise to the choice of a checkpoint."""
    model = reward_model("bert")
    evaluated = trainer(model, rrd_turns=1, li_weight=0.0).evaluate()
    scores, feedback = standardised(train_sessions, eval_sessions)
    expected = expected_loss("rrd", "mean", 0.0, rewards_of(model, eval_sessions), scores, feedback)
    assert evaluated["eval_loss"] == pytest.approx(expected, rel=1e-4)


def test_accumulated_batches_make_the_step_of_one_large_batch(trainer, train_sessions):
    """The loss is a mean over sessions, so losses of accumulated batches are averaged."""
    watched = toy_sessions(8, unseen=0.0)  # an unobserved session would weigh its batch differently
    options = {"optim": "sgd", "learning_rate": 0.1, "weight_decay": 0.0, "max_steps": 1, "max_grad_norm": 0.0}
    weights = []
    for batch, accumulated in ((8, 1), (2, 4)):
        model = reward_model("bert")
        before = model.score.out.weight.detach().clone()
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated}
        trainer(model, train=watched, **sizes, **options).train()
        assert not torch.allclose(model.score.out.weight, before, atol=1e-3)
        weights.append(model.score.out.weight.detach())
    assert torch.allclose(*weights, atol=1e-6)


# ------------------------------------------------------------------------------------------------ with a slope


def test_a_training_step_with_a_slope(trainer, train_sessions):
    """The prior and one batch: rewards and signal are compared within sessions."""
    model = reward_model("bert")
    torch.nn.init.normal_(model.score.out.weight, std=0.3)
    steps = {"max_steps": 1, "per_device_train_batch_size": 24, "logging_strategy": "steps", "logging_steps": 1}
    one_step = trainer(model, li_slope=True, li_weight=0.4, **steps)
    scores, feedback = standardised(train_sessions, train_sessions)
    rewards = rewards_of(model, train_sessions)  # before the step
    one_step.train()

    pairs = [(r[f == f], f[f == f]) for r, f in zip(rewards, feedback) if (f == f).sum() > 1]
    centred = [(r - r.mean(), f - f.mean()) for r, f in pairs]
    covariance, variance = (
        np.mean([np.mean(r * x) for r, x in rows]) for rows in (centred, [(r, r) for r, _ in centred])
    )
    slope = (0.99 * 0.1 * 0.1 + 0.01 * covariance) / (0.99 * 0.1 + 0.01 * variance)
    explicit = np.mean([(score - row.mean()) ** 2 for score, row in zip(scores, rewards)])
    implicit = np.mean([np.mean((f - slope * r) ** 2) for r, f in centred])
    assert one_step.state.log_history[0]["loss"] == pytest.approx(0.6 * explicit + 0.4 * implicit, rel=1e-3)
    assert one_step.evaluate()["eval_li_slope"] == pytest.approx(slope, rel=1e-4)


def test_batches_without_information_leave_the_slope_as_it_was(monkeypatch):
    """Sessions of one observed turn; both moments fade to 0 in the end, and the prior is left."""
    slope, mask = SignalSlope(), torch.tensor([[True, True], [True, False]])
    rewards = torch.tensor([[1.0, -1.0], [2.0, 0.0]])
    slope.update(rewards, mask, torch.tensor([[0.5, 0.0], [1.0, NAN]]))
    learned = slope.value.item()
    monkeypatch.setattr("geli_hf.decomposition.slope.DECAY", 0.5)
    blind = torch.tensor([[NAN, 1.0], [1.0, NAN]])
    slope.update(rewards, mask, blind)
    assert slope.value.item() == pytest.approx(learned, rel=1e-5)
    assert learned == pytest.approx((0.99 * 0.01 + 0.01 * 0.25) / (0.99 * 0.1 + 0.01 * 1.0), rel=1e-5)
    for _ in range(200):
        slope.update(rewards, mask, blind)
    assert slope.variance == 0
    assert slope.value.item() == pytest.approx(0.1)


def test_a_faint_signal_leaves_rewards_their_size_where_its_slope_is_learned(trainer):
    """A face that often deceives, of people who smile much or little, at turns that the score tells of exactly."""
    torch.manual_seed(0)  # of the new heads, before each trainer sets its own
    rng = np.random.default_rng(0)
    sessions = toy_sessions(160, seed=3)
    faces = []
    for values in sessions["turn_rating"]:
        moods = rng.normal(0, 2) + np.where(rng.random(len(values)) < 0.6, values, rng.normal(size=len(values)))
        faces.append({"affect": moods.tolist(), "noise": values})
    sessions = with_column(sessions, "feedback", faces)
    felt = np.concatenate(affect(sessions))
    # A turn is worth 2 of the score, and shows .6 of itself, in the signal's deviations.
    turn = 2 / np.std(sessions["score"])
    found = {}
    for slope in (False, True):
        options = {"li_slope": slope, "li_weight": 0.8, "num_train_epochs": 40, "learning_rate": 1e-2}
        trained = trainer(reward_model("bert"), train=sessions, held_out=sessions, weight_decay=0.0, **options)
        trained.train()
        rewards = np.concatenate(rewards_of(trained.model, sessions))
        values = np.concatenate(sessions["turn_rating"])
        found[slope] = (rewards[values > 0].mean() - rewards[values < 0].mean()) / 2
        if slope:
            assert trained.evaluate()["eval_li_slope"] == pytest.approx(0.6 / felt.std() / turn, rel=0.2)
    assert found[True] == pytest.approx(turn, rel=0.1)
    assert found[False] < 0.6 * turn


# ------------------------------------------------------------------------------------------------ as published


class Seeded(TrainerCallback):
    """Makes the random numbers of a step those that follow a known seed."""

    def on_step_begin(self, args, state, control, **kwargs):
        torch.manual_seed(7)


def test_a_step_of_the_published_recipe(arguments, train_sessions, eval_sessions):
    """Score times ten; T / K times the sum of K = 160 rewards drawn with replacement; tanh; half of it LI.

    EMNLP 2024, arXiv 2403.11330, and its scripts. Computed below from the features of the one session in the batch.
    """
    model = reward_model("bert", **PAPER["model"])
    args = arguments(**PAPER["training"] | {"max_steps": 1, "logging_strategy": "steps", "logging_steps": 1})
    watched = toy_sessions(24, unseen=0.0)
    trainer = GeliRewardTrainer(model, args, watched, eval_sessions, callbacks=[Seeded()])
    batches, collate = [], trainer.data_collator
    trainer.data_collator = lambda items: batches.append(items) or collate(items)

    weights = {name: tensor.detach().double().numpy().copy() for name, tensor in model.score.state_dict().items()}
    trainer.train()
    item = batches[0][0]
    score = float(item["score"])
    turns = len(item["feedback"])
    assert len(batches[0]) == 1

    torch.manual_seed(7)  # what the step drew: which hidden units are dropped, then which turns are summed
    kept = torch.nn.functional.dropout(torch.ones(1, turns, 128), 0.2)[0].double().numpy()
    generator = torch.Generator().manual_seed(torch.randint(2**62, (1,)).item())
    drawn = (torch.rand(1, 160, generator=generator)[0].numpy() * turns).astype(int)
    assert set(np.unique(kept).round(6)) == {0, 1.25}
    assert drawn.max() == turns - 1

    features = item["turn_features"].astype(float)
    hidden = (features - weights["standardise.mean"]) / weights["standardise.std"]
    hidden = np.maximum(hidden @ weights["dense.weight"].T + weights["dense.bias"], 0) * kept
    rewards = np.tanh(hidden @ weights["out.weight"][0] + weights["out.bias"])
    explicit = (10 * score - turns / 160 * sum(rewards[turn] for turn in drawn)) ** 2
    implicit = np.mean((np.array(item["feedback"], float) - rewards) ** 2)
    loss = trainer.state.log_history[0]["loss"]
    assert loss == pytest.approx(0.5 * explicit + 0.5 * implicit, rel=1e-5)
    # All turns once would have been another loss: the draw is in it.
    assert abs(loss - 0.5 * (10 * score - rewards.sum()) ** 2 - 0.5 * implicit) > 1e-3 * loss


def test_the_published_recipe_predicts_a_score_in_the_units_of_the_ratings(arguments, train_sessions):
    model = reward_model("bert", **PAPER["model"])
    GeliRewardTrainer(model, arguments(**PAPER["training"]), train_sessions, train_sessions)
    for row in model.score_sessions(train_sessions):
        assert max(map(abs, row["turn_rewards"])) <= 1
        assert row["score"] == pytest.approx(sum(row["turn_rewards"]) / 10, abs=1e-5)


# ------------------------------------------------------------------------------------------------ metrics


@pytest.fixture
def mixed_sessions():
    """Held-out sessions of 2 to 5 turns; one has no score, one was not observed, one is rated the same throughout."""
    sessions = toy_sessions(11, seed=5)
    scores, ratings, feedback = list(sessions["score"]), list(sessions["turn_rating"]), list(sessions["feedback"])
    scores[1] = NAN
    feedback[2] = feedback[2] | {"affect": [NAN] * len(ratings[2])}
    ratings[3] = [0.5] * len(ratings[3])
    sessions = with_column(sessions, "score", scores)
    return with_column(with_column(sessions, "feedback", feedback), "turn_rating", ratings)


def test_the_metrics_of_an_evaluation(trainer, train_sessions, mixed_sessions):
    """In batches of three, that are padded to different lengths."""
    model = reward_model("bert")
    reported = trainer(model, held_out=mixed_sessions, per_device_eval_batch_size=3).evaluate()
    rewards = rewards_of(model, mixed_sessions)
    scores, ratings, felt = mixed_sessions["score"], mixed_sessions["turn_rating"], affect(mixed_sessions)

    train_scores = np.array(train_sessions["score"])
    predicted = [train_scores.mean() + train_scores.std() * reward.mean() for reward in rewards]
    pairs = [(x, y) for x, y in zip(predicted, scores) if y == y]
    assert len(pairs) == 10
    assert reported["eval_global_loss"] == pytest.approx(np.mean([(x - y) ** 2 for x, y in pairs]), rel=1e-4)
    floor = np.mean([(train_scores.mean() - y) ** 2 for _, y in pairs])
    assert reported["eval_global_floor"] == pytest.approx(floor, rel=1e-5)

    observed = [(reward, smile) for row in zip(rewards, felt) for reward, smile in zip(*row) if smile == smile]
    smiled = [reward for reward, smile in observed if smile == 1]
    not_smiled = [reward for reward, smile in observed if smile == 0]
    difference = np.mean(smiled) - np.mean(not_smiled)
    assert reported["eval_local_difference"] == pytest.approx(difference, abs=1e-4)

    within = [spearmanr(x, y).statistic for x, y in zip(rewards, ratings) if len(set(y)) > 1]
    assert 3 < len(within) < 11
    assert reported["eval_within_session_spearman"] == pytest.approx(np.mean(within), abs=1e-5)


def test_the_local_difference_compares_with_the_training_mean(trainer, train_sessions, eval_sessions):
    """A signal that is always positive, such as a probability, has turns on both sides of its mean."""
    model = reward_model("bert")
    reported = trainer(model, li="noise").evaluate()
    threshold = np.mean(np.concatenate([row["noise"] for row in train_sessions["feedback"]]))
    rewards = np.concatenate(rewards_of(model, eval_sessions))
    above = np.concatenate([row["noise"] for row in eval_sessions["feedback"]]) > threshold
    expected = rewards[above].mean() - rewards[~above].mean()
    assert reported["eval_local_difference"] == pytest.approx(expected, abs=1e-4)


def test_metrics_that_are_not_defined_are_left_out(trainer, train_sessions, eval_sessions):
    bare = eval_sessions.remove_columns(["feedback", "turn_rating"])
    reported = trainer(held_out=bare, train=train_sessions, li_weight=0.0).evaluate()
    assert {"eval_loss", "eval_global_loss", "eval_global_floor"} <= set(reported)
    assert not {"eval_local_difference", "eval_within_session_spearman"} & set(reported)


def test_quantiles_come_from_a_sample_of_many_sessions(trainer, train_sessions, monkeypatch):
    monkeypatch.setattr("geli_hf.training.trainer.CALIBRATION_SESSIONS", 3)
    for frozen in (False, True):
        trained = trainer(num_train_epochs=1, freeze_backbone=frozen)
        trained.train()
        drawn = np.random.default_rng(trained.args.seed).choice(len(train_sessions), 3, replace=False)
        read = train_sessions if frozen else train_sessions.select(drawn)  # what is cached costs nothing
        rewards = np.concatenate(rewards_of(trained.reward_model.eval(), read))
        expected = np.quantile(rewards, np.linspace(0, 1, 101))
        np.testing.assert_allclose(trained.reward_model.config.reward_quantiles, expected, atol=1e-4)


def test_a_trained_model_is_calibrated(trainer, train_sessions, mixed_sessions, tmp_path):
    trained = trainer(held_out=mixed_sessions, num_train_epochs=2)
    trained.train()
    model = trained.reward_model.eval()
    rewards = np.concatenate(rewards_of(model, train_sessions))
    assert model.config.reward_quantiles[0] == pytest.approx(rewards.min(), abs=1e-4)
    assert model.config.reward_quantiles[50] == pytest.approx(np.median(rewards), abs=1e-4)
    assert model.config.reward_quantiles[100] == pytest.approx(rewards.max(), abs=1e-4)
    assert len(model.config.reward_quantiles) == 101
    predicted = [row["score"] for row in model.score_sessions(mixed_sessions)]
    residual = [y - x for x, y in zip(predicted, mixed_sessions["score"]) if y == y]
    assert model.config.residual_std == pytest.approx(np.std(residual), rel=1e-3)
    # That is kept with the model, and so are the units of its scores.
    trained.save_model(tmp_path / "saved")
    config = GeliRewardModel.from_pretrained(tmp_path / "saved").config
    assert config.reward_quantiles == model.config.reward_quantiles
    assert config.residual_std == model.config.residual_std
    assert config.score_mean == pytest.approx(np.mean(train_sessions["score"]))
    assert config.score_std == pytest.approx(np.std(train_sessions["score"]))
