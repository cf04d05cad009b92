"""The alignment script and its presets, on tiny models of the architectures that they name."""

import json
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trl
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from huggingface_hub import ModelCard
from scripts import EXAMPLES, as_module
from shown import shown
from tiny import reward_model, sentence, session
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from geli_hf.alignment import generate_replies, load_policy, small_policy
from geli_hf.alignment.pipeline import KlSettings, final_kl
from geli_hf.models.attribution import HindsightAttribution
from geli_hf.settings import SettingsError, build

NAMES = ("align_default", "align_paper", "real_align")
DEFAULT, PAPER, REAL = PRESETS = [EXAMPLES / "configs" / f"{name}.yaml" for name in NAMES]
# What takes hours there takes a step or two here.
CPU = {"bf16": False, "activation_checkpointing": False}
SHORTER = {
    "model.dtype": "float32",
    "data.corpus": "sample",
    "data.options": {"conversations": 8},
    "data.eval_share": 0.25,
    "data.replies": 4,
}

# TRL asks transformers for a name that transformers is about to change.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def script():
    return as_module(EXAMPLES / "align_policy.py")


@pytest.fixture(autouse=True, scope="module")
def caches(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GELI_HF_CACHE", str(tmp_path_factory.mktemp("caches")))
        # The script takes all cores. Models as tiny as these gain nothing by that, and wait where the cores are busy.
        patch.setattr(torch, "set_num_threads", lambda count: None)
        yield


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> str:
    """A random model like the default preset's: of its architecture, with its tokenizer's class and chat template."""
    rng = random.Random(0)
    words = [sentence(rng) for _ in range(200)] + ["system user assistant\n"] * 20
    tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        words, vocab_size=360, new_special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    )
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            intermediate_size=48,
            initializer_range=0.2,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **sizes,
        )
    )
    folder = tmp_path_factory.mktemp("qwen")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("llama")
    for part in small_policy([session(8)], hidden_size=32, layers=1, vocab_size=300):
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def reward(tmp_path_factory) -> str:
    model = reward_model("bert", context_messages=1)
    model.config.reward_quantiles = [-1.0, 0.0, 1.0]
    folder = tmp_path_factory.mktemp("reward")
    model.save_pretrained(folder)
    return str(folder)


def argv(command: list[str], output: Path, policy: str, reward: str, *options: str, **changes) -> list[str]:
    shorter = SHORTER | {"output_dir": str(output), "model.model_name_or_path": policy, "reward.model": reward}
    words = [
        f"--{name}={yaml.safe_dump(value, default_flow_style=True)}" for name, value in (shorter | changes).items()
    ]
    return [*command, *(word.strip().removesuffix("...").strip() for word in words), *options]


def default(output: Path, policy: str, reward: str, *options: str, **changes) -> list[str]:
    trainer = CPU | {"per_device_train_batch_size": 4, "save_steps": 1, "logging_steps": 1}
    small = {f"sft.{name}": value for name, value in ({"max_steps": 1} | trainer).items()}
    rl = trainer | {"max_steps": 2, "gradient_accumulation_steps": 1, "num_generations": 2, "max_completion_length": 8}
    small |= {f"grpo.{name}": value for name, value in rl.items()}
    return argv(shown("align_policy"), output, policy, reward, *options, **small | changes)


def answers(folder: Path) -> list[str]:
    model, tokenizer = load_policy(folder)
    return generate_replies(model, tokenizer, [[{"role": "user", "content": "What happened?"}]] * 2, max_new_tokens=4)


