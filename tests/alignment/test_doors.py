"""Every way to give the reward model to TRL's trainers: by name, folder, module, adapter and callable."""

import subprocess
import sys

import pandas
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import reward_model as tiny_reward_model
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from geli_hf import GeliRewardModel
from geli_hf.alignment import OPENING, GeliReward, dialogue_prompts, load_policy_tokenizer

# TRL asks transformers for a name that transformers is about to change.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TRAINERS = {GRPOConfig: GRPOTrainer, RLOOConfig: RLOOTrainer}


def said(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


HIKING = [
    {"role": "user", "content": "I went hiking with my sister."},
    {"role": "assistant", "content": "That sounds wet!"},
    {"role": "user", "content": "It rained all day."},
]
DIALOGUES = [
    (HIKING, said(" What did you do when the rain began?\n")),
    (HIKING[:1], said("Okay.")),
    ([{"role": "system", "content": "Be kind."}, *HIKING], said("I never know.<|end|>")),
    ([{"role": "user", "content": OPENING}, *HIKING[1:]], said("Mine too.")),
    (HIKING * 40, said("My sister always wins.")),  # longer than any context here
]


def trainer_of(config, folder, policy_folder, sessions, rewards, **kwargs):
    args = config(
        str(folder),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=8,
        max_steps=1,
        logging_steps=1,
        beta=0.05,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        activation_checkpointing=False,
        bf16=False,
        **kwargs.pop("args", {}),
    )
    return TRAINERS[config](
        model=str(policy_folder),
        reward_funcs=rewards,
        args=args,
        train_dataset=dialogue_prompts(sessions, context_messages=3),
        processing_class=load_policy_tokenizer(policy_folder),
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        **kwargs,
    )


def by_trl(trainer, dialogues=DIALOGUES) -> torch.Tensor:
    """TRL's own rewards, of shape (completions, reward functions)."""
    prompts, completions = map(list, zip(*dialogues))
    return trainer._calculate_rewards([{"prompt": p} for p in prompts], prompts, completions, [[1]] * len(prompts))


def plain(model, **kwargs) -> GeliReward:
    return GeliReward(model, length_neutral=False, repetition_penalty=0, **kwargs)


@pytest.fixture(scope="module", params=["llama", "bert"])
def saved(request, tmp_path_factory):
    """A decoder and an encoder, written to disk."""
    folder = tmp_path_factory.mktemp("reward")
    tiny_reward_model(request.param, reward_quantiles=[-2.0, 0.0, 2.0]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("config", [GRPOConfig, RLOOConfig])
def test_every_door_gives_the_same_rewards(config, saved, policy_folder, sessions, tmp_path):
    rewards = [
        str(saved),
        GeliRewardModel.from_pretrained(saved),
        plain(GeliRewardModel.from_pretrained(saved)),
        plain(saved, name="by_folder"),
    ]
    trainer = trainer_of(config, tmp_path, policy_folder, sessions, rewards)
    columns = by_trl(trainer)
    by_hand = GeliRewardModel.from_pretrained(saved).score_messages(
        [
            [*HIKING, *said("What did you do when the rain began?")],
            [*HIKING[:1], *said("Okay.")],
            [*HIKING, *DIALOGUES[2][1]],
            [*HIKING[1:], *said("Mine too.")],
            [*HIKING * 40, *said("My sister always wins.")],
        ]
    )
    assert by_hand.std() > 1e-2
    for column in columns.T:
        torch.testing.assert_close(column, by_hand, atol=1e-5, rtol=1e-5)


def test_only_the_callable_cuts_replies_and_knows_a_floor(saved, policy_folder, sessions, tmp_path):
    trainer = trainer_of(GRPOConfig, tmp_path, policy_folder, sessions, [str(saved), plain(saved)])
    dialogues = [(HIKING, said("Okay.")), (HIKING, said("Okay.\nUser: You are wonderful!")), (HIKING, said(""))]
    module, geli = by_trl(trainer, dialogues).T.tolist()
    assert geli[0] == pytest.approx(module[0], abs=1e-5)
    assert geli[1] == pytest.approx(geli[0], abs=1e-5)
    assert abs(module[1] - module[0]) > 1e-3  # the user's words were rewarded
    assert geli[2] == -2.0 != module[2]


def test_the_name_works_where_the_package_is_not_installed(saved, policy_folder):
    """TRL hands `trust_remote_code` to the model and to its tokenizer."""
    script = f"""
import sys
sys.modules["geli_hf"] = None
from trl import GRPOConfig, GRPOTrainer
from datasets import Dataset
args = GRPOConfig("unused", trust_remote_code=True, bf16=False, activation_checkpointing=False, report_to="none",
                  per_device_train_batch_size=2, num_generations=2)
rows = Dataset.from_list([{{"prompt": [{{"role": "user", "content": "Okay."}}]}}])
trainer = GRPOTrainer(model={str(policy_folder)!r}, reward_funcs={str(saved)!r}, args=args, train_dataset=rows)
prompt, reply = [{{"role": "user", "content": "Okay."}}], [{{"role": "assistant", "content": "Mine too."}}]
print("reward", trainer._calculate_rewards([{{"prompt": prompt}}], [prompt], [reply], [[1]]).item())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    reward = float(done.stdout.split("reward ")[-1])
    (expected,) = plain(saved).turn_rewards([[{"role": "user", "content": "Okay."}]], [said("Mine too.")])
    assert reward == pytest.approx(expected, abs=1e-5)


def test_in_bfloat16_too(saved, policy_folder, sessions, tmp_path):
    half = GeliRewardModel.from_pretrained(saved, dtype=torch.bfloat16)
    rewards = [half, plain(half, name="half"), plain(saved)]
    args = {"model_init_kwargs": {"dtype": "float32"}}
    trainer = trainer_of(GRPOConfig, tmp_path, policy_folder, sessions, rewards, args=args)
    # Both doors hand the same single window to the backbone.
    for dialogue in ((HIKING[:1], said("Okay.")), (HIKING[2:], said("What did you do when the rain began?"))):
        module, geli, _ = by_trl(trainer, [dialogue]).T
        torch.testing.assert_close(module, geli, atol=1e-6, rtol=1e-6)
    # Here other windows lie beside it, and hardware with bfloat16 sums in an order that depends on the batch's shape.
    module, geli, full = by_trl(trainer).T
    torch.testing.assert_close(module, geli, atol=torch.finfo(torch.bfloat16).eps * full.abs().max().item(), rtol=0)
    for door in (module, geli):
        assert 0 < (door - full).abs().max() < 0.2 * full.std() + 0.05


def adapted(folder) -> PeftModel:
    """An adapter whose weights, and whose copy of the head, are not those it began with."""
    config = LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_CLS")
    model = get_peft_model(GeliRewardModel.from_pretrained(folder), config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter += (0.3 if "lora_B" in name else 0.05) * noise
    return model.eval()


@pytest.mark.parametrize("config", [GRPOConfig, RLOOConfig])
def test_an_adapter_on_the_reward_model(config, saved, policy_folder, sessions, tmp_path):
    model = adapted(saved)
    trainer = trainer_of(
        config,
        tmp_path,
        policy_folder,
        sessions,
        [model, plain(model), str(saved)],
        # Of a model that is not one of transformers' TRL does not look for the tokenizer.
        reward_processing_classes=[AutoTokenizer.from_pretrained(saved), None, None],
    )
    module, geli, unadapted = by_trl(trainer).T
    torch.testing.assert_close(module, geli, atol=1e-5, rtol=1e-5)
    assert (geli - unadapted).abs().max() > 1e-2
    merged = plain(model.merge_and_unload())
    prompts, completions = map(list, zip(*DIALOGUES))
    assert merged.turn_rewards(prompts, completions) == pytest.approx(geli.tolist(), abs=1e-4)


@pytest.mark.parametrize("config", [GRPOConfig, RLOOConfig])
def test_several_rewards_are_weighed(config, saved, policy_folder, sessions, tmp_path):
    def short(prompts, completions, **kwargs):
        return [-float(len(completion[0]["content"])) for completion in completions]

    rewards = [plain(saved, name="warmth"), short, GeliReward(saved, name="guarded", normalise=True, clip=1.0)]
    args = {"reward_weights": [2.0, 0.5, 0.25], "log_completions": True}
    trainer = trainer_of(config, tmp_path, policy_folder, sessions, rewards, args=args)
    trainer.train()
    log = trainer.state.log_history[0]
    parts = [log[f"rewards/{name}/mean"] for name in ("warmth", "short", "guarded")]
    assert log["reward"] == pytest.approx(2 * parts[0] + 0.5 * parts[1] + 0.25 * parts[2], abs=1e-4)
    assert log["warmth/turn_reward_mean"] == pytest.approx(log["guarded/turn_reward_mean"], abs=1e-4)
    assert log["warmth/turn_reward_mean"] == pytest.approx(parts[0], abs=1e-4)
    for curve in ("length_slope", "repetition", "nan_share"):
        assert f"guarded/{curve}" in log
    if config is GRPOConfig:  # RLOOTrainer shows its table, but writes none
        (file,) = (tmp_path / "completions").glob("*.parquet")
        table = pandas.read_parquet(file)
    else:
        table = pandas.DataFrame({**trainer._logs["rewards"], **trainer._logs["extra"]})
    assert table["warmth/turn_reward"].tolist() == pytest.approx(table["warmth"].tolist(), abs=1e-5)
    assert table["guarded"].abs().max() <= 1.0


@pytest.mark.parametrize("config", [GRPOConfig, RLOOConfig])
def test_a_completion_without_a_number_does_not_stop_training(
    config, saved, policy_folder, sessions, tmp_path, monkeypatch
):
    reward = GeliReward(saved, normalise=True)
    score = type(reward.model).score_messages

    def broken(self, dialogues, **options):
        rewards = score(self, dialogues, **options).clone()
        rewards[:1] = torch.nan
        return rewards

    monkeypatch.setattr(type(reward.model), "score_messages", broken)
    trainer = trainer_of(config, tmp_path, policy_folder, sessions, reward)
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["geli/nan_share"] == pytest.approx(1 / 8)
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    assert reward.moments.count == 7


class TestMissingTokenizer:
    @pytest.fixture
    def bare(self, saved, tmp_path):
        model = GeliRewardModel.from_pretrained(saved)
        model.save_pretrained(tmp_path)
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (tmp_path / file).unlink()
        return tmp_path

    def test_it_is_said_before_anything_is_generated(self, bare):
        with pytest.raises(ValueError, match=str(bare)):
            GeliReward(bare)

    def test_another_models_tokenizer_is_not_taken_for_it(self, bare, policy_folder):
        AutoTokenizer.from_pretrained(policy_folder).save_pretrained(bare)
        with pytest.raises(ValueError, match=str(bare)):
            GeliReward(bare)
