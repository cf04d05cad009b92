"""The scripts accept the commands that README.md, examples/README.md and the shipped cards show.

The other tests of this folder run the commands of examples/README.md, with settings that make minutes seconds.
"""

import argparse
import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest
from scripts import as_module
from transformers import TrainingArguments

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "examples/README.md",
    *(str(p.relative_to(ROOT)) for p in ROOT.glob("geli_hf/weights/*/README.md")),
]


class Accepted(Exception):
    """Raised when a script has read its command line."""


def commands(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"(accelerate launch|python) ", line)]


SHOWN = sorted({command for page in PAGES for command in commands(page)})


def load(script: str):
    return as_module(ROOT / script)


@pytest.mark.parametrize("command", SHOWN)
def test_a_command_that_is_shown_is_accepted(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    at = next(index for index, word in enumerate(words) if re.fullmatch(r"examples/[\w/]+\.py", word))
    script, argv = load(words[at]), words[at + 1 :]
    if words[at].endswith(("summarise_comparisons.py", "policy_cards.py")):  # which take folders alone
        assert all(re.fullmatch(r"[\w/]+(=\w+)?", word) for word in argv)
        return
    if words[at].endswith("train_loop.py"):
        assert not argv
        return
    if hasattr(script, "parse_settings"):
        real = script.parse_settings

        def parse_settings(argv, main, sections):
            settings = real(argv, main, sections)
            for name, cls in sections.items():
                if settings[name] and not issubclass(cls, TrainingArguments):  # which may want a GPU
                    script.build(cls, settings[name])
            script.build(main, settings[""])
            raise Accepted

        monkeypatch.setattr(script, "parse_settings", parse_settings)
    else:
        real = argparse.ArgumentParser.parse_args

        def parse_args(self, *args, **kwargs):
            real(self, *args, **kwargs)
            raise Accepted

        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", [words[at], *argv])
    with pytest.raises(Accepted):
        script.main(*[argv][: len(inspect.signature(script.main).parameters)])


@pytest.mark.parametrize("command", commands("examples/README.md"))
def test_a_command_of_the_examples_is_run(command):
    """The tests of its script run it, on tiny models."""
    [script] = re.findall(r"examples/(?:recipes/)?(\w+)\.py", command)
    tests = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    assert any(f'shown("{script}")' in text for text in tests)


def test_every_script_has_its_command():
    shown = {word for command in SHOWN for word in shlex.split(command) if word.startswith("examples/")}
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for script in (ROOT / "examples").rglob("*.py"):
        name = script.relative_to(ROOT).as_posix()
        if "__main__" not in script.read_text(encoding="utf-8"):
            continue  # a part of recipes
        assert name in shown or f"make {script.stem.replace('_', '-')}" in text


@pytest.mark.parametrize(("folder", "most"), [("examples", 150), ("examples/recipes", 300)])
def test_scripts_stay_short(folder, most):
    for script in (ROOT / folder).glob("*.py"):
        assert len(script.read_text(encoding="utf-8").splitlines()) <= most, script
