"""Imports go one way, and whatever names the version agrees with `geli_hf/__init__.py`."""

import ast
import configparser
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml

import geli_hf
from geli_hf.toolkit_geli import TOOLKIT_VERSION

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
    assert geli_hf.__version__ == TOOLKIT_VERSION


def test_the_citation_names_it():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == geli_hf.__version__


def test_the_changelog_begins_with_it():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert versions[0] == geli_hf.__version__
    assert len(set(versions)) == len(versions)


# Each may import what stands above it in this list, and of its own line nothing but itself.
LAYERS = [
    {"toolkit_geli"},
    {"_lazy", "_registration", "cache", "configuration_affect", "configuration_geli", "image_processing_affect"}
    | {"decomposition", "pipeline_geli", "sessions", "weights"},
    {"modeling_affect", "modeling_geli", "settings"},
    {"affect"},
    {"data", "evaluation"},
    {"hub"},
    {"recordings", "training", "llm"},
    {"finished"},
    {"benchmark"},
    {"alignment", "torch_file"},
    {"published_head"},
    {"demo"},
    {"cli"},
]
# How the registration and the command keep heavy imports late is theirs: they name modules as text, or in functions.
LATE = {"_registration", "__init__"}


def test_imports_go_one_way():
    package = ROOT / "geli_hf"
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    public = {path.stem for path in package.iterdir() if path.name[0] not in "_."}
    assert public == {name for name in level if name[0] != "_"}
    for path in package.rglob("*.py"):
        inside = path.relative_to(package).parts
        here = inside[0].removesuffix(".py")
        if here in LATE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == len(inside):  # from the top of the package
                modules = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not any(name.split(".")[0] == "geli_hf" for name in names), f"{path}: import relatively"
                continue
            else:
                continue
            for module in modules:
                assert module == here or level[module] < level[here], f"{path} imports {module}, which is not below it"
