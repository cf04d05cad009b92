"""`geli push space`: what a Space gets, and that it starts from nothing else."""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path

import pytest
from clients import client
from huggingface_hub import CommitOperationAdd, SpaceCard
from loopback_hub import cards
from tiny import reward_model

from geli_hf.alignment.shipped import POLICY
from geli_hf.hub.spaces import find_space, requirements

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.parent.name for path in ROOT.glob("spaces/*/README.md"))
CARD = """---
title: Tiny
emoji: 🙂
sdk: gradio
sdk_version: 6.0.0
---

# Tiny
"""
APP = """
import json, os
from http.server import BaseHTTPRequestHandler, HTTPServer

import geli_hf

said = {"package": geli_hf.__file__, "model": os.environ["GELI_MODEL"]}


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())


HTTPServer(("127.0.0.1", int(os.environ["GRADIO_SERVER_PORT"])), Page).serve_forever()
"""


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A Space whose app needs no Gradio."""
    files = {"README.md": CARD, "app.py": APP, "requirements.txt": "geli-hf[text]\nnumpy>=2  # any\n", ".env": "K=1"}
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def space_of(hub, name="owner/tiny"):
    return hub.store.repos["space", name]


def card_of(hub) -> str:
    return hub.store.read(space_of(hub), "README.md", "main").decode()


def commits(hub) -> int:
    return len(space_of(hub).history(space_of(hub).at("main")))


def values(rows: dict[str, dict]) -> dict[str, str]:
    return {key: row["value"] for key, row in rows.items()}


def checkout(hub, name: str, folder: Path) -> Path:
    """The files of a Space, in the folder that its app starts in."""
    for path in space_of(hub, name).at("main").files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(hub.store.read(space_of(hub, name), path))
    return folder


def test_a_space_is_made_in_one_commit_with_its_model(tiny, here, push):
    push("space", tiny, "--repo", "owner/tiny", "--private", "--model", "owner/reward")
    space = space_of(here)
    assert commits(here) == 2  # the first makes the repository
    assert space.private
    assert values(space.variables) == {"GELI_MODEL": "owner/reward"}
    there = set(space.at("main").files)
    assert {"app.py", "README.md", "requirements.txt", "geli_hf/__init__.py"} <= there
    assert not [name for name in there if ".env" in name or "__pycache__" in name]
    assert cards.validate(card_of(here), "space") == ([], [])
    data = SpaceCard(card_of(here)).data
    assert data.python_version == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert data.models == ["owner/reward"]


def test_a_space_that_was_made_on_the_hub_gets_our_card(tiny, here, owner, push):
    """The Hub writes one into every new Space."""
    owner.create_repo("owner/tiny", repo_type="space", space_sdk="gradio")
    assert "Check out the configuration reference" in card_of(here)
    assert "--replace-card" not in push("space", tiny, "--repo", "owner/tiny")
    assert "# Tiny" in card_of(here)
    assert SpaceCard(card_of(here)).data.python_version is not None


def test_again_it_is_brought_up_to_date(tiny, here, owner, push):
    push("space", tiny, "--repo", "owner/tiny", "--model", "owner/first")
    owner.add_space_variable("owner/tiny", "GREETING", "hello")
    old = ["geli_hf/gone.py", "geli_hf-0.0.1.dist-info/METADATA", "notes.md"]
    adds = [CommitOperationAdd(name, b"old") for name in old]
    edited = SpaceCard(card_of(here).replace("# Tiny", "# By hand"))
    edited.data.python_version = "3.0"
    adds.append(CommitOperationAdd("README.md", str(edited).encode()))
    owner.create_commit("owner/tiny", adds, commit_message="By hand", repo_type="space")
    before = commits(here)
    assert "--replace-card" in push("space", tiny, "--repo", "owner/tiny", "--model", "owner/second")
    assert commits(here) == before + 1
    assert not set(old[:2]) & set(space_of(here).at("main").files)
    assert "notes.md" in space_of(here).at("main").files
    assert "# By hand" in card_of(here)
    assert "3.0" not in card_of(here).replace("6.0.0", "")
    assert values(space_of(here).variables) == {"GELI_MODEL": "owner/second", "GREETING": "hello"}


def test_a_dry_run_shows_files_and_card(tiny, here, push):
    said = push("space", tiny, "--repo", "owner/tiny", "--dry-run", "--model", "owner/reward")
    assert here.requests == []
    for shown in ("owner/reward\n", "  geli_hf/cli/push.py\n", "python_version: "):
        assert shown in said


def test_impossible_pushes_are_refused_before_a_request(tiny, here, refusal):
    to = ("--repo", "owner/tiny")
    assert "nothing: not a folder" in refusal("space", "nothing", *to)
    assert "--create-pr" in refusal("space", tiny, *to, "--create-pr", "--model", "owner/reward")
    (tiny / "app.py").unlink()
    assert "app.py missing" in refusal("space", tiny, *to)
    (tiny / "README.md").write_text(CARD.replace("gradio", "docker"), encoding="utf-8")
    assert "expected `sdk: gradio`" in refusal("space", tiny, *to)
    assert here.requests == []


def test_a_new_space_is_deleted_if_its_commit_fails(tiny, here, refusal, waits):
    for step in ("/api/repos/create", "/preupload/", "/objects/batch", "/commit/"):
        here.fail(f"POST .*{step}", times=20)
        refusal("space", tiny, "--repo", "owner/tiny", "--model", "owner/reward")
        here.faults.clear()
        assert not here.store.repos, step
    assert not any(row.path.endswith("/variables") for row in here.requests)


def test_a_space_that_was_there_keeps_files_and_model_if_the_commit_fails(tiny, here, push, refusal, waits):
    push("space", tiny, "--repo", "owner/tiny", "--model", "owner/first")
    (tiny / "app.py").write_text("# new", encoding="utf-8")
    here.fail("POST .*/commit/", times=20)
    refusal("space", tiny, "--repo", "owner/tiny", "--model", "owner/second")
    assert commits(here) == 2
    assert values(space_of(here).variables) == {"GELI_MODEL": "owner/first"}


def test_a_model_that_could_not_be_set_after_the_commit_is_set_by_the_same_command(tiny, here, push, refusal, waits):
    here.fail("POST .*/variables", times=20)
    words = ("space", tiny, "--repo", "owner/tiny", "--model", "owner/reward")
    assert "pushed, but not all is set" in refusal(*words)
    assert commits(here) == 2
    here.faults.clear()
    push(*words)
    assert commits(here) == 2  # the files are there
    assert values(space_of(here).variables) == {"GELI_MODEL": "owner/reward"}


def test_requirements_are_pinned_to_what_is_installed(tmp_path):
    asked = tmp_path / "requirements.txt"
    asked.write_text("--pre\ngradio\nGELI_HF[text] # this\nnumpy < 99\nnumpy-next>=7\nscipy<0.1\n", encoding="utf-8")
    lines = requirements(asked, distribution("geli-hf")).splitlines()
    assert {"--pre", f"numpy=={version('numpy')}", "numpy-next>=7", "scipy<0.1"} <= set(lines)
    assert {f"vaderSentiment=={version('vaderSentiment')}", f"trl=={version('trl')}"} <= set(lines)
    assert not [line for line in lines if line.lower().startswith(("gradio", "geli", "pytest", "numpy<"))]
    assert not [line for line in lines if "+" in line]


def test_a_space_is_found_by_its_path_or_its_name(tiny):
    assert find_space(str(tiny)) == tiny
    for name in SHIPPED:
        assert find_space(name) == ROOT / "spaces" / name


def test_the_package_beside_the_app_equals_a_wheel(tiny, here, push, tmp_path):
    if not all(map(find_spec, ("pip", "setuptools"))):
        pytest.skip("pip or setuptools is not installed, so no wheel can be built offline")
    push("space", tiny, "--repo", "owner/tiny")
    there = {name for name in space_of(here).at("main").files if name.startswith("geli_hf/")}
    source = tmp_path / "source"
    shutil.copytree(ROOT / "geli_hf", source / "geli_hf", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", tmp_path, source], check=True, capture_output=True)
    [wheel] = tmp_path.glob("geli_hf-*.whl")
    assert there == {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("geli_hf/")}


def test_a_pushed_space_installs_and_starts_alone(tiny, here, push, tmp_path):
    """In a fresh environment that has the packages of this one, and its geli_hf not: pip finds that all is there.

    The shipped apps load the model that they are told of before they serve.
    """
    if not all(map(find_spec, ("pip", "gradio"))):
        pytest.skip("pip or gradio is not installed")
    reward_model("bert", context_messages=4).save_pretrained(tmp_path / "reward")
    push("model", tmp_path / "reward", "--repo", "owner/reward")
    push("model", POLICY, "--repo", "owner/policy")
    spaces = {}
    for name in ("tiny", *SHIPPED):
        model = "owner/policy" if name == "chat" else "owner/reward"
        folder, repo = tiny if name == "tiny" else name, f"owner/{name}"
        push("space", folder, "--repo", repo, "--model", model)
        spaces[name] = checkout(here, repo, tmp_path / f"space-{name}")

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    paths = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    reused = Path(sysconfig.get_path("purelib", vars=paths)) / "reused.pth"
    reused.write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index"]
    for space in spaces.values():  # all at once: each pins what is installed here, so none contradicts another
        pip += ["-r", f"{space}/requirements.txt"]
    subprocess.run(pip, check=True, capture_output=True)

    base = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    base |= {key: value for key, value in client(here, tmp_path / "client").items() if value is not None}
    base |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "0"}
    base |= {"GELI_BASE_POLICY": ""}  # the default policy is not on this Hub
    with ExitStack() as running:
        apps = {}
        for name, space in spaces.items():
            environment = base | values(space_of(here, f"owner/{name}").variables)
            log = running.enter_context(open(tmp_path / f"{name}.log", "w"))
            apps[name] = running.enter_context(_started([python, "app.py"], space, environment, log))
        for name, (app, port) in apps.items():
            said = _page(port, app)
            assert said is not None, name + (tmp_path / f"{name}.log").read_text()
            if name == "tiny":
                package = f"{spaces[name].resolve()}/geli_hf/__init__.py"
                assert json.loads(said) == {"package": package, "model": "owner/reward"}


@contextmanager
def _started(command: list, folder: Path, environment: dict[str, str], log) -> Iterator[tuple[subprocess.Popen, int]]:
    """An app, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    app = subprocess.Popen(
        command, cwd=folder, env=environment | {"GRADIO_SERVER_PORT": str(port)}, stdout=log, stderr=log
    )
    try:
        yield app, port
    finally:
        app.kill()
        app.wait()


def _page(port: int, app: subprocess.Popen) -> str | None:
    """Wait for the page and return it; None if the process ends or takes too long."""
    until = time.monotonic() + 300
    while app.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.2)
    return None
