"""The version stands in `geli_hf/__init__.py`, and whatever else names it agrees."""

import configparser
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml

import geli_hf

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


def test_the_citation_names_it():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == geli_hf.__version__


def test_the_changelog_begins_with_it():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert versions[0] == geli_hf.__version__
    assert len(set(versions)) == len(versions)
