"""`ModelCardCallback`: the project's card with every checkpoint, for reward models and for TRL's trainers."""

from pathlib import Path

import pytest
from datasets import Dataset
from huggingface_hub import ModelCard
from peft import LoraConfig
from tiny import reward_model, session
from transformers import TrainerControl, TrainerState
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer, SFTConfig

from geli_hf import GeliRewardArguments
from geli_hf.alignment import save_policy, sft, small_policy
from geli_hf.hub.callbacks import ModelCardCallback, training_card

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
QUIET = {"report_to": "none", "disable_tqdm": True, "use_cpu": True}
TRL = QUIET | {
    "max_steps": 2,
    "save_strategy": "steps",
    "save_steps": 1,
    "bf16": False,
    "activation_checkpointing": False,
    "dataloader_pin_memory": False,
}
BY_HAND = "Read our blog.\n"


def lora() -> LoraConfig:
    return LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    for part in small_policy([session(8)], hidden_size=32, layers=1, vocab_size=300):
        part.save_pretrained(folder)
    return folder


def fine_tune(policy: Path, folder: Path, **options):
    from geli_hf.alignment import load_policy

    args = SFTConfig(str(folder), **TRL)
    return sft(*load_policy(policy), Dataset.from_list([session(8)]), args, callbacks=[ModelCardCallback()], **options)


def check_policy_card(folder: Path, method: str, policy: Path) -> ModelCard:
    card = ModelCard.load(folder / "README.md")
    assert card.data.tags == ["dialogue", "geli", "trl", method]
    assert "max_steps: 2" in card.text
    assert str(policy) not in card.content
    return card


def test_checkpoints_and_output_of_fine_tuning_get_the_card_of_a_policy(policy, tmp_path):
    fine_tune(policy, tmp_path / "run")
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-1", tmp_path / "run" / "checkpoint-2"):
        card = check_policy_card(folder, "sft", policy)
        assert card.data.library_name == "transformers"
        assert f"<!-- geli: {folder.name} -->" in card.text


def test_a_persons_words_stay_though_trl_overwrites_the_card(policy, tmp_path):
    fine_tune(policy, tmp_path / "run")
    file = tmp_path / "run" / "README.md"
    file.write_text(file.read_text().replace("## How to use it", f"{BY_HAND}\n## How to use it"))
    fine_tune(policy, tmp_path / "run")
    assert BY_HAND in check_policy_card(tmp_path / "run", "sft", policy).text


@pytest.mark.parametrize("merge", [True, False])
def test_an_adapter_has_the_card_of_one_until_it_is_merged(merge, policy, tmp_path):
    trainer = fine_tune(policy, tmp_path / "run", peft_config=lora())
    card = check_policy_card(tmp_path / "run" / "checkpoint-2", "sft", policy)
    assert card.data.library_name == "peft"
    assert "r: 2" in card.text
    save_policy(trainer, tmp_path / "saved", merge=merge)
    card = training_card(tmp_path / "saved", trainer.args, trainer.state, trainer.model, 1)
    assert card.data.library_name == ("transformers" if merge else "peft")


@pytest.mark.parametrize(("trainer_class", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_reinforcement_learning_gets_the_card_of_a_policy(trainer_class, config, policy, tmp_path):
    args = config(
        str(tmp_path / "run"), per_device_train_batch_size=2, num_generations=2, max_completion_length=4, **TRL
    )
    trainer = trainer_class(
        str(policy),
        reward_funcs=lambda completions, **kwargs: [float(index) for index, _ in enumerate(completions)],
        args=args,
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "Hello."}]}] * 4),
        callbacks=[ModelCardCallback()],
        peft_config=lora(),
    )
    trainer.train()
    method = "grpo" if config is GRPOConfig else "rloo"
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-2"):
        assert "num_generations: 2" in check_policy_card(folder, method, policy).text


def test_a_reward_model_gets_its_card_with_the_last_evaluation(tmp_path):
    args = GeliRewardArguments(str(tmp_path), li="smile", **QUIET)
    state = TrainerState(log_history=[{"eval_loss": 2.0, "eval_global_loss": 2.5}, {"loss": 1.0}], global_step=3)
    (tmp_path / "checkpoint-3").mkdir()
    model = reward_model("bert", score_mean=5.5, score_std=1.25)
    rows = type("Loader", (), {"dataset": [0] * 12})()
    ModelCardCallback().on_save(args, state, TrainerControl(), model=model, train_dataloader=rows)
    for folder in (tmp_path, tmp_path / "checkpoint-3"):
        card = ModelCard.load(folder / "README.md")
        assert "12 rated sessions" in card.text
        assert "li: smile" in card.text
        assert [result.metric_value for result in card.data.eval_results] == [2.5]
        assert card.data.library_name == "transformers"


def test_an_adapter_of_a_reward_model_shows_its_backbone(tmp_path):
    from peft import get_peft_model

    model = get_peft_model(reward_model("bert"), LoraConfig(target_modules=["query"]))
    args = GeliRewardArguments(str(tmp_path), **QUIET)
    card = training_card(tmp_path, args, TrainerState(), model, 3)
    assert card.data.library_name == "peft"
    assert "GeliRewardModel.from_backbone(" in card.text
