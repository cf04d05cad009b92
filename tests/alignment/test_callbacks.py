"""The adaptive KL penalty and the early stop, against their formulas and within TRL's real trainers."""

import json
import shutil
from types import SimpleNamespace

import pytest
from peft import LoraConfig
from transformers import TrainerControl, TrainerState
from trl import GRPOConfig, GRPOTrainer, RLOOConfig

from geli_hf.alignment import AdaptiveKL, StopAtKL, align, dialogue_prompts, load_policy_tokenizer

# TRL asks transformers for a name that transformers is about to change.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

BATCH = {"train_batch_size": 8, "gradient_accumulation_steps": 2, "world_size": 3, "num_iterations": 1, "beta": 0.05}


def args_of(**changes) -> SimpleNamespace:
    return SimpleNamespace(**BATCH | {"save_strategy": "no"} | changes)


def begun(callback, args):
    """The callback after the beginning of a training, with a trainer that notes what it is told."""
    callback.trainer = SimpleNamespace(beta=args.beta, curves={})
    callback.trainer._log_metric = lambda name, value: callback.trainer.curves.setdefault(name, []).append(value)
    state = TrainerState(stateful_callbacks=[callback])
    callback.on_train_begin(args, state, TrainerControl())
    return callback, state


def log(callback, state, args, kl_of_reply, *, step, tokens=20) -> TrainerControl:
    control = TrainerControl()
    state.global_step = step
    logs = {"kl": kl_of_reply / tokens, "completions/mean_length": tokens, "reward": 0.3}
    callback.on_log(args, state, control, logs=logs)
    return control


class TestAdaptiveKL:
    def test_it_equals_the_published_controller(self):
        args = args_of()
        callback, state = begun(AdaptiveKL(0.15, target=6.0, horizon=1000), args)
        assert callback.trainer.beta == 0.15
        beta, replies = 0.15, 8 * 2 * 3
        for step, kl in enumerate((0.0, 5.5, 6.9, 40.0, -1.0), start=1):
            log(callback, state, args, kl, step=step)
            beta *= 1 + max(-0.2, min(0.2, (kl - 6.0) / 6.0)) * replies / 1000
            assert callback.trainer.beta == pytest.approx(beta, rel=1e-9)

    def test_replies_that_are_used_again_count_once_and_steps_without_a_log_are_made_up_for(self):
        args = args_of(num_iterations=4)
        callback, state = begun(AdaptiveKL(1.0, target=1.0, horizon=480), args)
        log(callback, state, args, 9.0, step=10)  # 10 steps of 48 replies, each used in 4 of them
        assert callback.trainer.beta == pytest.approx(1 + 0.2 * 120 / 480)

    def test_no_step_turns_the_penalty_round(self):
        args = args_of()
        callback, state = begun(AdaptiveKL(1.0, target=6.0, horizon=10), args)
        log(callback, state, args, 0.0, step=100)
        assert callback.trainer.beta == pytest.approx(0.8)

    def test_other_logs_are_passed_over(self):
        args = args_of()
        callback, state = begun(AdaptiveKL(0.15, target=6.0), args)
        for logs in ({"eval_kl": 3.0, "eval_completions/mean_length": 9.0}, {"train_loss": 0.1}, {"kl": None}):
            callback.on_log(args, state, TrainerControl(), logs=logs)
        assert callback.trainer.beta == 0.15
        assert callback.seen_step == 0

    @pytest.mark.parametrize(("argument", "value"), [("init", 0), ("target", -1.0), ("horizon", float("nan"))])
    def test_impossible_arguments_are_refused(self, argument, value):
        with pytest.raises(ValueError, match=f"AdaptiveKL: {argument}"):
            AdaptiveKL(**{"init": 0.1, "target": 6.0, "horizon": 100} | {argument: value})


