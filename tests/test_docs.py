"""The blocks of README.md and docs/ run, and the files, commands and functions that they name exist."""

import glob
import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from chat_server import ChatServer
from faces import TRANSCRIPT, film
from loopback_hub import Hub
from reward_server import Server
from tiny import backbone, published_head, reward_model

import geli_hf.data
from geli_hf import GeliRewardModel
from geli_hf.alignment import small_policy
from geli_hf.cli import main
from geli_hf.data import load_sessions
from geli_hf.models.attribution import HindsightAttribution

ROOT = Path(__file__).parents[1]
PAGES = {str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
GUIDES = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
# What takes minutes takes a step here.
SHORTER = {
    "num_train_epochs=20": "num_train_epochs=1, disable_tqdm=True, dataloader_pin_memory=False",
    "max_steps=60": "max_steps=1, disable_tqdm=True, dataloader_pin_memory=False",
    "per_device_train_batch_size=32": "per_device_train_batch_size=4",
    "num_generations=8": "num_generations=4",
    "max_completion_length=32": "max_completion_length=4",
}
OPEN_WEBUI_CHAT = {
    "id": "a",
    "chat": {
        "history": {
            "currentId": "2",
            "messages": {
                "1": {"id": "1", "parentId": None, "role": "user", "content": "Hi"},
                "2": {"id": "2", "parentId": "1", "role": "assistant", "content": "Hello"}
                | {"annotation": {"rating": 1, "details": {"rating": 9}}},
            },
        }
    },
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDES[page], re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[str]:
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("geli ")]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A folder as after the quickstart, with tiny models, the rows of docs/data.md and recordings."""
    folder = tmp_path_factory.mktemp("quickstart")
    model = reward_model("bert", context_messages=1)
    model.config.reward_quantiles = [-1.0, 0.0, 1.0]
    for name in ("runs/sample/reward_model", "runs/docs/reward_model"):
        model.save_pretrained(folder / name)
    attribution = HindsightAttribution(model, np.zeros(32), np.ones(32), signals={})
    attribution.save_pretrained(folder / "runs/sample/attribution")
    shutil.copytree(backbone("bart"), folder / "facebook/bart-large")
    shutil.copytree(ROOT / "results/contrast", folder / "results/contrast")
    [rows] = blocks("docs/data.md", "jsonl")
    (folder / "sessions.jsonl").write_text(rows, encoding="utf-8")
    (folder / "chats.json").write_text(json.dumps([OPEN_WEBUI_CHAT]), encoding="utf-8")
    for video in (folder / "recording.mp4", folder / "talks/ann.mp4"):
        video.parent.mkdir(exist_ok=True)
        film(video)
        video.with_suffix(".vtt").write_text(TRANSCRIPT, encoding="utf-8")
    (folder / "ratings.csv").write_text("session_id,score\nann,4\n", encoding="utf-8")
    return folder


@pytest.fixture
def quickstart(prepared, tmp_path, monkeypatch) -> Path:
    """A copy of that folder, in which a page's blocks run."""
    folder = tmp_path / "copy"
    shutil.copytree(prepared, folder)
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(geli_hf.data._sample.__kwdefaults__, "conversations", 16)
    monkeypatch.setattr("geli_hf.models.geli_reward.modeling_geli.default_backbone", lambda: backbone("bert"))
    monkeypatch.chdir(folder)
    # The shipped head fits the real backbone alone; the tests of what ships load it.
    shipped = GeliRewardModel.from_pretrained(folder / "runs/sample/reward_model")
    monkeypatch.setattr("geli_hf.alignment.shipped.shipped_reward_model", lambda: shipped)
    monkeypatch.setattr("geli_hf.alignment.shipped_reward_model", lambda: shipped, raising=False)
    for part in small_policy(load_sessions("sample"), hidden_size=32, layers=1, vocab_size=400):
        part.save_pretrained("runs/sample/sft_policy")
        part.save_pretrained("runs/sample/policy")
    published_head("reward1_eager-glade-5")
    return folder


# TRL asks transformers for a name that transformers is about to change.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("page", [page for page in GUIDES if blocks(page, "python")])
def test_the_python_blocks_of_a_page_run_in_order(page, quickstart):
    code = "\n".join(blocks(page, "python"))
    for shown, run in SHORTER.items():
        code = code.replace(shown, run)
    names = {"__name__": "page"}
    server = Server(reward_model("bert"))
    try:
        exec(compile(code.replace("http://localhost:8000", server.url), page, "exec"), names)
    finally:
        server.stop()
    trainers = [names[name] for name in ("trainer", "session_trainer") if name in names]
    assert all(trainer.state.global_step > 0 for trainer in trainers)
    assert (page in ("docs/align.md", "docs/train.md", "README.md")) == bool(trainers)


@pytest.mark.parametrize("page", [page for page in GUIDES if commands(page)])
def test_the_commands_of_a_page_run(page, quickstart, capsys, be_owner, monkeypatch):
    monkeypatch.setattr("uvicorn.run", lambda app, **options: None)  # it would not end
    with ChatServer() as server, Hub("hub") as hub:
        be_owner(hub)  # a client that is told to be offline refuses even loopback
        for command in commands(page):
            command = command.replace("http://localhost:8000/v1", server.url)
            if "evaluate-policy" in command:
                command += " --replies 8"
            if "geli pairs" in command:
                command += " --limit 2 --max-new-tokens 8"
            if "learning-curve" in command:
                command += """ --options '{"conversations": 36}'"""
            words = shlex.split(command.partition(">")[0])[1:]
            main([name for word in words for name in (glob.glob(word) or [word])])
    printed = capsys.readouterr().out
    if page == "docs/hub.md":
        assert set(hub.store.repos) == {("model", "owner/reward"), ("dataset", "owner/sessions")}
    if page == "docs/logs.md":
        assert [row["score"] for row in load_sessions("sessions.jsonl")] == [9]
    if page == "docs/video.md":
        assert [row["session_id"] for row in load_sessions("recorded.jsonl")] == ["ann"]
    if page == "docs/llm.md":
        assert [row["feedback"]["llm"] for row in load_sessions("with_llm.jsonl")] == [[5, 5], [8, 8]]
    if page == "docs/train.md":
        assert Path("runs/published_head/model.safetensors").exists()
    if page == "docs/evaluate.md":
        rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
        assert [row["session_id"] for row in rows[:2]] == ["a-1", "b-1"]
        assert ["parts" in row for row in rows] == [False, False, True, True]
        assert Path("runs/evaluation/evaluation.md").read_text(encoding="utf-8") in printed
        assert Path("runs/policies/policies.md").read_text(encoding="utf-8") in printed


def test_every_command_of_geli_is_shown(capsys):
    shown = {shlex.split(command)[1] for page in GUIDES for command in commands(page)}
    with pytest.raises(SystemExit):
        main(["--help"])
    assert shown == set(re.findall(r"^    ([a-z-]+)(?: |$)", capsys.readouterr().out, re.MULTILINE))


def test_the_readme_is_short():
    assert len(GUIDES["README.md"]) <= 8000


@pytest.mark.parametrize("page", GUIDES)
def test_every_file_and_target_that_a_page_names_exists(page):
    text = GUIDES[page]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", prose) if "://" not in link]
    missing = [link for link in links if not (PAGES[page].parent / link).exists()]
    paths = re.findall(r"\b((?:examples|results|benchmarks|model_cards|spaces)/[\w/.-]*\w)", text)
    missing += [path for path in paths if not (ROOT / path).exists()]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    missing += [target for target in re.findall(r"`?\bmake ([a-z-]+)`", text) if target not in targets]
    assert not missing


def test_every_function_of_the_paper_index_exists():
    names = re.findall(r"`(geli_hf(?:\.\w+)+)`", GUIDES["docs/paper_index.md"])
    assert len(names) > 20
    for name in names:
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


def test_the_reference_lists_every_public_module():
    listed = {name for page, text in GUIDES.items() for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}
    rooms = [path.stem for path in (ROOT / "docs" / "api").glob("*.md")]
    package = ROOT / "geli_hf"
    files = [path for room in rooms for path in (package / room).rglob("*.py") if not path.name.startswith("_")]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    assert modules <= listed
    for name in listed:
        importlib.import_module(name)


def test_the_extras_are_those_of_the_setup():
    table = GUIDES["docs/quickstart.md"].partition("| extra |")[2]
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    section = setup.partition("[options.extras_require]")[2].partition("[options.entry_points]")[0]
    shown, named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE), re.findall(r"^(\w+) =", section, re.MULTILINE)
    assert sorted(shown) == sorted(named)


def test_the_figures_of_the_readme_are_those_of_the_results():
    def rows(text: str) -> dict[str, list[str]]:
        lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
        return {cells[0].strip("*"): [cell.split(" ")[0] for cell in cells[1:]] for cells in lines}

    results = rows((ROOT / "results" / "README.md").read_text(encoding="utf-8"))
    names = {
        "log length of the turn": "log length",
        "GELI, best signal": "GELI, best signal",
        "hindsight": "hindsight",
        "hindsight's teacher, sees the reaction": "hindsight's teacher** ○",
        "supervised by turn ratings": "supervised by the turn ratings",
    }
    shown = rows(GUIDES["README.md"])
    assert {name: shown[name] for name in names} == {name: results[full] for name, full in names.items()}