def test_the_default_preset_runs_on_a_tiny_model_of_its_architecture(script, qwen, reward, tmp_path, capsys):
    output = tmp_path / "run"
    words = default(output, qwen, reward)
    script.main(words)
    for name in ("sft_policy", "policy"):
        assert type(AutoModelForCausalLM.from_pretrained(output / name)).__name__ == "Qwen2ForCausalLM"
        assert len(answers(output / name)) == 2
    history = json.loads((output / "policy_history.json").read_text())
    assert [entry["step"] for entry in history if "kl" in entry] == [1, 2]
    assert "stop_at_kl/mean" in history[0]
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["judge"] == "its own reward model"
    assert metrics["steps"] == 2
    last = history[-1]
    assert metrics["kl"] == pytest.approx(last["kl"] * last["completions/mean_length"])

    card = ModelCard.load(output / "policy" / "README.md")
    assert card.data.tags == ["dialogue", "geli", "trl", "grpo"]
    assert card.data.base_model is None  # a folder is none on the Hub
    assert not {"{{", "}}", "{%"} & set(card.content.split())
    for told in (
        f"`{Path(qwen).name}` was fine-tuned on the sessions, then",
        f"turn rewards of `{Path(reward).name}`",
        "aligned by GRPO for 2 steps",
        "--grpo.max_steps=2",
    ):
        assert told in card.text, told
    assert f"{metrics['before']['value']['estimate']:.3f}" in card.text
    assert str(output.parent) not in card.text  # folders of this machine are nobody's business

    # What is finished is kept; what is missing is made again, from the checkpoints that there are.
    made = (output / "sft_policy" / "model.safetensors").stat().st_mtime_ns
    weights = (output / "policy" / "model.safetensors").read_bytes()
    shutil.rmtree(output / "policy")
    shutil.rmtree(output / "checkpoints" / "grpo" / "checkpoint-2")
    capsys.readouterr()
    script.main([*words, "--resume"])
    said = capsys.readouterr().out
    assert f"{output / 'sft_policy'} is there already and is kept" in said
    assert f"{output / 'metrics.json'} is there already and is kept" in said
    assert (output / "sft_policy" / "model.safetensors").stat().st_mtime_ns == made
    assert (output / "policy" / "model.safetensors").read_bytes() == weights
    assert json.loads((output / "policy_history.json").read_text())[0] == history[0]


@pytest.fixture(scope="module")
def published(script, llama, reward, tmp_path_factory) -> Path:
    """A run of the published preset that keeps its adapter apart."""
    output = tmp_path_factory.mktemp("published") / "run"
    shorter = {"max_steps": 2, "max_completion_length": 8, "generation_kwargs": {"min_new_tokens": 5}}
    changes = {f"rloo.{name}": value for name, value in (CPU | shorter).items()} | {"data_dir": None, "merge": False}
    script.main(argv(["--config", str(PAPER)], output, llama, reward, **changes))
    return output