class TestStopAtKL:
    def test_one_outlier_does_not_stop_and_a_lasting_kl_does(self):
        args = args_of()
        callback, state = begun(StopAtKL(10.0, span=10), args)
        assert not log(callback, state, args, 90.0, step=1).should_training_stop
        assert not log(callback, state, args, 0.0, step=2).should_training_stop
        mean = 90 / 10 * 0.9
        for step in range(3, 40):
            mean = 0.9 * mean + 0.1 * 12.0
            assert log(callback, state, args, 12.0, step=step).should_training_stop == (mean > 10)
            assert callback.mean == pytest.approx(mean)
        assert mean > 10

    def test_rare_logs_weigh_as_much_as_the_steps_they_stand_for(self):
        args = args_of()
        every, state = begun(StopAtKL(10.0, span=5), args)
        for step in range(1, 9):
            log(every, state, args, 4.0, step=step)
        rare, state = begun(StopAtKL(10.0, span=5), args)
        log(rare, state, args, 4.0, step=8)
        assert rare.mean == pytest.approx(every.mean)

    def test_it_leaves_a_checkpoint_where_the_run_saves_any(self):
        for strategy, saves in (("steps", True), ("no", False)):
            args = args_of(save_strategy=strategy)
            callback, state = begun(StopAtKL(1.0, span=1), args)
            assert log(callback, state, args, 2.0, step=1).should_save is saves

    def test_impossible_arguments_are_refused(self):
        with pytest.raises(ValueError, match="StopAtKL: limit"):
            StopAtKL(0)


@pytest.mark.parametrize("make", [lambda: AdaptiveKL(0.15, target=6.0, horizon=100), lambda: StopAtKL(10.0, span=3)])
def test_another_training_begins_anew(make):
    args = args_of()
    used, state = begun(make(), args)
    log(used, state, args, 4.0, step=50)
    first = used.state()["attributes"]
    begun(used, args)
    assert used.state()["attributes"] == make().state()["attributes"] != first


@pytest.mark.parametrize("callback", [AdaptiveKL(0.15, target=6.0), StopAtKL()])
def test_a_missing_trainer_or_penalty_is_named(callback):
    callback.trainer = None
    with pytest.raises(ValueError, match="trainer is not set"):
        callback.on_train_begin(args_of(), TrainerState(), TrainerControl())
    callback.trainer = SimpleNamespace()
    with pytest.raises(ValueError, match=r"args\.beta is 0"):
        callback.on_train_begin(args_of(beta=0.0), TrainerState(), TrainerControl())


def vowels(prompts, completions, **kwargs):
    return [float(sum(letter in "aeiou" for letter in completion[0]["content"])) for completion in completions]


def rl_args(config, folder, **kwargs):
    defaults = {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 8,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "max_steps": 3,
        "beta": 0.05,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "activation_checkpointing": False,
        "bf16": False,
    }
    return config(str(folder), **defaults | kwargs)


