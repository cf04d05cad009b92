"""Training a reward model from the first step to the checkpoint that is kept."""

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets
from peft import LoraConfig
from tiny import backbone, reward_model
from toy import toy_sessions, with_column

from geli_hf import GeliRewardModel
from geli_hf.models.features import cached_turn_features
from geli_hf.training import PAPER, GeliRewardArguments, GeliRewardTrainer


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed(before: dict, after: dict) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def evaluations(trainer) -> list[dict]:
    return [entry for entry in trainer.state.log_history if "eval_loss" in entry]


def new_model(name: str = "bert", **config) -> GeliRewardModel:
    """One whose head has learned nothing."""
    torch.manual_seed(0)
    return GeliRewardModel.from_backbone(backbone(name), **config)


# ------------------------------------------------------------------------------------------------ learning


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({"ge": "rrd"}, {}),
        ({"ge": "rrd", "rrd_turns": 2}, {"head": "mlp", "aggregation": "sum"}),
        ({"ge": "ircr", "li_weight": 0.5}, {}),
        ({"ge": "rudder"}, {"head": "rudder", "head_hidden_size": 16}),
    ],
)
def test_training_recovers_the_good_turns(trainer, options, config):
    """From the scores of 120 sessions and a weak signal, on sessions that it has not seen."""
    sessions, held_out = toy_sessions(120, seed=2), toy_sessions(40, seed=3)
    trained = trainer(
        new_model(**config), train=sessions, held_out=held_out, num_train_epochs=12, learning_rate=2e-2, **options
    )
    before = trained.evaluate()
    trained.train()
    after = trained.evaluate()
    assert after["eval_loss"] < 0.6 * before["eval_loss"]
    assert after["eval_global_loss"] < 0.5 * after["eval_global_floor"]
    assert after["eval_within_session_spearman"] > 0.7
    assert after["eval_local_difference"] > 0.3
    losses = [entry["loss"] for entry in trained.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]


def test_the_score_alone_is_enough(trainer):
    """Without any signal of the listener: that is decomposition."""
    sessions = toy_sessions(120, seed=2).remove_columns("feedback")
    held_out = toy_sessions(40, seed=3)
    options = {"li_weight": 0.0, "num_train_epochs": 12, "learning_rate": 2e-2}
    trained = trainer(new_model(), train=sessions, held_out=held_out, **options)
    trained.train()
    assert trained.evaluate()["eval_within_session_spearman"] > 0.7


def test_the_head_reads_standardised_features(trainer, train_sessions):
    """In shift and scale of the training turns; a feature that never changes is left unscaled."""
    model = new_model()
    with torch.no_grad():  # the last norm of every layer: feature 3 is always 1.5
        for layer in model.model.encoder.layer:
            layer.output.LayerNorm.weight[3] = 0.0
            layer.output.LayerNorm.bias[3] = 1.5
    trainer(model)
    with torch.no_grad():
        encoded = model.encode_turns(**model.tokenize(train_sessions["messages"][:]))
    features = encoded.features[encoded.mask].double()
    assert model.score.standardise.mean == pytest.approx(features.mean(0).numpy(), abs=1e-4)
    expected = features.std(0, correction=0)
    expected[3] = 1.0
    assert model.score.standardise.std == pytest.approx(expected.numpy(), abs=1e-4)


# ------------------------------------------------------------------------------------------------ backbone


def test_a_frozen_backbone_does_not_change(trainer):
    model = reward_model("bert")
    before = state(model)
    trainer(model, num_train_epochs=2, learning_rate=0.1).train()
    expected = {"score.out.weight", "score.out.bias", "score.standardise.mean", "score.standardise.std"}
    assert changed(before, state(model)) == expected
    assert not any(weight.requires_grad for weight in model.model.parameters())


def test_a_backbone_that_is_not_frozen_learns(trainer, tmp_path):
    model = reward_model("llama")
    before = state(model)
    trainer(model, num_train_epochs=1, freeze_backbone=False).train()
    learned = changed(before, state(model))
    # Features that change with the backbone have no fixed shift and scale.
    assert learned == set(before) - {"score.standardise.mean", "score.standardise.std"}
    assert not (tmp_path / "features").exists()


def test_a_frozen_backbone_can_be_trained_afterwards(trainer):
    model = reward_model("bert")
    trainer(model, num_train_epochs=1).train()
    before = state(model.model)
    trainer(model, num_train_epochs=1, freeze_backbone=False).train()
    assert changed(before, state(model.model))


LORA = {
    "plain": LoraConfig(r=4, target_modules=["query", "value"]),
    "of a classifier": LoraConfig(r=4, target_modules=["query", "value"], task_type="SEQ_CLS"),
    "everywhere": LoraConfig(r=4, target_modules="all-linear"),
}


