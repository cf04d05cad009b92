"""What the README shows can be run: its Python blocks, its rows, its commands and its tree. Tiny models stand in."""

import glob
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from chat_server import ChatServer
from faces import TRANSCRIPT, film
from loopback_hub import Hub
from tiny import backbone, published_head, reward_model

import geli_hf.data
from geli_hf.alignment import small_policy
from geli_hf.cli import main
from geli_hf.data import load_sessions
from geli_hf.models.attribution import HindsightAttribution

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What takes minutes there takes a step here.
SHORTER = {
    "num_train_epochs=20,": "num_train_epochs=1, disable_tqdm=True, dataloader_pin_memory=False,",
    "max_steps=60,": "max_steps=1, disable_tqdm=True, dataloader_pin_memory=False,",
    "per_device_train_batch_size=32,\n        num_generations=8,": "per_device_train_batch_size=4, num_generations=4,",
    "max_completion_length=32,": "max_completion_length=4,",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def after_quickstart(tmp_path, monkeypatch):
    """A folder like that of a reader who has run the quickstart and saved the rows of the README."""
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(geli_hf.data._sample.__kwdefaults__, "conversations", 16)
    monkeypatch.setattr("geli_hf.models.geli_reward.modeling_geli.default_backbone", lambda: backbone("bert"))
    monkeypatch.chdir(tmp_path)
    model = reward_model("bert", context_messages=1)
    model.config.reward_quantiles = [-1.0, 0.0, 1.0]
    model.save_pretrained("runs/sample/reward_model")
    HindsightAttribution(model, np.zeros(32), np.ones(32), signals={}).save_pretrained("runs/sample/attribution")
    for part in small_policy(load_sessions("sample"), hidden_size=32, layers=1, vocab_size=400):
        part.save_pretrained("runs/sample/sft_policy")
        part.save_pretrained("runs/sample/policy")
    [rows] = blocks("jsonl")
    Path("sessions.jsonl").write_text(rows, encoding="utf-8")
    for video in (Path("recording.mp4"), Path("talks/ann.mp4")):
        video.parent.mkdir(exist_ok=True)
        film(video)
        video.with_suffix(".vtt").write_text(TRANSCRIPT, encoding="utf-8")
    Path("ratings.csv").write_text("session_id,score\nann,4\n", encoding="utf-8")


# TRL asks transformers for a name that transformers is about to change.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_python_blocks_run_in_order(after_quickstart, capsys):
    code = "\n".join(blocks("python"))
    for shown, run in SHORTER.items():
        assert code.count(shown) == 1, f"{shown!r} stands no longer in the README"
        code = code.replace(shown, run)
    names = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert re.search(r"^[+-]\d\.\d\d, better than \d+% of the training turns$", printed, re.MULTILINE)
    assert "32  sessions read" in printed
    assert "2  sessions read ['smile']" in printed
    assert Path("runs/readme/reward_model/model.safetensors").exists()
    assert names["trainer"].state.global_step == 1


def test_the_commands_of_geli_run(after_quickstart, capsys, be_owner):
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("geli ")]
    assert len(commands) == 14
    shutil.copytree(backbone("bart"), "facebook/bart-large")
    published_head("reward1_eager-glade-5")
    with ChatServer() as server, Hub("hub") as hub:
        be_owner(hub)  # even loopback is refused by a client that is told to be offline, as the tests are
        for command in commands:
            command = command.replace("http://localhost:8000/v1", server.url)
            command = command.replace("-o runs/policies", "-o runs/policies --replies 8")
            words = shlex.split(command.partition(">")[0])[1:]
            main([name for word in words for name in (glob.glob(word) or [word])])
    assert [row["session_id"] for row in load_sessions("recorded.jsonl")] == ["ann"]
    assert [row["feedback"]["llm"] for row in load_sessions("with_llm.jsonl")] == [[5, 5], [8, 8]]
    printed = capsys.readouterr().out
    assert "runs/published_head: " in printed
    assert Path("runs/published_head/model.safetensors").exists()
    assert printed.count("predicted score") == 3
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert [row["session_id"] for row in rows[:2]] == ["a-1", "b-1"]
    assert ["parts" in row for row in rows] == [False, False, True, True]
    table = Path("runs/evaluation/evaluation.md").read_text(encoding="utf-8")
    assert "| runs/sample/attribution (sees the reaction) |" in table
    assert table in printed
    assert Path("runs/policies/policies.md").read_text(encoding="utf-8") in printed
    assert set(hub.store.repos) == {("model", "owner/reward"), ("dataset", "owner/sessions")}
    assert "runs/judge: a judge that learned from " in printed


def test_every_path_that_it_names_is_there():
    [tree] = re.findall(r"^## Repository\n\n```\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    folder, missing = "", []
    for line in tree.splitlines():
        name, comment = re.fullmatch(r" *(\S+)(?:\s{2,}(.+))?", line).groups()
        path = f"{folder}{name}" if line.startswith(" ") else name
        if not line.startswith(" "):
            folder = name if name.endswith("/") and not comment else ""
        missing += [path] if not (ROOT / path).exists() else []
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)
    links = {link for link in re.findall(r"\]\(([^)#]+)\)", prose) if "://" not in link}
    commands = set(re.findall(r"examples/[\w/.]+\.(?:py|yaml)", README))
    missing += [path for path in links | commands if not (ROOT / path).exists()]
    assert not missing


def test_every_top_level_entry_is_in_the_tree():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git, so nothing tells the project's files from others")
    entries = {path.partition("/")[0] for path in listed.stdout.splitlines()} - {"README.md"}
    tree = README[README.index("## Repository") :]
    assert not {
        name
        for name in entries
        if not name.startswith(".") and not re.search(rf"^{re.escape(name)}/?(\s|$)", tree, re.MULTILINE)
    }


def test_every_target_and_extra_that_it_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    extras = re.findall(r"^\| `(\w+)` \|", README.partition("| extra |")[2].partition("## ")[0], re.MULTILINE)
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    section = setup.partition("[options.extras_require]")[2].partition("[options.entry_points]")[0]
    assert sorted(extras) == sorted(re.findall(r"^(\w+) =", section, re.MULTILINE))


def test_the_sample_figures_have_their_place():
    start, stop = README.index("<!-- sample-figures -->"), README.index("<!-- /sample-figures -->")
    assert README.index("## Figures on the sample") < start < stop
    assert "| this reward model |" in README[start:stop]