def test_the_published_preset_runs_and_leaves_an_adapter(published, llama):
    history = [entry for entry in json.loads((published / "policy_history.json").read_text()) if "kl" in entry]
    assert len(history) == 2
    # The first step's KL is 0, so that the weight falls as fast as it may, by the 24 replies of a step.
    betas = [entry["adaptive_kl/beta"] for entry in history]
    assert betas == pytest.approx([0.15, 0.15 * (1 - 0.2 * 24 / 10_000)], rel=1e-6)
    assert all(entry["completions/min_length"] >= 5 for entry in history)
    assert not (published / "sft_policy").exists()
    config = json.loads((published / "policy" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (16, 32, 0.05)
    assert config["base_model_name_or_path"] == llama
    assert len(answers(published / "policy")) == 2
    model = AutoModelForCausalLM.from_pretrained(published / "policy")  # as transformers does it by itself
    tokenizer = AutoTokenizer.from_pretrained(published / "policy")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=3, min_new_tokens=3).shape[1] > 3
    assert "An adapter (PEFT) to the chat model" in (published / "policy" / "README.md").read_text()


def test_the_preset_of_real_ratings_leaves_an_adapter_and_figures(script, llama, reward, tmp_path):
    output = tmp_path / "run"
    small = {"sft.max_steps": 1, "grpo.max_steps": 2, "grpo.max_completion_length": 8}
    script.main(argv(["--config", str(REAL)], output, llama, reward, **small))
    config = json.loads((output / "policy" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(output / "sft_policy")
    history = json.loads((output / "policy_history.json").read_text())
    assert history[0]["geli/log_likelihood"] < 0
    assert json.loads((output / "metrics.json").read_text())["steps"] == 2


def test_an_adapter_may_be_the_policy(script, published, reward, tmp_path):
    """It is merged first, so that the next adapter begins, and its KL is counted, where this one ended."""
    output, adapter = tmp_path / "run", str(published / "policy")
    words = default(output, adapter, reward, **{"grpo.max_steps": 1, "reward.likelihood": 0.1})
    words = [word for word in words if not word.startswith("--sft")]
    config = yaml.safe_load(DEFAULT.read_text())
    del config["sft"]
    file = tmp_path / "no_sft.yaml"
    file.write_text(yaml.safe_dump(config))
    script.main(["--config", str(file), *words[2:]])
    ids = torch.arange(20, 30)[None]
    with torch.no_grad():
        merged = load_policy(output / "sft_policy")[0](input_ids=ids).logits
        torch.testing.assert_close(merged, load_policy(adapter)[0](input_ids=ids).logits)
    assert (output / "policy" / "model.safetensors").exists()
    [entry] = [entry for entry in json.loads((output / "policy_history.json").read_text()) if "kl" in entry]
    assert entry["kl"] == pytest.approx(0, abs=1e-5)
    assert entry["geli/log_likelihood"] < 0


@pytest.fixture
def read(script, tmp_path):
    """Give the arguments, the adapter and the callbacks of a preset."""

    def read(file: Path):
        settings = script.parse_settings(
            ["--config", str(file), "--output_dir", str(tmp_path)],
            script.RunSettings,
            script.OURS | {"sft": trl.SFTConfig} | script.METHODS,
        )
        [method] = [name for name in script.METHODS if settings[name]]
        run = build(script.RunSettings, settings[""])
        args = script.arguments(script.METHODS[method], method, settings, run)
        if settings["sft"]:
            sft = script.arguments(trl.SFTConfig, "sft", settings, run)
            assert (sft.bf16, sft.fp16) == (args.bf16, args.fp16)  # both train in one process
        lora = trl.get_peft_config(build(trl.ModelConfig, settings["model"]))
        return args, lora, build(KlSettings, settings["kl"]).callbacks(args.beta)

    return read


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_trl_accepts_every_preset(file, read):
    args, lora, _ = read(file)
    assert lora.target_modules == "all-linear"
    assert args.beta > 0
    assert args.generation_batch_size % args.num_generations == 0


def test_the_published_preset_says_what_was_published(read):
    args, lora, (stop, adaptive) = read(PAPER)
    assert isinstance(args, trl.RLOOConfig)
    assert (args.max_steps, args.generation_batch_size, args.learning_rate, args.optim) == (
        200,
        24,
        1.4e-5,
        "adafactor",
    )
    assert stop.limit == float("inf")  # without a callback of its own the run would stop at the usual limit
    assert (adaptive.init, adaptive.target, args.epsilon, args.num_iterations) == (0.15, 1.0, 0.2, 1)
    assert (args.generation_kwargs["min_new_tokens"], args.max_completion_length, args.top_p) == (32, 128, 1.0)
    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (16, 32, 0.05)


def test_vllm_generates_where_it_is_installed(script, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(script, "build", lambda cls, values: values)
    run = script.RunSettings(str(tmp_path))
    for installed in (False, True):
        monkeypatch.setattr(script, "is_vllm_available", lambda installed=installed: installed)
        assert script.arguments(trl.GRPOConfig, "grpo", {"grpo": {}}, run)["use_vllm"] is installed
        assert script.arguments(trl.GRPOConfig, "grpo", {"grpo": {"use_vllm": False}}, run)["use_vllm"] is False
        assert "use_vllm" not in script.arguments(trl.SFTConfig, "sft", {"sft": {}}, run)


def test_the_final_kl_is_found_where_not_every_log_has_a_generation(tmp_path):
    """This happens with num_iterations or steps_per_generation above one, and without a number to average."""
    first = {"step": 1, "kl": 0.25, "completions/mean_length": 8.0}
    history = [first, {"step": 2, "kl": 0.5}, {"step": 3, "kl": None, "completions/mean_length": 7.0}]
    file = tmp_path / "history.json"
    for entries, steps, kl in ((history, 3, 2.0), (history[1:], 3, None), ([], 0, None)):
        file.write_text(json.dumps(entries))
        assert final_kl(file) == {"steps": steps, "kl": kl}


@pytest.mark.parametrize("file", sorted((EXAMPLES / "accelerate").glob("*.yaml")), ids=lambda file: file.stem)
def test_accelerate_reads_its_configurations(file):
    config = load_config_from_file(str(file))
    assert (config.mixed_precision, config.num_machines) == ("bf16", 1)
    if config.distributed_type == "FSDP":
        assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    else:
        assert config.distributed_type == "DEEPSPEED"
        assert config.deepspeed_config["zero_stage"] == int(file.stem[-1])


def test_all_trainers_report_to_a_tracker(script, qwen, reward, tmp_path, tracker):
    script.main(default(tmp_path / "run", qwen, reward, report_to="trackio"))
    assert tracker == ["SFTConfig", "GRPOConfig"]


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"grpo.beta": 0}, r"grpo\.beta: .*found 0"),
        ({"grpo.num_generations": 3}, "num_generations"),
        ({"grpo.num_generation": 3}, "'grpo.num_generation'"),
        ({"rloo.beta": 0.1}, "found grpo and rloo"),
        ({"grpo.learning_rate": "fast"}, "learning_rate: .*'fast'"),
        ({"reward.model": "/nowhere"}, r"reward: model: .*/nowhere"),
        ({"reward.options": {"neutral": True}}, "reward: .*'neutral'"),
        ({"model.model_name_or_path": "/nowhere"}, r"model\.model_name_or_path: /nowhere"),
        ({"kl.limit": -1}, "kl: .*limit: .*-1"),
        ({"data.options": {"conversation": 5}}, "data: .*conversation"),
        ({"data.eval_share": 1.5}, "data: fractions: "),
        ({"report_to": "paper"}, "report_to: .*'paper'"),
    ],
)
def test_settings_that_can_not_be_are_named(script, qwen, reward, tmp_path, changes, named):
    with pytest.raises(SettingsError, match=named):
        script.main(default(tmp_path / "run", qwen, reward, **changes))
    assert not (tmp_path / "run").exists()  # so that the corrected command finds no other run there


