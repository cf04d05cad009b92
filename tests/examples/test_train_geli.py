"""The training script, from configuration files to what a run leaves, with tiny models on the sample corpus."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from scripts import EXAMPLES, RECIPES, as_module
from shown import shown
from tiny import backbone

from geli_hf import GeliRewardModel, load_sessions
from geli_hf.alignment import load_policy, load_policy_tokenizer
from geli_hf.alignment.pipeline import TRAINERS
from geli_hf.alignment.shipped import ORIGIN, POLICY
from geli_hf.evaluation.run import TEACHER
from geli_hf.metrics import TURN_BASELINES
from geli_hf.models.attribution import HindsightAttribution
from geli_hf.models.geli_reward.configuration_geli import GeliRewardConfig
from geli_hf.settings import SettingsError, build

NAMES = ("affect", "align_*", "compare_*", "policy", "real_*")  # of other scripts
OTHERS = [path for name in NAMES for path in (EXAMPLES / "configs").glob(f"{name}.yaml")]
CONFIGS = sorted({*(EXAMPLES / "configs").glob("*.yaml")} - {*OTHERS})


@pytest.fixture(scope="module")
def script():
    return as_module(EXAMPLES / "train_geli.py")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """A run of seconds: every stage, one or two steps each."""
    trainer = {"per_device_train_batch_size": 4, "max_steps": 2, "bf16": False}
    policy_trainer = trainer | {"activation_checkpointing": False}
    settings = {
        "data": {"options": {"conversations": 12}, "eval_share": 0.25, "test_share": 0.25},
        "model": {"backbone": backbone("bert"), "config": {"context_messages": 1}},
        "reward": {"num_train_epochs": 2, "per_device_train_batch_size": 4, "li_weight": 0.3, "bf16": False},
        "policy": {
            "window_messages": 4,
            "context_messages": 2,
            "replies": 6,
            "max_new_tokens": 8,
            "lora": {"r": 2},
        },
        "sft": policy_trainer,
        "grpo": policy_trainer | {"logging_steps": 1, "num_generations": 2, "max_completion_length": 8, "beta": 0.05},
    }
    file = tmp_path_factory.mktemp("config") / "tiny.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def launch(config: Path, output: Path, caches: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", str(EXAMPLES / "train_geli.py")]
    return subprocess.run(
        [*command, *shown("train_geli"), "--config", str(config), "--output_dir", str(output), *options],
        capture_output=True,
        text=True,
        env=os.environ | {"GELI_HF_CACHE": str(caches)},
    )


def test_a_run_leaves_models_and_figures_and_can_be_resumed(config, script, tmp_path, monkeypatch):
    output = tmp_path / "run"
    done = launch(config, output, tmp_path / "caches")
    assert done.returncode == 0, done.stderr[-3000:]
    model = GeliRewardModel.from_pretrained(output / "reward_model")
    sessions = load_sessions("sample", conversations=2)
    assert len(model.score_sessions(sessions)[0]["turn_rewards"]) == len(sessions[0]["turn_rating"])
    for name in ("sft_policy", "policy"):
        policy, tokenizer = load_policy(output / name)
        assert policy.config.vocab_size == len(tokenizer)
        assert policy.dtype == torch.float32
        assert tokenizer.get_vocab() == load_policy_tokenizer(POLICY).get_vocab()
        assert ORIGIN in (output / name / "README.md").read_text()
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["sessions"] == {"train": 12, "eval": 6, "test": 6}
    compared = ["GELI", "RRD alone, all turns", "LI alone", "GELI with its LI shuffled"]
    methods = ["this reward model", TEACHER, *compared]
    assert list(metrics["reward"]) == [*methods, *TURN_BASELINES]
    for name in methods:
        assert metrics["reward"][name]["global_loss"]["estimate"] > 0
    assert metrics["reward"]["uniform, given the score"]["within_session_spearman"]["estimate"] == 0
    assert metrics["policy"]["judge"] == "true turn values"
    assert -1 <= metrics["policy"]["after"]["value"]["estimate"] <= 1
    for name in ("session", "methods"):
        with Image.open(output / f"{name}.png") as picture:
            assert min(picture.size) > 300
    report = (output / "report.md").read_text()
    assert report.startswith("# run")
    assert script.SIMULATED in report
    assert ORIGIN in report
    assert (output / "hindsight.txt").read_text() in done.stdout
    [explained] = HindsightAttribution.from_pretrained(output / "attribution").score_sessions(sessions.select([0]))
    assert list(explained["parts"]) == ["turn", "reaction", "feedback.affect", "feedback.affect_mean"]
    assert (output / "summary.txt").read_text() in done.stdout
    assert not (output / "checkpoints" / "compare").exists()

    # Three such runs are what the figures on the sample in docs/methods.md are made of.
    sample_figures = as_module(RECIPES / "sample_figures.py")
    (tmp_path / "docs").mkdir()
    shutil.copy(EXAMPLES.parent / "docs" / "methods.md", tmp_path / "docs")
    for seed in sample_figures.SEEDS:
        shutil.copytree(output, tmp_path / "figures" / f"seed-{seed}")
    monkeypatch.setattr(sample_figures, "ROOT", tmp_path)
    monkeypatch.setattr(sample_figures, "RUNS", tmp_path / "figures")
    sample_figures.main()
    written = (tmp_path / "docs" / "methods.md").read_text(encoding="utf-8")
    assert f"{sample_figures.MARKERS[0]}\n| Reward of a turn |" in written
    assert "3 seeds of corpus and training" in written

    settings = yaml.safe_load((output / "settings.yaml").read_text())
    shutil.rmtree(output / "policy")
    written = (output / "reward_model" / "model.safetensors").stat().st_mtime_ns
    again = launch(config, output, tmp_path / "caches", "--resume", "--stages", "[reward, policy]")
    assert again.returncode == 0, again.stderr[-3000:]
    assert f"{output / 'reward_model'} is there already and is kept" in again.stdout
    assert f"{output / 'sft_policy'} is there already and is kept" in again.stdout
    assert (output / "policy" / "model.safetensors").is_file()
    assert (output / "reward_model" / "model.safetensors").stat().st_mtime_ns == written
    assert yaml.safe_load((output / "settings.yaml").read_text()) == settings


def test_an_evaluation_is_kept_until_there_is_a_newer_model(config, script, tmp_path, capsys):
    output = tmp_path / "run"
    options = ["--config", str(config), "--output_dir", str(output), "--model.compare", "false", "--resume"]
    script.main([*options, "--stages", "[reward, evaluate]"])
    report = (output / "report.md").stat().st_mtime_ns
    script.main([*options, "--stages", "[reward, evaluate]"])
    assert f"{output / 'report.md'} is there already and is kept" in capsys.readouterr().out
    assert (output / "report.md").stat().st_mtime_ns == report
    os.utime(output / "reward_model")
    script.main([*options, "--stages", "[reward, evaluate]"])
    assert (output / "report.md").stat().st_mtime_ns > report


@pytest.mark.multiprocess
@pytest.mark.slow
def test_all_stages_run_in_two_processes(config, tmp_path):
    """GRPO included; what is said to the user is said once."""
    output = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = [str(Path(__file__).with_name("recorded.py")), str(tmp_path)]
    options = ["--config", str(config), "--output_dir", str(output), "--resume"]
    environment = os.environ | {"GELI_HF_CACHE": str(tmp_path / "caches"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *script, *options], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(tmp_path / f"process-{rank}.txt").read_text() for rank in (0, 1)] == ["2", "2"]
    for said in ("Stage reward:", "Stage policy:", "Stage evaluate:", "24  sessions read", "Then try:"):
        assert done.stdout.count(said) == 1, said
    assert GeliRewardModel.from_pretrained(output / "reward_model").config.residual_std > 0
    for name in ("sft_policy", "policy"):
        load_policy(output / name)
    metrics = json.loads((output / "metrics.json").read_text())
    assert len(metrics["reward"]) == 6 + len(TURN_BASELINES)
    # To train, to choose and to evaluate on; and the reactions, but in choosing.
    assert len(list((tmp_path / "caches" / "features").iterdir())) == 5
    assert not list(tmp_path.rglob("*.partial"))


def test_the_folder_of_another_run_is_refused(config, script, tmp_path):
    output = tmp_path / "run"
    script.main(["--config", str(config), "--output_dir", str(output), "--stages", "[]"])
    with pytest.raises(SettingsError, match=r"output_dir: .*--resume"):
        script.main(["--config", str(config), "--output_dir", str(output)])
    other = ["--config", str(config), "--output_dir", str(output), "--resume", "--reward.li_weight", "0.7"]
    with pytest.raises(SettingsError, match=r"\(reward.li_weight\)"):
        script.main(other)


def test_a_folder_of_something_else_is_refused(config, script, tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(SettingsError, match="output_dir: "):
        script.main(["--config", str(config), "--output_dir", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--reward.li_wieght", "0.3"], "li_wieght"),
        (["--rewards.li_weight", "0.3"], "'rewards'"),
        (["--stages", "[reward, polish]"], "stages: .*polish"),
        (["--reward.learning_rate", "fast"], "learning_rate: .*'fast'"),
        (["--data.eval_share", "0.9"], "data: fractions: "),
        (["--data.options", "{conversation: 5}"], "data: .*'conversation'"),
        (["--model.backbone", "/nowhere"], "model: .*nowhere"),
        (["--model.config", "{depth: 3}"], r"model: .*\['depth'\]"),
        (["--model.preset", "papers"], "model.preset: .*'papers'"),
        (["--model.li_stage", "{}"], "model.li_stage: "),
        (
            ["--model.preset", "paper", "--model.li_stage", "{}", "--reward.standardise", "true"],
            "li_stage: .*reward.standardise",
        ),
        (["--model.signals", "[smile]"], "model.preset: .*smile"),
        (["--model.config", "{head: mlp}"], "model.preset: .*'mlp'"),
        (["--stages", "[evaluate]"], "stages: .*reward_model"),
        (["--report_to", "paper"], "report_to: .*'paper'"),
        (
            ["--stages", "[reward, policy]", "--policy.model_name_or_path", "/nowhere"],
            "policy.model_name_or_path: /nowhere",
        ),
    ],
)
def test_settings_that_do_not_exist_are_named(config, script, tmp_path, options, named):
    with pytest.raises(SettingsError, match=named):
        script.main(["--config", str(config), "--output_dir", str(tmp_path / "run"), *options])


def test_an_error_of_the_user_is_one_line_without_a_traceback(config, tmp_path):
    command = [sys.executable, str(EXAMPLES / "train_geli.py"), "--config", str(config)]
    data = ["--data.corpus", "candor", "--data.options", "{}"]
    done = subprocess.run(
        [*command, "--output_dir", str(tmp_path / "run"), "--data_dir", "/nowhere", *data],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "train_geli: " in done.stderr
    assert "/nowhere" in done.stderr


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_configuration_has_known_settings_of_known_types(file, script):
    settings = script.parse_settings(["--config", str(file)], script.RunSettings, script.SECTIONS)
    # bf16 of a GPU's configuration becomes one that this machine can have
    script.fit_to_cpu(settings, ("reward", *TRAINERS))
    build(script.RunSettings, settings[""])
    for name, cls in script.SECTIONS.items():
        trains = name in ("reward", *TRAINERS)
        built = build(cls, settings[name] | ({"output_dir": "runs", "bf16": False, "use_cpu": True} if trains else {}))
        if name == "model":
            GeliRewardConfig(**built.config)


def test_all_trainers_report_to_a_tracker(config, script, tmp_path, tracker):
    options = ["--config", str(config), "--model.preset", "geli", "--stages", "[reward, policy]"]
    script.main([*options, "--output_dir", str(tmp_path / "run"), "--report_to", "trackio"])
    assert tracker == ["GeliRewardArguments", "SFTConfig", "GRPOConfig"]
    assert script.RunSettings("run").report_to == "none"


def test_geli_itself_is_a_preset(config, script, tmp_path):
    output = tmp_path / "run"
    options = ["--config", str(config), "--output_dir", str(output), "--model.preset", "geli", "--resume"]
    script.main([*options, "--stages", "[reward, evaluate]"])
    history = json.loads((output / "reward_history.json").read_text())
    assert [entry["epoch"] for entry in history if "loss" in entry] == [1, 2]
    assert not (output / "attribution").exists()
    methods = ["this reward model", "RRD alone, all turns", "LI alone", "GELI with its LI shuffled"]
    assert list(json.loads((output / "metrics.json").read_text())["reward"]) == [*methods, *TURN_BASELINES]


def test_the_published_recipe_runs_with_a_tiny_backbone(script, config, tmp_path):
    """An unfrozen first stage on the reactions alone, then RRD with K = 160 on a frozen backbone."""
    settings = yaml.safe_load(config.read_text()) | {"output_dir": str(tmp_path / "run"), "stages": ["reward"]}
    published = yaml.safe_load((EXAMPLES / "configs" / "candor_paper.yaml").read_text())
    first = published["model"]["li_stage"] | {"bf16": False, "use_cpu": True, "max_steps": 1}
    settings["model"] = {"backbone": backbone("bert"), "preset": published["model"]["preset"], "li_stage": first}
    settings["reward"] = published["reward"] | {"max_steps": 2}
    file = tmp_path / "published.yaml"
    file.write_text(yaml.safe_dump(settings))
    script.main(["--config", str(file)])
    model = GeliRewardModel.from_pretrained(tmp_path / "run" / "reward_model")
    assert (model.config.head, model.config.aggregation, model.config.pooling) == ("mlp", "sum", "last")
    history = json.loads((tmp_path / "run" / "reward_history.json").read_text())
    assert any("eval_loss" in entry for entry in history)

    # Resumed in the second stage, the first is not done again.
    weights = (tmp_path / "run" / "reward_model" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "reward_model")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "reward")
    begun = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "checkpoints" / "reward_li").rglob("*")}
    script.main(["--config", str(file), "--resume"])
    assert {path: path.stat().st_mtime_ns for path in begun} == begun
    assert (tmp_path / "run" / "reward_model" / "model.safetensors").read_bytes() == weights
