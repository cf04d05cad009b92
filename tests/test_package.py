"""Imports go one way, and whatever names the version agrees with `geli_hf/__init__.py`."""

import ast
import configparser
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml

import geli_hf
from geli_hf.models.facial_affect import configuration_affect
from geli_hf.models.geli_reward import configuration_geli

ROOT = Path(__file__).parents[1]


def test_the_setup_reads_the_version_from_the_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["metadata"]["version"] == "attr: geli_hf.__version__"


def test_the_installed_version_is_this_one():
    try:
        installed = version("geli-hf")
    except PackageNotFoundError:
        pytest.skip("not installed")
    assert installed == geli_hf.__version__


def test_every_configuration_names_it():
    for module in (configuration_geli, configuration_affect):
        assert geli_hf.__version__ == module.TOOLKIT_VERSION


def test_the_citation_names_it():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == geli_hf.__version__


def test_the_changelog_begins_with_it():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert versions[0] == geli_hf.__version__
    assert len(set(versions)) == len(versions)


# A room may import those on the lines above its own, and nothing but itself on its own line.
FLOORS = [
    {"_lazy"},
    {"cache", "decomposition", "sessions", "weights"},
    {"models", "plotting", "settings"},
    {"affect"},
    {"simulator", "metrics"},
    {"data", "llm", "training"},
    {"alignment"},
    {"evaluation"},
    {"hub"},
    {"demo", "serving"},
    {"cli"},
    {"_registration"},  # it registers the models, and names modules of higher rooms as text
    {"__init__"},
]
PACKAGE = ROOT / "geli_hf"
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def imported(path: Path) -> list[tuple[str, str]]:
    """List every import of the package in a file, those in functions too, as (module below geli_hf, name)."""
    inside = path.relative_to(PACKAGE).parts
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "geli_hf" for alias in node.names), f"{path}: import relatively"
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                assert (node.module or "").split(".")[0] != "geli_hf", f"{path}: import relatively"
                continue
            above = list(inside[: len(inside) - node.level])
            module = ".".join(above + ([node.module] if node.module else []))
            found += [(module or alias.name, alias.name) for alias in node.names]
    return found


def test_every_room_has_its_floor():
    public = {path.stem for path in PACKAGE.iterdir() if path.name[0] not in "_." and path.name != "py.typed"}
    assert public == {room for room in LEVEL if room[0] != "_"}


# The stubs list what packages import lazily.
@pytest.mark.parametrize(
    "path",
    sorted(
        path for path in PACKAGE.rglob("*.py*") if path.suffix in (".py", ".pyi") and "__pycache__" not in path.parts
    ),
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_imports_go_one_way(path):
    here = path.relative_to(PACKAGE).parts[0].partition(".")[0]
    for module, name in imported(path):
        room = module.split(".")[0]
        if module in ("__version__",):
            continue
        assert room == here or LEVEL[room] < LEVEL[here], f"{path} imports {module}, which is not below it"
        private = [part for part in (*module.split("."), name) if part.startswith("_") and part not in LEVEL]
        assert not private, f"{path} imports {'.'.join(private)} of {module}, which is private"