def test_a_reward_model_that_is_none(script, qwen, reward, tmp_path):
    with pytest.raises(SettingsError, match=r"reward: model: .*'qwen2'"):
        script.main(default(tmp_path / "run", qwen, qwen))
    model = reward_model("bert", context_messages=1)
    HindsightAttribution(model, np.zeros(32), np.ones(32), signals={}).save_pretrained(tmp_path / "attribution")
    with pytest.raises(SettingsError, match=r"reward: model: .*is an attribution"):
        script.main(default(tmp_path / "run", qwen, str(tmp_path / "attribution")))
    shutil.copytree(reward, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*", "vocab*", "special*"))
    with pytest.raises(SettingsError, match=r"reward: .*bare"):
        script.main(default(tmp_path / "run", qwen, str(tmp_path / "bare")))


def test_a_reward_model_is_no_policy(script, reward, tmp_path):
    with pytest.raises(SettingsError, match=r"model\.model_name_or_path: .*GeliRewardModel"):
        script.main(default(tmp_path / "run", reward, reward))


def test_a_corpus_in_which_nobody_is_answered(script, qwen, reward, tmp_path):
    messages = [{"role": "assistant", "content": "Hello?"}, {"role": "user", "content": "No."}]
    rows = [{"session_id": f"{i}", "conversation_id": f"{i}", "messages": messages, "score": 1} for i in range(8)]
    file = tmp_path / "monologues.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(SettingsError, match="data: prompts: found none"):
        script.main(default(tmp_path / "run", qwen, reward, **{"data.corpus": str(file), "data.options": {}}))


def test_a_run_is_not_resumed_with_other_settings(script, qwen, reward, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "fine_tune_once", lambda *args, **how: sys.exit())
    words = default(tmp_path / "run", qwen, reward)
    with pytest.raises(SystemExit):
        script.main(words)
    with pytest.raises(SettingsError, match="--resume"):
        script.main(words)
    with pytest.raises(SettingsError, match=r"\(grpo\.beta, merge\)"):
        script.main([*words, "--resume", "--grpo.beta", "0.2", "--merge", "false"])