@pytest.mark.parametrize("kind", LORA)
def test_an_adapter_learns_and_is_merged(trainer, kind, eval_sessions, tmp_path):
    """Around a new head, which has to learn too: as long as it is 0, no gradient goes through it."""
    model = new_model()
    before = state(model)
    options = {"freeze_backbone": False, "num_train_epochs": 12, "learning_rate": 1e-2, "weight_decay": 0.0}
    trained = trainer(model, peft_config=LORA[kind], **options)
    trainable = {name for name, weight in trained.model.named_parameters() if weight.requires_grad}
    assert all("lora_" in name or ".score." in name for name in trainable)
    assert any("lora_A" in name for name in trainable)
    assert any(".score." in name for name in trainable)
    assert not any("lora" in name and ".score." in name for name in trainable)

    first = trained.evaluate()
    trained.train()
    last = trained.evaluate()
    assert last["eval_loss"] < 0.9 * first["eval_loss"]

    merged = trained.accelerator.unwrap_model(trained.model).merge_and_unload()
    assert merged is model
    learned = changed(before, state(model))
    assert "score.out.weight" in learned
    assert "model.encoder.layer.0.attention.self.query.weight" in learned
    assert "model.embeddings.word_embeddings.weight" not in learned
    # The merged model scores as the adapted one did, and is saved as any other.
    model.save_pretrained(tmp_path / "merged")
    for each in (model.eval(), GeliRewardModel.from_pretrained(tmp_path / "merged")):
        errors = [
            (row["score"] - score) ** 2
            for row, score in zip(each.score_sessions(eval_sessions), eval_sessions["score"])
        ]
        assert np.mean(errors) == pytest.approx(last["eval_global_loss"], rel=1e-3)


def test_the_callers_adapter_configuration_is_left_alone(trainer):
    config = LoraConfig(r=4, target_modules=["query"], modules_to_save=["pooler"])
    trained = trainer(peft_config=config, freeze_backbone=False)
    assert config.modules_to_save == ["pooler"]
    trainable = [name for name, weight in trained.model.named_parameters() if weight.requires_grad]
    assert any(".pooler." in name for name in trainable)
    assert any(".score." in name for name in trainable)


# ------------------------------------------------------------------------------------------------ checkpoints


def test_the_best_checkpoint_is_kept(trainer):
    """Held-out sessions are scored the other way round: what is learned makes it worse, so the first epoch is best."""
    sessions = toy_sessions(60, seed=2)
    upside_down = with_column(sessions, "score", [10 - score for score in sessions["score"]])
    model = new_model()
    trained = trainer(
        model, train=sessions, held_out=upside_down, li_weight=0.0, num_train_epochs=5, learning_rate=1e-2
    )
    trained.train()
    losses = [entry["eval_loss"] for entry in evaluations(trained)]
    assert losses == sorted(losses)
    assert losses[-1] > 1.2 * losses[0]
    assert trained.evaluate()["eval_loss"] == pytest.approx(losses[0], rel=1e-5)
    assert trained.state.best_metric == pytest.approx(losses[0], rel=1e-5)


def test_a_saved_model_scores_as_the_trained_one(trainer, eval_sessions, tmp_path):
    trained = trainer(num_train_epochs=1)
    trained.train()
    trained.save_model(tmp_path / "saved")
    loaded = GeliRewardModel.from_pretrained(tmp_path / "saved")
    for found, expected in zip(
        loaded.score_sessions(eval_sessions), trained.reward_model.eval().score_sessions(eval_sessions)
    ):
        assert found["turn_rewards"] == pytest.approx(expected["turn_rewards"], abs=1e-5)
        assert found["score"] == pytest.approx(expected["score"], abs=1e-4)


def test_the_draft_of_a_card_replaces_no_card(trainer, tmp_path):
    trained = trainer(num_train_epochs=1)
    trained.train()
    trained.create_model_card()
    card = tmp_path / "out" / "README.md"
    assert "generated_from_trainer" in card.read_text(encoding="utf-8")
    card.write_text("My own words.", encoding="utf-8")
    trained.create_model_card()
    assert card.read_text(encoding="utf-8") == "My own words."