def lora() -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def logged(trainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


@pytest.mark.parametrize("config", [GRPOConfig, RLOOConfig])
def test_trls_trainers_are_steered_and_draw_the_curves(config, sessions, policy_folder, tmp_path):
    prompts = dialogue_prompts(sessions, context_messages=3)
    callbacks = [AdaptiveKL(0.15, target=1e-3, horizon=80), StopAtKL(1e6, span=3)]
    trainer = align(policy_folder, vowels, prompts, rl_args(config, tmp_path), lora(), callbacks=callbacks)
    kl = [k * n for k, n in zip(logged(trainer, "kl"), logged(trainer, "completions/mean_length"), strict=True)]
    betas, means = [0.15], [0.0]
    for value in kl:
        betas.append(betas[-1] * (1 + max(-0.2, min(0.2, value / 1e-3 - 1)) * 8 / 80))
        means.append(2 / 3 * means[-1] + value / 3)
    assert len(set(betas)) == len(betas)
    assert logged(trainer, "adaptive_kl/beta") == pytest.approx(betas[:-1])
    assert logged(trainer, "stop_at_kl/mean") == pytest.approx(means[:-1], abs=1e-9)
    assert trainer.beta == pytest.approx(betas[-1])


@pytest.mark.parametrize("config", [GRPOConfig, RLOOConfig])
def test_the_weight_that_is_set_is_the_weight_that_trains(config, sessions, policy_folder, tmp_path):
    """Two runs that differ in nothing but what the callback sets part ways as soon as there is a KL."""
    prompts = dialogue_prompts(sessions, context_messages=3)

    def weights(name, beta, **kwargs):
        args = rl_args(config, tmp_path / name, beta=beta, max_steps=2, seed=3)
        model = align(policy_folder, vowels, prompts, args, lora(), **kwargs).model
        return [parameter for parameter in model.parameters() if parameter.requires_grad]

    plain = weights("plain", 5.0)
    steered = weights("steered", 0.05, callbacks=[AdaptiveKL(5.0, target=1.0, horizon=10**9)])
    other = weights("other", 0.05)
    assert all(((a - b).abs().max() < 1e-6) for a, b in zip(plain, steered))
    assert any(((a - b).abs().max() > 1e-4) for a, b in zip(plain, other))


def test_a_resumed_run_is_steered_as_an_unbroken_one(sessions, policy_folder, tmp_path):
    prompts = dialogue_prompts(sessions, context_messages=3)

    def run(**kwargs):
        callbacks = [AdaptiveKL(0.15, target=1e-3, horizon=80), StopAtKL(1e6, span=3)]
        args = rl_args(GRPOConfig, tmp_path, max_steps=4, save_strategy="steps", save_steps=2)
        return align(policy_folder, vowels, prompts, args, lora(), callbacks=callbacks, **kwargs)

    unbroken = run()
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed = run(resume=True)
    for key in ("adaptive_kl/beta", "stop_at_kl/mean"):
        assert logged(resumed, key) == pytest.approx(logged(unbroken, key), rel=1e-4, abs=1e-9)
    assert resumed.beta == pytest.approx(unbroken.beta, rel=1e-4)


def test_a_run_that_was_stopped_stays_stopped(sessions, policy_folder, tmp_path):
    prompts = dialogue_prompts(sessions, context_messages=3)

    def run(limit, **kwargs):
        args = rl_args(GRPOConfig, tmp_path, max_steps=8, save_strategy="steps", save_steps=50)
        callbacks = [StopAtKL(limit, span=1)]
        return align(policy_folder, vowels, prompts, args, lora(), callbacks=callbacks, **kwargs)

    stopped = run(1e-6)
    assert stopped.state.global_step == 2  # the first step begins at the reference, where the KL is 0
    assert (tmp_path / "checkpoint-2").exists()
    assert run(1e-6, resume=True).state.global_step == 2
    assert run(1e6, resume=True).state.global_step == 8  # unless its limit is raised


def test_the_early_stop_is_there_unless_it_is_given(sessions, policy_folder, tmp_path):
    prompts = dialogue_prompts(sessions, context_messages=3)
    for given, limits in (([], [10.0]), ([StopAtKL(3.0)], [3.0])):
        args = rl_args(GRPOConfig, tmp_path, max_steps=1)
        trainer = align(policy_folder, vowels, prompts, args, lora(), callbacks=given)
        stops = [c for c in trainer.callback_handler.callbacks if isinstance(c, StopAtKL)]
        assert [stop.limit for stop in stops] == limits


def test_a_checkpoint_without_them_can_be_resumed_with_them(sessions, policy_folder, tmp_path):
    prompts = dialogue_prompts(sessions, context_messages=3)

    def run(steps, **kwargs):
        args = rl_args(GRPOConfig, tmp_path, max_steps=steps, save_strategy="steps", save_steps=1)
        return align(policy_folder, vowels, prompts, args, lora(), **kwargs)

    run(1)
    state = tmp_path / "checkpoint-1" / "trainer_state.json"
    content = json.loads(state.read_text())
    del content["stateful_callbacks"]["StopAtKL"]
    state.write_text(json.dumps(content))
    trainer = run(2, callbacks=[AdaptiveKL(0.15, target=6.0), StopAtKL()], resume=True)
    assert trainer.state.global_step == 2


def test_with_a_trainer_of_ones_own_the_trainer_is_named(sessions, policy_folder, tmp_path):
    callback = AdaptiveKL(0.15, target=6.0)
    trainer = GRPOTrainer(
        model=str(policy_folder),
        reward_funcs=vowels,
        args=rl_args(GRPOConfig, tmp_path, max_steps=1),
        train_dataset=dialogue_prompts(sessions, context_messages=3),
        processing_class=load_policy_tokenizer(policy_folder),
        peft_config=lora(),
        callbacks=[callback],
    )
    with pytest.raises(ValueError, match="AdaptiveKL: trainer is not set"):
        trainer.train()
    callback.trainer = trainer
    trainer.train()
    assert logged(trainer, "adaptive_kl/beta") == pytest.approx([0.15])