def test_without_held_out_sessions(trainer):
    options = {"eval_strategy": "no", "load_best_model_at_end": False, "num_train_epochs": 1}
    trained = trainer(held_out=None, **options)
    trained.train()
    assert len(trained.reward_model.config.reward_quantiles) == 101
    assert trained.reward_model.config.residual_std is None


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("ge", {"ge": "rdr"}),
        ("li_weight", {"li_weight": -0.1}),
        ("li_weight", {"li_weight": 1.1}),
        ("li_weight", {"li_weight": float("nan")}),
        ("li_slope", {"li_slope": True, "li_weight": 1.0}),
    ],
)
def test_wrong_arguments(field, wrong):
    with pytest.raises(ValueError, match=f"^{field}"):
        GeliRewardArguments(**wrong)


def test_a_signal_that_sessions_lack(trainer, eval_sessions):
    with pytest.raises(ValueError, match=r"'smile', they carry \['affect', 'noise'\]"):
        trainer(li="smile")
    with pytest.raises(ValueError, match=r"'affect', they carry \[\]"):
        trainer(held_out=eval_sessions.remove_columns("feedback"))


@pytest.mark.parametrize(("ge", "head"), [("rudder", "linear"), ("rrd", "rudder")])
def test_rudder_needs_its_head_and_the_head_needs_rudder(trainer, ge, head):
    with pytest.raises(ValueError, match=f"ge='{ge}' with head='{head}'"):
        trainer(reward_model("bert", head=head), ge=ge)


def test_an_adapter_of_a_frozen_backbone(trainer):
    with pytest.raises(ValueError, match=r"^peft_config: .* freeze_backbone=False"):
        trainer(peft_config=LORA["plain"])


def test_a_training_session_without_a_score(trainer, train_sessions):
    lacking = concatenate_datasets(
        [train_sessions, with_column(train_sessions, "score", [float("nan")] * len(train_sessions))]
    )
    with pytest.raises(ValueError, match="row 24 has no score"):
        trainer(train=lacking)


def test_the_presets_are_arguments_of_model_and_trainer(arguments):
    """The published one: tanh head on the last 20 messages, K = 160 with replacement, both losses alike."""
    model = new_model(**PAPER["model"])
    assert model.score.dense.out_features == 128
    assert (model.config.pooling, model.config.context_messages, model.config.aggregation) == ("last", 20, "sum")
    args = arguments(**PAPER["training"])
    assert (args.ge, args.rrd_turns, args.rrd_replacement, args.li_weight) == ("rrd", 160, True, 0.5)
    recommended = arguments()
    assert (recommended.ge, recommended.rrd_turns, recommended.standardise) == ("rrd", None, True)


@pytest.mark.parametrize("standardise", [True, False])
def test_features_are_standardised_with_the_targets(trainer, standardise):
    """And not in the published form, whose head has been trained on features as they are before they are frozen."""
    model = reward_model("bert", head="mlp", aggregation="sum")
    with torch.no_grad():
        model.score.standardise.mean.zero_()
        model.score.standardise.std.fill_(1.0)
    sessions = toy_sessions(8)
    before = model.score_sessions(sessions)[0]["turn_rewards"]
    made = trainer(model, train=sessions, held_out=sessions, standardise=standardise)
    after = model.score_sessions(sessions)[0]["turn_rewards"]
    assert (before == after) == (not standardise)
    if standardise:
        turns = np.concatenate([made.train_dataset[index]["turn_features"] for index in range(8)])
        np.testing.assert_allclose(model.score.standardise.mean, turns.mean(0), atol=1e-5)
        np.testing.assert_allclose(model.score.standardise.std, turns.std(0), rtol=1e-4)


def test_features_at_hand_are_not_computed_again(arguments, train_sessions, features_dir, monkeypatch):
    rows = list(range(0, 24, 2))
    half = train_sessions.select(rows)
    args = arguments(num_train_epochs=2, eval_strategy="no", save_strategy="no", load_best_model_at_end=False)
    whole = cached_turn_features(reward_model("bert"), train_sessions, cache_dir=features_dir)
    trained = []
    for features in (None, {"train": whole.select(rows)}):
        model = reward_model("bert")
        if features:
            monkeypatch.setattr(type(model), "encode_turns", None)
        GeliRewardTrainer(model, args, half, features=features).train()
        trained.append(model.score.out.weight.detach().numpy())
    assert trained[1] == pytest.approx(trained[0], abs=1e-5)


@pytest.mark.parametrize("interactions", [False, True])
def test_ratings_of_sessions_do_not_change_a_guard(trainer, interactions):
    model = reward_model("bert", interactions=interactions, fit_hidden_size=6, fit_weight=1.0)
    before = state(model)
    made = trainer(model, num_train_epochs=1, learning_rate=0.1)
    made.train()
    learned = changed(before, state(model))
    assert learned == {"score.out.weight", "score.out.bias", "score.standardise.mean", "score.standardise.std"}
    assert np.isfinite(model.config.reward_quantiles).all()
